//! The queues that the instances of a cluster share.

use std::time::Duration;

use bytes::Bytes;
use crossdock_message::{ByteString, Fault};

use crate::SendFuture;

/// A message to add to a queue.
#[derive(Debug, Clone, Default)]
pub struct QueueMessage {
    /// Messages of the same key, of up to 512 bytes, are delivered one after another. If it is empty, the message has no order.
    pub key: ByteString,
    /// What it contains, up to 1 MiB: a canonical message as bytes.
    pub payload: Bytes,
    /// It takes its place in the order after this time.
    pub delay: Duration,
    /// An id of up to 512 bytes, and how long it is remembered: a message with the same id is a duplicate meanwhile, and is not added.
    pub id: Option<(ByteString, Duration)>,
    /// A digest of what the id stands for. If it differs, the message is refused instead of taken for a duplicate.
    pub digest: u64,
}

/// The queues of the cluster, for adapters that add to them.
pub trait Enqueue: Send + Sync {
    /// Adds a message to a queue; returns once a majority of the cluster has it. If the future is dropped, it may be added all the same.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if the queue is full; INVALID_ARGUMENT if the message is too large, or its id belongs to another message;
    /// UNAVAILABLE without a majority, with [`Retry::Same`](crossdock_message::Retry::Same) if it was certainly not added.
    fn enqueue(&self, queue: &str, message: QueueMessage) -> SendFuture<'static, Result<(), Fault>>;
}

/// The queue whose messages an entry accepts, and how they are delivered to the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSource {
    /// The name of the queue.
    pub queue: String,
    /// The maximum number of attempts that count, the first one included.
    pub attempts: u32,
    /// The delay before the second attempt. It doubles with each attempt.
    pub backoff: Duration,
    /// The longest delay between two attempts.
    pub backoff_max: Duration,
    /// How many messages each instance processes at the same time.
    pub concurrency: usize,
}
