//! Maps heads of requests and responses to and from canonical messages. Pure.

mod query;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossdock_cloudevents::{self as cloudevents, Data};
use crossdock_contract::Param;
use crossdock_message::{
    Body, BodyType, ByteString, Chunks, Code, Deadline, Fault, Format, Headers, Limits, Message, Origin, Record,
    RequestContext, Retry, TraceContext, Value,
};
use crossdock_ports::{Admission, EntrySpec as _, Part, address_field, header_twice};
use crossdock_settings::Duration;
use crossdock_transport::Endpoint;

use crate::config::{Entry, Operation, TypedBody, TypedEntry, UnlistedQuery};
use crate::path;
use crate::request::RequestHead;

/// The client's timeout, such as `250ms` or `2s`. Services receive the remaining time in the same header.
pub(crate) const TIMEOUT_HEADER: &str = "crossdock-timeout";

/// Headers that the adapter interprets; each may occur once.
const SINGLE: [&str; 3] = ["content-type", "traceparent", TIMEOUT_HEADER];

fn text_of(value: Bytes) -> Option<ByteString> {
    ByteString::try_from(value).ok()
}

fn first(head: &impl RequestHead, name: &'static str) -> Option<ByteString> {
    head.values(name).next().and_then(text_of)
}

/// The W3C trace context of a request.
pub(crate) fn trace(head: &impl RequestHead) -> Option<TraceContext> {
    let parent = first(head, "traceparent")?;
    let states: Option<Vec<ByteString>> = head.values("tracestate").map(text_of).collect();
    let state = states.filter(|states| !states.is_empty()).map(|states| states.join(",").into());
    Some(TraceContext { parent, state })
}

/// The message of a request, without its body.
///
/// # Errors
/// INVALID_ARGUMENT for an invalid path, query, timeout or listed header.
pub(crate) fn request(
    head: &impl RequestHead,
    entry: &Entry,
    admission: &mut Admission,
    source: &ByteString,
    context: &Arc<RequestContext>,
) -> Result<Message, Fault> {
    if let Some(name) = SINGLE.into_iter().find(|name| head.is_repeated(name)) {
        return Err(header_twice(name));
    }
    let mut message = Message::new(context.id.clone(), source.clone());
    message.context = Some(Arc::clone(context));
    message.params = params(head, entry, std::mem::take(&mut admission.params))?;
    if entry.unlisted_query == UnlistedQuery::Accepted {
        message.query = head.query().map(ByteString::from);
    }
    message.headers = carried(head, &admission.request_headers)?;
    message.content_type = first(head, "content-type");
    if let Some(timeout) = first(head, TIMEOUT_HEADER) {
        let wait = Duration::parse(&timeout).ok_or_else(|| {
            let message = "the header `crossdock-timeout` must be a duration such as `250ms` or `2s`";
            Fault::caller(Code::InvalidArgument, "TIMEOUT", message)
        })?;
        message.deadline = context.received_at.checked_add(wait.0).map(Deadline::at);
    }
    Ok(message)
}

/// The fields from the path, percent-decoded, and from the query.
fn params(head: &impl RequestHead, entry: &Entry, captured: Record) -> Result<Record, Fault> {
    let mut params = captured;
    if head.path().contains('%') {
        let decoded = params.iter().map(|(name, value)| match value {
            Value::Text(text) => Ok((name.clone(), Value::Text(path::decode(text)?))),
            other => Ok((name.clone(), other.clone())),
        });
        params = decoded.collect::<Result<_, Fault>>()?;
    }
    let Some(query) = head.query() else { return Ok(params) };
    for pair in path::query_pairs(query) {
        let (name, value) = pair?;
        let listed = entry.query.iter().find(|param| param.name == name);
        let (field, is_list) = match (listed, entry.unlisted_query) {
            (Some(param), _) => (&param.field, param.is_list),
            (None, _) if entry.ignored_query.contains(&name) => continue,
            (None, UnlistedQuery::Typed) => (&name, true),
            // The path takes precedence; the query is forwarded unchanged.
            (None, UnlistedQuery::Accepted) if entry.address().path.names().any(|field| *field == name) => continue,
            (None, UnlistedQuery::Accepted) => (&name, false),
            (None, UnlistedQuery::Rejected) => {
                let message = format!("unknown query parameter `{name}`");
                return Err(Fault::caller(Code::InvalidArgument, "QUERY_UNKNOWN", message).with_detail("field", name));
            }
        };
        match params.get_mut(field) {
            // An unlisted parameter may be repeated.
            Some(Value::Text(first)) if listed.is_none() => {
                let first = std::mem::take(first);
                params.set(field.clone(), Value::List(vec![Value::Text(first), Value::Text(value)]));
            }
            None if is_list => {
                params.set(field.clone(), Value::List(vec![Value::Text(value)]));
            }
            None => {
                params.set(field.clone(), Value::Text(value));
            }
            Some(Value::List(items)) => items.push(Value::Text(value)),
            Some(_) => {
                let message = format!("the query parameter `{name}` must occur only once");
                return Err(Fault::caller(Code::InvalidArgument, "QUERY", message).with_detail("field", name));
            }
        }
    }
    Ok(params)
}

