//! Transactions: what the route of a record sends, and the offset behind the record, take effect together or not at all (KIP-98, KIP-447).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossdock_message::Fault;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer as _, ThreadedProducer};

use crate::client::{Monitor, Observer};
use crate::config::Cluster;
use crate::error::{is_size_limit, not_sent, not_stored, unconfirmed, unreachable};
use crate::producer::{Abandoned, Batching, Record, client_config, close, enqueue};

/// After this time, the brokers abort a transaction whose producer has disappeared; until then, readers of committed records wait.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// For each request to the transaction coordinator.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds how long offsets wait for the coordinator of the group after its broker has left the cluster. librdkafka has no timeout for that
/// wait (confluentinc/librdkafka#5456): it looks for the new coordinator when the state of any connection changes (#5511), which the closing of an idle
/// one does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A producer with a transactional id. At most one transaction is open.
pub(crate) struct TransactionalProducer {
    client: Arc<Client>,
    cluster: u64,
}

/// A client that is closed elsewhere, as that may block.
struct Client(Option<ThreadedProducer<Observer>>);

impl Client {
    fn open(&self) -> Result<&ThreadedProducer<Observer>, KafkaError> {
        self.0.as_ref().ok_or(KafkaError::Canceled)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        close(self.0.take());
    }
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(crate) enum TransactionError {
    /// Nothing of it took effect; it can be repeated with the same producer, once it is aborted.
    Abort(String),
    /// The producer cannot be used any more. Whether the transaction took effect, the committed offsets tell.
    Fatal(String),
}

impl TransactionError {
    fn new(error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code().map_or_else(|| "the client failed".to_owned(), |code| code.to_string());
        match error {
            KafkaError::Transaction(transaction) if transaction.is_fatal() => Self::Fatal(code),
            _ => Self::Abort(code),
        }
    }
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abort(problem) | Self::Fatal(problem) => f.write_str(problem),
        }
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(transaction) if transaction.is_retriable())
}

