//! What a listener answers itself: health, and reflection where it is asked for; all else is a route's.

use std::future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use crossdock_message::{Body, BodyStream, Chunks, Code, Fault, Format};
use http::{HeaderMap, HeaderValue, Response};
use hyper::body::Incoming;
use prost::Message as _;

use super::answer::{AnswerBody, StreamAnswer};
use super::{Worker, caller_left, route};
use crate::config::{Entry, OWN_SERVICES};
use crate::framing::{Coding, MessageReader};
use crate::reflection::{self, Described};
use crate::settle;

const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
/// A question to one of these services.
const QUESTION_LEN_MAX: usize = 64 * 1024;
/// How often a watched health is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

/// Answers a call, by a route or itself.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    head: &http::request::Parts,
    body: Incoming,
) -> Option<Result<Response<AnswerBody>, Fault>> {
    let path = head.uri.path();
    let is_reflection = worker.settings.reflection && reflection::PATHS.contains(&path);
    if !(is_reflection || path == HEALTH_CHECK || path == HEALTH_WATCH) {
        return Some(route(worker, head, body).await);
    }
    let coding = match head.headers.get("grpc-encoding").map_or(Ok(None), |value| Coding::of_name(value.as_bytes())) {
        Ok(coding) => coding,
        Err(fault) => return Some(Err(fault)),
    };
    let mut reader = MessageReader::new(body, coding, QUESTION_LEN_MAX, caller_left);
    if is_reflection {
        let answers = Reflection { reader, described: described(worker) };
        return Some(Ok(streamed(Box::new(answers))));
    }
    let question = match future::poll_fn(|cx| reader.poll_message(cx)).await {
        Some(Ok(question)) => HealthRequest::decode(question).map_err(|_| malformed()),
        Some(Err(fault)) => Err(fault),
        None => Err(malformed()),
    };
    Some(question.and_then(|question| health(worker, path, &question.service)))
}

fn malformed() -> Fault {
    Fault::caller(Code::InvalidArgument, "BODY_MALFORMED", "the question cannot be read")
}

fn health_of(worker: &Worker, service: &str) -> i32 {
    let entries = worker.ingress.entries(&worker.name);
    let served = |entry: &Entry| entry.method.rsplit_once('/').is_some_and(|(name, _)| name == service);
    let known = service.is_empty()
        || OWN_SERVICES.contains(&service)
        || entries.iter().filter_map(|entry| entry.as_any().downcast_ref()).any(served);
    match (known, worker.ingress.is_draining()) {
        (false, _) => SERVICE_UNKNOWN,
        (true, true) => NOT_SERVING,
        (true, false) => SERVING,
    }
}

fn health(worker: &Rc<Worker>, path: &str, service: &str) -> Result<Response<AnswerBody>, Fault> {
    if path == HEALTH_WATCH {
        return Ok(streamed(Box::new(Watch::start(worker, service))));
    }
    let status = health_of(worker, service);
    if status == SERVICE_UNKNOWN {
        return Err(Fault::caller(Code::NotFound, "HEALTH", "the service is not known here"));
    }
    let mut trailers = HeaderMap::new();
    settle::ok(&mut trailers);
    let answer = HealthResponse { status }.encode_to_vec();
    Ok(with_type(AnswerBody::once(&answer.into(), None, trailers)?))
}

fn with_type(body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn streamed(stream: Box<dyn BodyStream>) -> Response<AnswerBody> {
    with_type(AnswerBody::stream(StreamAnswer::new(stream, None, None)))
}

fn plain(bytes: Vec<u8>) -> Body {
    // Untyped, and a body even where it is empty: a message of defaults.
    match Chunks::from(Bytes::from(bytes)) {
        chunks if chunks.is_empty() => Body::Empty,
        chunks => Body::raw(chunks, Format::Protobuf),
    }
}

/// Tells a health each time that it changes. A task on the same thread looks; this only hands on.
struct Watch {
    changes: tokio::sync::mpsc::Receiver<i32>,
}

impl Watch {
    fn start(worker: &Rc<Worker>, service: &str) -> Self {
        let (sender, changes) = tokio::sync::mpsc::channel(1);
        let (worker, service) = (Rc::clone(worker), service.to_owned());
        tokio::task::spawn_local(async move {
            let mut told = None;
            let mut looks = tokio::time::interval(WATCH_INTERVAL);
            loop {
                tokio::select! {
                    _ = looks.tick() => {}
                    () = sender.closed() => return,
                }
                let status = health_of(&worker, &service);
                if told != Some(status) && sender.send(status).await.is_err() {
                    return;
                }
                told = Some(status);
                if worker.stop.is_cancelled() {
                    return;
                }
            }
        });
        Self { changes }
    }
}

impl BodyStream for Watch {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        self.changes.poll_recv(cx).map(|status| {
            let status = status?;
            Some(Ok(plain(HealthResponse { status }.encode_to_vec())))
        })
    }
}

/// The contracts of all that a listener serves.
fn described(worker: &Worker) -> Described {
    let entries = worker.ingress.entries(&worker.name);
    let mut described = Described::default();
    for entry in entries.iter().filter_map(|entry| entry.as_any().downcast_ref::<Entry>()) {
        let service = entry.method.rsplit_once('/').map_or("", |(service, _)| service);
        match &entry.call {
            Some(call) => described.add(service, Arc::clone(call.request.type_ref().contract())),
            None => described.add_name(service),
        }
    }
    for service in OWN_SERVICES {
        described.add_name(service);
    }
    described
}

/// Answers each question of a reflection stream.
struct Reflection {
    reader: MessageReader,
    described: Described,
}

impl BodyStream for Reflection {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        let described = &self.described;
        let this = Pin::new(&mut self.reader).get_mut();
        this.poll_message(cx).map(|question| {
            Some(question?.and_then(|question| described.answer(&question).map(plain).ok_or_else(malformed)))
        })
    }
}
