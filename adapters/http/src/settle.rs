//! What became of a request, in HTTP's words.

use std::sync::Arc;

use actix_http::StatusCode;
use crossdock_adapter_api::offload::discard;
use crossdock_adapter_api::{Outcome, encode_body, is_long_to_encode, take_body_apart};
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Message, Record, Retry, Value, json, xml};

use crate::answer::{Answer, Content};
use crate::config::Entry;
use crate::request::HeadRefusal;
use crate::streams::{self, StreamAnswer};

/// What decides how an answer is written.
pub(crate) struct Asker {
    /// Only the head is wanted.
    pub(crate) head_only: bool,
    /// Faults are told in XML.
    pub(crate) wants_xml: bool,
    /// The request's identity, once it has one.
    pub(crate) id: Option<ByteString>,
}

/// The answer to an outcome.
pub(crate) fn settle(outcome: Outcome, entry: &Entry, asker: &Asker) -> Answer {
    let of_type = entry.typed.as_ref().map(|typed| &*typed.answer as &dyn BodyType);
    match outcome {
        Outcome::Replied(Message { body: Body::Stream(stream), headers, .. }) => {
            match (stream.take(), &entry.typed, entry.stream) {
                (Some(stream), Some(typed), Some(format)) => {
                    let mut message = Message::new(ByteString::new(), ByteString::new());
                    message.headers = headers;
                    let content_type = Some(ByteString::from_static(streams::media_type(format)));
                    let answer = StreamAnswer::new(stream, Arc::clone(&typed.answer), format);
                    reply(message, Content::Stream(answer), content_type, asker)
                }
                _ => {
                    failure(&Fault::new(Code::Internal, "STREAM", "the answer streams, and the entry does not"), asker)
                }
            }
        }
        Outcome::Replied(mut message) => match encode_body(&message, &entry.answer, of_type) {
            Ok(body) => {
                // It may have been read on its way.
                discard(std::mem::replace(&mut message.body, Body::Empty));
                reply(message, Content::Chunks(body.chunks), body.content_type, asker)
            }
            Err(fault) => failure(&unwritable(fault), asker),
        },
        Outcome::Accepted => Answer::new(202, Content::Chunks(Chunks::new()), asker.head_only),
        Outcome::Failed(fault) => failure(&fault, asker),
    }
}

/// Whether writing the answer takes long.
pub(crate) fn is_long(outcome: &Outcome, entry: &Entry) -> bool {
    let Outcome::Replied(message) = outcome else { return false };
    let of_type = entry.typed.as_ref().map(|typed| &*typed.answer as &dyn BodyType);
    is_long_to_encode(&message.body, &entry.answer, of_type)
}

/// Writes the body of an answer on the thread pool.
pub(crate) async fn write_apart(outcome: Outcome, entry: &Entry) -> Outcome {
    let Outcome::Replied(mut message) = outcome else { return outcome };
    let of_type = entry.typed.as_ref().map(|typed| Arc::clone(&typed.answer) as Arc<dyn BodyType>);
    match take_body_apart(&mut message, &entry.answer, of_type.as_ref()).await {
        Ok(written) => {
            written.put_into(&mut message, &entry.answer, of_type);
            Outcome::Replied(message)
        }
        Err(fault) => Outcome::Failed(unwritable(fault)),
    }
}

/// What the gateway cannot write is its own fault, whatever the format says of the bytes.
fn unwritable(fault: Fault) -> Fault {
    Fault { code: Code::Internal, http_status: None, ..fault }
}

const REQUEST_ID: &str = "x-request-id";

fn reply(message: Message, content: Content, content_type: Option<ByteString>, asker: &Asker) -> Answer {
    let mut answer = Answer::new(message.status.unwrap_or(200), content, asker.head_only);
    answer.headers = message.headers;
    if let Some(content_type) = content_type {
        answer.set("content-type", content_type);
    }
    if let Some(id) = &asker.id {
        answer.set(REQUEST_ID, id.clone());
    }
    answer
}

/// The answer to a fault: a problem document (RFC 9457) in the caller's format.
pub(crate) fn failure(fault: &Fault, asker: &Asker) -> Answer {
    let status = fault.to_http();
    let (body, media_type) = problem_document(fault, status, asker.id.as_ref(), asker.wants_xml);
    let mut answer = Answer::new(status, Content::Chunks(bytes::Bytes::from(body).into()), asker.head_only);
    answer.set("content-type", ByteString::from_static(media_type));
    if let Some(allow) = fault.detail("allow") {
        answer.set("allow", allow.clone());
    }
    if let Some(seconds) = retry_after(fault) {
        answer.set("retry-after", seconds.to_string());
    }
    if let Some(id) = &asker.id {
        answer.set(REQUEST_ID, id.clone());
    }
    answer
}

/// The fault of a head that is refused.
pub(crate) fn refusal_fault(refusal: HeadRefusal) -> Fault {
    let code = match refusal.status {
        408 => Code::DeadlineExceeded,
        405 | 501 | 505 => Code::Unimplemented,
        417 => Code::FailedPrecondition,
        _ => Code::InvalidArgument,
    };
    Fault::caller(code, "REQUEST_REFUSED", ByteString::from_static(refusal.problem)).with_http_status(refusal.status)
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
