//! One member of a consumer group: a client of librdkafka, and the thread that polls it.
//!
//! The thread never waits for the processing of records: it must serve rebalances. Full partitions are paused instead.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossdock_delivery::failpoint;
use crossdock_ports::{AdapterError, PortStatus};
use crossdock_transport::bodies;
use crossdock_transport::bodies::Reservation;
use rdkafka::client::OAuthToken;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message as _, Offset, Statistics, TopicPartitionList, config::RDKafkaLogLevel};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::assignment::{Assignment, Extent, FINISH_TIME, PartitionId, ReceivedId, RecordId, Window};
use super::events::Events;
use super::start;
use crate::client::Monitor;
use crate::config::{GroupProtocol, Listener, Start};
use crate::received::ReceivedRecord;
use crate::transaction::{TransactionError, TransactionalProducer};

/// How long a poll waits for a record; also the latency of noticing a stop and a drained revocation.
const POLL_TIME: Duration = Duration::from_millis(20);
/// How often the thread looks for partitions to resume, drained revocations and a stop while records arrive.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(5);
/// How often it is tried to find out where a partition starts.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the last offsets are committed before the group is left.
const COMMIT_ATTEMPTS_MAX: u32 = 10;
/// For leaving the group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the client reports the lag of partitions.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is checked whether brokers that were down can be reached, and for how long.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// Bounds on what librdkafka fetches ahead. A pause drops it.
const QUEUED_COUNT_MIN: usize = 2000;
const QUEUED_KIB_MAX: usize = 16 << 10;
/// How long a full queue of the client delays the next fetch.
const FETCH_BACKOFF: Duration = Duration::from_millis(10);
const FETCH_LEN_MAX: usize = 16 << 20;
const PARTITION_FETCH_LEN_MAX: usize = 1 << 20;

/// A received record, on its way to the arbiter that processes it.
pub(super) struct Delivery {
    pub(super) record: ReceivedRecord,
    pub(super) id: RecordId,
    /// Cancelled when its partition is being revoked.
    pub(super) stop: CancellationToken,
    /// The memory of the record.
    #[expect(dead_code, reason = "releases the memory when dropped")]
    pub(super) reservation: Reservation,
}

/// A member of the group.
pub(super) struct Member {
    consumer: BaseConsumer<Rebalances>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Member of {}", self.shared().group)
    }
}

/// State that callbacks and the arbiter share.
struct Shared {
    monitor: Arc<Monitor>,
    group: String,
    events: Events,
    assignment: Assignment,
    /// The subscribed topics, with the windows of their partitions.
    topics: Mutex<HashMap<String, Window>>,
    /// The offsets committed by [`Member::commit`], with the numbers of their assignments.
    committed: Mutex<HashMap<PartitionId, (u64, i64)>>,
    /// Where the group starts without an offset.
    start: Start,
    /// Partitions whose start could not be resolved yet, and when that is tried again.
    unresolved: Mutex<Vec<(TopicPartitionList, Instant)>>,
    /// Partitions that are being revoked.
    revocations: Mutex<Vec<Revocation>>,
    /// No record is being processed, and the client is about to be closed.
    is_closing: AtomicBool,
}

struct Revocation {
    list: TopicPartitionList,
    ids: Vec<PartitionId>,
    until: Instant,
}

/// Receives assignments and revocations, on the polling thread.
struct Rebalances(Shared);

