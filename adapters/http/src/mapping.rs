//! Canonical messages to and from HTTP's heads. Pure.

use std::time::Instant;

use bytes::Bytes;
use crossdock_adapter_api::Admission;
use crossdock_message::{
    Body, ByteString, Chunks, Code, Deadline, Fault, Format, Headers, Message, Origin, Record, Retry, TraceContext,
    Value,
};
use crossdock_settings::Duration;

use crate::config::{Endpoint, Entry, Operation};
use crate::front::RequestHead;
use crate::path;

/// The caller's own limit of time, such as `250ms` or `2s`; what is left of it goes to services in the same header.
pub(crate) const TIMEOUT_HEADER: &str = "crossdock-timeout";

/// Fields that only concern one connection (RFC 9110 §7.6.1).
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn text_of(value: Bytes) -> Option<ByteString> {
    ByteString::try_from(value).ok()
}

fn first(head: &RequestHead, name: &'static str) -> Option<ByteString> {
    head.values(name).next().and_then(text_of)
}

/// The message of a request, its body not yet read.
///
/// # Errors
/// INVALID_ARGUMENT for a path, query, timeout or listed header that cannot be read.
pub(crate) fn request(
    head: &RequestHead,
    entry: &Entry,
    admission: &mut Admission,
    source: &ByteString,
    now: Instant,
) -> Result<Message, Fault> {
    let mut message = Message::new(admission.id.clone(), source.clone());
    message.params = params(head, entry, std::mem::take(&mut admission.params))?;
    message.headers = carried(head, &admission.carry)?;
    message.content_type = first(head, "content-type");
    if let Some(parent) = first(head, "traceparent") {
        message.trace = Some(Box::new(TraceContext { parent, state: first(head, "tracestate") }));
    }
    if let Some(timeout) = first(head, TIMEOUT_HEADER) {
        let wait = Duration::parse(&timeout).ok_or_else(|| {
            Fault::caller(
                Code::InvalidArgument,
                "TIMEOUT",
                "the header crossdock-timeout has to be such as `250ms` or `2s`",
            )
        })?;
        message.deadline = now.checked_add(wait.0).map(Deadline::at);
    }
    Ok(message)
}

/// The fields of the path, decoded, and of the query parameters that the entry binds.
fn params(head: &RequestHead, entry: &Entry, captured: Record) -> Result<Record, Fault> {
    let mut params = captured;
    if head.path().contains('%') {
        let decoded = params.iter().map(|(name, value)| match value {
            Value::Text(text) => Ok((name.clone(), Value::Text(path::decode(text)?))),
            other => Ok((name.clone(), other.clone())),
        });
        params = decoded.collect::<Result<_, Fault>>()?;
    }
    let Some(query) = head.query().filter(|_| !entry.query.is_empty()) else { return Ok(params) };
    for pair in path::query_pairs(query) {
        let (name, value) = pair?;
        let Some(param) = entry.query.iter().find(|param| param.name == name) else { continue };
        match params.get_mut(&param.field) {
            None if param.list => {
                params.set(param.field.clone(), Value::List(vec![Value::Text(value)]));
            }
            None => {
                params.set(param.field.clone(), Value::Text(value));
            }
            Some(Value::List(items)) => items.push(Value::Text(value)),
            Some(_) => {
                let message = format!("the query parameter `{name}` stands twice");
                return Err(Fault::caller(Code::InvalidArgument, "QUERY", message).with_detail("field", name));
            }
        }
    }
    Ok(params)
}

/// Only headers that are listed, and only where they can stand in any protocol.
fn carried(head: &RequestHead, carry: &[ByteString]) -> Result<Headers, Fault> {
    let mut headers = Headers::new();
    for name in carry {
        for value in head.values(name) {
            let appended = text_of(value).map(|value| headers.append(name.clone(), value));
            if !matches!(appended, Some(Ok(()))) {
                let message = format!("the header `{name}` holds a character outside ASCII");
                return Err(Fault::caller(Code::InvalidArgument, "HEADER", message).with_detail("header", name.clone()));
            }
        }
    }
    Ok(headers)
}

/// The body of a request.
pub(crate) fn body(chunks: Chunks, content_type: Option<&ByteString>) -> Body {
    Body::raw(chunks, content_type.map_or(Format::Raw, |media_type| Format::of_media_type(media_type)))
}

/// A field that the address of an operation needs.
fn field(message: &Message, name: &ByteString) -> Option<ByteString> {
    let of_body = match &message.body {
        Body::Value(value) => value.get(name),
        _ => None,
    };
    message.params.get(name).or(of_body).and_then(Value::scalar_text)
}

