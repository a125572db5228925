//! One request and its response, independent of the HTTP version.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_message::{Body, ByteString, Code, Deadline, Fault, Format, Message, Record, RequestContext};
use crossdock_offload::{INLINE_LEN, Priority, offload};
use crossdock_ports::{Admission, Head, Ingress};
use crossdock_transport::{Peer, bodies};

use crate::accept::prefers_xml;
use crate::config::{Entry, TypedEntry};
use crate::request::{BodyError, DeclaredLength, RequestBody, RequestHead};
use crate::response::Response;
use crate::settle::{ResponseContext, encode_offloaded, error_response, is_long, settle};
use crate::{mapping, path, streams};

/// Time limit for decoding a large body of a request without a deadline; mostly the wait for the thread pool.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Processes a request of the given listener. Errors are responses too.
pub(crate) async fn process(
    listener: &ByteString,
    ingress: &dyn Ingress,
    head: &impl RequestHead,
    body: impl RequestBody,
    peer: Option<&Peer>,
    work: Option<Arc<dyn Any + Send + Sync>>,
) -> Response {
    let mut request_context = request_context(listener, ingress, head, peer);
    let content_type = head.get("content-type");
    let wants_xml = prefers_xml(head.values("accept"), content_type);
    let mut context = ResponseContext { head_only: head.method() == "HEAD", wants_xml, id: None };
    let mut admission = match admit(listener, ingress, head, &mut request_context) {
        Ok(admission) => admission,
        Err(fault) => return error_response(&fault, &context),
    };
    let request_context = Arc::new(request_context);
    context.id = Some(request_context.id.clone());
    let spec = Arc::clone(&admission.entry);
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else {
        return error_response(
            &Fault::new(Code::Internal, "ENTRY", "the route's entry is not an HTTP entry"),
            &context,
        );
    };
    if entry.response_format.format() == Format::Xml && head.get("accept").is_none() {
        context.wants_xml = true;
    }
    let mut outcome = match request(listener, head, body, entry, &mut admission, &request_context).await {
        Ok(message) => admission.exchange.dispatch(Message { work, ..message }).await,
        Err(fault) => admission.exchange.refuse(&request_context, fault),
    };
    let report = |fault: &Fault| ingress.refused(listener, &request_context, fault);
    if is_long(&outcome, entry) {
        // Boxed, so that the future of the common short case stays small.
        outcome = Box::pin(encode_offloaded(outcome, entry, &report)).await;
    }
    settle(outcome, entry, &context, &report)
}

fn new_context(ingress: &dyn Ingress, peer: Option<&Peer>) -> RequestContext {
    let (id, now) = (ingress.new_id(), Instant::now());
    match peer {
        Some(peer) => peer.context(id, now),
        None => RequestContext::new(id, now),
    }
}

/// What is known about a request when it arrives.
fn request_context(
    listener: &ByteString,
    ingress: &dyn Ingress,
    head: &impl RequestHead,
    peer: Option<&Peer>,
) -> RequestContext {
    let mut context = new_context(ingress, peer);
    context.trace = mapping::trace(head);
    context.span =
        tracing::debug_span!("request", protocol = "http", %listener, id = %context.id, route = tracing::field::Empty);
    context
}

/// Logs a request that is rejected before routing.
pub(crate) fn log_rejection(listener: &ByteString, ingress: &dyn Ingress, peer: Option<&Peer>, fault: &Fault) {
    ingress.refused(listener, &new_context(ingress, peer), fault);
}

/// The response to a request that is rejected before routing.
pub(crate) fn reject(fault: &Fault, head_only: bool) -> Response {
    error_response(fault, &ResponseContext { head_only, wants_xml: false, id: None })
}

/// The response to a request whose handler panicked.
pub(crate) fn panic_response(head_only: bool) -> Response {
    let fault = Fault::new(Code::Internal, "PANIC", "the gateway failed to process the request");
    error_response(&fault, &ResponseContext { head_only, wants_xml: false, id: None })
}

/// Finds the route of a request. HEAD is routed as GET.
fn admit(
    listener: &ByteString,
    ingress: &dyn Ingress,
    head: &impl RequestHead,
    context: &mut RequestContext,
) -> Result<Admission, Fault> {
    let path = path::normalize(head.path()).inspect_err(|fault| ingress.refused(listener, context, fault))?;
    let method = if head.method() == "HEAD" { "GET" } else { head.method() };
    ingress.admit(&mut Head { context, listener, method, path: &path, headers: head, is_accepted: false })
}

async fn request(
    listener: &ByteString,
    head: &impl RequestHead,
    body: impl RequestBody,
    entry: &Entry,
    admission: &mut Admission,
    context: &Arc<RequestContext>,
) -> Result<Message, Fault> {
    let mut message = mapping::request(head, entry, admission, listener, context)?;
    if head.values("content-encoding").any(|codings| !is_identity(&codings)) {
        let problem = "compressed bodies are not accepted; send the body without Content-Encoding";
        return Err(Fault::caller(Code::InvalidArgument, "CONTENT_ENCODING", problem).with_http_status(415));
    }
    let max = entry.body_len_max;
    match body.declared_length() {
        DeclaredLength::Known(length) if length > max => return Err(body_fault(BodyError::TooLarge, max)),
        DeclaredLength::Known(_) | DeclaredLength::Unknown => {
            let chunks = body.read(max).await.map_err(|error| body_fault(error, max))?;
            message.body = mapping::body(chunks, message.content_type.as_ref());
        }
        DeclaredLength::NoBody => {}
    }
    if let Some(limits) = &entry.events {
        mapping::receive_event(head, &mut message, limits)?;
    }
    if let Some(typed) = &entry.typed {
        typed_request(typed, &mut message).await?;
    }
    Ok(message)
}

/// Whether a list of content codings has only `identity`. Codings are case-insensitive (RFC 9110 §8.4.1).
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
        streams::parse_requests(typed, body)?
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
    let until = deadline.map_or_else(|| Instant::now() + READ_TIMEOUT, Deadline::instant);
    let read = offload(Priority::New, move || mapping::typed_body(&typed, &params, &body));
    let late = |_| Fault::new(Code::DeadlineExceeded, "DEADLINE", "the deadline passed before the body was read");
    tokio::time::timeout_at(until.into(), read).await.map_err(late)?
}

fn body_fault(error: BodyError, max: u64) -> Fault {
    match error {
        BodyError::TooLarge => {
            let message = format!("the body exceeds the route's limit of {max} bytes");
            Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", message).with_http_status(413)
        }
        BodyError::TooSlow => {
            Fault::caller(Code::DeadlineExceeded, "BODY_TOO_SLOW", "the body arrived too slowly").with_http_status(408)
        }
        BodyError::NoMemory => bodies::Full.into(),
        BodyError::Framing(problem) => Fault::caller(Code::InvalidArgument, "BODY_FRAMING", problem),
        BodyError::Incomplete => {
            Fault::caller(Code::Cancelled, "BODY_INCOMPLETE", "the connection was closed before the body was complete")
        }
    }
}
