//! Keys of messages that were carried out, with what came of them. Bounded by time, number and bytes.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_adapter_api::Outcome;
use crossdock_message::{Body, ByteString, Chunks, Code, Fault, Headers, Message};

/// A reply of more bytes is not kept: it is only known that there was one.
const REPLY_LEN_MAX: usize = 64 * 1024;
/// All replies of a route.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an entry weighs besides its reply, with the longest key.
const ENTRY_BYTES: usize = 768;

/// The keys of a route that are known.
#[derive(Debug, Default)]
pub(super) struct Window(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: HashMap<ByteString, (Known, Instant)>,
    /// In the order in which they are forgotten.
    order: VecDeque<ByteString>,
    bytes: usize,
}

/// What came of a message.
#[derive(Debug, Clone)]
pub(super) struct Known {
    content: u64,
    reply: Reply,
}

#[derive(Debug, Clone)]
enum Reply {
    Nothing,
    Message(Box<Message>, usize),
    /// It was too large to be kept.
    NotKept,
}

impl Known {
    /// Nothing of a failure.
    pub(super) fn of(outcome: &Outcome, content: u64) -> Option<Self> {
        let reply = match outcome {
            Outcome::Failed(_) => return None,
            Outcome::Accepted => Reply::Nothing,
            Outcome::Replied(message) => match weight(message) {
                Some(len) if len <= REPLY_LEN_MAX => Reply::Message(Box::new(apart(message)), len),
                _ => Reply::NotKept,
            },
        };
        Some(Self { content, reply })
    }

    /// What a message of the same key gets.
    pub(super) fn outcome(self, content: u64, wants_reply: bool) -> Outcome {
        if self.content != content {
            let message = "the key was that of another message; give each message a key of its own";
            return Outcome::Failed(Fault::caller(Code::InvalidArgument, "KEY_REUSED", message).with_http_status(422));
        }
        match self.reply {
            Reply::Nothing => Outcome::Accepted,
            _ if !wants_reply => Outcome::Accepted,
            Reply::Message(message, _) => Outcome::Replied(*message),
            Reply::NotKept => {
                let message = "the message was carried out before, and its reply was too large to be kept";
                Outcome::Failed(Fault::caller(Code::AlreadyExists, "CARRIED_OUT", message))
            }
        }
    }

    fn bytes(&self) -> usize {
        match &self.reply {
            Reply::Message(_, len) => ENTRY_BYTES + len,
            Reply::Nothing | Reply::NotKept => ENTRY_BYTES,
        }
    }
}

/// A reply that holds nothing of the buffers that it was read from.
fn apart(message: &Message) -> Message {
    let mut copy = message.clone();
    if let Body::Raw { chunks, format, of_type, .. } = &message.body {
        let bytes = Chunks::from(Bytes::copy_from_slice(&chunks.to_bytes()));
        copy.body = Body::Raw { chunks: bytes, format: *format, of_type: of_type.clone(), decoded: OnceCell::new() };
    }
    copy.headers = message.headers.iter().fold(Headers::new(), |mut headers, (name, value)| {
        // They were checked when they were set.
        let _ = headers.append(ByteString::from(&**name), ByteString::from(&**value));
        headers
    });
    copy.content_type = message.content_type.as_deref().map(ByteString::from);
    copy
}

/// The bytes of a reply; nothing for one that is there only once.
fn weight(message: &Message) -> Option<usize> {
    let body = match &message.body {
        Body::Empty => 0,
        Body::Raw { chunks, .. } => chunks.len(),
        Body::Value(value) => crossdock_message::json::write(value).map_or(usize::MAX, |text| text.len()),
        Body::Stream(_) => return None,
    };
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    body.checked_add(headers)
}

impl Window {
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    pub(super) fn get(&self, key: &ByteString, now: Instant) -> Option<Known> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old(now);
        state.known.get(key).map(|(known, _)| known.clone())
    }

    pub(super) fn put(&self, key: ByteString, known: Known, window: Duration, keys_max: usize, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old(now);
        let bytes = known.bytes();
        while state.known.len() >= keys_max || state.bytes + bytes > BYTES_MAX.max(keys_max * ENTRY_BYTES) {
            if !state.forget_oldest() {
                break;
            }
        }
        state.bytes += bytes;
        if let Some((old, _)) = state.known.insert(key.clone(), (known, now + window)) {
            // Only where its place in the order is still there.
            state.bytes -= old.bytes();
        } else {
            state.order.push_back(key);
        }
    }
}

impl State {
    fn forget_old(&mut self, now: Instant) {
        while self.order.front().and_then(|key| self.known.get(key)).is_some_and(|(_, until)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(key) = self.order.pop_front() else { return false };
        if let Some((known, _)) = self.known.remove(&key) {
            self.bytes -= known.bytes();
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

    fn accepted() -> Known {
        Known::of(&Outcome::Accepted, 7).expect("a success")
    }

    #[test]
    fn a_key_is_known_for_its_time() {
        let (window, start, time) = (Window::default(), Instant::now(), Duration::from_secs(10));
        window.put(key(1), accepted(), time, 10, start);
        assert!(matches!(window.get(&key(1), start).map(|known| known.outcome(7, true)), Some(Outcome::Accepted)));
        assert!(window.get(&key(2), start).is_none());
        let other = window.get(&key(1), start).map(|known| known.outcome(8, true));
        assert!(matches!(other, Some(Outcome::Failed(fault)) if fault.reason == "KEY_REUSED"));
        assert!(window.get(&key(1), start + Duration::from_millis(9_999)).is_some());
        assert!(window.get(&key(1), start + time).is_none());
        let failed = Outcome::Failed(Fault::new(Code::Unavailable, "TEST", "test"));
        assert!(Known::of(&failed, 7).is_none());
    }

    #[test]
    fn keys_and_bytes_are_bounded() {
        let (window, start, time) = (Window::default(), Instant::now(), Duration::from_secs(10));
        for number in 0..5 {
            window.put(key(number), accepted(), time, 3, start);
        }
        let known: Vec<usize> = (0..5).filter(|number| window.get(&key(*number), start).is_some()).collect();
        assert_eq!(known, [2, 3, 4]);
        let reply = |len: usize| {
            let mut message = Message::new("1".into(), "test".into());
            message.body = Body::raw(bytes::Bytes::from(vec![b' '; len]).into(), crossdock_message::Format::Raw);
            Known::of(&Outcome::Replied(message), 7).expect("a success")
        };
        for number in 0..2_000 {
            window.put(key(number), reply(REPLY_LEN_MAX), time, 10_000, start);
        }
        let state = window.0.lock().expect("a lock");
        assert!(state.bytes <= BYTES_MAX && state.known.len() == state.order.len(), "{}", state.bytes);
        let bytes: usize = state.known.values().map(|(known, _)| known.bytes()).sum();
        assert_eq!(bytes, state.bytes);
        let too_large = reply(REPLY_LEN_MAX + 1).outcome(7, true);
        assert!(matches!(too_large, Outcome::Failed(fault) if fault.reason == "CARRIED_OUT"));
    }
}
