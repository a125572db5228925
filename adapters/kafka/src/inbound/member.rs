//! One member of a consumer group: a client of librdkafka, and the thread that polls it.
//!
//! The thread never waits for the processing of records: it must serve rebalances. Full partitions are paused instead.

mod commit;
mod rebalance;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossdock_delivery::failpoint;
use crossdock_ports::{AdapterError, PortStatus};
use crossdock_transport::bodies;
use crossdock_transport::bodies::Reservation;
use rdkafka::Message as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::rebalance::{Rebalances, Shared, list, names, unassign};
use super::assignment::{Assignment, Extent, ReceivedId, RecordId, Subscription};
use super::events::Events;
use crate::client::Monitor;
use crate::config::{GroupProtocol, Listener};
use crate::received::ReceivedRecord;

/// How long a poll waits for a record; also the latency of noticing a stop and a drained revocation.
const POLL_TIME: Duration = Duration::from_millis(20);
/// How often the thread looks for partitions to resume, drained revocations and a stop while records arrive.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(5);
/// For leaving the group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the client reports the lag of partitions.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is checked whether the client has stalled.
const STALL_INTERVAL: Duration = Duration::from_secs(1);
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
            missing: Mutex::default(),
            committed: Mutex::default(),
            start: listener.start,
            unresolved: Mutex::default(),
            revocations: Mutex::default(),
            has_stored: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
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
            PortStatus::Up if self.shared().is_stalled.load(Ordering::Relaxed) => {
                PortStatus::Down("the brokers do not end a transaction".to_owned())
            }
            PortStatus::Up if !self.missing().is_empty() => {
                PortStatus::Down(format!("topics that do not exist: {}", self.missing().join(", ")))
            }
            PortStatus::Up => match &*self.assignment().silent() {
                [] => PortStatus::Up,
                silent => PortStatus::Down(format!("no record arrives from {}, which have some", names(silent))),
            },
            down @ PortStatus::Down(_) => down,
        }
    }

    /// Subscribed topics that must exist and do not.
    fn missing(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared().missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks which of the subscribed topics do not exist. What cannot be asked for stays as it is.
    fn find_missing(&self) {
        let Ok(metadata) = self.consumer.fetch_metadata(None, CHECK_TIMEOUT) else { return };
        let exists = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
        let topics = self.shared().topics.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = topics.iter().filter(|(_, subscription)| subscription.must_exist);
        let mut missing: Vec<String> = needed.map(|(name, _)| name.clone()).filter(|name| !exists(name)).collect();
        drop(topics);
        missing.sort();
        let known = std::mem::replace(&mut *self.missing(), missing.clone());
        if missing != known {
            tracing::warn!(group = %self.shared().group, topics = missing.join(", "), "topics that do not exist");
        }
    }

    /// Nothing is processed until the brokers have ended a transaction, or that is over.
    pub(super) fn set_stalled(&self, is_stalled: bool) {
        self.shared().is_stalled.store(is_stalled, Ordering::Relaxed);
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
    pub(super) fn subscribe(&self, topics: HashMap<String, Subscription>) {
        let names: Vec<String> = topics.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.assignment().set_windows(&topics);
        self.missing().retain(|name| topics.get(name).is_some_and(|subscription| subscription.must_exist));
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

    /// Asks for the ends of partitions that the client does not learn, as it fetches nothing from them. Blocks.
    pub(super) fn ask_for_ends(&self) {
        for id in self.assignment().unknown() {
            if self.assignment().is_stopping() {
                return;
            }
            let committed = self.consumer.committed_offsets(list(std::slice::from_ref(&id)), CHECK_TIMEOUT);
            let (Ok(committed), Ok((low, end))) =
                (committed, self.consumer.fetch_watermarks(&id.0, id.1, CHECK_TIMEOUT))
            else {
                continue;
            };
            let committed = committed.elements().first().and_then(|element| element.offset().to_raw());
            let start = Some(committed.unwrap_or(low).max(low));
            self.assignment().set_ends([(id, Extent { start, next: None, end: Some(end) })]);
        }
    }

    /// Polls until the member is stopped and drained, or the arbiter has ended; then commits and leaves the group. Stops by itself if nothing arrives
    /// any more from a partition that has records.
    ///
    /// # Errors
    /// A fatal error of the client, which then owns no partition any more; or that it has stalled. A new client is needed in both cases.
    pub(super) fn run(&self, deliveries: &mpsc::Sender<Delivery>) -> Result<(), String> {
        // Also if this thread panics.
        let _close = CloseOnDrop(self);
        let mut receiver = Receiver { member: self, deliveries, topic: Arc::from("") };
        let (mut maintained, mut checked, mut searched) = (Instant::now(), Instant::now(), Instant::now());
        let mut stalled = None;
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
                return stalled.map_or(Ok(()), Err);
            }
            if checked.elapsed() >= STALL_INTERVAL && stalled.is_none() {
                checked = Instant::now();
                stalled = self.stop_if_stalled();
            }
            if !self.missing().is_empty() && searched.elapsed() >= CHECK_INTERVAL {
                searched = Instant::now();
                self.find_missing();
            }
            self.finish_assignments();
            self.finish_revocations();
            self.pause_and_resume();
            self.check_while_down();
            maintained = Instant::now();
        }
    }

    /// Begins to stop if nothing arrives any more from a partition that has records; returns the reason.
    fn stop_if_stalled(&self) -> Option<String> {
        let stalled = self.assignment().stalled();
        if stalled.is_empty() || self.assignment().is_stopping() {
            return None;
        }
        self.stop();
        Some(format!("no record arrives any more from {}", names(&stalled)))
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

    /// Reports errors of this member; those of the client are reported to its context as well, with their reasons.
    fn report(&self, error: &KafkaError) {
        let (group, monitor) = (&self.shared().group, &self.shared().monitor);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PollExceeded) => {
                tracing::error!(%group, "the polling thread was blocked; the group has reassigned its partitions");
            }
            // Which one, the error does not say.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => self.find_missing(),
            Some(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)) => {
                monitor.is_down(&format!("a topic or the group cannot be used: {code}"));
            }
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
