//! The producers of the process: one idempotent producer for each cluster, which all data arbiters share.

use std::fmt;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_message::Fault;
use crossdock_ports::{AdapterError, PortStatus};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::client::{Monitor, Observer};
use crate::config::{Cluster, Compression};
use crate::error::{is_size_limit, not_sent, not_stored, unconfirmed, unreachable};
use crate::shared::SharedByKey;

/// Bounds on the records that wait to be sent or confirmed.
const WAITING_COUNT_MAX: usize = 100_000;
const WAITING_KIB_MAX: usize = 64 << 10;
/// The largest record, in bytes; topics may have lower limits.
const RECORD_LEN_MAX: usize = 64 << 20;
/// The shortest and the longest time between two replacements of a client.
const REPLACEMENT_WAIT_MIN: Duration = Duration::from_secs(1);
const REPLACEMENT_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a record waits for a topic that does not exist, as new topics become known to the brokers one after another.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(3);
/// While fewer records than these wait for their confirms, each is sent at once and alone: it would wait for others in vain, as do the records of an
/// ordered source, each of which waits for the confirm of the one before.
const PROMPT_COUNT_MAX: usize = 8;
/// How long the client tries to send a record.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// A record to write.
#[derive(Debug, Clone)]
pub(crate) struct Record<'r> {
    pub(crate) topic: &'r str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'r [u8]>,
    /// `None` is a tombstone.
    pub(crate) value: Option<&'r [u8]>,
    pub(crate) headers: OwnedHeaders,
    /// Milliseconds since 1970; now by default.
    pub(crate) timestamp: Option<i64>,
}

/// How records are batched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batching {
    pub(crate) compression: Compression,
    pub(crate) linger: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self { compression: Compression::Lz4, linger: Duration::from_millis(1) }
    }
}

/// A cluster, a compression and a linger time.
pub(crate) type Key = (u64, &'static str, Duration);

/// All producers of the process.
pub(crate) type Producers = SharedByKey<Key, Producer>;

impl Producers {
    /// The producer for a cluster; created on first use.
    pub(crate) fn producer(&self, cluster: &Cluster, batching: Batching) -> Result<Arc<Producer>, AdapterError> {
        self.get_or_open(key(cluster, batching), || Producer::open(cluster, batching).map(Arc::new))
    }

    /// The status of the connection to a cluster; `None` if nothing writes to it.
    pub(crate) fn status(&self, cluster: &Cluster, batching: Batching) -> Option<PortStatus> {
        self.get(&key(cluster, batching)).map(|producer| producer.monitor.status())
    }
}

fn key(cluster: &Cluster, batching: Batching) -> Key {
    (cluster.fingerprint, batching.compression.word(), batching.linger)
}

/// An idempotent producer: the client's retries write no record twice, and keep the order of each partition.
pub(crate) struct Producer {
    cluster: Cluster,
    batching: Batching,
    monitor: Arc<Monitor>,
    /// Sends records in batches.
    client: Mutex<Client>,
    /// Sends each record alone and at once.
    unbatched: Mutex<Client>,
    /// The number of records that wait for their confirms.
    waiting: AtomicUsize,
    /// Records that each of the clients, the batching one first, may still write although nobody waits for them any more.
    abandoned: [Abandoned; 2],
}

/// A number of records.
pub(crate) type Abandoned = Arc<AtomicIsize>;

/// A client, which is replaced after a fatal error: such an error ends its idempotence.
#[derive(Default)]
struct Client {
    open: Option<ThreadedProducer<Observer>>,
    /// When it was replaced, and how long the next replacement waits.
    replaced: Option<(Instant, Duration)>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer to {:?}", self.cluster)
    }
}

/// The result of a record: its partition and offset.
pub(crate) type Confirm = Result<(i32, i64), KafkaError>;

/// Receives the confirm of a record from the client.
pub(crate) struct Waiter {
    sender: oneshot::Sender<Confirm>,
    abandoned: Abandoned,
}

/// The future confirm of a record. Dropped before that, the record counts as abandoned until the client is done with it.
pub(crate) struct Pending {
    confirm: oneshot::Receiver<Confirm>,
    abandoned: Abandoned,
    is_done: bool,
}