/// The headers that the route lists.
///
/// # Errors
/// INVALID_ARGUMENT for a value that other protocols cannot represent.
fn carried(head: &impl RequestHead, carry: &[ByteString]) -> Result<Headers, Fault> {
    let mut headers = Headers::new();
    for name in carry {
        for value in head.values(name) {
            let appended = text_of(value).map(|value| headers.append(name.clone(), value));
            if !matches!(appended, Some(Ok(()))) {
                let message = format!("the header `{name}` has a character outside ASCII");
                return Err(Fault::caller(Code::InvalidArgument, "HEADER", message).with_detail("header", name.clone()));
            }
        }
    }
    Ok(headers)
}

/// A body in the format that its media type indicates.
pub(crate) fn body(chunks: Chunks, content_type: Option<&ByteString>) -> Body {
    Body::raw(chunks, content_type.map_or(Format::Raw, |media_type| Format::of_media_type(media_type)))
}

/// The prefix of headers with attributes of an event.
const EVENT_PREFIX: &str = "ce-";

/// Reads the event that a request is: its attributes, and its data as the body.
///
/// # Errors
/// INVALID_ARGUMENT if it is not an event.
pub(crate) fn receive_event(head: &impl RequestHead, message: &mut Message, limits: &Limits) -> Result<(), Fault> {
    let document = || match &message.body {
        Body::Raw { chunks, .. } => chunks.to_bytes(),
        _ => Bytes::new(),
    };
    let received = cloudevents::receive(message.content_type.as_ref(), limits, document, |attributes| {
        for (name, value) in head.with_prefix(EVENT_PREFIX) {
            let name = String::from_utf8_lossy(name);
            attributes.add(&name, cloudevents::decode_header(&name, &value)?)?;
        }
        Ok(())
    })?;
    message.event = Some(received.event);
    message.content_type = received.content_type;
    match received.data {
        Data::Body => {}
        Data::Bytes(data) => {
            let format = message.content_type.as_deref().map_or(Format::Raw, Format::of_media_type);
            message.body = Body::present(data.into(), format);
        }
        Data::None => message.body = Body::Empty,
    }
    Ok(())
}

/// Assembles the body of a typed request from the received body and the fields of path and query.
///
/// # Errors
/// INVALID_ARGUMENT with the position and field of what does not match the type.
pub(crate) fn typed_body(typed: &TypedEntry, params: &Record, body: &Body) -> Result<Body, Fault> {
    let texts = |value: &Value| match value {
        Value::List(items) => items.iter().filter_map(Value::scalar_text).collect(),
        other => other.scalar_text().into_iter().collect(),
    };
    let params: Vec<Param> =
        params.iter().map(|(name, value)| Param { path: name.clone(), texts: texts(value) }).collect();
    let bytes = match body {
        Body::Raw { chunks, format, .. } => Some((chunks.to_bytes(), *format)),
        _ => None,
    };
    let (received, field) = match (&typed.body, &bytes) {
        (TypedBody::None, Some(_)) => {
            let message = "this method accepts no body; send all fields in the path and the query";
            return Err(Fault::caller(Code::InvalidArgument, "BODY_UNWANTED", message));
        }
        (TypedBody::Field(name), Some((bytes, format))) => (Some((bytes, *format)), Some(&**name)),
        (_, Some((bytes, format))) => (Some((bytes, *format)), None),
        (_, None) => (None, None),
    };
    let request = &typed.call.request;
    let assembled = request.assemble(received, field, &params)?;
    Ok(Body::typed(assembled.into(), Format::Protobuf, Arc::clone(request) as Arc<dyn BodyType>))
}

