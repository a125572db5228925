//! Receives the replies to requests: one client for the process and each topic of replies, which hands every reply to the data arbiter that sent
//! its request.
//!
//! The client belongs to no group. It reads its partitions from the end they have before the first request is sent, so that no reply is missed, and
//! no old one is read.
//!
//! With `partitions: cluster`, it reads one partition that no other instance has claimed. A claim that is lost, or a partition that is shared because
//! there are too few, does no harm: replies to others are ignored.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossdock_delivery::Backoff;
use crossdock_message::Fault;
use crossdock_ports::{AdapterError, Claim, ClaimGuard, Claimed, PortStatus};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};

use crate::client::{Monitor, Observer};
use crate::config::{Cluster, Declare, Replies, ReplyPartitions};
use crate::correlation::CorrelationId;
use crate::declare;
use crate::error::unreachable;
use crate::received::ReceivedRecord;
use crate::shared::SharedByKey;

/// How long a poll waits for a reply; also the latency of noticing that nobody waits for replies any more.
const POLL_TIME: Duration = Duration::from_millis(100);
/// For a question to the brokers.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits until replies can be received, if no problem is known.
const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// The delays between attempts to find the end of the partitions.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often it is checked whether the topic has more partitions, and whether brokers that were down can be reached.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// Time until a partition is claimed.
const CLAIM_DELAY: Duration = Duration::from_millis(200);
/// How long replies may arrive in a partition after the last request that named it.
const UNNAMED_TIME: Duration = Duration::from_secs(300);
/// The maximum number of replies on their way to one arbiter.
const WAITING_MAX: usize = 4096;
/// Bounds on what the client fetches ahead.
const QUEUED_KIB_MAX: usize = 16 << 10;
const FETCH_LEN_MAX: usize = 16 << 20;

/// A cluster, a topic, its partitions and the convention.
type Key = (u64, String, ReplyPartitions, &'static str);

/// All receivers of replies of the process.
#[derive(Default)]
pub(crate) struct ReplyReceivers {
    receivers: SharedByKey<Key, ReplyReceiver>,
    /// If the instance is a member of a cluster.
    claims: OnceLock<Arc<dyn Claim>>,
}

impl fmt::Debug for ReplyReceivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyReceivers")
    }
}

impl ReplyReceivers {
    pub(crate) fn connect(&self, claims: Arc<dyn Claim>) {
        // One process is a member of one cluster.
        let _ = self.claims.set(claims);
    }

    /// The receiver for a topic; created on first use.
    pub(crate) fn receiver(&self, cluster: &Cluster, replies: &Replies) -> Result<Arc<ReplyReceiver>, AdapterError> {
        let open = || ReplyReceiver::open(cluster, replies, self.claims.get().cloned());
        self.receivers.get_or_open(key(cluster, replies), open)
    }

    /// Whether replies can be received; `None` if nobody waits for any.
    pub(crate) fn status(&self, cluster: &Cluster, replies: &Replies) -> Option<PortStatus> {
        self.receivers.get(&key(cluster, replies)).map(|receiver| receiver.monitor.status())
    }
}

fn key(cluster: &Cluster, replies: &Replies) -> Key {
    (cluster.fingerprint, replies.topic.clone(), replies.partitions.clone(), replies.convention.word())
}

/// A reply and the request that it names.
pub(crate) type Reply = (CorrelationId, ReceivedRecord);

type Position = Result<Arc<[i32]>, String>;

/// Receives the replies in some partitions of a topic, from its creation until it is dropped.
pub(crate) struct ReplyReceiver {
    topic: String,
    monitor: Arc<Monitor>,
    senders: Arc<Senders>,
    /// The partitions that requests name, none if all are read, once they are positioned; otherwise why not, or an empty text.
    position: watch::Receiver<Position>,
}

/// The data arbiters that wait for replies, by their random numbers.
#[derive(Default)]
struct Senders(Mutex<HashMap<u64, mpsc::Sender<Reply>>>);

