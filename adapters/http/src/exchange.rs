//! One request, from its head to its answer, whichever version of HTTP it came by.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_adapter_api::offload::{INLINE_LEN, Priority, offload};
use crossdock_adapter_api::{Admission, Head, Ingress, Outcome, WriteFormat};
use crossdock_message::{Body, ByteString, Code, Deadline, Fault, Message, Record};

use crossdock_transport::bodies;

use crate::answer::Answer;
use crate::config::{Entry, TypedEntry};
use crate::request::{Announced, BodyRefusal, RequestBody, RequestHead};
use crate::settle::{Asker, failure, is_long, settle, write_apart};
use crate::{mapping, path, streams};

/// For reading a large body where the caller sets no deadline: the wait for the thread pool, mostly.
const READ_TIME: Duration = Duration::from_secs(10);

/// Answers a request that came to a listener.
pub(crate) async fn answer(
    listener: &ByteString,
    ingress: &dyn Ingress,
    head: &impl RequestHead,
    body: impl RequestBody,
    work: Option<Arc<dyn Any + Send + Sync>>,
) -> Answer {
    let mut asker = Asker { head_only: head.method() == "HEAD", wants_xml: wants_xml(head), id: None };
    let mut admission = match admit(listener, ingress, head) {
        Ok(admission) => admission,
        Err(fault) => return failure(&fault, &asker),
    };
    asker.id = Some(admission.id.clone());
    let spec = Arc::clone(&admission.entry);
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else {
        return failure(&Fault::new(Code::Internal, "ENTRY", "the route is not one of HTTP"), &asker);
    };
    if matches!(entry.answer, WriteFormat::Xml { .. }) && head.get("accept").is_none() {
        asker.wants_xml = true;
    }
    let mut outcome = match request(listener, head, body, entry, &mut admission).await {
        Ok(message) => admission.exchange.dispatch(Message { work, ..message }).await,
        Err(fault) => Outcome::Failed(fault),
    };
    if is_long(&outcome, entry) {
        // Boxed, so that the future of the common short case stays small.
        outcome = Box::pin(write_apart(outcome, entry)).await;
    }
    settle(outcome, entry, &asker)
}

/// The answer to a request that is refused before its route is looked for.
pub(crate) fn refused(fault: &Fault, head_only: bool) -> Answer {
    failure(fault, &Asker { head_only, wants_xml: false, id: None })
}

/// The answer to a request that the gateway failed on.
pub(crate) fn panicked(head_only: bool) -> Answer {
    let fault = Fault::new(Code::Internal, "PANIC", "the gateway failed on this request");
    failure(&fault, &Asker { head_only, wants_xml: false, id: None })
}

/// Finds the route of a request. HEAD is what GET answers, without its body.
fn admit(listener: &ByteString, ingress: &dyn Ingress, head: &impl RequestHead) -> Result<Admission, Fault> {
    let path = path::normalize(head.path())?;
    let method = if head.method() == "HEAD" { "GET" } else { head.method() };
    ingress.admit(&Head { listener, method, path: &path, headers: head })
}

async fn request(
    listener: &ByteString,
    head: &impl RequestHead,
    body: impl RequestBody,
    entry: &Entry,
    admission: &mut Admission,
) -> Result<Message, Fault> {
    let mut message = mapping::request(head, entry, admission, listener, Instant::now())?;
    if head.values("content-encoding").any(|codings| !is_identity(&codings)) {
        let problem = "a compressed body is not taken here; send it as it is";
        return Err(Fault::caller(Code::InvalidArgument, "CONTENT_ENCODING", problem).with_http_status(415));
    }
    let max = entry.body_len_max;
    match body.announced() {
        Announced::Length(length) if length > max => return Err(body_fault(BodyRefusal::TooLarge, max)),
        Announced::Length(_) | Announced::Open => {
            let chunks = body.read(max).await.map_err(|refusal| body_fault(refusal, max))?;
            message.body = mapping::body(chunks, message.content_type.as_ref());
        }
        Announced::Nothing => {}
    }
    if let Some(typed) = &entry.typed {
        typed_request(typed, &mut message).await?;
    }
    Ok(message)
}

/// Whether a list of codings changes nothing; codings have no case (RFC 9110 §8.4.1).
fn is_identity(codings: &[u8]) -> bool {
    codings.split(|byte| *byte == b',').all(|coding| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    })
}

async fn typed_request(typed: &Arc<TypedEntry>, message: &mut Message) -> Result<(), Fault> {
    let params = std::mem::take(&mut message.params);
    let body = std::mem::replace(&mut message.body, Body::Empty);
    message.body = if typed.call.client_streaming {
        streams::requests(typed, body)?
    } else if body.unread_len() > INLINE_LEN {
        // Boxed, so that the future of the common short case stays small.
        Box::pin(long_typed_body(Arc::clone(typed), params, body, message.deadline)).await?
    } else {
        mapping::typed_body(typed, &params, &body)?
    };
    message.content_type = None;
    Ok(())
}

/// As [`mapping::typed_body`], on the thread pool.
async fn long_typed_body(
    typed: Arc<TypedEntry>,
    params: Record,
    body: Body,
    deadline: Option<Deadline>,
) -> Result<Body, Fault> {
    let until = deadline.map_or_else(|| Instant::now() + READ_TIME, Deadline::instant);
    let read = offload(Priority::New, move || mapping::typed_body(&typed, &params, &body));
    let late = |_| Fault::new(Code::DeadlineExceeded, "DEADLINE", "the time was spent before the body was read");
    tokio::time::timeout_at(until.into(), read).await.map_err(late)?
}

fn body_fault(refusal: BodyRefusal, max: u64) -> Fault {
    match refusal {
        BodyRefusal::TooLarge => {
            let message = format!("the body is larger than the {max} bytes that this route takes");
            Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", message).with_http_status(413)
        }
        BodyRefusal::TooSlow => {
            Fault::caller(Code::DeadlineExceeded, "BODY_TOO_SLOW", "the body came too slowly").with_http_status(408)
        }
        BodyRefusal::NoMemory => bodies::Full.into(),
        BodyRefusal::Framing(problem) => Fault::caller(Code::InvalidArgument, "BODY_FRAMING", problem),
        BodyRefusal::Incomplete => {
            Fault::caller(Code::Cancelled, "BODY_INCOMPLETE", "the connection ended before the body")
        }
    }
}

/// Faults are told in the format that the caller speaks: what it accepts, else what it sends.
fn wants_xml(head: &impl RequestHead) -> bool {
    let names =
        |value: &[u8], word: &str| value.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    let accepts = |word: &str| head.values("accept").any(|accept| names(&accept, word));
    match (accepts("json"), accepts("xml")) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => head.get("content-type").is_some_and(|media_type| names(media_type, "xml")),
    }
}
