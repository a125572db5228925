//! Maps canonical messages to and from properties, headers and bodies. Pure.

mod dead_letter;
mod event;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_cloudevents::Data;
use crossdock_contract::CallType;
use crossdock_delivery::dead_letter::{self as letter, ERROR, FaultHeaders, ORIGIN, PREFIX, REASON, STATUS};
use crossdock_delivery::{fault_body, reported_fault};
use crossdock_message::{
    Body, BodyType, ByteString, Chunks, Code, Deadline, Fault, Format, Headers, Message, RequestContext, Time,
    TraceContext, Value,
};
use crossdock_ports::Fields;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub(crate) use self::dead_letter::{dead_letter_properties, parse_dead_letter, replay_properties};
use crate::config::Entry;
use crate::error::{bad_reply, too_long};
use crate::frames::content::UNREADABLE;

/// The method of every message received from a queue.
pub(crate) const CONSUME: &str = "CONSUME";
/// Unreserved characters, which a path contains unescaped (RFC 3986 §2.3).
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The longest AMQP message id, in bytes, that becomes the message id.
const ID_LEN_MAX: usize = 128;
/// The longest trace header that is forwarded, in bytes (W3C Trace Context §3.3.1.5 requires at least 512).
const TRACE_LEN_MAX: usize = 512;

/// The canonical path of a queue.
pub(crate) fn queue_path(queue: &str) -> String {
    format!("/{}", utf8_percent_encode(queue, UNESCAPED))
}

/// Whether the message is a request.
pub(crate) fn has_reply_to(properties: &BasicProperties) -> bool {
    properties.reply_to().as_ref().is_some_and(|queue| !queue.as_str().is_empty())
}

/// When a message that was received at `now` expires.
///
/// # Errors
/// INVALID_ARGUMENT for an expiration that is not a number of milliseconds (AMQP encodes it as text).
pub(crate) fn expiry(properties: &BasicProperties, now: Instant) -> Result<Option<Instant>, Fault> {
    let Some(expiration) = properties.expiration() else { return Ok(None) };
    let millis: u64 = expiration.as_str().parse().map_err(|_| {
        Fault::caller(Code::InvalidArgument, "EXPIRATION", "the expiration must be a number of milliseconds")
    })?;
    Ok(now.checked_add(Duration::from_millis(millis)))
}

/// How often gateways have dead-lettered a message ([`letter::count`]).
pub(crate) fn dead_letter_count(properties: &BasicProperties) -> u32 {
    let table = properties.headers().as_ref().map(FieldTable::inner);
    letter::count(|name| table?.get(name).and_then(header_text))
}

/// Whether the frame filter removed unreadable properties from the message.
pub(crate) fn is_unreadable(properties: &BasicProperties) -> bool {
    properties.headers().as_ref().is_some_and(|table| table.inner().contains_key(UNREADABLE))
}

/// The headers of a delivery, for routes that match on them.
pub(crate) struct DeliveryFields<'d>(pub(crate) &'d BasicProperties);

impl Fields for DeliveryFields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let headers = self.0.headers().as_ref()?;
        match header(headers, name)? {
            AMQPValue::LongString(text) => Some(text.as_bytes()),
            AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
            _ => None,
        }
    }
}