impl ClientContext for Rebalances {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.0.monitor.generate_oauth_token(config)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.monitor.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.monitor.error(error, reason);
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
    Extent { start: known(partition.lo_offset.max(partition.committed_offset)), end }
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
                self.0.unresolved.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
                let limits = topics.get(&*id.0).copied();
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
fn unassign(consumer: &BaseConsumer<Rebalances>, list: &TopicPartitionList) {
    let unassigned = if is_cooperative(consumer) { consumer.incremental_unassign(list) } else { consumer.unassign() };
    if let Err(error) = unassigned {
        let group = &consumer.context().0.group;
        tracing::warn!(%group, %error, partitions = %names(&ids(list)), "partitions cannot be given up");
    }
}

fn ids(list: &TopicPartitionList) -> Vec<PartitionId> {
    list.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect()
}

fn names(ids: &[PartitionId]) -> String {
    ids.iter().map(|(topic, partition)| format!("{topic}/{partition}")).collect::<Vec<_>>().join(" ")
}

fn offsets_list(offsets: &BTreeMap<PartitionId, i64>) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}

fn list(ids: &[PartitionId]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(ids.len());
    for (topic, partition) in ids {
        list.add_partition(topic, *partition);
    }
    list
}

impl Member {
    /// Creates the client; it joins the group once topics are subscribed.
    pub(super) fn open(listener: &Listener, monitor: Arc<Monitor>) -> Result<Arc<Self>, AdapterError> {
        let mut config = listener.cluster.client_config();
        config
            .set("group.id", &listener.group)
            .set("enable.auto.commit", "true")
            .set("enable.auto.offset.store", "false")
            .set("auto.commit.interval.ms", listener.commit_interval.as_millis().max(1).to_string())
            // Only for offsets that are no longer in the log: `start` is resolved when a partition is assigned.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", QUEUED_KIB_MAX.to_string())
            .set("fetch.max.bytes", FETCH_LEN_MAX.to_string())
            .set("max.partition.fetch.bytes", PARTITION_FETCH_LEN_MAX.to_string())
            .set("queued.min.messages", QUEUED_COUNT_MIN.to_string())
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string())
            .set("fetch.queue.backoff.ms", FETCH_BACKOFF.as_millis().to_string())
            .set("fetch.wait.max.ms", "100");
        match listener.protocol {
            GroupProtocol::Classic => {
                config
                    .set("partition.assignment.strategy", "cooperative-sticky")
                    .set("session.timeout.ms", listener.session_timeout.as_millis().to_string())
                    .set(
                        "heartbeat.interval.ms",
                        (listener.session_timeout.as_millis() / 10).clamp(100, 1000).to_string(),
                    );
            }
            GroupProtocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        if let Some(instance) = &listener.instance {
            config.set("group.instance.id", instance);
        }
        if let Some(rack) = &listener.rack {
            config.set("client.rack", rack);
        }
        let shared = Shared {
            monitor,
            group: listener.group.clone(),
            events: Events::default(),
            assignment: Assignment::default(),
            topics: Mutex::default(),
            committed: Mutex::default(),
            start: listener.start,
            unresolved: Mutex::default(),
            revocations: Mutex::default(),
            is_closing: AtomicBool::new(false),
        };
        // The error may contain values of settings.
        let consumer = config.create_with_context(Rebalances(shared)).map_err(|_: KafkaError| {
            let brokers = &listener.cluster.brokers;
            AdapterError::Settings(format!(
                "a consumer of `{brokers}` cannot be created: check `tls`, `sasl` and the timeouts"
            ))
        })?;
        Ok(Arc::new(Self { consumer }))
    }

    fn shared(&self) -> &Shared {
        &self.consumer.context().0
    }

    /// Whether records can arrive.
    pub(super) fn status(&self) -> PortStatus {
        match self.shared().monitor.status() {
            PortStatus::Up => match &*self.assignment().silent() {
                [] => PortStatus::Up,
                silent => PortStatus::Down(format!("no record arrives from {}, which have some", names(silent))),
            },
            down @ PortStatus::Down(_) => down,
        }
    }

    /// What has happened to it.
    pub(super) fn events(&self) -> &Events {
        &self.shared().events
    }

    /// The owned partitions.
    pub(super) fn assignment(&self) -> &Assignment {
        &self.shared().assignment
    }

