//! Dead letters: adds the reason to a rejected message, and reads and removes it again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use crossdock_delivery::dead_letter::{self as letter, ATTEMPTS, DROPPED, HOPS, QUEUE};
use crossdock_message::Fault;
use crossdock_ports::DeadLetter;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{append_fault, copy_properties, dead_letter_count, header_text, long_string};
use crate::frames::content::UNREADABLE;

/// Headers by which the broker routes to additional queues or counts deliveries; a dead letter does not keep them.
const BROKER_HEADERS: [&str; 3] = ["CC", "BCC", "x-delivery-count"];

/// Whether a header of a dead letter does not come from the original sender.
fn is_added(name: &ShortString) -> bool {
    letter::is_added(name.as_str()) || BROKER_HEADERS.contains(&name.as_str())
}

/// The headers from the original sender.
fn sender_headers(properties: &BasicProperties) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner).filter(|(name, _)| !is_added(name)) {
        table.insert(name.clone(), value.clone());
    }
    table
}

/// The properties of a dead letter: those of the rejected message, with the reason.
///
/// Without `with_headers`, the headers of the message are dropped, and the dead letter is marked.
pub(crate) fn dead_letter_properties(
    received: &BasicProperties,
    queue: &str,
    fault: &Fault,
    attempts: u32,
    with_headers: bool,
) -> BasicProperties {
    let mut table = if with_headers { sender_headers(received) } else { FieldTable::default() };
    let unreadable = received.headers().as_ref().and_then(|headers| headers.inner().get(UNREADABLE));
    if !with_headers || unreadable.is_some() {
        table.insert(DROPPED.into(), AMQPValue::Boolean(true));
    }
    if let Some(raw) = unreadable.filter(|_| with_headers) {
        table.insert(UNREADABLE.into(), raw.clone());
    }
    append_fault(fault, &mut table);
    table.insert(QUEUE.into(), long_string(queue));
    table.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(i64::from(attempts)));
    table.insert(HOPS.into(), AMQPValue::LongLongInt(i64::from(dead_letter_count(received).saturating_add(1))));
    // A dead letter does not expire.
    copy_properties(received).with_headers(table).with_delivery_mode(2)
}

/// Parses a dead letter.
pub(crate) fn parse_dead_letter(properties: &BasicProperties, body: Bytes) -> DeadLetter {
    let empty = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&empty);
    let named = properties.message_id().as_ref().map(ShortString::as_str).filter(|id| !id.is_empty());
    let id = named.map_or_else(
        || {
            // Stable across visits.
            let mut hasher = DefaultHasher::new();
            (&body, properties.correlation_id().as_ref().map(ShortString::as_str)).hash(&mut hasher);
            format!("~{:016x}", hasher.finish()).into()
        },
        Into::into,
    );
    let own_headers = table.inner().iter().filter(|(name, _)| !is_added(name));
    let headers = own_headers.filter_map(|(name, value)| Some((name.as_str().into(), header_text(value)?)));
    let mut letter = DeadLetter {
        id,
        content_type: properties.content_type().as_ref().map(|text| text.as_str().into()),
        headers: headers.collect(),
        is_partial: table.inner().contains_key(DROPPED),
        body,
        ..DeadLetter::default()
    };
    letter::read_headers(&mut letter, |name| table.inner().get(name).and_then(header_text));
    letter
}

/// The properties of a replayed dead letter: those of the original message.
pub(crate) fn replay_properties(properties: &BasicProperties) -> BasicProperties {
    copy_properties(properties).with_headers(sender_headers(properties)).with_delivery_mode(2)
}