/// The target of a request to a service. Values are percent-encoded, so that none can change the structure.
///
/// # Errors
/// INVALID_ARGUMENT if a field is missing or cannot be written in a target.
pub(crate) fn target(endpoint: &Endpoint, operation: &Operation, message: &Message) -> Result<String, Fault> {
    let missing = |name: &ByteString| {
        let problem =
            format!("the path of the operation needs the field `{name}`, which is missing or not a single value");
        Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", problem).with_detail("field", name.clone())
    };
    let mut out = String::with_capacity(endpoint.base.len() + operation.path.as_str().len() + 32);
    out.push_str(&endpoint.base);
    for part in operation.path.parts() {
        match part {
            Part::Literal(text) => {
                out.push('/');
                out.push_str(text);
            }
            Part::Segment(name) => {
                out.push('/');
                path::append_segment(&mut out, &address_field(message, name).ok_or_else(|| missing(name))?)?;
            }
            Part::Segments(name) => {
                for part in address_field(message, name).ok_or_else(|| missing(name))?.split('/') {
                    out.push('/');
                    path::append_segment(&mut out, part)?;
                }
            }
            // Rejected when the settings were read.
            Part::Unnamed => {}
        }
    }
    if let Some(verb) = operation.path.verb() {
        out.push(':');
        out.push_str(verb);
    }
    if out.is_empty() {
        out.push('/');
    }
    query::append(&mut out, operation, message)?;
    Ok(out)
}

/// The headers of a request to a service. `event` has the attributes of an event in binary mode.
///
/// # Errors
/// INTERNAL for an invalid value, which earlier validation rules out.
pub(crate) fn request_headers(
    endpoint: &Endpoint,
    static_headers: &[(http::HeaderName, http::HeaderValue)],
    message: &Message,
    content_type: Option<ByteString>,
    event: &[(ByteString, Value)],
    now: Instant,
) -> Result<http::HeaderMap, Fault> {
    let mut headers = http::HeaderMap::with_capacity(8 + message.headers.len());
    headers.insert(http::header::HOST, endpoint.authority.clone());
    let mut insert = |name: http::HeaderName, value: ByteString| -> Result<(), Fault> {
        let value = http::HeaderValue::from_maybe_shared(value.into_bytes())
            .map_err(|_| Fault::new(Code::Internal, "HEADER", format!("invalid value of the header `{name}`")))?;
        headers.append(name, value);
        Ok(())
    };
    if let Some(content_type) = content_type {
        insert(http::header::CONTENT_TYPE, content_type)?;
    }
    // An event has no other attributes than its own.
    let is_attribute = |name: &str| !event.is_empty() && name.starts_with(EVENT_PREFIX);
    for (name, value) in message.headers.iter().filter(|(name, _)| !is_attribute(name)) {
        if let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) {
            insert(name, value.clone())?;
        }
    }
    for (name, value) in event {
        if let Ok(name) = http::HeaderName::from_bytes(format!("{EVENT_PREFIX}{name}").as_bytes()) {
            insert(name, cloudevents::encode_header(value))?;
        }
    }
    insert(http::HeaderName::from_static("x-request-id"), message.id.clone())?;
    if let Some(trace) = message.trace() {
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

/// The reply of a successful response.
pub(crate) fn reply(
    head: &http::response::Parts,
    chunks: Chunks,
    operation: &Operation,
    carry: &[ByteString],
) -> Result<Message, Fault> {
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
                    .map_err(|_| crate::error::bad_response("a header has an invalid value"))?;
            }
        }
    }
    message.body = match (body(chunks, message.content_type.as_ref()), &operation.call) {
        (Body::Raw { chunks, format: Format::Json, .. }, Some(call)) => {
            Body::typed(chunks, Format::Json, Arc::clone(&call.reply) as Arc<dyn BodyType>)
        }
        (body, _) => body,
    };
    Ok(message)
}

/// The fault for a status that is not successful. The response's content is not disclosed to the client.
pub(crate) fn status_fault(head: &http::response::Parts, service: &str) -> Option<Fault> {
    let status = head.status.as_u16();
    let code = Code::from_http(status)?;
    let wait = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let retry = match (status, wait) {
        (429 | 503, Some(seconds)) => Retry::After(std::time::Duration::from_secs(seconds.min(3600))),
        _ => Retry::Never,
    };
    let fault = Fault::new(code, "SERVICE_STATUS", format!("the service responded with status {status}"))
        .with_origin(Origin::Service(service.into()))
        .with_retry(retry)
        .logged();
    Some(fault)
}