/// Finds a header; names are case-insensitive.
fn header<'t>(table: &'t FieldTable, name: &str) -> Option<&'t AMQPValue> {
    table.inner().iter().find(|(key, _)| key.as_str().eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The exact text of a scalar; `None` for tables, arrays and bytes.
fn header_text(value: &AMQPValue) -> Option<ByteString> {
    Some(match value {
        AMQPValue::LongString(text) => ByteString::try_from(Bytes::copy_from_slice(text.as_bytes())).ok()?,
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::Boolean(value) => value.to_string().into(),
        AMQPValue::ShortShortInt(value) => value.to_string().into(),
        AMQPValue::ShortShortUInt(value) => value.to_string().into(),
        AMQPValue::ShortInt(value) => value.to_string().into(),
        AMQPValue::ShortUInt(value) => value.to_string().into(),
        AMQPValue::LongInt(value) => value.to_string().into(),
        AMQPValue::LongUInt(value) => value.to_string().into(),
        AMQPValue::LongLongInt(value) => value.to_string().into(),
        AMQPValue::Float(value) => value.to_string().into(),
        AMQPValue::Double(value) => value.to_string().into(),
        // Seconds since 1970.
        AMQPValue::Timestamp(seconds) => Time { seconds: i64::try_from(*seconds).ok()?, nanos: 0 }.text()?.into(),
        AMQPValue::DecimalValue(decimal) => decimal_text(decimal.value, decimal.scale).into(),
        _ => return None,
    })
}

/// `value` with `scale` digits after the decimal point.
fn decimal_text(value: u32, scale: u8) -> String {
    let scale = usize::from(scale);
    let mut digits = format!("{value:0>width$}", width = scale + 1);
    if scale > 0 {
        digits.insert(digits.len() - scale, '.');
    }
    digits
}

/// The listed headers; the name of a header that not every protocol can represent is the error.
fn select_headers(properties: &BasicProperties, carry: &[ByteString]) -> Result<Headers, ByteString> {
    let mut headers = Headers::new();
    let Some(table) = properties.headers() else { return Ok(headers) };
    for name in carry.iter().filter(|name| !name.starts_with(PREFIX)) {
        // Names are case-insensitive here but not at the broker: names that differ in case are several values.
        let found = table.inner().iter().filter(|(key, _)| key.as_str().eq_ignore_ascii_case(name));
        let values = found.flat_map(|(_, value)| match value {
            AMQPValue::FieldArray(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        });
        for value in values {
            let appended = header_text(value).map(|text| headers.append(name.clone(), text));
            if !matches!(appended, Some(Ok(()))) {
                return Err(name.clone());
            }
        }
    }
    Ok(headers)
}

pub(crate) fn trace(properties: &BasicProperties) -> Option<TraceContext> {
    let table = properties.headers().as_ref()?;
    // Ignore a trace that headers of other protocols cannot represent.
    let carriable =
        |text: &ByteString| text.len() <= TRACE_LEN_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    // Ignore a trace with several parents (W3C Trace Context §3.2).
    let is_parent = |key: &&ShortString| key.as_str().eq_ignore_ascii_case("traceparent");
    if table.inner().keys().filter(is_parent).nth(1).is_some() {
        return None;
    }
    let parent = header_text(header(table, "traceparent")?).filter(carriable)?;
    let state = header(table, "tracestate").and_then(header_text).filter(carriable);
    Some(TraceContext { parent, state })
}

/// Converts a delivery to a message. The AMQP message id becomes the message id, so that it is the same for every attempt.
///
/// # Errors
/// INVALID_ARGUMENT for an invalid header, expiration, content type or body.
pub(crate) fn request(
    properties: &BasicProperties,
    body: Bytes,
    context: &Arc<RequestContext>,
    source: &ByteString,
    request_headers: &[ByteString],
    entry: &Entry,
) -> Result<Message, Fault> {
    let call = entry.call.as_ref();
    let message_id = properties.message_id().as_ref().map(ShortString::as_str);
    let is_valid =
        |id: &&str| !id.is_empty() && id.len() <= ID_LEN_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
    let mut message =
        Message::new(message_id.filter(is_valid).map_or_else(|| context.id.clone(), ByteString::from), source.clone());
    message.context = Some(Arc::clone(context));
    message.headers = select_headers(properties, request_headers).map_err(|name| {
        let problem = format!("the header `{name}` cannot be represented in every protocol");
        Fault::caller(Code::InvalidArgument, "HEADER", problem).with_detail("header", name)
    })?;
    // The expiration of a request is its deadline; a one-way message that has been delivered can still be processed.
    let expiry = expiry(properties, context.received_at)?;
    message.deadline = expiry.filter(|_| has_reply_to(properties)).map(Deadline::at);
    message.content_type = properties.content_type().as_ref().map(|text| text.as_str().into());
    let (mut body, mut is_present) = (body, false);
    if let Some(limits) = &entry.events {
        let received = event::receive(properties, message.content_type.as_ref(), &body, limits)?;
        message.event = Some(received.event);
        message.content_type = received.content_type;
        match received.data {
            Data::Body => {}
            Data::Bytes(data) => (body, is_present) = (data, true),
            Data::None => body = Bytes::new(),
        }
    }
    message.body = match call {
        None if is_present => {
            let format = message.content_type.as_deref().map_or(Format::Raw, Format::of_media_type);
            Body::present(body.into(), format)
        }
        _ if body.is_empty() && call.is_none() => Body::Empty,
        None => raw_body(body, message.content_type.as_ref()),
        Some(call) => {
            let format = match message.content_type.as_deref() {
                // A body with a contract is JSON by default.
                None => Format::Json,
                Some(media_type) => Format::of_media_type(media_type),
            };
            let of_type = &call.request;
            if !matches!(format, Format::Json | Format::Protobuf) {
                let problem = "the content type must be application/json or application/x-protobuf";
                return Err(Fault::caller(Code::InvalidArgument, "CONTENT_TYPE", problem).with_http_status(415));
            }
            // Validate against the contract now, whatever the destination.
            let wire = of_type.recode(&body, format, Format::Protobuf)?;
            message.content_type = None;
            Body::typed(wire.into(), Format::Protobuf, Arc::clone(of_type) as Arc<dyn BodyType>)
        }
    };
    Ok(message)
}

fn raw_body(body: impl Into<Chunks>, content_type: Option<&ByteString>) -> Body {
    let format = content_type.map_or(Format::Raw, |media_type| Format::of_media_type(media_type));
    Body::raw(body.into(), format)
}

fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().to_vec().into())
}

