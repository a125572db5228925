//! One member of a consumer group: a client of librdkafka, and the thread that polls it.
//!
//! The thread never waits for the processing of records: it must serve rebalances. Full partitions are paused instead.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_delivery::failpoint;
use crossdock_ports::AdapterError;
use crossdock_transport::bodies;
use crossdock_transport::bodies::Reservation;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList, config::RDKafkaLogLevel};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::assignment::{Assignment, PartitionId, RecordId, Window};
use crate::client::Monitor;
use crate::config::{GroupProtocol, Listener};
use crate::mapping::ReceivedRecord;

/// How long a poll waits for a record; also the latency of noticing a stop and a drained revocation.
const POLL_TIME: Duration = Duration::from_millis(20);
/// All partitions are paused while there is room for this number of records on their way to the arbiter.
const DELIVERIES_MARGIN: usize = 16;
/// How long a revocation waits for records in process. The group cannot continue before it ends.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(3);
/// For leaving the group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds on what librdkafka fetches ahead.
const QUEUED_KIB_MAX: usize = 16 << 10;
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

/// The topics of the current routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) window: WindowLimits,
    pub(super) is_at_most_once: bool,
}

/// The limits of the windows of a topic's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowLimits {
    pub(super) count_max: usize,
    pub(super) len_max: usize,
}

/// A member of the group.
pub(super) struct Member {
    consumer: BaseConsumer<Rebalances>,
}

/// State that callbacks and the arbiter share.
struct Shared {
    monitor: Arc<Monitor>,
    group: String,
    assignment: Assignment,
    /// The subscribed topics.
    topics: Mutex<HashMap<String, Subscription>>,
    /// Partitions that are being revoked.
    revocations: Mutex<Vec<Revocation>>,
    is_stopping: AtomicBool,
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
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.monitor.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.monitor.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    /// Assigns at once, and defers a revocation until its records are processed.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let shared = &self.0;
        match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => shared.assign(consumer, list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                let ids = ids(list);
                if shared.is_closing.load(Ordering::Relaxed) {
                    // Closing waits for it.
                    unassign(consumer, list);
                    return;
                }
                shared.assignment.begin_revocation(&ids);
                let is_lost = consumer.assignment_lost();
                tracing::info!(group = %shared.group, partitions = %names(&ids), is_lost, "partitions are being revoked");
                // The partitions of a lost assignment already have other owners.
                let wait = if is_lost { Duration::ZERO } else { REVOCATION_TIMEOUT };
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
    fn assign(&self, consumer: &BaseConsumer<Rebalances>, list: &TopicPartitionList) {
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
                let WindowLimits { count_max, len_max } = limits.unwrap_or(WindowLimits { count_max: 1, len_max: 1 });
                self.assignment.add(id.clone(), Window { count_max, len_max });
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
            .set("auto.offset.reset", listener.start.word())
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", QUEUED_KIB_MAX.to_string())
            .set("fetch.max.bytes", FETCH_LEN_MAX.to_string())
            .set("max.partition.fetch.bytes", PARTITION_FETCH_LEN_MAX.to_string())
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
            assignment: Assignment::default(),
            topics: Mutex::default(),
            revocations: Mutex::default(),
            is_stopping: AtomicBool::new(false),
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

    /// The owned partitions.
    pub(super) fn assignment(&self) -> &Assignment {
        &self.shared().assignment
    }

    /// Consumes these topics, and no others.
    pub(super) fn subscribe(&self, topics: HashMap<String, Subscription>) {
        let names: Vec<String> = topics.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        *self.shared().topics.lock().unwrap_or_else(PoisonError::into_inner) = topics;
        if names.is_empty() {
            self.consumer.unsubscribe();
        } else if let Err(error) = self.consumer.subscribe(&names) {
            self.shared().monitor.is_down(&format!("the topics cannot be subscribed: {error}"));
        }
    }

    /// Begins to stop: no further record starts to be processed.
    pub(super) fn stop(&self) {
        self.shared().is_stopping.store(true, Ordering::Relaxed);
        self.assignment().begin_revocation(&self.assignment().ids());
    }

    /// A record for which [`Assignment::begin`] returned `true` is no longer processed.
    pub(super) fn end(&self, record: &RecordId, is_settled: bool) {
        self.assignment().end(record, is_settled, |(topic, partition), offset| {
            let mut list = TopicPartitionList::with_capacity(1);
            let added = list.add_partition_offset(topic, *partition, Offset::Offset(offset));
            if let Err(error) = added.and_then(|()| self.consumer.store_offsets(&list)) {
                // The partition was revoked: its next owner receives the record again.
                tracing::debug!(%topic, partition, offset, %error, "offset not stored");
            }
        });
    }

    /// Polls until the member is stopped and drained, or the arbiter has ended; then commits and leaves the group.
    pub(super) fn run(&self, deliveries: &mpsc::Sender<Delivery>) {
        self.poll(deliveries);
        self.close();
    }

    fn poll(&self, deliveries: &mpsc::Sender<Delivery>) {
        let shared = self.shared();
        loop {
            if shared.is_stopping.load(Ordering::Relaxed) {
                failpoint("kafka.draining");
            }
            if shared.is_stopping.load(Ordering::Relaxed) && self.assignment().is_drained(&self.assignment().ids()) {
                break;
            }
            if deliveries.is_closed() {
                return;
            }
            match self.consumer.poll(POLL_TIME) {
                Some(Ok(message)) => self.receive(&message, deliveries),
                Some(Err(error)) => self.report(&error),
                None => {}
            }
            self.finish_revocations();
            self.pause_and_resume(deliveries.capacity() > DELIVERIES_MARGIN);
        }
        match self.consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                tracing::warn!(group = %shared.group, %error, "last offsets not committed; records will come again");
            }
        }
    }

