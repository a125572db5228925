//! What became of a request, in HTTP's words.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, MessageBody};
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Response, StatusCode};
use bytes::Bytes;
use crossdock_adapter_api::{Outcome, encode_body};
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Message, Record, Retry, Value, json, xml};

use crate::config::Entry;
use crate::front::Connection;
use crate::streams::{self, StreamAnswer};

/// The body of an answer; tells the connection when all of it is in actix's buffer, or given up.
pub(crate) struct AnswerBody {
    size: BodySize,
    content: Content,
    connection: Rc<Connection>,
}

/// What an answer holds.
enum Content {
    /// Pieces that are all there.
    Chunks(Chunks),
    /// Messages that come one after another.
    Stream(StreamAnswer),
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.connection.answered();
    }
}

impl MessageBody for AnswerBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match &mut self.get_mut().content {
            Content::Chunks(chunks) => Poll::Ready(chunks.pop_front().map(Ok)),
            Content::Stream(stream) => stream.poll_next(cx).map(|piece| piece.map(Ok)),
        }
    }
}

/// What decides how an answer is written.
pub(crate) struct Asker {
    pub(crate) connection: Rc<Connection>,
    /// Only the head is wanted.
    pub(crate) head_only: bool,
    /// Faults are told in XML.
    pub(crate) wants_xml: bool,
    /// The request's identity, once it has one.
    pub(crate) id: Option<ByteString>,
}

/// The answer to an outcome.
pub(crate) fn settle(outcome: Outcome, entry: &Entry, asker: Asker) -> Response<AnswerBody> {
    let of_type = entry.typed.as_ref().map(|typed| &*typed.answer as &dyn BodyType);
    match outcome {
        Outcome::Replied(Message { body: Body::Stream(stream), headers, .. }) => {
            match (stream.take(), &entry.typed, entry.stream) {
                (Some(stream), Some(typed), Some(format)) => {
                    let mut message = Message::new(ByteString::new(), ByteString::new());
                    message.headers = headers;
                    let content_type = Some(ByteString::from_static(streams::media_type(format)));
                    let answer = StreamAnswer::new(stream, Arc::clone(&typed.answer), format);
                    reply(&message, Content::Stream(answer), content_type, asker)
                }
                _ => {
                    failure(&Fault::new(Code::Internal, "STREAM", "the answer streams, and the entry does not"), asker)
                }
            }
        }
        Outcome::Replied(message) => match encode_body(&message, &entry.answer, of_type) {
            Ok(body) => reply(&message, Content::Chunks(body.chunks), body.content_type, asker),
            Err(mut fault) => {
                // What the gateway cannot write is its own fault, whatever the format says of the bytes.
                fault.code = Code::Internal;
                fault.http_status = None;
                failure(&fault, asker)
            }
        },
        Outcome::Accepted => respond(StatusCode::ACCEPTED, Content::Chunks(Chunks::new()), asker),
        Outcome::Failed(fault) => failure(&fault, asker),
    }
}

fn reply(message: &Message, content: Content, content_type: Option<ByteString>, asker: Asker) -> Response<AnswerBody> {
    let status = message.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    let id = asker.id.clone();
    let mut response = respond(status, content, asker);
    let headers = response.headers_mut();
    if let Some(value) = content_type.and_then(header_value) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    for (name, value) in message.headers.iter() {
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), header_value(value.clone())) {
            headers.append(name, value);
        }
    }
    if let Some(value) = id.and_then(header_value) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn header_value(text: ByteString) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(text.into_bytes()).ok()
}

fn respond(status: StatusCode, content: Content, asker: Asker) -> Response<AnswerBody> {
    let Asker { connection, head_only, .. } = asker;
    let without_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let size = match &content {
        _ if without_body => BodySize::None,
        Content::Chunks(chunks) => BodySize::Sized(chunks.len() as u64),
        Content::Stream(_) => BodySize::Stream,
    };
    let content = if head_only || without_body { Content::Chunks(Chunks::new()) } else { content };
    let close = !connection.body_is_done() || connection.is_draining();
    if close {
        connection.close_after_answer();
    }
    let mut response = Response::with_body(status, AnswerBody { size, content, connection });
    if close {
        response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
    }
    response
}

/// The answer to a fault: a problem document (RFC 9457) in the caller's format.
pub(crate) fn failure(fault: &Fault, asker: Asker) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(fault.to_http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (body, media_type) = problem_document(fault, status.as_u16(), asker.id.as_ref(), asker.wants_xml);
    let id = asker.id.clone();
    let mut response = respond(status, Content::Chunks(Bytes::from(body).into()), asker);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(allow) = fault.detail("allow").cloned().and_then(header_value) {
        headers.insert(header::ALLOW, allow);
    }
    if let Some(seconds) = retry_after(fault) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(value) = id.and_then(header_value) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

/// Full seconds after which a caller may come again.
fn retry_after(fault: &Fault) -> Option<u64> {
    match (fault.code, fault.retry) {
        (_, Retry::After(wait)) => Some(wait.as_secs().max(1)),
        (Code::ResourceExhausted, _) => Some(1),
        _ => None,
    }
}

pub(crate) fn problem_document(
    fault: &Fault,
    status: u16,
    id: Option<&ByteString>,
    in_xml: bool,
) -> (Vec<u8>, &'static str) {
    let title = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Client Closed Request");
    let mut problem = Record::new();
    problem.set("type", Value::from("about:blank"));
    problem.set("title", Value::from(title));
    problem.set("status", Value::Int(i64::from(status)));
    problem.set("detail", Value::Text(fault.message.clone()));
    problem.set("code", Value::from(fault.code.name()));
    problem.set("reason", Value::Text(fault.reason.clone()));
    if let Some(id) = id {
        problem.set("request_id", Value::Text(id.clone()));
    }
    for (name, value) in fault.details.iter().filter(|(name, _)| name != "allow") {
        problem.set(name.clone(), Value::Text(value.clone()));
    }
    let problem = Value::Record(problem);
    if in_xml {
        // The namespace that RFC 9457 appendix B gives to problems in XML.
        let root = xml::ExpandedName::parse("{urn:ietf:rfc:7807}problem");
        if let Some(Ok(document)) = root.map(|root| xml::write(&root, &problem)) {
            return (document, "application/problem+xml");
        }
    }
    (json::write(&problem).unwrap_or_default(), "application/problem+json")
}

/// The whole answer to a request that the front refuses.
pub(crate) fn refusal(status: u16, problem: &'static str) -> Bytes {
    let code = match status {
        408 => Code::DeadlineExceeded,
        405 | 501 | 505 => Code::Unimplemented,
        417 => Code::FailedPrecondition,
        _ => Code::InvalidArgument,
    };
    let fault = Fault::caller(code, "REQUEST_REFUSED", ByteString::from_static(problem));
    let (body, media_type) = problem_document(&fault, status, None, false);
    let reason =
        StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Bad Request");
    let mut answer = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer.into()
}
