//! Settings as checked; nothing downstream checks them again.

mod entry;
mod listener;
mod operation;
mod service;

use crossdock_settings::{Reader, Spanned};

pub(crate) use entry::{Entry, RejectPolicy, RetryTopic};
pub(crate) use listener::Listener;
pub(crate) use operation::{Operation, Subject};
pub(crate) use service::{Replies, Service};

/// The longest name of a topic (Kafka, `Topic.MAX_NAME_LENGTH`).
const TOPIC_LEN_MAX: usize = 249;

/// Checks the name of a topic (Kafka, `Topic.validate`).
fn topic(text: &Spanned<String>, reader: &mut Reader<'_>) -> Option<String> {
    let name = &text.value;
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > TOPIC_LEN_MAX || !name.bytes().all(is_legal) || matches!(&**name, "." | "..") {
        let message = "the name of a topic must have 1 to 249 letters, digits, `.`, `_` or `-`";
        reader.error("topic", text.span, message, "");
        return None;
    }
    Some(name.clone())
}
