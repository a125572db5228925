//! Canonical messages to and from properties, headers and bodies. Pure.

mod dead_letter;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_adapter_api::{EncodedBody, Fields};
use crossdock_contract::CallType;
use crossdock_message::{
    Body, BodyType, ByteString, Chunks, Code, Deadline, Fault, Format, Headers, Message, Origin, Record,
    RequestContext, Time, TraceContext, Value, json,
};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub(crate) use self::dead_letter::{dead_letter, letter, replayed};
use crate::error::{bad_reply, too_long};
use crate::frames::content::UNREADABLE;

/// The method of every message that comes from a queue.
pub(crate) const CONSUME: &str = "CONSUME";
/// What stands in a path as it is (RFC 3986 §2.3).
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Bytes of a message id that goes on as the message's identity.
const ID_LEN_MAX: usize = 128;
/// Bytes of a trace's part (W3C Trace Context §3.3.1.5 has 512 of them carried).
const TRACE_LEN_MAX: usize = 512;
/// Bytes of a fault's sentence in a header.
const ERROR_LEN_MAX: usize = 1024;

/// Headers that say what became of a request, and of a dead letter.
const STATUS: &str = "crossdock-status";
const REASON: &str = "crossdock-reason";
const ERROR: &str = "crossdock-error";
const ORIGIN: &str = "crossdock-origin";
const QUEUE: &str = "crossdock-queue";
const ATTEMPTS: &str = "crossdock-attempts";
/// How often a message was set aside, its present dead letter included.
const HOPS: &str = "crossdock-hops";
/// Our own headers; never carried from one message to another.
const PREFIX: &str = "crossdock-";

/// The path that stands for a queue.
pub(crate) fn path_of_queue(queue: &str) -> String {
    format!("/{}", utf8_percent_encode(queue, UNESCAPED))
}

/// Whether the sender wants an answer.
pub(crate) fn has_reply_to(properties: &BasicProperties) -> bool {
    properties.reply_to().as_ref().is_some_and(|queue| !queue.as_str().is_empty())
}

/// When a message that was received at `now` expires.
///
/// # Errors
/// INVALID_ARGUMENT for an expiration that is no number of milliseconds (AMQP has it as text).
pub(crate) fn expiry(properties: &BasicProperties, now: Instant) -> Result<Option<Instant>, Fault> {
    let Some(expiration) = properties.expiration() else { return Ok(None) };
    let millis: u64 = expiration.as_str().parse().map_err(|_| {
        Fault::caller(Code::InvalidArgument, "EXPIRATION", "the expiration has to be a number of milliseconds")
    })?;
    Ok(now.checked_add(Duration::from_millis(millis)))
}

/// How often a message was set aside by a gateway; zero for one that is no dead letter of ours. A sender can write these headers as well:
/// then it slows its own message down, as little as a circle does.
pub(crate) fn hops(properties: &BasicProperties) -> u32 {
    let Some(table) = properties.headers() else { return 0 };
    let is_ours = [STATUS, REASON, ORIGIN, QUEUE].iter().all(|name| table.inner().contains_key(*name));
    let hops = table.inner().get(HOPS).filter(|_| is_ours).and_then(text_of);
    hops.and_then(|hops| hops.parse().ok()).unwrap_or(0)
}

/// Whether properties of a message could not be handed on as they were received.
pub(crate) fn is_unreadable(properties: &BasicProperties) -> bool {
    properties.headers().as_ref().is_some_and(|table| table.inner().contains_key(UNREADABLE))
}

/// Headers of a delivery, for routes that tell messages apart by them.
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

/// Names of headers have no case.
fn header<'t>(table: &'t FieldTable, name: &str) -> Option<&'t AMQPValue> {
    table.inner().iter().find(|(key, _)| key.as_str().eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The text of a scalar, exactly; nothing for tables and bytes.
fn text_of(value: &AMQPValue) -> Option<ByteString> {
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
        // Whole seconds since 1970.
        AMQPValue::Timestamp(seconds) => Time { seconds: i64::try_from(*seconds).ok()?, nanos: 0 }.text()?.into(),
        AMQPValue::DecimalValue(decimal) => decimal_text(decimal.value, decimal.scale).into(),
        _ => return None,
    })
}

/// `value` with `scale` digits behind the point.
fn decimal_text(value: u32, scale: u8) -> String {
    let scale = usize::from(scale);
    let mut digits = format!("{value:0>width$}", width = scale + 1);
    if scale > 0 {
        digits.insert(digits.len() - scale, '.');
    }
    digits
}

