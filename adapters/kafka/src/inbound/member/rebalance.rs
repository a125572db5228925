//! Assignments and revocations of partitions, on the polling thread.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList, config::RDKafkaLogLevel};

use super::super::assignment::{Assignment, Extent, FINISH_TIME, PartitionId, Subscription, Window};
use super::super::events::Events;
use super::super::start;
use super::Member;
use crate::client::Monitor;
use crate::config::Start;

/// How often it is tried to find out where a partition starts.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);

/// State that callbacks and the arbiter share.
pub(super) struct Shared {
    pub(super) monitor: Arc<Monitor>,
    pub(super) group: String,
    pub(super) events: Events,
    pub(super) assignment: Assignment,
    /// The subscribed topics.
    pub(super) topics: Mutex<HashMap<String, Subscription>>,
    /// Those that must exist and do not.
    pub(super) missing: Mutex<Vec<String>>,
    /// The offsets committed by [`Member::commit`], with the numbers of their assignments.
    pub(super) committed: Mutex<HashMap<PartitionId, (u64, i64)>>,
    /// Where the group starts without an offset.
    pub(super) start: Start,
    /// Partitions whose start could not be resolved yet, and when that is tried again.
    pub(super) unresolved: Mutex<Vec<(TopicPartitionList, Instant)>>,
    /// Partitions that are being revoked.
    pub(super) revocations: Mutex<Vec<Revocation>>,
    /// Offsets were stored since they were last committed at a stop or a change of the guarantee.
    pub(super) has_stored: AtomicBool,
    /// No record is being processed, and the client is about to be closed.
    pub(super) is_closing: AtomicBool,
    /// The end of a transaction takes long.
    pub(super) is_stalled: AtomicBool,
}

pub(super) struct Revocation {
    pub(super) list: TopicPartitionList,
    pub(super) ids: Vec<PartitionId>,
    pub(super) until: Instant,
}

/// Receives assignments and revocations, on the polling thread.
pub(super) struct Rebalances(pub(super) Shared);

impl ClientContext for Rebalances {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.0.monitor.generate_oauth_token(config)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.monitor.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Polling reports it as well, and finds out whether the topic has to exist.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                tracing::debug!(group = %self.0.group, reason, "a topic does not exist");
            }
            _ => self.0.monitor.error(error, reason),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let of_topic = |(name, topic): (String, rdkafka::statistics::Topic)| {
            let name: Arc<str> = name.into();
            topic
                .partitions
                .into_iter()
                .map(move |(number, partition)| ((Arc::clone(&name), number), extent(&partition)))
        };
        self.0.assignment.set_ends(statistics.topics.into_iter().flat_map(of_topic));
    }
}

/// The offset that librdkafka gives for an unknown one is negative.
fn extent(partition: &rdkafka::statistics::Partition) -> Extent {
    let known = |offset: i64| Some(offset).filter(|offset| *offset >= 0);
    // Of transactions, only committed records are read.
    let end = known(partition.ls_offset).or(known(partition.hi_offset));
    let start = known(partition.lo_offset.max(partition.committed_offset));
    Extent { start, next: known(partition.next_offset), end }
}

impl ConsumerContext for Rebalances {
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
        {
            self.0.events.refused_commits.add(1);
            tracing::warn!(group = %self.0.group, %error, partitions = %names(&ids(offsets)), "offsets not committed");
        }
    }

    /// Assigns at once, and defers a revocation until its records are processed.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let shared = &self.0;
        shared.events.rebalances.add(1);
        match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => shared.assign(consumer, list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                let ids = ids(list);
                if shared.is_closing.load(Ordering::Relaxed) {
                    // Closing waits for it.
                    unassign(consumer, list);
                    return;
                }
                shared.unresolved.lock().unwrap_or_else(PoisonError::into_inner).clear();
                let is_lost = consumer.assignment_lost();
                // The partitions of a lost assignment already have other owners.
                let wait = if is_lost { Duration::ZERO } else { FINISH_TIME };
                if is_lost {
                    shared.assignment.remove(&ids);
                } else {
                    shared.assignment.begin_revocation(&ids, wait);
                }
                tracing::info!(group = %shared.group, partitions = %names(&ids), is_lost, "partitions are being revoked");
                let revocation = Revocation { list: list.clone(), ids, until: Instant::now() + wait };
                shared.revocations.lock().unwrap_or_else(PoisonError::into_inner).push(revocation);
            }
            _ => {
                shared.monitor.is_down("the group could not be rebalanced");
                let _ = consumer.unassign();
                shared.assignment.remove(&shared.assignment.ids());
            }
        }
    }
}

