//! Maps canonical messages to and from records. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossdock_cloudevents::{self as cloudevents, Data, Received};
use crossdock_contract::CallType;
use crossdock_delivery::dead_letter::{PREFIX, REPLAYS};
use crossdock_delivery::reported_fault;
use crossdock_message::{
    Body, BodyType, ByteString, Chunks, Code, Fault, Format, Headers, Limits, Message, RequestContext, Time,
    TraceContext, Value,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rdkafka::message::{Header, OwnedHeaders};

use crate::config::Entry;
use crate::error::bad_reply;
use crate::received::{ReceivedRecord, TypedValue};

/// The method of every message received from a topic.
pub(crate) const CONSUME: &str = "CONSUME";
/// The header with the media type of the value, as CloudEvents and Spring use it.
pub(crate) const CONTENT_TYPE: &str = "content-type";
/// Unreserved characters, which a path contains unescaped (RFC 3986 §2.3).
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The longest trace header that is forwarded, in bytes (W3C Trace Context §3.3.1.5 requires at least 512).
const TRACE_LEN_MAX: usize = 512;
/// The header of a request with the milliseconds until its deadline, from the time of its record.
const TIMEOUT: &str = "crossdock-timeout";
/// The header of a dead letter with the position of its record: topic, partition and offset.
pub(crate) const POSITION: &str = "crossdock-position";
const NANOS_PER_MILLI: i32 = 1_000_000;

/// The canonical path of a topic.
pub(crate) fn topic_path(topic: &str) -> String {
    format!("/{}", escaped(topic))
}

/// A text without slashes and other reserved characters.
pub(crate) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNESCAPED).to_string()
}

/// The trace that a record belongs to; one that headers of other protocols cannot represent is ignored.
pub(crate) fn trace(record: &ReceivedRecord) -> Option<TraceContext> {
    let carriable =
        |text: &ByteString| text.len() <= TRACE_LEN_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let parent = record.text("traceparent").filter(carriable)?;
    Some(TraceContext { parent, state: record.text("tracestate").filter(carriable) })
}

/// Converts a record to a message with an id and a time. Its value is `typed` if a schema registry knows the type.
///
/// # Errors
/// INVALID_ARGUMENT for a header that not every protocol can represent, a content type that the contract does not allow, or an invalid value.
pub(crate) fn request(
    record: &ReceivedRecord,
    (id, timestamp): (ByteString, Option<i64>),
    context: &Arc<RequestContext>,
    source: &ByteString,
    request_headers: &[ByteString],
    entry: &Entry,
    typed: Option<TypedValue>,
) -> Result<Message, Fault> {
    let (default_format, call) = (entry.format, entry.call.as_ref());
    if record.has_unreadable_headers {
        return Err(Fault::caller(Code::InvalidArgument, "HEADER", "the name of a header is not UTF-8"));
    }
    let mut message = Message::new(id, source.clone());
    message.context = Some(Arc::clone(context));
    message.headers = select_headers(record, request_headers).map_err(|name| {
        let problem = format!("the header `{name}` is null or cannot be represented in every protocol");
        Fault::caller(Code::InvalidArgument, "HEADER", problem).with_detail("header", name)
    })?;
    message.key.clone_from(&record.key);
    message.time = timestamp.map(from_millis);
    message.content_type = record.text(CONTENT_TYPE);
    let mut value = record.value.clone();
    if let Some(limits) = &entry.events {
        let received = receive_event(record, message.content_type.as_ref(), limits)?;
        message.event = Some(received.event);
        message.content_type = received.content_type;
        match received.data {
            Data::Body => {}
            Data::Bytes(data) => value = Some(data),
            // Only a record without a value is a tombstone.
            Data::None => return Ok(message),
        }
    }
    let Some(value) = value else {
        message.body = Body::Null;
        return Ok(message);
    };
    if let Some(typed) = typed {
        // What a media type says is about the value with the number of its schema.
        message.content_type = None;
        message.body = typed_body(typed, call)?;
        return Ok(message);
    }
    let format = message.content_type.as_deref().map_or(default_format, Format::of_media_type);
    message.body = match call {
        // An event whose data is empty is no tombstone.
        None if message.event.is_some() => Body::present(value.into(), format),
        None => Body::raw(value.into(), format),
        Some(call) => {
            if !matches!(format, Format::Json | Format::Protobuf) {
                let problem = "the content type must be application/json or application/x-protobuf";
                return Err(Fault::caller(Code::InvalidArgument, "CONTENT_TYPE", problem).with_http_status(415));
            }
            // Validate against the contract now, whatever the destination.
            let wire = call.request.recode(&value, format, Format::Protobuf)?;
            message.content_type = None;
            Body::typed(wire.into(), Format::Protobuf, Arc::clone(&call.request) as Arc<dyn BodyType>)
        }
    };
    Ok(message)
}

/// The prefix of headers with attributes of an event (Kafka Protocol Binding for CloudEvents 1.0.2, §3.2.3.1).
const EVENT_PREFIX: &str = "ce_";

