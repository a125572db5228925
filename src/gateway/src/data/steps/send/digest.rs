//! Digests of messages, by which a send of an earlier attempt is recognized.

use std::hash::{BuildHasher as _, Hash as _, Hasher, RandomState};
use std::sync::LazyLock;

use crossdock_message::{Body, Headers, Message, Record, Value};
use crossdock_routing::{CallPlan, ServicePlan};

/// Two keyed hashes make a digest, so that no sender can find two messages with the same one.
static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);

/// The digest of a message to an operation: of everything by which the receiver can tell two messages apart, and of its address, which a reload may
/// change.
pub(super) fn digest(service: &ServicePlan, plan: &CallPlan, message: &Message) -> u128 {
    let [high, low] = [&KEYS[0], &KEYS[1]].map(|keys| {
        let mut hasher = keys.build_hasher();
        service.name.hash(&mut hasher);
        service.spec.endpoints().hash(&mut hasher);
        plan.operation_name.hash(&mut hasher);
        plan.operation.describe().hash(&mut hasher);
        hash_message(message, &mut hasher);
        hasher.finish()
    });
    u128::from(high) << 64 | u128::from(low)
}

fn hash_message(message: &Message, hasher: &mut impl Hasher) {
    message.id.hash(hasher);
    message.content_type.hash(hasher);
    hash_headers(&message.headers, hasher);
    hash_record(&message.params, hasher);
    message.query.hash(hasher);
    message.key.hash(hasher);
    message.time.map(|time| (time.seconds, time.nanos)).hash(hasher);
    message.event.is_some().hash(hasher);
    if let Some(event) = &message.event {
        hash_record(event.attributes(), hasher);
    }
    std::mem::discriminant(&message.body).hash(hasher);
    match &message.body {
        Body::Empty | Body::Null | Body::Stream(_) => {}
        Body::Raw { chunks, format, of_type, .. } => {
            format.name().hash(hasher);
            of_type.as_ref().map(|of_type| of_type.name()).hash(hasher);
            chunks.to_bytes().hash(hasher);
        }
        Body::Value(value) => hash_value(value, hasher),
    }
}

fn hash_headers(headers: &Headers, hasher: &mut impl Hasher) {
    headers.len().hash(hasher);
    for header in headers.iter() {
        header.hash(hasher);
    }
}

fn hash_record(record: &Record, hasher: &mut impl Hasher) {
    record.len().hash(hasher);
    record.shape().map(|shape| &shape.name).hash(hasher);
    record.unknown().hash(hasher);
    for (name, value) in record.iter() {
        name.hash(hasher);
        hash_value(value, hasher);
    }
}

/// Recursion is bounded by the depth of values.
fn hash_value(value: &Value, hasher: &mut impl Hasher) {
    std::mem::discriminant(value).hash(hasher);
    match value {
        Value::Null => {}
        Value::Bool(value) => value.hash(hasher),
        Value::Int(number) => number.hash(hasher),
        Value::UInt(number) => number.hash(hasher),
        Value::Decimal(number) => number.as_str().hash(hasher),
        Value::F32(number) => number.to_bits().hash(hasher),
        Value::F64(number) => number.to_bits().hash(hasher),
        Value::Text(text) => text.hash(hasher),
        Value::Bytes(bytes) => bytes.hash(hasher),
        Value::Time(time) => (time.seconds, time.nanos).hash(hasher),
        Value::Duration(span) => (span.seconds, span.nanos).hash(hasher),
        Value::List(items) => {
            items.len().hash(hasher);
            for item in items {
                hash_value(item, hasher);
            }
        }
        Value::Record(record) => hash_record(record, hasher),
    }
}
