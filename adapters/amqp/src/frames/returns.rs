//! Returned messages, by channel.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;
use lapin::types::ShortString;

/// The body size follows class and weight.
const BODY_SIZE_AT: usize = 4;
const PROPERTIES_AT: usize = 12;

/// Keyed randomly in each process, so that senders cannot construct collisions.
static DIGESTS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A digest of a body; comparable only within this process.
pub(crate) fn body_digest(body: &[u8]) -> u64 {
    let mut hasher = DIGESTS.build_hasher();
    hasher.write(body);
    hasher.finish()
}

/// An unroutable message that the broker returned.
#[derive(Debug, PartialEq)]
pub(crate) struct Returned {
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body_len: u64,
    pub(crate) body_digest: u64,
}

/// Messages returned on the channels of one connection and not taken yet.
///
/// Bounded by the number of unconfirmed messages.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    by_channel: Mutex<HashMap<u16, Vec<Returned>>>,
    count: AtomicUsize,
}

impl Returns {
    pub(super) fn record(&self, channel: u16, returned: Returned) {
        self.lock().entry(channel).or_default().push(returned);
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(super) fn discard(&self, channel: u16) {
        drop(self.take(channel));
    }

    /// Takes the messages returned on a channel, in the order of their return.
    ///
    /// Once a message's confirm is received, its return has been recorded: the broker returns an unroutable message before it confirms it
    /// (RabbitMQ, "Consumer Acknowledgements and Publisher Confirms").
    pub(crate) fn take(&self, channel: u16) -> Vec<Returned> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let taken = self.lock().remove(&channel).unwrap_or_default();
        self.count.fetch_sub(taken.len(), Ordering::Release);
        taken
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u16, Vec<Returned>>> {
        self.by_channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A returned message that is not complete yet.
#[derive(Debug)]
pub(super) struct Returning {
    exchange: ShortString,
    key: ShortString,
    properties: Option<BasicProperties>,
    body_len: u64,
    left: u64,
    hasher: std::hash::DefaultHasher,
}

impl Returning {
    pub(super) fn new(exchange: ShortString, key: ShortString) -> Self {
        Self { exchange, key, properties: None, body_len: 0, left: u64::MAX, hasher: DIGESTS.build_hasher() }
    }

    /// Parses the payload of its content header.
    pub(super) fn header(&mut self, payload: &[u8]) {
        let size = payload.get(BODY_SIZE_AT..).and_then(|rest| rest.first_chunk()).copied();
        self.body_len = size.map_or(0, u64::from_be_bytes);
        self.left = self.body_len;
        let properties = payload.get(PROPERTIES_AT..).and_then(|list| parse_properties(list).ok());
        self.properties = Some(properties.map(|(_, properties)| properties).unwrap_or_default());
    }

    /// Adds part of its body; returns whether it is complete.
    pub(super) fn body(&mut self, bytes: &[u8]) -> bool {
        self.hasher.write(bytes);
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.left == 0
    }

    pub(super) fn complete(self) -> Option<Returned> {
        let Self { exchange, key, properties, body_len, hasher, .. } = self;
        Some(Returned { exchange, key, properties: properties?, body_len, body_digest: hasher.finish() })
    }
}