impl TransactionalProducer {
    /// Opens a producer, and ends the transactions of an earlier one with the same id. Blocks.
    ///
    /// # Errors
    /// Why the brokers do not accept it.
    pub(crate) fn open(cluster: &Cluster, id: &str, monitor: &Arc<Monitor>, is_batched: bool) -> Result<Self, String> {
        let mut config = client_config(cluster, Batching::default());
        if !is_batched {
            config.set("batch.num.messages", "1");
        }
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            .set("connections.max.idle.ms", IDLE_TIMEOUT.as_millis().to_string())
            // Must not exceed it.
            .set("delivery.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        // The error may contain values of settings.
        let client: ThreadedProducer<Observer> = config
            .create_with_context(Observer::new(monitor))
            .map_err(|_: KafkaError| "a producer cannot be created: check `tls` and `sasl`".to_owned())?;
        client.init_transactions(RESPONSE_TIMEOUT).map_err(|error| {
            let of_client = monitor.status().problem().map(str::to_owned);
            of_client.unwrap_or_else(|| TransactionError::new(&error).to_string())
        })?;
        Ok(Self { client: Arc::new(Client(Some(client))), cluster: cluster.fingerprint })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn begin(&self) -> Result<Arc<Transaction>, TransactionError> {
        self.client
            .open()
            .and_then(ThreadedProducer::begin_transaction)
            .map_err(|error| TransactionError::new(&error))?;
        Ok(Arc::new(Transaction {
            client: Arc::clone(&self.client),
            cluster: self.cluster,
            is_open: AtomicBool::new(true),
            is_failed: AtomicBool::new(false),
            is_too_large: AtomicBool::new(false),
            abandoned: Abandoned::default(),
        }))
    }

    /// Commits the transaction with offsets of a group, whose metadata was taken while `is_owned` held. All its records must be confirmed. Blocks.
    ///
    /// # Errors
    /// It is not committed; after [`TransactionError::Fatal`] it may be.
    pub(crate) fn commit(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        is_owned: impl Fn() -> bool,
    ) -> Result<(), TransactionError> {
        retried(|| self.client.open()?.send_offsets_to_transaction(offsets, group, RESPONSE_TIMEOUT))
            .map_err(|error| TransactionError::new(&error))?;
        // The brokers have checked the generation of the group by now: if the partitions are still owned, nobody else owned them.
        if !is_owned() {
            return Err(TransactionError::Abort("the partitions have other owners".to_owned()));
        }
        crossdock_delivery::failpoint("kafka.transaction");
        retried(|| self.client.open()?.commit_transaction(RESPONSE_TIMEOUT)).map_err(|error| match &error {
            KafkaError::Transaction(transaction) if transaction.txn_requires_abort() => TransactionError::new(&error),
            // It may be committed.
            _ => TransactionError::Fatal(TransactionError::new(&error).to_string()),
        })
    }

    /// Aborts the transaction: nothing of it takes effect. Blocks.
    ///
    /// # Errors
    /// The producer cannot be used any more.
    pub(crate) fn abort(&self) -> Result<(), TransactionError> {
        retried(|| self.client.open()?.abort_transaction(RESPONSE_TIMEOUT))
            .map_err(|error| TransactionError::Fatal(TransactionError::new(&error).to_string()))
    }
}

/// Repeats a call whose result is unknown, as librdkafka asks for.
fn retried(call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    const ATTEMPTS_MAX: usize = 3;
    let mut attempts = 1;
    loop {
        match call() {
            Err(error) if is_retriable(&error) && attempts < ATTEMPTS_MAX => attempts += 1,
            result => return result,
        }
    }
}

/// An open transaction.
pub(crate) struct Transaction {
    client: Arc<Client>,
    cluster: u64,
    is_open: AtomicBool,
    is_failed: AtomicBool,
    is_too_large: AtomicBool,
    /// Of no use here: a record that nobody waits for fails its transaction.
    abandoned: Abandoned,
}

impl Transaction {
    /// Whether the brokers refused a batch of records because of its size. Perhaps they accept its records one by one.
    pub(crate) fn is_too_large(&self) -> bool {
        self.is_too_large.load(Ordering::Acquire)
    }

    /// Whether a record was not confirmed, so that it must be aborted.
    pub(crate) fn is_failed(&self) -> bool {
        self.is_failed.load(Ordering::Acquire)
    }

    /// No record joins it any more.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::Release);
    }
}

/// The part of a transaction that belongs to one received record. Outbound ports find it in the context of a message.
pub(crate) struct Participant {
    transaction: Arc<Transaction>,
    /// What was sent for the record.
    sent: AtomicUsize,
}

impl Participant {
    pub(crate) fn new(transaction: &Arc<Transaction>) -> Self {
        Self { transaction: Arc::clone(transaction), sent: AtomicUsize::new(0) }
    }

    /// Whether the transaction is one of this cluster.
    pub(crate) fn is_of(&self, cluster: u64) -> bool {
        self.transaction.cluster == cluster
    }

    /// Whether nothing was sent for the record.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent.load(Ordering::Acquire) == 0
    }

    /// Writes a record in the transaction, and waits until the brokers have stored it. Readers of committed records see it once the transaction is
    /// committed.
    ///
    /// # Errors
    /// As those of [`Producer::send`](crate::producer::Producer::send); the transaction will be aborted.
    pub(crate) async fn send(&self, record: Record<'_>) -> Result<(), Fault> {
        // Also if the future is dropped: the record may be stored, and the route continues without knowing.
        let failing = FailOnDrop(&self.transaction);
        let sent = self.try_send(record).await;
        if sent.is_ok() {
            std::mem::forget(failing);
        }
        sent
    }

    async fn try_send(&self, record: Record<'_>) -> Result<(), Fault> {
        if !self.transaction.is_open.load(Ordering::Acquire) {
            return Err(unreachable("the transaction has ended"));
        }
        self.sent.fetch_add(1, Ordering::AcqRel);
        let topic = record.topic;
        let client = self.transaction.client.open().map_err(|error| not_sent(&error, topic))?;
        let confirm = enqueue(client, record, &self.transaction.abandoned).map_err(|error| not_sent(&error, topic))?;
        match confirm.wait().await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                if is_size_limit(&error) {
                    self.transaction.is_too_large.store(true, Ordering::Release);
                }
                Err(not_stored(&error, topic))
            }
            Err(_) => Err(unconfirmed("the producer was closed")),
        }
    }
}

/// Fails a transaction when dropped.
struct FailOnDrop<'t>(&'t Transaction);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_failed.store(true, Ordering::Release);
    }
}
