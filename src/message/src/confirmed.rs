//! What was sent for a message in earlier attempts to process it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;

use crate::{Body, Message};

/// The sends that receivers have confirmed while a message was processed, over all attempts. An attempt does not repeat what an earlier one has sent, so
/// that a fan-out that failed in part is completed rather than sent again.
///
/// Sends are recognized by receiver, id and content: a message that an attempt makes anew is the same only if nothing of it differs.
#[derive(Debug, Default)]
pub struct ConfirmedSends(Mutex<Attempts>);

#[derive(Debug, Default)]
struct Attempts {
    current: u32,
    len: usize,
    /// By receiver and message id.
    sends: HashMap<(ByteString, ByteString), Vec<Send>>,
}

#[derive(Debug)]
struct Send {
    message: Message,
    /// The last attempt that sent or skipped it: each attempt may skip it once.
    attempt: u32,
}

impl ConfirmedSends {
    /// How many are remembered; the others are sent again.
    pub const LEN_MAX: usize = 20_000;

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt.
    pub fn begin_attempt(&self) {
        self.attempts().current += 1;
    }

    /// Whether an earlier attempt has sent this message. Each of several equal ones is skipped once.
    #[must_use]
    pub fn skip(&self, receiver: &ByteString, message: &Message) -> bool {
        let attempts = &mut *self.attempts();
        let Some(sends) = attempts.sends.get_mut(&(receiver.clone(), message.id.clone())) else { return false };
        let found = sends.iter_mut().find(|send| send.attempt < attempts.current && is_same(&send.message, message));
        found.map(|send| send.attempt = attempts.current).is_some()
    }

    /// Remembers a message that was confirmed.
    pub fn add(&self, receiver: &ByteString, message: Message) {
        // They refer to this.
        let message = Message { context: None, work: None, deadline: None, ..message };
        let mut attempts = self.attempts();
        if attempts.len < Self::LEN_MAX {
            attempts.len += 1;
            let attempt = attempts.current;
            let key = (receiver.clone(), message.id.clone());
            attempts.sends.entry(key).or_default().push(Send { message, attempt });
        }
    }
}

/// Whether the receiver cannot tell two messages apart.
fn is_same(one: &Message, other: &Message) -> bool {
    let bodies = match (&one.body, &other.body) {
        (Body::Empty, Body::Empty) | (Body::Null, Body::Null) => true,
        (
            Body::Raw { chunks, format, of_type, .. },
            Body::Raw { chunks: other_chunks, format: other_format, of_type: other_type, .. },
        ) => {
            let name = |of_type: &Option<std::sync::Arc<dyn crate::BodyType>>| {
                of_type.as_ref().map(|of_type| of_type.name().to_owned())
            };
            format == other_format && name(of_type) == name(other_type) && chunks.to_bytes() == other_chunks.to_bytes()
        }
        (Body::Value(value), Body::Value(other)) => value == other,
        _ => false,
    };
    bodies
        && one.content_type == other.content_type
        && one.headers == other.headers
        && one.params == other.params
        && one.query == other.query
        && one.key == other.key
        && one.time == other.time
        && one.event == other.event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn message(id: &'static str, value: i64) -> Message {
        let mut message = Message::new(ByteString::from_static(id), ByteString::new());
        message.body = Body::Value(Value::Int(value));
        message
    }

    #[test]
    fn an_attempt_skips_what_an_earlier_one_sent_as_often_as_it_was_sent() {
        let (sends, receiver) = (ConfirmedSends::default(), ByteString::from_static("a.b"));
        sends.begin_attempt();
        for _ in 0..2 {
            assert!(!sends.skip(&receiver, &message("1", 5)), "of the same attempt");
            sends.add(&receiver, message("1", 5));
        }
        for _ in 0..3 {
            sends.begin_attempt();
            assert!(!sends.skip(&ByteString::from_static("a.c"), &message("1", 5)), "another receiver");
            assert!(!sends.skip(&receiver, &message("1.1", 5)), "another part");
            assert!(!sends.skip(&receiver, &message("1", 6)), "other content");
            assert!(sends.skip(&receiver, &message("1", 5)) && sends.skip(&receiver, &message("1", 5)));
            assert!(!sends.skip(&receiver, &message("1", 5)), "the third of two");
        }
    }

    #[test]
    fn the_number_of_sends_is_limited() {
        let (sends, receiver) = (ConfirmedSends::default(), ByteString::from_static("a.b"));
        sends.begin_attempt();
        for _ in 0..=ConfirmedSends::LEN_MAX {
            sends.add(&receiver, message("1", 0));
        }
        assert_eq!(sends.attempts().len, ConfirmedSends::LEN_MAX);
    }
}