impl fmt::Debug for ReplyReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplyReceiver of {}", self.topic)
    }
}

/// A data arbiter's registration, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    receiver: Arc<ReplyReceiver>,
    /// The first half of the ids of its requests.
    pub(crate) number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.receiver.senders.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl ReplyReceiver {
    fn open(cluster: &Cluster, replies: &Replies, claims: Option<Arc<dyn Claim>>) -> Result<Arc<Self>, AdapterError> {
        let monitor = Arc::new(Monitor::new(cluster, "receive replies"));
        let mut config = cluster.client_config();
        config
            // Required by librdkafka, but no group is joined and nothing is committed.
            .set("group.id", format!("crossdock-replies-{:016x}", random_number()))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", QUEUED_KIB_MAX.to_string())
            .set("fetch.max.bytes", FETCH_LEN_MAX.to_string())
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.wait.max.ms", "100");
        // The error may contain values of settings.
        let consumer: BaseConsumer<Observer> =
            config.create_with_context(Observer::new(&monitor)).map_err(|_: KafkaError| {
                let brokers = &cluster.brokers;
                AdapterError::Settings(format!("a consumer of `{brokers}` cannot be created: check `tls` and `sasl`"))
            })?;
        let (positioned, position) = watch::channel(Err(String::new()));
        let senders = Arc::new(Senders::default());
        let polling = Polling {
            consumer,
            replies: replies.clone(),
            cluster: cluster.clone(),
            monitor: Arc::clone(&monitor),
            senders: Arc::downgrade(&senders),
            next: HashMap::new(),
            named: Arc::default(),
            unnamed: HashMap::new(),
            claims,
            claimed: None,
            topic: replies.topic.as_str().into(),
        };
        let thread = std::thread::Builder::new().name("kafka replies".to_owned());
        thread
            .spawn(move || polling.run(&positioned))
            .map_err(|error| AdapterError::Stopped(format!("replies cannot be received: {error}")))?;
        Ok(Arc::new(Self { topic: replies.topic.clone(), monitor, senders, position }))
    }

    /// Registers a data arbiter, and returns the replies to its requests.
    pub(crate) fn register(self: &Arc<Self>) -> (Registration, mpsc::Receiver<Reply>) {
        let (sender, replies) = mpsc::channel(WAITING_MAX);
        let mut senders = self.senders.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = std::iter::repeat_with(random_number).find(|number| !senders.contains_key(number)).unwrap_or(0);
        senders.insert(number, sender);
        (Registration { receiver: Arc::clone(self), number }, replies)
    }

    /// Waits until replies can be received, for at most `time`. Returns the partitions that requests name, none if all are read. Cancel safe.
    ///
    /// # Errors
    /// UNREACHABLE if they cannot; at once if it is known why.
    pub(crate) async fn ready(&self, time: Duration) -> Result<Arc<[i32]>, Fault> {
        let mut position = self.position.clone();
        let is_starting = |position: &Position| !position.as_ref().is_err_and(String::is_empty);
        let known = match tokio::time::timeout(time.min(READY_TIMEOUT), position.wait_for(is_starting)).await {
            Ok(Ok(position)) => position.clone(),
            Ok(Err(_)) => Err("the polling thread has ended".to_owned()),
            Err(_) => Err("the brokers do not respond".to_owned()),
        };
        // Also if the thread ended after that.
        let known = known.and_then(|named| {
            position.has_changed().map(|_| named).map_err(|_| "the polling thread has ended".to_owned())
        });
        known.map_err(|problem| {
            unreachable(format!("replies in the topic `{}` cannot be received: {problem}", self.topic))
        })
    }
}

/// Unique enough among all instances: a collision of two of them would be needed with equal numbers of requests in flight.
fn random_number() -> u64 {
    // Each state has random keys.
    RandomState::new().hash_one(Instant::now())
}