/// The target of a call: every part is escaped, so that no value can leave its place.
///
/// # Errors
/// INVALID_ARGUMENT where a field is missing or cannot stand in an address.
pub(crate) fn target(endpoint: &Endpoint, operation: &Operation, message: &Message) -> Result<String, Fault> {
    use crossdock_adapter_api::Segment;
    let missing = |name: &ByteString| {
        let problem = format!("the address of the service needs the field `{name}`, and it is missing or has no text");
        Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", problem).with_detail("field", name.clone())
    };
    let mut out = String::with_capacity(endpoint.base.len() + operation.path.as_str().len() + 32);
    out.push_str(&endpoint.base);
    for segment in operation.path.segments() {
        match segment {
            Segment::Literal(text) => {
                out.push('/');
                out.push_str(text);
            }
            Segment::Capture(name) => {
                out.push('/');
                path::append_segment(&mut out, &field(message, name).ok_or_else(|| missing(name))?)?;
            }
            Segment::Rest(name) => {
                for part in field(message, name).ok_or_else(|| missing(name))?.split('/') {
                    out.push('/');
                    path::append_segment(&mut out, part)?;
                }
            }
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    for name in &operation.query {
        if let Some(value) = field(message, name) {
            path::append_query(&mut out, name, &value);
        }
    }
    Ok(out)
}

/// The headers of a call.
///
/// # Errors
/// INTERNAL where a value cannot stand in a header; nothing that got here can hold such a value.
pub(crate) fn call_headers(
    endpoint: &Endpoint,
    static_headers: &[(http::HeaderName, http::HeaderValue)],
    message: &Message,
    content_type: Option<ByteString>,
    now: Instant,
) -> Result<http::HeaderMap, Fault> {
    let mut headers = http::HeaderMap::with_capacity(8 + message.headers.len());
    headers.insert(http::header::HOST, endpoint.authority.clone());
    let mut insert = |name: http::HeaderName, value: ByteString| -> Result<(), Fault> {
        let value = http::HeaderValue::from_maybe_shared(value.into_bytes())
            .map_err(|_| Fault::new(Code::Internal, "HEADER", format!("the header `{name}` cannot be written")))?;
        headers.append(name, value);
        Ok(())
    };
    if let Some(content_type) = content_type {
        insert(http::header::CONTENT_TYPE, content_type)?;
    }
    for (name, value) in message.headers.iter() {
        if let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) {
            insert(name, value.clone())?;
        }
    }
    insert(http::HeaderName::from_static("x-request-id"), message.id.clone())?;
    if let Some(trace) = &message.trace {
        insert(http::HeaderName::from_static("traceparent"), trace.parent.clone())?;
        if let Some(state) = &trace.state {
            insert(http::HeaderName::from_static("tracestate"), state.clone())?;
        }
    }
    if let Some(deadline) = message.deadline {
        let left = deadline.left(now).as_millis().max(1);
        insert(http::HeaderName::from_static(TIMEOUT_HEADER), format!("{left}ms").into())?;
    }
    for (name, value) in static_headers {
        headers.insert(name.clone(), value.clone());
    }
    Ok(headers)
}

/// The reply of a service that did what it was asked.
pub(crate) fn reply(head: &http::response::Parts, chunks: Chunks, carry: &[ByteString]) -> Result<Message, Fault> {
    let mut message = Message::new(ByteString::new(), ByteString::new());
    message.status = Some(head.status.as_u16());
    let text = |value: &http::HeaderValue| value.to_str().ok().map(ByteString::from);
    message.content_type = head.headers.get(http::header::CONTENT_TYPE).and_then(text);
    for name in carry {
        for value in head.headers.get_all(&**name) {
            if let Some(value) = text(value) {
                message
                    .headers
                    .append(name.clone(), value)
                    .map_err(|_| crate::error::bad_reply("a header cannot be carried"))?;
            }
        }
    }
    message.body = body(chunks, message.content_type.as_ref());
    Ok(message)
}

/// The fault that a service's status means. What the service says of itself stays behind.
pub(crate) fn status_fault(head: &http::response::Parts, service: &str) -> Option<Fault> {
    let status = head.status.as_u16();
    let code = Code::from_http(status)?;
    let wait = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let retry = match (status, wait) {
        (429 | 503, Some(seconds)) => Retry::After(std::time::Duration::from_secs(seconds.min(3600))),
        _ => Retry::Never,
    };
    let fault = Fault::new(code, "SERVICE_STATUS", format!("the service answered with status {status}"))
        .with_origin(Origin::Service(service.into()))
        .with_retry(retry);
    Some(fault)
}
