//! Messages of a queue.

use std::sync::Arc;

use bytes::Bytes;

use crate::answer::Refusal;
use crate::command::NewMessage;
use crate::ids::SessionId;
use crate::limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_DELAY_MS_MAX, MESSAGE_OVERHEAD, SLOTS, WINDOW_MS_MAX};

/// Where a message is in its queue. Those of one key are a lane, and are delivered in the order of their positions. A message
/// without a key is a lane of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The slot of its lane.
    pub slot: u32,
    /// The key; empty if it has none.
    pub key: Arc<str>,
    /// The position, which rises over all queues.
    pub position: u64,
}

impl Place {
    pub(crate) fn new(key: Arc<str>, position: u64) -> Self {
        Self { slot: slot_of(&key, position), key, position }
    }

    /// All places of its lane.
    pub(crate) fn lane(&self) -> std::ops::RangeInclusive<Self> {
        if self.key.is_empty() {
            return self.clone()..=self.clone();
        }
        let first = Self { position: 0, ..self.clone() };
        let last = Self { position: u64::MAX, ..self.clone() };
        first..=last
    }
}

/// The slot of a lane. All instances and all releases have to agree on it.
fn slot_of(key: &str, position: u64) -> u32 {
    if key.is_empty() {
        return u32::try_from(position % u64::from(SLOTS)).unwrap_or(0);
    }
    // FNV-1a (draft-eastlake-fnv).
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    u32::try_from((hash >> 32) % u64::from(SLOTS)).unwrap_or(0)
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it contains.
    pub payload: Bytes,
    /// When it was enqueued: the leader's time, in milliseconds since the Unix epoch.
    pub enqueued: u64,
    /// Its position in the answer to its producer: a delayed message takes another one later.
    pub enqueued_as: u64,
    /// How often it was delivered and is to be delivered again.
    pub attempts: u32,
    /// How many of these attempts were failures of the message.
    pub failures: u32,
    /// It is delivered again when this is due, by the state's clock.
    pub not_before: Option<u64>,
    /// The session that is notified of its result.
    pub watcher: Option<SessionId>,
}

impl Message {
    /// What it counts for, without its key.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + MESSAGE_OVERHEAD
    }
}

/// A message that will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its key; empty if it has none.
    pub key: Arc<str>,
    /// The message.
    pub message: Message,
    /// Why.
    pub reason: Arc<str>,
    /// Since when: the leader's time, in milliseconds since the Unix epoch.
    pub since: u64,
}

impl DeadLetter {
    pub(crate) fn bytes(&self) -> usize {
        self.message.bytes() + self.key.len() + self.reason.len()
    }
}

/// Checks the limits of a message to enqueue.
pub(crate) fn check(message: &NewMessage) -> Result<(), Refusal> {
    let is_valid = message.key.len() <= KEY_BYTES_MAX
        && message.id.len() <= KEY_BYTES_MAX
        && message.payload.len() <= MESSAGE_BYTES_MAX
        && message.delay_ms <= MESSAGE_DELAY_MS_MAX
        && message.window_ms <= WINDOW_MS_MAX;
    if is_valid { Ok(()) } else { Err(Refusal::Invalid) }
}
