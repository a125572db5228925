//! Outcomes of processed messages by key, to detect duplicates. Bounded by age, number and bytes.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::{Body, ByteString, Chunks, Code, Fault, Headers, Message};
use crossdock_ports::Outcome;

/// A longer reply is not stored; only the fact that the message was processed is.
const REPLY_LEN_MAX: usize = 64 * 1024;
/// Maximum length of all stored replies of a route in bytes.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// The memory of an entry besides its reply, with a key of the greatest length.
const ENTRY_BYTES: usize = 768;

/// The processed messages of a route.
#[derive(Debug, Default)]
pub(crate) struct DedupCache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Each entry with the time at which it expires.
    entries: HashMap<ByteString, (DedupEntry, Instant)>,
    /// Keys in the order in which they are evicted.
    order: VecDeque<ByteString>,
    bytes: usize,
}

/// The outcome of a processed message.
#[derive(Debug, Clone)]
pub(crate) struct DedupEntry {
    /// A hash of the message, to distinguish a duplicate from a reused key.
    content: u64,
    reply: Reply,
}

#[derive(Debug, Clone)]
enum Reply {
    None,
    Message(Box<Message>, usize),
    /// The reply was too large to be stored.
    TooLarge,
}

impl DedupEntry {
    /// The entry of a processed message; `None` for a failure, which may be retried.
    pub(crate) fn of(outcome: &Outcome, content: u64) -> Option<Self> {
        let reply = match outcome {
            Outcome::Failed(_) => return None,
            Outcome::Accepted => Reply::None,
            Outcome::Replied(message) => match reply_len(message) {
                Some(len) if len <= REPLY_LEN_MAX => Reply::Message(Box::new(compact_copy(message)), len),
                _ => Reply::TooLarge,
            },
        };
        Some(Self { content, reply })
    }

    /// The outcome of another message with the same key.
    pub(crate) fn outcome(self, content: u64, wants_reply: bool) -> Outcome {
        if self.content != content {
            return Outcome::Failed(key_reused());
        }
        match self.reply {
            Reply::None => Outcome::Accepted,
            _ if !wants_reply => Outcome::Accepted,
            Reply::Message(message, _) => Outcome::Replied(*message),
            Reply::TooLarge => Outcome::Failed(carried_out()),
        }
    }

    fn bytes(&self) -> usize {
        match &self.reply {
            Reply::Message(_, len) => ENTRY_BYTES + len,
            Reply::None | Reply::TooLarge => ENTRY_BYTES,
        }
    }
}

/// The fault of a duplicate whose original had a reply that was too large.
pub(crate) fn carried_out() -> Fault {
    let message = "the message was already processed, and its reply was too large to be stored";
    Fault::caller(Code::AlreadyExists, "CARRIED_OUT", message)
}

/// The fault of a message whose key another message had.
pub(crate) fn key_reused() -> Fault {
    let message = "the key was used by a different message; use a new key for each message";
    Fault::caller(Code::InvalidArgument, "KEY_REUSED", message).with_http_status(422)
}

/// A copy that does not share the buffers that the reply was read into.
fn compact_copy(message: &Message) -> Message {
    let mut copy = message.clone();
    if let Body::Raw { chunks, format, of_type, .. } = &message.body {
        let bytes = Chunks::from(Bytes::copy_from_slice(&chunks.to_bytes()));
        copy.body = Body::Raw { chunks: bytes, format: *format, of_type: of_type.clone(), decoded: OnceCell::new() };
    }
    copy.headers = message.headers.iter().fold(Headers::new(), |mut headers, (name, value)| {
        // Both were validated when they were set.
        let _ = headers.append(ByteString::from(&**name), ByteString::from(&**value));
        headers
    });
    copy.content_type = message.content_type.as_deref().map(ByteString::from);
    copy
}

/// The length of a reply in bytes; `None` for a stream, which can be read only once.
fn reply_len(message: &Message) -> Option<usize> {
    let body = match &message.body {
        Body::Empty | Body::Null => 0,
        Body::Raw { chunks, .. } => chunks.len(),
        Body::Value(value) => crossdock_message::json::write(value).map_or(usize::MAX, |text| text.len()),
        Body::Stream(_) => return None,
    };
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    body.checked_add(headers)
}