/// Only headers that are listed, and only where they can stand in any protocol.
fn carried(properties: &BasicProperties, carry: &[ByteString]) -> Result<Headers, ByteString> {
    let mut headers = Headers::new();
    let Some(table) = properties.headers() else { return Ok(headers) };
    for name in carry.iter().filter(|name| !name.starts_with(PREFIX)) {
        // Names have no case here, but have one at the broker: several of them are several values.
        let found = table.inner().iter().filter(|(key, _)| key.as_str().eq_ignore_ascii_case(name));
        let values = found.flat_map(|(_, value)| match value {
            AMQPValue::FieldArray(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        });
        for value in values {
            let appended = text_of(value).map(|text| headers.append(name.clone(), text));
            if !matches!(appended, Some(Ok(()))) {
                return Err(name.clone());
            }
        }
    }
    Ok(headers)
}

pub(crate) fn trace(properties: &BasicProperties) -> Option<TraceContext> {
    let table = properties.headers().as_ref()?;
    // What no header of another protocol can hold is no trace.
    let carriable =
        |text: &ByteString| text.len() <= TRACE_LEN_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    // A trace with two parents is none (W3C Trace Context §3.2).
    let is_parent = |key: &&ShortString| key.as_str().eq_ignore_ascii_case("traceparent");
    if table.inner().keys().filter(is_parent).nth(1).is_some() {
        return None;
    }
    let parent = text_of(header(table, "traceparent")?).filter(carriable)?;
    let state = header(table, "tracestate").and_then(text_of).filter(carriable);
    Some(TraceContext { parent, state })
}

/// The message of a delivery. What its sender called it is its identity, so that it is the same in every try.
///
/// # Errors
/// INVALID_ARGUMENT for a listed header or an expiration that cannot be read.
pub(crate) fn request(
    properties: &BasicProperties,
    body: Bytes,
    context: &Arc<RequestContext>,
    source: &ByteString,
    request_headers: &[ByteString],
    call: Option<&Arc<CallType>>,
) -> Result<Message, Fault> {
    let named = properties.message_id().as_ref().map(ShortString::as_str);
    let good = |id: &&str| !id.is_empty() && id.len() <= ID_LEN_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
    let mut message =
        Message::new(named.filter(good).map_or_else(|| context.id.clone(), ByteString::from), source.clone());
    message.context = Some(Arc::clone(context));
    message.headers = carried(properties, request_headers).map_err(|name| {
        let problem = format!("the header `{name}` is not text that every protocol can carry");
        Fault::caller(Code::InvalidArgument, "HEADER", problem).with_detail("header", name)
    })?;
    // Only a request expires with its sender's patience; a one-way message may still be processed.
    let expiry = expiry(properties, context.received_at)?;
    message.deadline = expiry.filter(|_| has_reply_to(properties)).map(Deadline::at);
    message.content_type = properties.content_type().as_ref().map(|text| text.as_str().into());
    message.body = match call {
        _ if body.is_empty() && call.is_none() => Body::Empty,
        None => raw_body(body, message.content_type.as_ref()),
        Some(call) => {
            let format = match message.content_type.as_deref() {
                // Where nothing is said, a body with a contract is JSON.
                None => Format::Json,
                Some(media_type) => Format::of_media_type(media_type),
            };
            let of_type = &call.request;
            if !matches!(format, Format::Json | Format::Protobuf) {
                let problem = "a message with a contract is application/json or application/x-protobuf";
                return Err(Fault::caller(Code::InvalidArgument, "CONTENT_TYPE", problem).with_http_status(415));
            }
            // What does not fit the contract is told now, wherever it goes.
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

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().to_vec().into())
}

/// A header that stands there several times is an array.
fn append_headers(headers: &Headers, table: &mut FieldTable) -> Result<(), Fault> {
    for (name, value) in headers.iter() {
        let key = ShortString::try_new(&**name).map_err(|_| too_long("name of a header"))?;
        let joined = match table.inner().get(&key) {
            None => long(value),
            Some(AMQPValue::FieldArray(items)) => {
                AMQPValue::FieldArray(items.as_slice().iter().cloned().chain([long(value)]).collect::<Vec<_>>().into())
            }
            Some(one) => AMQPValue::FieldArray(vec![one.clone(), long(value)].into()),
        };
        table.insert(key, joined);
    }
    Ok(())
}

fn properties(
    message: &Message,
    content_type: Option<&ByteString>,
    persistent: bool,
) -> Result<BasicProperties, Fault> {
    let mut table = FieldTable::default();
    append_headers(&message.headers, &mut table)?;
    if let Some(trace) = message.trace() {
        table.insert("traceparent".into(), long(&trace.parent));
        if let Some(state) = &trace.state {
            table.insert("tracestate".into(), long(state));
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

/// The properties of a message to a service.
///
/// # Errors
/// INVALID_ARGUMENT for a header or media type that AMQP has no room for.
pub(crate) fn call_properties(
    message: &Message,
    body: &EncodedBody,
    persistent: bool,
) -> Result<BasicProperties, Fault> {
    properties(message, body.content_type.as_ref(), persistent)
}

/// About what properties weigh in a frame, and never less.
pub(crate) fn weight(properties: &BasicProperties) -> usize {
    fn value(given: &AMQPValue) -> usize {
        // The widest of the others has 8 bytes.
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

/// What is left of a request's time, in whole milliseconds: after it, nobody waits for the reply.
pub(crate) fn with_expiration(properties: BasicProperties, message: &Message, now: Instant) -> BasicProperties {
    match message.deadline {
        Some(deadline) => properties.with_expiration(deadline.left(now).as_millis().max(1).to_string().as_str().into()),
        None => properties,
    }
}

/// The reply of a service, or the fault that it tells by our own headers.
pub(crate) fn reply(
    properties: &BasicProperties,
    body: Chunks,
    call: Option<&Arc<CallType>>,
    carry: &[ByteString],
) -> Result<Message, Fault> {
    if let Some(fault) = properties.headers().as_ref().and_then(told_fault) {
        return Err(fault);
    }
    if is_unreadable(properties) {
        return Err(bad_reply("its properties are not text, or nested more than 64 levels deep"));
    }
    let mut message = Message::new(ByteString::new(), ByteString::new());
    message.headers = carried(properties, carry).map_err(|_| bad_reply("a header cannot be carried"))?;
    message.content_type = properties.content_type().as_ref().map(|text| text.as_str().into());
    let format = message.content_type.as_deref().map_or(Format::Json, Format::of_media_type);
    message.body = match call {
        Some(call) if matches!(format, Format::Json | Format::Protobuf) => {
            Body::typed(body, format, Arc::clone(&call.reply) as Arc<dyn BodyType>)
        }
        _ if body.is_empty() => Body::Empty,
        _ => raw_body(body, message.content_type.as_ref()),
    };
    Ok(message)
}

fn told_fault(table: &FieldTable) -> Option<Fault> {
    let number: i32 = text_of(header(table, STATUS)?)?.parse().ok()?;
    if number == 0 {
        return None;
    }
    let code = Code::from_number(number).unwrap_or(Code::Unknown);
    let message =
        header(table, ERROR).and_then(text_of).unwrap_or_else(|| ByteString::from_static("the service failed"));
    let fault = Fault::new(code, "SERVICE_STATUS", message);
    Some(match header(table, REASON).and_then(text_of) {
        Some(reason) => Fault { reason, ..fault },
        None => fault,
    })
}

/// The properties and body of the answer that a fault is.
pub(crate) fn fault_answer(fault: &Fault) -> (BasicProperties, Bytes) {
    let mut table = FieldTable::default();
    append_fault(fault, &mut table);
    let mut status = Record::new();
    status.set("code", Value::Int(i64::from(fault.code as u8)));
    status.set("message", Value::Text(fault.message.clone()));
    let mut details = Record::new();
    for (name, value) in &fault.details {
        details.set(name.clone(), Value::Text(value.clone()));
    }
    let mut info = Record::new();
    info.set("@type", Value::from("type.googleapis.com/google.rpc.ErrorInfo"));
    info.set("reason", Value::Text(fault.reason.clone()));
    info.set("domain", Value::from("crossdock"));
    info.set("metadata", Value::Record(details));
    status.set("details", Value::List(vec![Value::Record(info)]));
    let body = json::write(&Value::Record(status)).map(Bytes::from).unwrap_or_default();
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_content_type("application/json".into())
        .with_delivery_mode(1);
    (properties, body)
}

fn append_fault(fault: &Fault, table: &mut FieldTable) {
    // What the gateway knows of itself goes to dead letters and callers; what a service said was replaced before.
    let origin = match &fault.origin {
        Origin::Caller => "caller",
        Origin::Gateway => "gateway",
        Origin::Service(name) => &**name,
    };
    table.insert(STATUS.into(), AMQPValue::LongInt(i32::from(fault.code as u8)));
    table.insert(REASON.into(), long(&fault.reason));
    let mut len = fault.message.len().min(ERROR_LEN_MAX);
    while !fault.message.is_char_boundary(len) {
        len -= 1;
    }
    table.insert(ERROR.into(), long(&fault.message[..len]));
    table.insert(ORIGIN.into(), long(origin));
}

/// The properties of a reply that came too late, on its way to whoever wants to see those: what it came with, and the identity of
/// the request that it is to as its correlation id.
pub(crate) fn late_reply(came: &BasicProperties) -> BasicProperties {
    let mut properties = without_expiration(came).with_delivery_mode(2);
    if let Some(headers) = came.headers() {
        properties = properties.with_headers(headers.clone());
    }
    let request = came.correlation_id().as_ref().and_then(|id| id.as_str().splitn(3, '.').nth(2));
    match request {
        Some(request) => properties.with_correlation_id(request.into()),
        None => properties,
    }
}

/// All of them but the expiration, and the user, whom the broker checks against the connection's own.
fn without_expiration(came: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    macro_rules! keep {
        ($($name:ident: $set:ident),*) => {$(
            if let Some(value) = came.$name() {
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