/// Reads the event that a record is.
fn receive_event(
    record: &ReceivedRecord,
    content_type: Option<&ByteString>,
    limits: &Limits,
) -> Result<Received, Fault> {
    let document = || record.value.clone().unwrap_or_default();
    cloudevents::receive(content_type, limits, document, |attributes| {
        for (name, value) in &record.headers {
            let Some((start, name)) = name.split_at_checked(EVENT_PREFIX.len()) else { continue };
            if !start.eq_ignore_ascii_case(EVENT_PREFIX) {
                continue;
            }
            let text = value.clone().and_then(|value| ByteString::try_from(value).ok()).ok_or_else(|| {
                let problem = format!("the header of the attribute `{name}` is null or not UTF-8");
                Fault::caller(Code::InvalidArgument, "EVENT", problem)
            })?;
            attributes.add(name, Value::Text(text))?;
        }
        Ok(())
    })
}

/// The body of a value with a schema, as the request of a call.
fn typed_body(TypedValue { value, format, of_type }: TypedValue, call: Option<&Arc<CallType>>) -> Result<Body, Fault> {
    let (call, wire) = match (call, of_type) {
        (None, None) => return Ok(Body::raw(value.into(), format)),
        (None, Some(of_type)) => return Ok(Body::typed(value.into(), format, of_type)),
        (Some(call), None) => (call, call.request.recode(&value, format, Format::Protobuf)?),
        (Some(call), Some(of_type)) => (call, call.request.write(&of_type.read(&value, format)?, Format::Protobuf)?),
    };
    Ok(Body::typed(wire.into(), Format::Protobuf, Arc::clone(&call.request) as Arc<dyn BodyType>))
}

/// Converts the reply of a service; the fault that its headers report is the error. A value without a media type has the default format.
///
/// # Errors
/// That fault; INTERNAL for a header that not every protocol can represent.
pub(crate) fn reply(
    record: &ReceivedRecord,
    value: Option<Chunks>,
    default_format: Format,
    call: Option<&Arc<CallType>>,
    forwarded: &[ByteString],
) -> Result<Message, Fault> {
    if let Some(fault) = reported_fault(|name| record.exact_text(name)) {
        return Err(fault);
    }
    if record.has_unreadable_headers {
        return Err(bad_reply("the name of a header is not UTF-8"));
    }
    let mut message = Message::new(ByteString::new(), ByteString::new());
    message.headers = select_headers(record, forwarded)
        .map_err(|_| bad_reply("a header is null or cannot be represented in every protocol"))?;
    message.content_type = record.text(CONTENT_TYPE);
    message.body = match (value, call) {
        (None, None) => Body::Null,
        (None, Some(_)) => return Err(bad_reply("its value is null")),
        (Some(value), call) => {
            let format = message.content_type.as_deref().map_or(default_format, Format::of_media_type);
            match call {
                Some(call) if matches!(format, Format::Json | Format::Protobuf) => {
                    Body::typed(value, format, Arc::clone(&call.reply) as Arc<dyn BodyType>)
                }
                _ if value.is_empty() => Body::Empty,
                _ => Body::raw(value, format),
            }
        }
    };
    Ok(message)
}

/// The headers that a route forwards; the name of a header that not every protocol can represent is the error.
fn select_headers(record: &ReceivedRecord, forwarded: &[ByteString]) -> Result<Headers, ByteString> {
    let mut headers = Headers::new();
    for name in forwarded.iter().filter(|name| !name.starts_with(PREFIX)) {
        for value in record.values(name) {
            let text = value.and_then(|value| ByteString::try_from(value.clone()).ok());
            if !matches!(text.map(|text| headers.append(name.clone(), text)), Some(Ok(()))) {
                return Err(name.clone());
            }
        }
    }
    Ok(headers)
}

/// The headers of the record for a message. `event` has the attributes of an event in binary mode.
pub(crate) fn record_headers(
    message: &Message,
    content_type: Option<&ByteString>,
    event: &[(ByteString, Value)],
) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    let insert = |headers: OwnedHeaders, key: &str, value: &str| headers.insert(Header { key, value: Some(value) });
    // An event has no other attributes than its own.
    let is_attribute = |name: &str| !event.is_empty() && name.starts_with(EVENT_PREFIX);
    for (name, value) in message.headers.iter().filter(|(name, _)| !is_attribute(name)) {
        headers = insert(headers, name, value);
    }
    for (name, value) in event {
        let value = value.scalar_text().unwrap_or_default();
        headers = insert(headers, &format!("{EVENT_PREFIX}{name}"), &value);
    }
    if let Some(media_type) = content_type {
        headers = insert(headers, CONTENT_TYPE, media_type);
    }
    if let Some(trace) = message.trace() {
        headers = insert(headers, "traceparent", &trace.parent);
        if let Some(state) = &trace.state {
            headers = insert(headers, "tracestate", state);
        }
    }
    headers
}

