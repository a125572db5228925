//! Maps canonical messages to and from records. Pure.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::CallType;
use crossdock_delivery::dead_letter::PREFIX;
use crossdock_message::{
    Body, BodyType, ByteString, Code, Fault, Format, Headers, Message, RequestContext, Time, TraceContext,
};
use crossdock_ports::Fields;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rdkafka::message::{Header, OwnedHeaders};

/// The method of every message received from a topic.
pub(crate) const CONSUME: &str = "CONSUME";
/// The header with the media type of the value, as CloudEvents and Spring use it.
pub(crate) const CONTENT_TYPE: &str = "content-type";
/// Unreserved characters, which a path contains unescaped (RFC 3986 §2.3).
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The longest trace header that is forwarded, in bytes (W3C Trace Context §3.3.1.5 requires at least 512).
const TRACE_LEN_MAX: usize = 512;
/// The header of a dead letter with the position of its record: topic, partition and offset.
pub(crate) const POSITION: &str = "crossdock-position";
const NANOS_PER_MILLI: i32 = 1_000_000;

/// The canonical path of a topic.
pub(crate) fn topic_path(topic: &str) -> String {
    format!("/{}", utf8_percent_encode(topic, UNESCAPED))
}

/// A record as received. Header names are case-sensitive in Kafka, and values are bytes or null.
#[derive(Debug)]
pub(crate) struct ReceivedRecord {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
    /// Headers whose names are not UTF-8 are left out.
    pub(crate) has_unreadable_headers: bool,
    /// Milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
}

impl ReceivedRecord {
    /// The bytes that it occupies.
    pub(crate) fn len(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len));
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>()
    }

    /// Its position, which identifies it in the cluster: the same for every attempt.
    pub(crate) fn position(&self) -> ByteString {
        format!("{}/{}/{}", self.topic, self.partition, self.offset).into()
    }

    /// The values of a header; names are case-insensitive here.
    fn values<'r>(&'r self, name: &str) -> impl Iterator<Item = Option<&'r Bytes>> {
        let name = name.to_owned();
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(&name)).map(|(_, value)| value.as_ref())
    }

    /// The only value of a header, if it is text.
    fn text(&self, name: &str) -> Option<ByteString> {
        let mut values = self.values(name);
        let (Some(Some(value)), None) = (values.next(), values.next()) else { return None };
        ByteString::try_from(value.clone()).ok()
    }
}

impl Fields for ReceivedRecord {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next().flatten().map(|value| &**value)
    }

    fn is_repeated(&self, name: &str) -> bool {
        self.values(name).nth(1).is_some()
    }
}

/// The trace that a record belongs to; one that headers of other protocols cannot represent is ignored.
pub(crate) fn trace(record: &ReceivedRecord) -> Option<TraceContext> {
    let carriable =
        |text: &ByteString| text.len() <= TRACE_LEN_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let parent = record.text("traceparent").filter(carriable)?;
    Some(TraceContext { parent, state: record.text("tracestate").filter(carriable) })
}

/// The value of a header with exactly this name, if it is text.
pub(crate) fn text(record: &ReceivedRecord, name: &str) -> Option<ByteString> {
    let (_, value) = record.headers.iter().find(|(key, _)| key == name)?;
    ByteString::try_from(value.clone()?).ok()
}

/// Converts a record to a message.
///
/// # Errors
/// INVALID_ARGUMENT for a header that not every protocol can represent, a content type that the contract does not allow, or an invalid value.
pub(crate) fn request(
    record: &ReceivedRecord,
    context: &Arc<RequestContext>,
    source: &ByteString,
    request_headers: &[ByteString],
    default_format: Format,
    call: Option<&Arc<CallType>>,
) -> Result<Message, Fault> {
    if record.has_unreadable_headers {
        return Err(Fault::caller(Code::InvalidArgument, "HEADER", "the name of a header is not UTF-8"));
    }
    let mut message = Message::new(record.position(), source.clone());
    message.context = Some(Arc::clone(context));
    message.headers = select_headers(record, request_headers)?;
    message.key.clone_from(&record.key);
    message.time = record.timestamp.map(from_millis);
    message.content_type = record.text(CONTENT_TYPE);
    let Some(value) = &record.value else {
        message.body = Body::Null;
        return Ok(message);
    };
    let format = message.content_type.as_deref().map_or(default_format, Format::of_media_type);
    message.body = match call {
        None => Body::raw(value.clone().into(), format),
        Some(call) => {
            if !matches!(format, Format::Json | Format::Protobuf) {
                let problem = "the content type must be application/json or application/x-protobuf";
                return Err(Fault::caller(Code::InvalidArgument, "CONTENT_TYPE", problem).with_http_status(415));
            }
            // Validate against the contract now, whatever the destination.
            let wire = call.request.recode(value, format, Format::Protobuf)?;
            message.content_type = None;
            Body::typed(wire.into(), Format::Protobuf, Arc::clone(&call.request) as Arc<dyn BodyType>)
        }
    };
    Ok(message)
}

/// The headers that a route forwards.
fn select_headers(record: &ReceivedRecord, forwarded: &[ByteString]) -> Result<Headers, Fault> {
    let mut headers = Headers::new();
    for name in forwarded.iter().filter(|name| !name.starts_with(PREFIX)) {
        for value in record.values(name) {
            let text = value.and_then(|value| ByteString::try_from(value.clone()).ok());
            if !matches!(text.map(|text| headers.append(name.clone(), text)), Some(Ok(()))) {
                let problem = format!("the header `{name}` is null or cannot be represented in every protocol");
                return Err(Fault::caller(Code::InvalidArgument, "HEADER", problem).with_detail("header", name.clone()));
            }
        }
    }
    Ok(headers)
}

/// The headers of the record for a message.
pub(crate) fn record_headers(message: &Message, content_type: Option<&ByteString>) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    let insert = |headers: OwnedHeaders, key: &str, value: &str| headers.insert(Header { key, value: Some(value) });
    for (name, value) in message.headers.iter() {
        headers = insert(headers, name, value);
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
    use super::*;

    #[test]
    fn times_keep_their_milliseconds() {
        for millis in [0, 1, 999, 1_764_421_200_123, -1, -1_001] {
            assert_eq!(to_millis(from_millis(millis)), Some(millis));
        }
        assert_eq!(to_millis(Time { seconds: i64::MAX, nanos: 0 }), None);
    }

    #[test]
    fn headers_are_forwarded_exactly_or_refused() {
        let record = |headers: &[(&str, Option<&'static [u8]>)]| ReceivedRecord {
            topic: "t".into(),
            partition: 0,
            offset: 7,
            key: None,
            value: None,
            has_unreadable_headers: false,
            headers: headers.iter().map(|(name, value)| ((*name).into(), value.map(Bytes::from_static))).collect(),
            timestamp: None,
        };
        let forwarded = [ByteString::from_static("x-a"), ByteString::from_static("crossdock-reason")];
        let two = record(&[("X-A", Some(b"1")), ("x-b", None), ("x-a", Some(b"2")), ("crossdock-reason", Some(b"R"))]);
        let headers = select_headers(&two, &forwarded).expect("text");
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(pairs, [("x-a".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())]);
        for value in [None, Some(&b"\xff"[..]), Some(&b"a\nb"[..])] {
            assert!(select_headers(&record(&[("x-a", value)]), &forwarded).is_err(), "{value:?}");
        }
        assert_eq!(two.position(), "t/0/7");
    }
}