/// The polling thread.
struct Polling {
    consumer: BaseConsumer<Observer>,
    cluster: Cluster,
    replies: Replies,
    monitor: Arc<Monitor>,
    /// Gone once nobody waits for replies any more.
    senders: Weak<Senders>,
    /// The partitions that are read, with the offset of the next reply.
    next: HashMap<i32, i64>,
    /// The partitions that requests name.
    named: Arc<[i32]>,
    /// Those that requests named before, and since when they do not.
    unnamed: HashMap<i32, Instant>,
    claims: Option<Arc<dyn Claim>>,
    /// The partition that no other instance uses.
    claimed: Option<(i32, Box<dyn ClaimGuard>)>,
    topic: Arc<str>,
}

impl Polling {
    fn run(mut self, positioned: &watch::Sender<Position>) {
        while self.position_with_retries(positioned) {
            self.monitor.is_up();
            positioned.send_modify(|position| *position = Ok(Arc::clone(&self.named)));
            match self.receive(positioned) {
                Ok(()) => return,
                Err(problem) => self.report(positioned, problem),
            }
            // What was possible just now may fail again at once.
            self.consumer.poll(BACKOFF);
        }
    }

    /// Repeats to start until it succeeds; `false` if nobody waits for replies any more.
    fn position_with_retries(&mut self, positioned: &watch::Sender<Position>) -> bool {
        let mut backoff = Backoff::new(BACKOFF, BACKOFF_MAX);
        while let Err(problem) = self.position() {
            self.report(positioned, problem);
            let until = Instant::now() + backoff.next_delay();
            while Instant::now() < until {
                // Serves callbacks meanwhile.
                self.consumer.poll(POLL_TIME);
                if self.senders.strong_count() == 0 {
                    return false;
                }
            }
        }
        true
    }

    fn report(&self, positioned: &watch::Sender<Position>, problem: String) {
        self.monitor.is_down(&problem);
        positioned.send_modify(|position| *position = Err(problem));
    }

    /// Receives replies until nobody waits for any.
    ///
    /// # Errors
    /// Why they can no longer be received.
    fn receive(&mut self, positioned: &watch::Sender<Position>) -> Result<(), String> {
        let mut checked = Instant::now();
        loop {
            let received = self.consumer.poll(POLL_TIME);
            let Some(senders) = self.senders.upgrade() else { return Ok(()) };
            match received {
                Some(Ok(message)) => {
                    self.monitor.is_up();
                    let reply = ReceivedRecord::copy(&message, Arc::clone(&self.topic));
                    drop(message);
                    self.next.insert(reply.partition, reply.offset + 1);
                    self.hand_over(&senders, reply);
                }
                Some(Err(error)) => self.check_error(&error)?,
                None => {}
            }
            if checked.elapsed() >= CHECK_INTERVAL {
                self.check()?;
                self.forget_unnamed();
                if self.claim_later() {
                    positioned.send_modify(|position| *position = Ok(Arc::clone(&self.named)));
                }
                checked = Instant::now();
            }
        }
    }

