//! Attributes of events in headers, by the RabbitMQ Protocol Binding for CloudEvents that Knative defines: CloudEvents itself has a binding for AMQP 1.0
//! only. Headers of that one are read, too, as RabbitMQ converts its application properties into headers of AMQP 0.9.1.

use bytes::Bytes;
use crossdock_cloudevents::{self as cloudevents, Received};
use crossdock_message::{ByteString, Code, Fault, Limits, Time, Value};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{header_text, long_string};

/// The prefix of headers that are written.
const PREFIX: &str = "ce-";
/// Prefixes of headers that are read; the others are those of AMQP 1.0 (AMQP Protocol Binding for CloudEvents 1.0.2, §3.1.3.1).
const PREFIXES: [&str; 3] = [PREFIX, "cloudEvents_", "cloudEvents:"];

/// The name of an attribute; `None` for other headers.
fn attribute(header: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| {
        let (start, name) = header.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(name)
    })
}

/// Reads the event that a message is.
///
/// # Errors
/// INVALID_ARGUMENT if it is not an event.
pub(super) fn receive(
    properties: &BasicProperties,
    content_type: Option<&ByteString>,
    body: &Bytes,
    limits: &Limits,
) -> Result<Received, Fault> {
    cloudevents::receive(
        content_type,
        limits,
        || body.clone(),
        |attributes| {
            let headers = properties.headers().iter().flat_map(FieldTable::inner);
            for (name, value) in headers.filter_map(|(name, value)| Some((attribute(name.as_str())?, value))) {
                let value = attribute_value(value).ok_or_else(|| {
                    let problem = format!("the attribute `{name}` is neither a text nor an integer nor a boolean");
                    Fault::caller(Code::InvalidArgument, "EVENT", problem)
                })?;
                attributes.add(name, value)?;
            }
            Ok(())
        },
    )
}

fn attribute_value(value: &AMQPValue) -> Option<Value> {
    Some(match value {
        AMQPValue::Boolean(value) => Value::Bool(*value),
        AMQPValue::ShortShortInt(value) => Value::Int((*value).into()),
        AMQPValue::ShortShortUInt(value) => Value::Int((*value).into()),
        AMQPValue::ShortInt(value) => Value::Int((*value).into()),
        AMQPValue::ShortUInt(value) => Value::Int((*value).into()),
        AMQPValue::LongInt(value) => Value::Int((*value).into()),
        AMQPValue::LongUInt(value) => Value::Int((*value).into()),
        AMQPValue::LongLongInt(value) => Value::Int(*value),
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) => Value::Text(header_text(value)?),
        AMQPValue::Timestamp(seconds) => {
            Value::Text(Time { seconds: i64::try_from(*seconds).ok()?, nanos: 0 }.text()?.into())
        }
        _ => return None,
    })
}

/// Adds attributes to headers, in place of headers that could be taken for some.
pub(super) fn append(attributes: &[(ByteString, Value)], table: &mut FieldTable) {
    if attributes.is_empty() {
        return;
    }
    let others = table.inner().iter().filter(|(name, _)| attribute(name.as_str()).is_none());
    let mut all: FieldTable =
        others.map(|(name, value)| (name.clone(), value.clone())).collect::<std::collections::BTreeMap<_, _>>().into();
    for (name, value) in attributes {
        // Names of attributes are short.
        let Ok(name) = ShortString::try_new(format!("{PREFIX}{name}")) else { continue };
        // All are texts (Knative's specification, §3.1.3.2).
        let value = long_string(&value.scalar_text().unwrap_or_default());
        all.insert(name, value);
    }
    *table = all;
}