impl Pending {
    /// Waits for the confirm.
    ///
    /// # Errors
    /// The client was closed.
    pub(crate) async fn wait(mut self) -> Result<Confirm, oneshot::error::RecvError> {
        let confirm = (&mut self.confirm).await;
        self.is_done = true;
        confirm
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.confirm.close();
        // From here on, the client cannot pass it on, and counts it back.
        if matches!(
            self.confirm.try_recv(),
            Err(oneshot::error::TryRecvError::Closed | oneshot::error::TryRecvError::Empty)
        ) {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Passes confirms to the waiting senders.
impl ProducerContext for Observer {
    type DeliveryOpaque = Box<Waiter>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Self::DeliveryOpaque) {
        use rdkafka::Message as _;
        let confirm = match result {
            Ok(record) => {
                self.monitor().is_up();
                Ok((record.partition(), record.offset()))
            }
            Err((error, _)) => Err(error.clone()),
        };
        let Waiter { sender, abandoned } = *waiter;
        if sender.send(confirm).is_err() {
            // The sender has left.
            abandoned.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Producer {
    fn open(cluster: &Cluster, batching: Batching) -> Result<Self, AdapterError> {
        let monitor = Arc::new(Monitor::new(cluster, "produce"));
        // Both connect now, so that the first record of neither waits for it.
        let open = |is_batched| {
            let open = Some(create(cluster, batching, &monitor, is_batched)?);
            Ok::<_, AdapterError>(Mutex::new(Client { open, replaced: None }))
        };
        let (client, unbatched) = (open(true)?, open(false)?);
        Ok(Self {
            cluster: cluster.clone(),
            batching,
            monitor,
            client,
            unbatched,
            waiting: AtomicUsize::new(0),
            abandoned: Default::default(),
        })
    }

    /// Writes a record and waits until the brokers have stored it on all replicas in sync. If the future is dropped, it may be stored. Records that
    /// wait at the same time are stored in any order.
    ///
    /// # Errors
    /// UNAVAILABLE if it was not sent or not confirmed; INVALID_ARGUMENT and PERMISSION_DENIED if the brokers refuse it.
    pub(crate) async fn send(&self, record: Record<'_>) -> Result<(), Fault> {
        let topic = record.topic;
        let waiting = Waiting::begin(&self.waiting);
        let is_batched = self.is_batched(waiting.before);
        match self.start(record.clone(), is_batched)?.wait().await {
            Ok(Ok(_)) => Ok(()),
            // Perhaps only its batch was too large.
            Ok(Err(error)) if is_batched && is_size_limit(&error) => match self.start(record, false)?.wait().await {
                Ok(result) => result.map(drop).map_err(|error| self.fault(&error, topic)),
                Err(_) => Err(unconfirmed("the producer was closed")),
            },
            Ok(Err(error)) => Err(self.fault(&error, topic)),
            Err(_) => Err(unconfirmed("the producer was closed")),
        }
    }

    /// Which client sends a record, before which this many wait. While one may still write a record that nobody waits for, it sends all others, too: that
    /// record must not be written after those that its sender sends next.
    fn is_batched(&self, waiting: usize) -> bool {
        let [batching, alone] = &self.abandoned;
        if batching.load(Ordering::Relaxed) > 0 {
            true
        } else if alone.load(Ordering::Relaxed) > 0 {
            false
        } else {
            self.batching.linger.is_zero() || waiting >= PROMPT_COUNT_MAX
        }
    }

    /// The fault of a record that was sent.
    fn fault(&self, error: &KafkaError, topic: &str) -> Fault {
        match (error.rdkafka_error_code(), self.monitor.status()) {
            (Some(RDKafkaErrorCode::MessageTimedOut), PortStatus::Down(problem)) => unconfirmed(problem),
            _ => not_stored(error, topic),
        }
    }

    fn start(&self, record: Record<'_>, is_batched: bool) -> Result<Pending, Fault> {
        let client = if is_batched { &self.client } else { &self.unbatched };
        let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
        let abandoned = &self.abandoned[usize::from(!is_batched)];
        self.replace_failed(&mut client, abandoned)?;
        if client.open.is_none() {
            let created = create(&self.cluster, self.batching, &self.monitor, is_batched);
            client.open = Some(created.map_err(unreachable)?);
        }
        let Some(open) = &client.open else { return Err(unreachable("there is no producer")) };
        let topic = record.topic;
        enqueue(open, record, abandoned).map_err(|error| not_sent(&error, topic))
    }

    /// Closes a client that failed for good.
    ///
    /// # Errors
    /// Why it failed, if another one failed shortly before.
    fn replace_failed(&self, client: &mut Client, abandoned: &Abandoned) -> Result<(), Fault> {
        let Some((code, _)) = client.open.as_ref().and_then(|open| open.client().fatal_error()) else { return Ok(()) };
        let wait = match client.replaced {
            Some((at, wait)) if at.elapsed() < wait => return Err(not_sent(&KafkaError::MessageProduction(code), "")),
            Some((at, wait)) if at.elapsed() < wait * 2 => (wait * 2).min(REPLACEMENT_WAIT_MAX),
            _ => REPLACEMENT_WAIT_MIN,
        };
        tracing::warn!(brokers = %self.cluster.brokers, %code, "producer failed for good; replaced by a new one");
        client.replaced = Some((Instant::now(), wait));
        close(client.open.take());
        // It writes nothing any more.
        abandoned.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that a broker can be reached; blocks for at most `timeout`.
    pub(crate) fn probe(&self, timeout: Duration) -> Result<(), Fault> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).open.clone();
        let Some(client) = client else { return Err(unreachable("there is no producer")) };
        match client.client().fetch_metadata(None, timeout) {
            Ok(_) => {
                self.monitor.is_up();
                Ok(())
            }
            Err(error) => Err(match self.monitor.status() {
                PortStatus::Down(problem) => unreachable(problem),
                PortStatus::Up => unreachable(error),
            }),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        for client in [&mut self.client, &mut self.unbatched] {
            close(client.get_mut().unwrap_or_else(PoisonError::into_inner).open.take());
        }
    }
}

/// Counts a record until its confirm has arrived, or nobody waits for it any more.
struct Waiting<'c> {
    count: &'c AtomicUsize,
    /// How many waited before it.
    before: usize,
}

impl<'c> Waiting<'c> {
    fn begin(count: &'c AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Passes a record to a client; returns its future confirm, or else counts it as abandoned until the client is done with it.
pub(crate) fn enqueue(
    client: &ThreadedProducer<Observer>,
    record: Record<'_>,
    abandoned: &Abandoned,
) -> Result<Pending, KafkaError> {
    let (sender, confirm) = oneshot::channel();
    let waiter = Box::new(Waiter { sender, abandoned: Arc::clone(abandoned) });
    let mut pending = Pending { confirm, abandoned: Arc::clone(abandoned), is_done: false };
    let mut to_send = BaseRecord::with_opaque_to(record.topic, waiter).headers(record.headers);
    to_send.partition = record.partition;
    to_send.key = record.key;
    to_send.payload = record.value;
    to_send.timestamp = record.timestamp;
    match client.send(to_send) {
        Ok(()) => Ok(pending),
        Err((error, _)) => {
            // The client does not have it.
            pending.is_done = true;
            Err(error)
        }
    }
}

/// Closes a client on a thread of its own, as that waits for records in flight.
pub(crate) fn close(client: Option<ThreadedProducer<Observer>>) {
    let Some(client) = client else { return };
    let closing = std::thread::Builder::new().name("kafka close".to_owned());
    if let Err(error) = closing.spawn(move || drop(client)) {
        tracing::debug!(%error, "producer closed on the current thread");
    }
}

fn create(
    cluster: &Cluster,
    batching: Batching,
    monitor: &Arc<Monitor>,
    is_batched: bool,
) -> Result<ThreadedProducer<Observer>, AdapterError> {
    let mut config = client_config(cluster, batching);
    if !is_batched {
        config.set("batch.num.messages", "1");
    }
    // The error may contain values of settings.
    config.create_with_context(Observer::new(monitor)).map_err(|_: KafkaError| {
        AdapterError::Settings(format!(
            "a producer for `{}` cannot be created: check `tls` and `sasl`",
            cluster.brokers
        ))
    })
}

/// The settings of an idempotent producer.
pub(crate) fn client_config(cluster: &Cluster, batching: Batching) -> ClientConfig {
    let mut config = cluster.client_config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("topic.metadata.propagation.max.ms", TOPIC_TIMEOUT.as_millis().to_string())
        // As Java's clients partition.
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", WAITING_COUNT_MAX.to_string())
        .set("queue.buffering.max.kbytes", WAITING_KIB_MAX.to_string())
        .set("message.max.bytes", RECORD_LEN_MAX.to_string())
        .set("delivery.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        .set("linger.ms", batching.linger.as_millis().to_string())
        .set("compression.type", batching.compression.word());
    config
}