    /// Consumes these topics, and no others.
    pub(super) fn subscribe(&self, topics: HashMap<String, Window>) {
        let names: Vec<String> = topics.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.assignment().set_windows(&topics);
        *self.shared().topics.lock().unwrap_or_else(PoisonError::into_inner) = topics;
        if names.is_empty() {
            self.consumer.unsubscribe();
        } else if let Err(error) = self.consumer.subscribe(&names) {
            self.shared().monitor.is_down(&format!("the topics cannot be subscribed: {error}"));
        }
    }

    /// Begins to stop: no further record is admitted.
    pub(super) fn stop(&self) {
        self.assignment().stop();
    }

    /// An admitted record is no longer processed.
    pub(super) fn end(&self, record: &RecordId, is_settled: bool) {
        self.assignment().end(record, is_settled, |partition, offset| self.store(partition, offset));
    }

    /// Like [`Member::end`], for a record whose offset is committed by other means.
    pub(super) fn end_without_store(&self, record: &RecordId, is_settled: bool) {
        self.assignment().end(record, is_settled, |_, _| {});
    }

    /// Commits the open transaction of a producer with the offsets to continue at. Blocks.
    ///
    /// # Errors
    /// It is not committed.
    pub(super) fn commit_in_transaction(
        &self,
        producer: &TransactionalProducer,
        offsets: &BTreeMap<PartitionId, i64>,
        records: &[RecordId],
    ) -> Result<(), TransactionError> {
        let abort = |problem: String| TransactionError::Abort(problem);
        let list = offsets_list(offsets).map_err(|error| abort(error.to_string()))?;
        // Before the check: a later generation of the group may belong to other owners.
        let group = self.consumer.group_metadata().ok_or_else(|| abort("the group was left".to_owned()))?;
        let is_owned =
            || !self.consumer.assignment_lost() && records.iter().all(|record| self.assignment().is_owned(record));
        if !is_owned() {
            return Err(abort("the partitions have other owners".to_owned()));
        }
        producer.commit(&list, &group, is_owned)
    }

    /// Whether the committed offsets of the group are these or later ones. Blocks.
    ///
    /// # Errors
    /// The brokers do not tell.
    pub(super) fn are_committed(&self, offsets: &BTreeMap<PartitionId, i64>) -> Result<bool, KafkaError> {
        let ids: Vec<PartitionId> = offsets.keys().cloned().collect();
        let committed = self.consumer.committed_offsets(list(&ids), CLOSE_TIMEOUT)?;
        Ok(committed.elements().iter().all(|element| {
            let wanted = offsets
                .iter()
                .find(|((topic, partition), _)| **topic == *element.topic() && *partition == element.partition());
            matches!((element.offset(), wanted), (Offset::Offset(found), Some((_, wanted))) if found >= *wanted)
        }))
    }

    /// Commits the offsets that are stored now, if there are any. Blocks.
    pub(super) fn commit_stored_once(&self) {
        if let Err(error) = self.consumer.commit_consumer_state(CommitMode::Sync) {
            tracing::debug!(group = %self.shared().group, %error, "stored offsets not committed");
        }
    }

    /// Asks for the ends of paused partitions, which the client does not learn while it fetches nothing from them. Blocks.
    pub(super) fn ask_for_ends(&self) {
        for id in self.assignment().paused() {
            if self.assignment().is_stopping() {
                return;
            }
            if let Ok((start, end)) = self.consumer.fetch_watermarks(&id.0, id.1, CHECK_TIMEOUT) {
                self.assignment().set_ends([(id, Extent { start: Some(start), end: Some(end) })]);
            }
        }
    }

