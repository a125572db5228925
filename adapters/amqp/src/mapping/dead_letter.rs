//! Dead letters: messages with the reason why they are set aside, and back.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use crossdock_adapter_api::DeadLetter;
use crossdock_message::Fault;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{
    ATTEMPTS, ERROR, HOPS, ORIGIN, PREFIX, QUEUE, REASON, STATUS, append_fault, hops, long, text_of, without_expiration,
};
use crate::frames::content::UNREADABLE;

/// Headers by which a broker routes a message to more places, and what it counts itself: a dead letter has them no more.
const BROKER_HEADERS: [&str; 3] = ["CC", "BCC", "x-delivery-count"];

/// Says that the headers that a message came with are lost.
const DROPPED: &str = "crossdock-headers-dropped";

/// Headers that a dead letter has not from its sender.
fn is_ours(name: &ShortString) -> bool {
    let is_prefixed = name.as_str().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    is_prefixed || BROKER_HEADERS.contains(&name.as_str())
}

/// The headers that a message has from its sender.
fn senders_own(properties: &BasicProperties) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner).filter(|(name, _)| !is_ours(name)) {
        table.insert(name.clone(), value.clone());
    }
    table
}

/// The properties of a dead letter: those that it came with, and why it is one.
///
/// Where `with_headers` is not set, the headers that it came with are left out, and that is said.
pub(crate) fn dead_letter(
    came: &BasicProperties,
    queue: &str,
    fault: &Fault,
    attempts: u32,
    with_headers: bool,
) -> BasicProperties {
    let mut table = if with_headers { senders_own(came) } else { FieldTable::default() };
    let unreadable = came.headers().as_ref().and_then(|headers| headers.inner().get(UNREADABLE));
    if !with_headers || unreadable.is_some() {
        table.insert(DROPPED.into(), AMQPValue::Boolean(true));
    }
    if let Some(raw) = unreadable.filter(|_| with_headers) {
        table.insert(UNREADABLE.into(), raw.clone());
    }
    append_fault(fault, &mut table);
    table.insert(QUEUE.into(), long(queue));
    table.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(i64::from(attempts)));
    table.insert(HOPS.into(), AMQPValue::LongLongInt(i64::from(hops(came).saturating_add(1))));
    // A dead letter does not expire.
    without_expiration(came).with_headers(table).with_delivery_mode(2)
}

/// A dead letter as those see it who look after them.
pub(crate) fn letter(properties: &BasicProperties, body: Bytes) -> DeadLetter {
    let empty = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&empty);
    // By their exact names: those that a sender may have written are of other spellings.
    let text = |name: &str| table.inner().get(name).and_then(text_of);
    let named = properties.message_id().as_ref().map(ShortString::as_str).filter(|id| !id.is_empty());
    let id = named.map_or_else(
        || {
            // The same each time that it is looked at.
            let mut hasher = DefaultHasher::new();
            (&body, properties.correlation_id().as_ref().map(ShortString::as_str)).hash(&mut hasher);
            format!("~{:016x}", hasher.finish()).into()
        },
        Into::into,
    );
    let own = table.inner().iter().filter(|(name, _)| !is_ours(name));
    let headers = own.filter_map(|(name, value)| Some((name.as_str().into(), text_of(value)?)));
    DeadLetter {
        id,
        code: text(STATUS).and_then(|text| text.parse().ok()),
        reason: text(REASON),
        error: text(ERROR),
        origin: text(ORIGIN),
        source: text(QUEUE),
        attempts: text(ATTEMPTS),
        content_type: properties.content_type().as_ref().map(|text| text.as_str().into()),
        headers: headers.collect(),
        is_partial: table.inner().contains_key(DROPPED),
        body,
    }
}

/// The properties of a dead letter that goes back: those that it came with.
pub(crate) fn replayed(properties: &BasicProperties) -> BasicProperties {
    without_expiration(properties).with_headers(senders_own(properties)).with_delivery_mode(2)
}