impl DedupCache {
    /// Removes all entries.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// The entry of a key that has not expired.
    pub(crate) fn get(&self, key: &ByteString, now: Instant) -> Option<DedupEntry> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.evict_expired(now);
        state.entries.get(key).map(|(entry, _)| entry.clone())
    }

    /// Adds an entry that expires after `window`, and evicts the oldest beyond `keys_max`.
    pub(crate) fn put(&self, key: ByteString, entry: DedupEntry, window: Duration, keys_max: usize, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.evict_expired(now);
        let bytes = entry.bytes();
        while state.entries.len() >= keys_max || state.bytes + bytes > BYTES_MAX.max(keys_max * ENTRY_BYTES) {
            if !state.evict_oldest() {
                break;
            }
        }
        state.bytes += bytes;
        if let Some((old, _)) = state.entries.insert(key.clone(), (entry, now + window)) {
            // Its position in the order stays that of the replaced entry.
            state.bytes -= old.bytes();
        } else {
            state.order.push_back(key);
        }
    }
}

impl State {
    fn evict_expired(&mut self, now: Instant) {
        while self.order.front().and_then(|key| self.entries.get(key)).is_some_and(|(_, until)| *until <= now) {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) -> bool {
        let Some(key) = self.order.pop_front() else { return false };
        if let Some((entry, _)) = self.entries.remove(&key) {
            self.bytes -= entry.bytes();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> ByteString {
        number.to_string().into()
    }

    fn accepted() -> DedupEntry {
        DedupEntry::of(&Outcome::Accepted, 7).expect("a success")
    }

    #[test]
    fn an_entry_expires_after_its_window() {
        let (cache, start, time) = (DedupCache::default(), Instant::now(), Duration::from_secs(10));
        cache.put(key(1), accepted(), time, 10, start);
        assert!(matches!(cache.get(&key(1), start).map(|entry| entry.outcome(7, true)), Some(Outcome::Accepted)));
        assert!(cache.get(&key(2), start).is_none());
        let other = cache.get(&key(1), start).map(|entry| entry.outcome(8, true));
        assert!(matches!(other, Some(Outcome::Failed(fault)) if fault.reason.as_str() == "KEY_REUSED"));
        assert!(cache.get(&key(1), start + Duration::from_millis(9_999)).is_some());
        assert!(cache.get(&key(1), start + time).is_none());
        let failed = Outcome::Failed(Fault::new(Code::Unavailable, "TEST", "test"));
        assert!(DedupEntry::of(&failed, 7).is_none());
    }

    #[test]
    fn keys_and_bytes_are_bounded() {
        let (cache, start, time) = (DedupCache::default(), Instant::now(), Duration::from_secs(10));
        for number in 0..5 {
            cache.put(key(number), accepted(), time, 3, start);
        }
        let known: Vec<usize> = (0..5).filter(|number| cache.get(&key(*number), start).is_some()).collect();
        assert_eq!(known, [2, 3, 4]);
        let reply = |len: usize| {
            let mut message = Message::new("1".into(), "test".into());
            message.body = Body::raw(bytes::Bytes::from(vec![b' '; len]).into(), crossdock_message::Format::Raw);
            DedupEntry::of(&Outcome::Replied(message), 7).expect("a success")
        };
        for number in 0..2_000 {
            cache.put(key(number), reply(REPLY_LEN_MAX), time, 10_000, start);
        }
        let state = cache.0.lock().expect("a lock");
        assert!(state.bytes <= BYTES_MAX && state.entries.len() == state.order.len(), "{}", state.bytes);
        let bytes: usize = state.entries.values().map(|(entry, _)| entry.bytes()).sum();
        assert_eq!(bytes, state.bytes);
        let too_large = reply(REPLY_LEN_MAX + 1).outcome(7, true);
        assert!(matches!(too_large, Outcome::Failed(fault) if fault.reason.as_str() == "CARRIED_OUT"));
    }
}
