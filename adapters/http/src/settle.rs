//! Maps the outcome of a request to a response.

use std::sync::Arc;

use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Message, Retry};
use crossdock_offload::discard;
use crossdock_offload::{encode_and_take_body, is_long_to_encode};
use crossdock_ports::{Outcome, encode_body};

use crate::config::Entry;
use crate::problem::problem_document;
use crate::request::HeadError;
use crate::response::{Content, Response};
use crate::streams::{self, StreamContent};

/// What determines the form of a response, besides its outcome.
pub(crate) struct ResponseContext {
    /// The method is HEAD.
    pub(crate) head_only: bool,
    /// Errors are written as XML.
    pub(crate) wants_xml: bool,
    /// The message id, once the request is admitted.
    pub(crate) id: Option<ByteString>,
}

/// Logs a fault of the adapter itself.
pub(crate) type Report<'r> = dyn Fn(&Fault) + 'r;

/// The response to an outcome.
pub(crate) fn settle(outcome: Outcome, entry: &Entry, context: &ResponseContext, report: &Report<'_>) -> Response {
    let of_type = entry.typed.as_ref().map(|typed| &*typed.response as &dyn BodyType);
    match outcome {
        Outcome::Replied(Message { body: Body::Stream(stream), headers, .. }) => {
            match (stream.take(), &entry.typed, entry.stream) {
                (Some(stream), Some(typed), Some(format)) => {
                    let mut message = Message::new(ByteString::new(), ByteString::new());
                    message.headers = headers;
                    let content_type = Some(ByteString::from_static(streams::media_type(format)));
                    let content = StreamContent::new(stream, Arc::clone(&typed.response), format);
                    success(message, Content::Stream(content), content_type, context)
                }
                _ => {
                    let message = "the reply is a stream, but the entry has no `stream`";
                    let fault = Fault::new(Code::Internal, "STREAM", message);
                    report(&fault);
                    error_response(&fault, context)
                }
            }
        }
        Outcome::Replied(mut message) => match encode_body(&message, &entry.response_format, of_type) {
            Ok(body) => {
                // A step may have decoded the body.
                discard(std::mem::replace(&mut message.body, Body::Empty));
                success(message, Content::Chunks(body.chunks), body.content_type, context)
            }
            Err(fault) => {
                let fault = unwritable(fault);
                report(&fault);
                error_response(&fault, context)
            }
        },
        Outcome::Accepted => Response::new(202, Content::Chunks(Chunks::new()), context.head_only),
        Outcome::Failed(fault) => error_response(&fault, context),
    }
}

/// Whether encoding the response takes so long that it must be offloaded.
pub(crate) fn is_long(outcome: &Outcome, entry: &Entry) -> bool {
    let Outcome::Replied(message) = outcome else { return false };
    let of_type = entry.typed.as_ref().map(|typed| &*typed.response as &dyn BodyType);
    is_long_to_encode(&message.body, &entry.response_format, of_type)
}

/// Encodes the body of a response on the thread pool.
pub(crate) async fn encode_offloaded(outcome: Outcome, entry: &Entry, report: &Report<'_>) -> Outcome {
    let Outcome::Replied(mut message) = outcome else { return outcome };
    let of_type = entry.typed.as_ref().map(|typed| Arc::clone(&typed.response) as Arc<dyn BodyType>);
    match encode_and_take_body(&mut message, &entry.response_format, of_type.as_ref()).await {
        Ok(encoded) => {
            encoded.put_into(&mut message, &entry.response_format, of_type);
            Outcome::Replied(message)
        }
        Err(fault) => {
            let fault = unwritable(fault);
            report(&fault);
            Outcome::Failed(fault)
        }
    }
}

/// A body that cannot be encoded is an internal error, not the client's.
fn unwritable(fault: Fault) -> Fault {
    Fault { code: Code::Internal, http_status: None, ..fault }
}

const REQUEST_ID: &str = "x-request-id";

fn success(
    message: Message,
    content: Content,
    content_type: Option<ByteString>,
    context: &ResponseContext,
) -> Response {
    let mut response = Response::new(message.status.unwrap_or(200), content, context.head_only);
    response.headers = message.headers;
    if let Some(content_type) = content_type {
        response.set("content-type", content_type);
    }
    if let Some(id) = &context.id {
        response.set(REQUEST_ID, id.clone());
    }
    response
}

/// The response to a fault: a problem document (RFC 9457).
pub(crate) fn error_response(fault: &Fault, context: &ResponseContext) -> Response {
    let status = fault.to_http();
    let (body, media_type) = problem_document(fault, status, context.id.as_ref(), context.wants_xml);
    let mut response = Response::new(status, Content::Chunks(bytes::Bytes::from(body).into()), context.head_only);
    response.set("content-type", ByteString::from_static(media_type));
    if let Some(allow) = fault.detail("allow") {
        response.set("allow", allow.clone());
    }
    if let Some(seconds) = retry_after(fault) {
        response.set("retry-after", seconds.to_string());
    }
    if let Some(id) = &context.id {
        response.set(REQUEST_ID, id.clone());
    }
    response
}

/// The fault for a rejected head.
pub(crate) fn head_fault(error: HeadError) -> Fault {
    let code = match error.status {
        408 => Code::DeadlineExceeded,
        405 | 501 | 505 => Code::Unimplemented,
        417 => Code::FailedPrecondition,
        _ => Code::InvalidArgument,
    };
    Fault::caller(code, "REQUEST_REFUSED", ByteString::from_static(error.problem)).with_http_status(error.status)
}

/// The value of Retry-After in seconds.
fn retry_after(fault: &Fault) -> Option<u64> {
    match (fault.code, fault.retry) {
        (_, Retry::After(wait)) => Some(wait.as_secs().max(1)),
        (Code::ResourceExhausted, _) => Some(1),
        _ => None,
    }
}