    /// Starts to read at the current ends of the partitions.
    fn position(&mut self) -> Result<(), String> {
        // A bearer token is only asked for while the client is polled.
        self.consumer.poll(Duration::ZERO);
        let monitor = Arc::clone(&self.monitor);
        let text = |error: KafkaError| match (error.rdkafka_error_code(), monitor.status()) {
            // The client knows more.
            (
                Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut) | None,
                PortStatus::Down(problem),
            ) => problem,
            (Some(code), _) => code.to_string(),
            (None, PortStatus::Up) => "the client failed".to_owned(),
        };
        let mut existing = existing_partitions(&self.consumer, &self.topic, QUERY_TIMEOUT).map_err(text)?;
        if existing.is_empty() && self.replies.declare == Declare::Create {
            declare::create_blocking(&self.cluster, std::slice::from_ref(&self.replies.topic))?;
            // New topics become known to the brokers one after another.
            let until = Instant::now() + QUERY_TIMEOUT;
            while existing.is_empty() && Instant::now() < until {
                self.consumer.poll(POLL_TIME);
                existing = existing_partitions(&self.consumer, &self.topic, QUERY_TIMEOUT).map_err(text)?;
            }
        }
        if existing.is_empty() {
            return Err("the topic does not exist".to_owned());
        }
        existing.sort_unstable();
        let wanted = match &self.replies.partitions {
            ReplyPartitions::All => existing.clone(),
            ReplyPartitions::Listed(partitions) => partitions.clone(),
            ReplyPartitions::Claimed => {
                // Not for a receiver that was opened only to see whether it can be.
                self.consumer.poll(CLAIM_DELAY);
                if self.senders.strong_count() == 0 {
                    return Err("nobody waits for replies".to_owned());
                }
                vec![self.claim_or_share(&existing)]
            }
        };
        self.unnamed.clear();
        self.named = if self.replies.partitions == ReplyPartitions::All { Arc::default() } else { Arc::from(&*wanted) };
        if let Some(missing) = wanted.iter().find(|partition| !existing.contains(partition)) {
            return Err(format!("the topic has no partition {missing}"));
        }
        let mut next = HashMap::new();
        for partition in wanted {
            let (_, end) = self.consumer.fetch_watermarks(&self.topic, partition, QUERY_TIMEOUT).map_err(text)?;
            next.insert(partition, end);
        }
        self.assign(&next).map_err(text)?;
        self.next = next;
        Ok(())
    }

    /// The partition of these that this instance has claimed or claims now, or else any of them.
    fn claim_or_share(&mut self, existing: &[i32]) -> i32 {
        let claimed = self.claimed.as_ref().map(|(partition, _)| *partition);
        if let Some(partition) =
            claimed.filter(|partition| existing.contains(partition)).or_else(|| self.claim(existing))
        {
            return partition;
        }
        let at = usize::try_from(random_number() % existing.len() as u64).unwrap_or_default();
        tracing::info!(topic = %self.topic, partition = existing[at], "replies arrive in a partition of several instances: none is free");
        existing[at]
    }

    fn claim(&mut self, partitions: &[i32]) -> Option<i32> {
        let Claimed { at, guard } = self.claim_one(partitions)?;
        let partition = partitions[at];
        tracing::info!(topic = %self.topic, partition, "replies arrive in a partition of this instance alone");
        self.claimed = Some((partition, guard));
        Some(partition)
    }

    fn claim_one(&self, partitions: &[i32]) -> Option<Claimed> {
        // However instances write them.
        let mut brokers: Vec<_> = self.cluster.brokers.split(',').map(str::trim).collect();
        brokers.sort_unstable();
        let (brokers, topic) = (brokers.join(","), &self.topic);
        let names = partitions.iter().map(|partition| format!("replies {brokers}/{topic}/{partition}")).collect();
        // It waits with timers, which this thread does not have.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        runtime.block_on(self.claims.as_ref()?.claim(names))
    }

    /// Claims a partition, if this instance has none of its own: there were too few, or its session with the cluster has ended. Returns whether
    /// requests name another one from now on. Replies that are on their way are still read for some time.
    fn claim_later(&mut self) -> bool {
        let is_needed = self.claims.is_some() && self.replies.partitions == ReplyPartitions::Claimed;
        if !is_needed || self.claimed.as_ref().is_some_and(|(_, guard)| guard.holds()) {
            return false;
        }
        // The one that it uses already, if possible.
        let used: Vec<i32> = self.named.to_vec();
        if self.claim(&used).is_some() {
            return false;
        }
        let Ok(existing) = existing_partitions(&self.consumer, &self.topic, CHECK_TIMEOUT) else { return false };
        let Some(partition) = self.claim(&existing) else { return false };
        let Ok((_, end)) = self.consumer.fetch_watermarks(&self.topic, partition, CHECK_TIMEOUT) else {
            self.claimed = None;
            return false;
        };
        let mut next = self.next.clone();
        next.entry(partition).or_insert(end);
        if let Err(error) = self.assign(&next) {
            tracing::warn!(topic = %self.topic, partition, %error, "a partition of replies cannot be read");
            self.claimed = None;
            return false;
        }
        let before = std::mem::replace(&mut self.named, Arc::from([partition]));
        self.next = next;
        self.unnamed.retain(|unnamed, _| *unnamed != partition);
        self.unnamed
            .extend(before.iter().filter(|unnamed| **unnamed != partition).map(|unnamed| (*unnamed, Instant::now())));
        true
    }

    /// Reads the partitions no longer that requests have not named for a long time.
    fn forget_unnamed(&mut self) {
        let is_over = |since: &Instant| since.elapsed() >= UNNAMED_TIME;
        if !self.unnamed.values().any(is_over) {
            return;
        }
        let mut next = self.next.clone();
        next.retain(|partition, _| !self.unnamed.get(partition).is_some_and(is_over));
        match self.assign(&next) {
            Ok(()) => {
                self.next = next;
                self.unnamed.retain(|_, since| !is_over(since));
            }
            Err(error) => tracing::warn!(topic = %self.topic, %error, "partitions of replies cannot be left"),
        }
    }

    fn assign(&self, next: &HashMap<i32, i64>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(next.len());
        for (partition, offset) in next {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.consumer.assign(&list)
    }

    /// Checks that the topic still exists, and reads partitions that were added to it, from their start.
    ///
    /// # Errors
    /// The topic does not exist any more.
    fn check(&mut self) -> Result<(), String> {
        let Ok(existing) = existing_partitions(&self.consumer, &self.topic, CHECK_TIMEOUT) else { return Ok(()) };
        if !self.next.keys().all(|partition| existing.contains(partition)) {
            return Err("the topic or a partition does not exist any more".to_owned());
        }
        self.monitor.is_up();
        let mut next = self.next.clone();
        if self.replies.partitions == ReplyPartitions::All {
            for partition in existing {
                next.entry(partition).or_insert(0);
            }
        }
        if next.len() > self.next.len() {
            match self.assign(&next) {
                Ok(()) => self.next = next,
                Err(error) => tracing::warn!(topic = %self.topic, %error, "added partitions of replies cannot be read"),
            }
        }
        Ok(())
    }

    /// Hands a reply to the data arbiter that sent its request.
    fn hand_over(&self, senders: &Senders, reply: ReceivedRecord) {
        let (topic, partition, offset) = (&self.topic, reply.partition, reply.offset);
        let Some(id) = self.replies.convention.id_of(&reply) else {
            tracing::debug!(%topic, partition, offset, "record without correlation id of a gateway ignored");
            return;
        };
        let sender = senders.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id.sender).cloned();
        match sender.map(|sender| sender.try_send((id, reply))) {
            Some(Ok(())) => {}
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                tracing::error!(%topic, partition, offset, "reply lost: too many replies wait for their data arbiter");
            }
            None | Some(Err(mpsc::error::TrySendError::Closed(_))) => {
                tracing::debug!(%topic, partition, offset, "reply to another instance or an earlier run ignored");
            }
        }
    }

    /// Why an error means that no reply can be received.
    fn check_error(&self, error: &KafkaError) -> Result<(), String> {
        match error.rdkafka_error_code() {
            Some(
                code @ (RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed),
            ) => Err(code.to_string()),
            _ => {
                tracing::debug!(topic = %self.topic, %error, "error while polling for replies");
                Ok(())
            }
        }
    }
}

/// The partitions of a topic; empty if it does not exist.
fn existing_partitions(
    consumer: &BaseConsumer<Observer>,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.map_or_else(Vec::new, |topic| topic.partitions().iter().map(MetadataPartition::id).collect()))
}