/// How often a record was replayed.
pub(crate) fn replays(record: &ReceivedRecord) -> u32 {
    record.exact_text(REPLAYS).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The partition that a dead letter came from.
pub(crate) fn original_partition(letter: &ReceivedRecord) -> Option<i32> {
    letter.exact_text(POSITION)?.rsplit('/').nth(1)?.parse().ok().filter(|partition| *partition >= 0)
}

/// Adds the time until the deadline of a request, which Kafka has no field for: after it, nobody waits for the reply.
pub(crate) fn with_timeout(headers: OwnedHeaders, message: &Message, now: Instant) -> OwnedHeaders {
    match message.deadline {
        Some(deadline) => {
            let millis = deadline.left(now).as_millis().max(1).to_string();
            headers.insert(Header { key: TIMEOUT, value: Some(&millis) })
        }
        None => headers,
    }
}

/// The time left until the deadline of a request, which counts from the time of its record; `None` if it has none.
///
/// # Errors
/// INVALID_ARGUMENT if it cannot be read; DEADLINE_EXCEEDED if it has passed.
pub(crate) fn time_left(request: &ReceivedRecord, now: SystemTime) -> Result<Option<Duration>, Fault> {
    let Some(text) = request.exact_text(TIMEOUT) else { return Ok(None) };
    let timeout: u64 = text.parse().map_err(|_| {
        let problem = format!("the header `{TIMEOUT}` must be a number of milliseconds");
        Fault::caller(Code::InvalidArgument, "TIMEOUT", problem)
    })?;
    // Clocks differ: a record from the future counts from now.
    let sent =
        request.timestamp.and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis.try_into().ok()?)));
    let age = sent.and_then(|sent| now.duration_since(sent).ok()).unwrap_or_default();
    match Duration::from_millis(timeout).checked_sub(age).filter(|left| !left.is_zero()) {
        Some(left) => Ok(Some(left)),
        None => Err(Fault::caller(Code::DeadlineExceeded, "EXPIRED", "the request arrived after its deadline")),
    }
}

fn from_millis(millis: i64) -> Time {
    let nanos = i32::try_from(millis.rem_euclid(1000)).unwrap_or(0) * NANOS_PER_MILLI;
    Time { seconds: millis.div_euclid(1000), nanos }
}

/// Milliseconds since 1970; `None` if they are out of range.
pub(crate) fn to_millis(time: Time) -> Option<i64> {
    time.seconds.checked_mul(1000)?.checked_add(i64::from(time.nanos / NANOS_PER_MILLI))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::received::tests::record_with_headers;

    #[test]
    fn times_keep_their_milliseconds() {
        for millis in [0, 1, 999, 1_764_421_200_123, -1, -1_001] {
            assert_eq!(to_millis(from_millis(millis)), Some(millis));
        }
        assert_eq!(to_millis(Time { seconds: i64::MAX, nanos: 0 }), None);
    }

    #[test]
    fn the_deadline_of_a_request_counts_from_the_time_of_its_record() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let request = |timeout: &'static str, timestamp| ReceivedRecord {
            timestamp,
            ..record_with_headers(vec![(TIMEOUT.to_owned(), Some(Bytes::from_static(timeout.as_bytes())))])
        };
        let left = |timeout, timestamp, now| {
            time_left(&request(timeout, timestamp), at(now))
                .map(|left| left.map(|left| left.as_millis()))
                .map_err(|fault| fault.reason.to_text().to_string())
        };
        assert_eq!(left("500", Some(1000), 1200), Ok(Some(300)));
        assert_eq!(left("500", Some(1000), 1500), Err("EXPIRED".to_owned()));
        assert_eq!(left("500", Some(9000), 1000), Ok(Some(500)), "a clock that is ahead");
        assert_eq!(left("500", None, 1000), Ok(Some(500)));
        assert_eq!(left("500", Some(-1), 1000), Ok(Some(500)));
        assert_eq!(left("1.5", Some(1000), 1000), Err("TIMEOUT".to_owned()));
        assert_eq!(left("18446744073709551615", Some(1000), 1000), Ok(Some(u128::from(u64::MAX))));
        assert!(time_left(&record_with_headers(Vec::new()), at(0)).is_ok_and(|left| left.is_none()));
    }

    #[test]
    fn headers_are_forwarded_exactly_or_refused() {
        let record = |headers: &[(&str, Option<&'static [u8]>)]| {
            let owned = headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(Bytes::from_static)));
            record_with_headers(owned.collect())
        };
        let forwarded = [ByteString::from_static("x-a"), ByteString::from_static("crossdock-reason")];
        let two = record(&[("X-A", Some(b"1")), ("x-b", None), ("x-a", Some(b"2")), ("crossdock-reason", Some(b"R"))]);
        let headers = select_headers(&two, &forwarded).expect("text");
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(pairs, [("x-a".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())]);
        for value in [None, Some(&b"\xff"[..]), Some(&b"a\nb"[..])] {
            assert!(select_headers(&record(&[("x-a", value)]), &forwarded).is_err(), "{value:?}");
        }
    }
}