    /// Polls until the member is stopped and drained, or the arbiter has ended; then commits and leaves the group.
    ///
    /// # Errors
    /// A fatal error of the client, which then owns no partition any more.
    pub(super) fn run(&self, deliveries: &mpsc::Sender<Delivery>) -> Result<(), String> {
        // Also if this thread panics.
        let _close = CloseOnDrop(self);
        let mut receiver = Receiver { member: self, deliveries, topic: Arc::from("") };
        let mut maintained = Instant::now();
        loop {
            let is_due = match self.consumer.poll(POLL_TIME) {
                Some(Ok(message)) => receiver.receive(&message) || maintained.elapsed() >= UPKEEP_INTERVAL,
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    // Without a callback, the partitions already have other owners.
                    self.assignment().remove(&self.assignment().ids());
                    return Err(format!("the client failed for good: {code}"));
                }
                Some(Err(error)) => {
                    self.report(&error);
                    true
                }
                None => true,
            };
            if !is_due {
                continue;
            }
            if self.assignment().is_stopping() {
                failpoint("kafka.draining");
            }
            if self.assignment().is_stopped() || deliveries.is_closed() {
                return Ok(());
            }
            self.finish_assignments();
            self.finish_revocations();
            self.pause_and_resume();
            self.check_while_down();
            maintained = Instant::now();
        }
    }

    /// Gives up all partitions, which commits their stored offsets, and leaves the group, so that its other members need not wait for the session
    /// timeout. Limited to [`CLOSE_TIMEOUT`].
    fn close(&self) {
        let shared = self.shared();
        self.commit_stored();
        shared.is_closing.store(true, Ordering::Relaxed);
        let unresolved = std::mem::take(&mut *shared.unresolved.lock().unwrap_or_else(PoisonError::into_inner));
        for (list, _) in unresolved {
            // The client waits for an answer.
            let _ = self.consumer.incremental_assign(&list);
        }
        // The client waits for them, and does not call back a second time.
        let revocations = std::mem::take(&mut *shared.revocations.lock().unwrap_or_else(PoisonError::into_inner));
        for revocation in revocations {
            unassign(&self.consumer, &revocation.list);
        }
        // Closing alone does not leave the group if the member owns no partition (librdkafka 2.12, cooperative assignment).
        self.consumer.unsubscribe();
        let until = Instant::now() + CLOSE_TIMEOUT;
        if let Err(error) = self.consumer.close_queue() {
            tracing::debug!(%error, "consumer cannot be closed");
            return;
        }
        while !self.consumer.closed() && Instant::now() < until {
            self.consumer.poll(POLL_TIME);
        }
        if !self.consumer.closed() {
            tracing::warn!(group = %shared.group, "group not left in time; its other members wait for the session timeout");
        }
    }

    /// Commits the stored offsets. The brokers refuse that for a moment during a rebalance.
    fn commit_stored(&self) {
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            match self.consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => return,
                Err(error) => {
                    tracing::debug!(group = %self.shared().group, %error, "offsets not committed; retrying");
                    // Serves the rebalance. Records that arrive are redelivered later, as no more start to be processed.
                    self.consumer.poll(POLL_TIME);
                }
            }
        }
        tracing::warn!(group = %self.shared().group, "last offsets not committed; records may be redelivered");
    }

    /// Commits the offset behind a record, before it is processed at most once, unless a later one of the same assignment is committed. Blocks.
    ///
    /// # Errors
    /// The offset may not be committed: the record must not be processed.
    pub(super) fn commit(&self, id: &RecordId) -> Result<(), KafkaError> {
        // Held over the commit, so that the committed offset never goes back.
        let mut committed = self.shared().committed.lock().unwrap_or_else(PoisonError::into_inner);
        if committed.get(&id.partition).is_some_and(|(of, offset)| *of == id.assignment && *offset > id.offset) {
            return Ok(());
        }
        if !self.assignment().is_owned(id) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::AssignmentLost));
        }
        let mut list = TopicPartitionList::with_capacity(1);
        let (topic, partition) = &id.partition;
        list.add_partition_offset(topic, *partition, Offset::Offset(id.offset + 1))?;
        self.consumer.commit(&list, CommitMode::Sync)?;
        committed.insert(id.partition.clone(), (id.assignment, id.offset + 1));
        Ok(())
    }

    fn store(&self, (topic, partition): &PartitionId, offset: i64) {
        let mut list = TopicPartitionList::with_capacity(1);
        let added = list.add_partition_offset(topic, *partition, Offset::Offset(offset));
        if let Err(error) = added.and_then(|()| self.consumer.store_offsets(&list)) {
            // The partition was revoked: its next owner receives the record again.
            tracing::debug!(%topic, partition, offset, %error, "offset not stored");
        }
    }

    /// Reports errors of this member; those of the client are reported to its context as well, with their reasons.
    fn report(&self, error: &KafkaError) {
        let (group, monitor) = (&self.shared().group, &self.shared().monitor);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PollExceeded) => {
                tracing::error!(%group, "the polling thread was blocked; the group has reassigned its partitions");
            }
            Some(
                code @ (RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed),
            ) => monitor.is_down(&format!("a topic or the group cannot be used: {code}")),
            _ => tracing::debug!(%group, %error, "error while polling"),
        }
    }

    /// Finds out whether the brokers can be reached again: an idle member receives nothing that would tell.
    fn check_while_down(&self) {
        let monitor = &self.shared().monitor;
        if monitor.is_check_due(CHECK_INTERVAL) && self.consumer.fetch_metadata(None, CHECK_TIMEOUT).is_ok() {
            monitor.is_up();
        }
    }

    /// Gives up revoked partitions once none of their records is being processed, or after a timeout.
    fn finish_revocations(&self) {
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
    fn finish_assignments(&self) {
        let shared = self.shared();
        let due: Vec<_> = {
            let mut unresolved = shared.unresolved.lock().unwrap_or_else(PoisonError::into_inner);
            unresolved.extract_if(.., |(_, retry_at)| *retry_at <= Instant::now()).collect()
        };
        for (list, _) in due {
            shared.assign(&self.consumer, &list);
        }
    }

    fn pause_and_resume(&self) {
        let (paused, resumed) = self.assignment().flow(bodies::has_room(), bodies::usage().1);
        for (ids, result) in [
            (&paused, (!paused.is_empty()).then(|| self.consumer.pause(&list(&paused)))),
            (&resumed, (!resumed.is_empty()).then(|| self.consumer.resume(&list(&resumed)))),
        ] {
            if let Some(Err(error)) = result {
                tracing::warn!(group = %self.shared().group, %error, partitions = %names(ids), "partitions cannot be paused or resumed");
            }
        }
    }
}