/// Appends headers; repeated ones become an array.
fn append_headers(headers: &Headers, table: &mut FieldTable) -> Result<(), Fault> {
    for (name, value) in headers.iter() {
        let key = ShortString::try_new(&**name).map_err(|_| too_long("header name"))?;
        let joined = match table.inner().get(&key) {
            None => long_string(value),
            Some(AMQPValue::FieldArray(items)) => AMQPValue::FieldArray(
                items.as_slice().iter().cloned().chain([long_string(value)]).collect::<Vec<_>>().into(),
            ),
            Some(one) => AMQPValue::FieldArray(vec![one.clone(), long_string(value)].into()),
        };
        table.insert(key, joined);
    }
    Ok(())
}

/// The properties of a message to a service or of a reply. `attributes` are those of an event in binary mode.
///
/// # Errors
/// INVALID_ARGUMENT for a header name or media type that is too long.
pub(crate) fn call_properties(
    message: &Message,
    content_type: Option<&ByteString>,
    attributes: &[(ByteString, Value)],
    persistent: bool,
) -> Result<BasicProperties, Fault> {
    let mut table = FieldTable::default();
    append_headers(&message.headers, &mut table)?;
    event::append(attributes, &mut table);
    if let Some(trace) = message.trace() {
        table.insert("traceparent".into(), long_string(&trace.parent));
        if let Some(state) = &trace.state {
            table.insert("tracestate".into(), long_string(state));
        }
    }
    let mut properties =
        BasicProperties::default().with_headers(table).with_delivery_mode(if persistent { 2 } else { 1 });
    if let Ok(id) = ShortString::try_new(&*message.id) {
        properties = properties.with_message_id(id);
    }
    Ok(match content_type {
        Some(text) => properties.with_content_type(ShortString::try_new(&**text).map_err(|_| too_long("media type"))?),
        None => properties,
    })
}

/// An upper bound of the encoded length of properties.
pub(crate) fn encoded_len_max(properties: &BasicProperties) -> usize {
    fn value(given: &AMQPValue) -> usize {
        // All other types take at most 8 bytes.
        9 + match given {
            AMQPValue::LongString(text) => text.len(),
            AMQPValue::ShortString(text) => text.as_str().len(),
            AMQPValue::ByteArray(bytes) => bytes.len(),
            AMQPValue::FieldArray(items) => items.as_slice().iter().map(value).sum(),
            AMQPValue::FieldTable(inner) => table(inner),
            _ => 0,
        }
    }
    fn table(given: &FieldTable) -> usize {
        given.inner().iter().map(|(name, content)| 1 + name.as_str().len() + value(content)).sum::<usize>() + 4
    }
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.message_id(),
        properties.kind(),
        properties.app_id(),
    ];
    texts.into_iter().flatten().map(|text| 1 + text.as_str().len()).sum::<usize>()
        + properties.headers().as_ref().map_or(0, table)
        + 64
}