impl Shared {
    /// Assigns partitions; if it cannot be found out where to start, later.
    fn assign(&self, consumer: &BaseConsumer<Rebalances>, list: &TopicPartitionList) {
        let list = match start::resolve(consumer, self.start, list) {
            Ok(list) => list,
            Err(error) => {
                tracing::warn!(group = %self.group, %error, partitions = %names(&ids(list)), "start of partitions unknown; retrying");
                let retry_at = Instant::now() + RESOLVE_INTERVAL;
                self.unresolved.lock().unwrap_or_else(PoisonError::into_inner).push((list.clone(), retry_at));
                return;
            }
        };
        self.assign_resolved(consumer, &list);
    }

    fn assign_resolved(&self, consumer: &BaseConsumer<Rebalances>, list: &TopicPartitionList) {
        // A partition that was paused when it was revoked is still paused.
        let _ = consumer.resume(list);
        let assigned = if is_cooperative(consumer) { consumer.incremental_assign(list) } else { consumer.assign(list) };
        let ids = ids(list);
        if let Err(error) = assigned {
            tracing::warn!(group = %self.group, %error, partitions = %names(&ids), "partitions cannot be assigned");
            return;
        }
        {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            for id in &ids {
                let limits = topics.get(&*id.0).map(|topic| topic.window);
                self.assignment.add(id.clone(), limits.unwrap_or(Window::SINGLE));
            }
        }
        self.monitor.is_up();
        tracing::info!(group = %self.group, partitions = %names(&ids), "partitions assigned");
    }
}

fn is_cooperative(consumer: &BaseConsumer<Rebalances>) -> bool {
    matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
}

/// Gives up partitions, and commits their stored offsets. Under the eager protocol, all partitions are revoked.
pub(super) fn unassign(consumer: &BaseConsumer<Rebalances>, list: &TopicPartitionList) {
    let unassigned = if is_cooperative(consumer) { consumer.incremental_unassign(list) } else { consumer.unassign() };
    if let Err(error) = unassigned {
        let group = &consumer.context().0.group;
        tracing::warn!(%group, %error, partitions = %names(&ids(list)), "partitions cannot be given up");
    }
}

fn ids(list: &TopicPartitionList) -> Vec<PartitionId> {
    list.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect()
}

pub(super) fn names(ids: &[PartitionId]) -> String {
    ids.iter().map(|(topic, partition)| format!("{topic}/{partition}")).collect::<Vec<_>>().join(" ")
}

pub(super) fn list(ids: &[PartitionId]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(ids.len());
    for (topic, partition) in ids {
        list.add_partition(topic, *partition);
    }
    list
}

impl Member {
    /// Gives up revoked partitions once none of their records is being processed, or after a timeout.
    pub(super) fn finish_revocations(&self) {
        let shared = self.shared();
        let mut revocations = shared.revocations.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = revocations.extract_if(.., |revocation| {
            shared.assignment.is_drained(&revocation.ids) || revocation.until <= Instant::now()
        });
        for Revocation { list, ids, until } in finished.collect::<Vec<_>>() {
            if until <= Instant::now() && !shared.assignment.is_drained(&ids) {
                shared.events.unfinished_revocations.add(ids.len() as u64);
                tracing::warn!(group = %shared.group, partitions = %names(&ids), "partitions revoked during processing; records may be redelivered");
            }
            // First, so that nothing is committed for them under the next generation of the group.
            shared.assignment.remove(&ids);
            unassign(&self.consumer, &list);
        }
    }

    /// Tries again to assign partitions whose start is unknown.
    pub(super) fn finish_assignments(&self) {
        let shared = self.shared();
        let due: Vec<_> = {
            let mut unresolved = shared.unresolved.lock().unwrap_or_else(PoisonError::into_inner);
            unresolved.extract_if(.., |(_, retry_at)| *retry_at <= Instant::now()).collect()
        };
        for (list, _) in due {
            shared.assign(&self.consumer, &list);
        }
    }
}