/// Passes records from the client to the arbiter.
struct Receiver<'m> {
    member: &'m Member,
    deliveries: &'m mpsc::Sender<Delivery>,
    /// The name of the last record's topic, which most records share.
    topic: Arc<str>,
}

impl Receiver<'_> {
    /// Passes a record on; returns whether its partition has no room for more.
    fn receive(&mut self, message: &BorrowedMessage<'_>) -> bool {
        if *self.topic != *message.topic() {
            self.topic = message.topic().into();
        }
        let member = self.member;
        let record = ReceivedRecord::copy(message, Arc::clone(&self.topic));
        let partition = (Arc::clone(&record.topic), record.partition);
        let Some(ReceivedId { record: id, stop, is_full }) =
            member.assignment().received(&partition, record.offset, record.len())
        else {
            return false;
        };
        member.shared().monitor.is_up();
        let reservation = Reservation::forced(record.len());
        // The arbiter takes them without waiting for anything; it may also have ended.
        let _ = self.deliveries.blocking_send(Delivery { record, id, stop, reservation });
        is_full
    }
}

/// Closes a member when dropped.
struct CloseOnDrop<'m>(&'m Member);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Stops a member when dropped, so that its thread ends even if the arbiter panics.
pub(super) struct StopOnDrop(pub(super) Weak<Member>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(member) = self.0.upgrade() {
            member.stop();
        }
    }
}