/// Sets the expiration to the time left until the deadline, in whole milliseconds: after it, nobody waits for the reply.
pub(crate) fn with_expiration(properties: BasicProperties, message: &Message, now: Instant) -> BasicProperties {
    match message.deadline {
        Some(deadline) => properties.with_expiration(deadline.left(now).as_millis().max(1).to_string().as_str().into()),
        None => properties,
    }
}

/// Converts a reply of a service; the fault that its headers report is the error. A body without a media type has the default format.
pub(crate) fn reply(
    properties: &BasicProperties,
    body: Chunks,
    default_format: Format,
    call: Option<&Arc<CallType>>,
    carry: &[ByteString],
) -> Result<Message, Fault> {
    let text = |name: &str| properties.headers().as_ref().and_then(|table| header(table, name)).and_then(header_text);
    if let Some(fault) = reported_fault(text) {
        return Err(fault);
    }
    if is_unreadable(properties) {
        return Err(bad_reply(
            "its properties contain text that is not UTF-8, unknown types, or more than 64 nesting levels",
        ));
    }
    let mut message = Message::new(ByteString::new(), ByteString::new());
    message.headers =
        select_headers(properties, carry).map_err(|_| bad_reply("a header cannot be represented in every protocol"))?;
    message.content_type = properties.content_type().as_ref().map(|text| text.as_str().into());
    let format = message.content_type.as_deref().map_or(default_format, Format::of_media_type);
    message.body = match call {
        Some(call) if matches!(format, Format::Json | Format::Protobuf) => {
            Body::typed(body, format, Arc::clone(&call.reply) as Arc<dyn BodyType>)
        }
        _ if body.is_empty() => Body::Empty,
        _ => Body::raw(body, format),
    };
    Ok(message)
}

/// The properties and body of the reply that reports a fault.
pub(crate) fn fault_reply(fault: &Fault) -> (BasicProperties, Bytes) {
    let mut table = FieldTable::default();
    append_fault(fault, &mut table);
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_content_type("application/json".into())
        .with_delivery_mode(1);
    (properties, fault_body(fault))
}

fn append_fault(fault: &Fault, table: &mut FieldTable) {
    let headers = FaultHeaders::new(fault);
    table.insert(STATUS.into(), AMQPValue::LongInt(headers.status));
    table.insert(REASON.into(), long_string(headers.reason));
    table.insert(ERROR.into(), long_string(headers.error));
    table.insert(ORIGIN.into(), long_string(headers.origin));
}

/// The properties of a late reply that is forwarded: its own, with the id of its request as correlation id.
pub(crate) fn late_reply_properties(received: &BasicProperties) -> BasicProperties {
    let mut properties = copy_properties(received).with_delivery_mode(2);
    if let Some(headers) = received.headers() {
        properties = properties.with_headers(headers.clone());
    }
    let request = received.correlation_id().as_ref().and_then(|id| id.as_str().splitn(3, '.').nth(2));
    match request {
        Some(request) => properties.with_correlation_id(request.into()),
        None => properties,
    }
}

/// The properties without headers, delivery mode, expiration, and user id, which the broker would validate against the user of the connection.
fn copy_properties(received: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    macro_rules! keep {
        ($($name:ident: $set:ident),*) => {$(
            if let Some(value) = received.$name() {
                kept = kept.$set(value.clone());
            }
        )*};
    }
    keep!(
        content_type: with_content_type,
        content_encoding: with_content_encoding,
        priority: with_priority,
        correlation_id: with_correlation_id,
        reply_to: with_reply_to,
        message_id: with_message_id,
        timestamp: with_timestamp,
        kind: with_type,
        app_id: with_app_id
    );
    kept
}
