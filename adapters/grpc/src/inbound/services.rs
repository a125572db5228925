//! Built-in services: health, and reflection if enabled. Other calls go to routes.

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

use super::body::{ResponseBody, StreamBody};
use super::{Worker, caller_disconnected, route};
use crate::config::{BUILT_IN_SERVICES, Entry};
use crate::framing::{Encoding, MessageReader};
use crate::reflection::{self, ReflectionIndex};
use crate::settle;

const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
/// Bytes of a request to a built-in service.
const REQUEST_LEN_MAX: usize = 64 * 1024;
/// Polling interval of `Watch`.
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

/// Answers a call, either here or by a route.
pub(super) async fn respond(
    worker: &Rc<Worker>,
    head: &http::request::Parts,
    body: Incoming,
) -> Option<Result<Response<ResponseBody>, Fault>> {
    let path = head.uri.path();
    let is_reflection = worker.settings.reflection && reflection::PATHS.contains(&path);
    if !(is_reflection || path == HEALTH_CHECK || path == HEALTH_WATCH) {
        return Some(route(worker, head, body).await);
    }
    let encoding =
        match head.headers.get("grpc-encoding").map_or(Ok(None), |value| Encoding::from_name(value.as_bytes())) {
            Ok(encoding) => encoding,
            Err(fault) => return Some(Err(fault)),
        };
    let mut reader = MessageReader::new(body, encoding, REQUEST_LEN_MAX, caller_disconnected);
    if is_reflection {
        let responses = Reflection { reader, index: reflection_index(worker) };
        return Some(Ok(stream_response(Box::new(responses))));
    }
    let request = match future::poll_fn(|cx| reader.poll_message(cx)).await {
        Some(Ok(request)) => HealthRequest::decode(request).map_err(|_| malformed()),
        Some(Err(fault)) => Err(fault),
        None => Err(malformed()),
    };
    Some(request.and_then(|request| health(worker, path, &request.service)))
}

fn malformed() -> Fault {
    Fault::caller(Code::InvalidArgument, "BODY_MALFORMED", "the request is malformed")
}

fn health_status(worker: &Worker, service: &str) -> i32 {
    let entries = worker.ingress.entries(&worker.name);
    let is_served = |entry: &Entry| entry.method.rsplit_once('/').is_some_and(|(name, _)| name == service);
    let is_known = service.is_empty()
        || BUILT_IN_SERVICES.contains(&service)
        || entries.iter().filter_map(|entry| entry.as_any().downcast_ref()).any(is_served);
    match (is_known, worker.ingress.is_draining()) {
        (false, _) => SERVICE_UNKNOWN,
        (true, true) => NOT_SERVING,
        (true, false) => SERVING,
    }
}

fn health(worker: &Rc<Worker>, path: &str, service: &str) -> Result<Response<ResponseBody>, Fault> {
    if path == HEALTH_WATCH {
        return Ok(stream_response(Box::new(Watch::start(worker, service))));
    }
    let status = health_status(worker, service);
    if status == SERVICE_UNKNOWN {
        return Err(Fault::caller(Code::NotFound, "HEALTH", "unknown service"));
    }
    let mut trailers = HeaderMap::new();
    settle::append_ok(&mut trailers);
    let message = HealthResponse { status }.encode_to_vec();
    Ok(grpc_response(ResponseBody::once(&message.into(), None, trailers)?))
}

fn grpc_response(body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn stream_response(stream: Box<dyn BodyStream>) -> Response<ResponseBody> {
    grpc_response(ResponseBody::stream(StreamBody::new(stream, None, None)))
}

fn untyped_body(bytes: Vec<u8>) -> Body {
    // Untyped; an empty message is valid, too.
    match Chunks::from(Bytes::from(bytes)) {
        chunks if chunks.is_empty() => Body::Empty,
        chunks => Body::raw(chunks, Format::Protobuf),
    }
}

/// Streams changes of the health status, which a task on the same thread polls.
struct Watch {
    changes: tokio::sync::mpsc::Receiver<i32>,
}

impl Watch {
    fn start(worker: &Rc<Worker>, service: &str) -> Self {
        let (sender, changes) = tokio::sync::mpsc::channel(1);
        let (worker, service) = (Rc::clone(worker), service.to_owned());
        tokio::task::spawn_local(async move {
            let mut reported = None;
            let mut interval = tokio::time::interval(WATCH_INTERVAL);
            loop {
                tokio::select! {
                    _ = interval.tick() => {}
                    () = sender.closed() => return,
                }
                let status = health_status(&worker, &service);
                if reported != Some(status) && sender.send(status).await.is_err() {
                    return;
                }
                reported = Some(status);
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
            Some(Ok(untyped_body(HealthResponse { status }.encode_to_vec())))
        })
    }
}

/// The services and contracts of a listener.
fn reflection_index(worker: &Worker) -> ReflectionIndex {
    let entries = worker.ingress.entries(&worker.name);
    let mut index = ReflectionIndex::default();
    for entry in entries.iter().filter_map(|entry| entry.as_any().downcast_ref::<Entry>()) {
        let service = entry.method.rsplit_once('/').map_or("", |(service, _)| service);
        match &entry.call {
            Some(call) => index.add(service, Arc::clone(call.request.type_ref().contract())),
            None => index.add_service_name(service),
        }
    }
    for service in BUILT_IN_SERVICES {
        index.add_service_name(service);
    }
    index
}

/// Answers the requests of a reflection stream.
struct Reflection {
    reader: MessageReader,
    index: ReflectionIndex,
}

impl BodyStream for Reflection {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        let index = &self.index;
        let this = Pin::new(&mut self.reader).get_mut();
        this.poll_message(cx).map(|request| {
            Some(request?.and_then(|request| index.answer(&request).map(untyped_body).ok_or_else(malformed)))
        })
    }
}