    /// Leaves the group, so that its other members need not wait for the session timeout.
    fn close(&self) {
        self.shared().is_closing.store(true, Ordering::Relaxed);
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
    }

    fn receive(&self, message: &BorrowedMessage<'_>, deliveries: &mpsc::Sender<Delivery>) {
        let record = received(message);
        let partition = (Arc::clone(&record.topic), record.partition);
        let Some((id, stop)) = self.assignment().received(&partition, record.offset, record.len()) else { return };
        self.shared().monitor.is_up();
        if self.is_at_most_once(&record.topic) && !self.commit_before(&id) {
            return;
        }
        let reservation = Reservation::forced(record.len());
        // There is room, unless the arbiter is stuck; it may also have ended.
        let _ = deliveries.blocking_send(Delivery { record, id, stop, reservation });
    }

    fn is_at_most_once(&self, topic: &str) -> bool {
        let topics = self.shared().topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic).is_some_and(|topic| topic.is_at_most_once)
    }

    /// Commits the offset behind a record before it is processed; `false` if that failed, so that it must not be processed here.
    fn commit_before(&self, id: &RecordId) -> bool {
        let mut list = TopicPartitionList::with_capacity(1);
        let (topic, partition) = &id.partition;
        let added = list.add_partition_offset(topic, *partition, Offset::Offset(id.offset + 1));
        match added.and_then(|()| self.consumer.commit(&list, CommitMode::Sync)) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%topic, partition, offset = id.offset, %error, "record dropped: its offset cannot be committed first");
                false
            }
        }
    }

    fn report(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PollExceeded) => {
                tracing::error!(group = %self.shared().group, "the polling thread was blocked; the group has reassigned its partitions");
            }
            _ => self.shared().monitor.is_down(&error.to_string()),
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
            if until <= Instant::now() {
                tracing::warn!(group = %shared.group, partitions = %names(&ids), "partitions revoked during processing; records may come again");
            }
            unassign(&self.consumer, &list);
            shared.assignment.remove(&ids);
        }
    }

    fn pause_and_resume(&self, has_room: bool) {
        let (paused, resumed) = self.assignment().flow(has_room && bodies::has_room());
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

/// Copies a record out of librdkafka's memory, in which one small record would keep its whole batch.
fn received(message: &BorrowedMessage<'_>) -> ReceivedRecord {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice))).collect()
    });
    ReceivedRecord {
        topic: Arc::from(message.topic()),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis(),
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
