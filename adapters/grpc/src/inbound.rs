//! The listener: accepts connections and dispatches calls.

mod body;
mod services;

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{future, io};

use crossdock_message::{
    Body, BodyStream, BodyType, ByteString, Chunks, Code, Deadline, Fault, Format, Message, RequestContext, StreamCell,
};
use crossdock_offload::discard;
use crossdock_offload::encode_and_take_body;
use crossdock_ports::{AdapterError, Admission, Head, Inbound, Ingress, OpenIngress, Outcome, SendFuture, Stop};
use crossdock_transport::{ConnectionLimiter, Peer, accept, http2, listen, serve, tls, with_token};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::PROTOBUF;
use crate::config::{Compression, Entry, Listener, ListenerSettings};
use crate::event;
use crate::framing::{Encoding, MessageReader};
use crate::mapping::{self, Metadata};
use crate::reason;
use crate::settle;
use body::{ResponseBody, StreamBody};

/// Timeout for receiving the message of a unary call.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// A bound listener.
pub(crate) struct GrpcInbound {
    name: ByteString,
    socket: TcpListener,
    address: SocketAddr,
    settings: ListenerSettings,
    acceptor: Option<TlsAcceptor>,
    limiter: Arc<ConnectionLimiter>,
}

impl GrpcInbound {
    pub(crate) fn open(name: &str, listener: &Listener) -> Result<Self, AdapterError> {
        let settings = listener.settings.clone();
        let acceptor = settings.tls.as_ref().map(|settings| tls::server(settings, &[b"h2"])).transpose()?;
        let failed = |source| AdapterError::Listen { address: listener.bind.to_string(), source };
        let socket = listen(listener.bind).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let limiter =
            Arc::new(ConnectionLimiter::from_settings(settings.connections, settings.connections_per_address));
        Ok(Self { name: name.into(), socket, address, settings, acceptor: acceptor.map(TlsAcceptor::from), limiter })
    }
}

impl Inbound for GrpcInbound {
    fn address(&self) -> String {
        self.address.to_string()
    }

    fn run(
        self: Box<Self>,
        arbiters: usize,
        ingress: Arc<dyn OpenIngress>,
        stop: Stop,
    ) -> SendFuture<'static, Result<(), AdapterError>> {
        Box::pin(with_token(stop, async move |stop| {
            let Self { name, socket, settings, acceptor, limiter, .. } = *self;
            let worker_stop = stop.clone();
            serve(&name.clone(), socket, arbiters, stop, move || {
                // Runs once on each data arbiter.
                let worker = Rc::new(Worker {
                    name: name.clone(),
                    settings: settings.clone(),
                    ingress: ingress.open(),
                    stop: worker_stop.clone(),
                });
                let (acceptor, limiter) = (acceptor.clone(), Arc::clone(&limiter));
                let handler = async move |socket: TcpStream| worker.serve(socket, acceptor.as_ref(), &limiter).await;
                std::future::ready(Ok(handler))
            })
            .await
        }))
    }
}

/// State shared by all connections of one data arbiter.
struct Worker {
    name: ByteString,
    settings: ListenerSettings,
    ingress: Rc<dyn Ingress>,
    stop: CancellationToken,
}

impl Worker {
    async fn serve(
        self: &Rc<Self>,
        socket: TcpStream,
        acceptor: Option<&TlsAcceptor>,
        limiter: &Arc<ConnectionLimiter>,
    ) -> io::Result<()> {
        let address = socket.peer_addr()?;
        let _permit = limiter.acquire(address.ip()).await.ok_or_else(|| io::Error::other("too many connections"))?;
        let stream = accept(socket, acceptor).await?;
        let (peer, limits) = (Peer::new(address, &stream), self.settings.limits());
        http2::serve(stream, &limits, &self.stop, |request| handle(Rc::clone(self), peer.clone(), request)).await;
        Ok(())
    }

    fn response_encoding(&self, metadata: &HeaderMap) -> Option<Encoding> {
        let has_gzip =
            |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b',').any(|name| name.trim_ascii() == b"gzip");
        let accepts_gzip = metadata.get("grpc-accept-encoding").is_some_and(has_gzip);
        (self.settings.compression == Compression::Gzip && accepts_gzip).then_some(Encoding::Gzip)
    }
}

/// Answers a call, even if handling it panics.
async fn handle(worker: Rc<Worker>, peer: Peer, mut request: Request<Incoming>) -> Response<ResponseBody> {
    request.extensions_mut().insert(peer);
    if let Some(rejection) = reject_non_grpc(&request) {
        return rejection;
    }
    if let Err(fault) = http2::check_work(request.extensions()) {
        worker.ingress.refused(
            &worker.name,
            &request_context(&worker, request.headers(), request.extensions()),
            &fault,
        );
        return trailers_only(&fault);
    }
    let content_type = request.headers().get(http::header::CONTENT_TYPE).cloned();
    let result = AssertUnwindSafe(respond(&worker, request)).catch_unwind().await;
    let mut response = result.unwrap_or_else(|_| {
        tracing::error!(listener = %worker.name, "call handler panicked; returned INTERNAL");
        trailers_only(&Fault::new(Code::Internal, "PANIC", "the gateway failed to process the call"))
    });
    if let Some(content_type) = content_type {
        response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    }
    response
}

/// Rejects a request that is not gRPC with an HTTP status (gRPC over HTTP/2, "Requests").
fn reject_non_grpc(request: &Request<Incoming>) -> Option<Response<ResponseBody>> {
    let is_grpc = request.headers().get(http::header::CONTENT_TYPE).is_some_and(|value| {
        let name = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        // Other subtypes are not protobuf.
        [&b"application/grpc"[..], b"application/grpc+proto"].iter().any(|accepted| name.eq_ignore_ascii_case(accepted))
    });
    let status = match *request.method() {
        http::Method::POST if is_grpc => return None,
        http::Method::POST => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    let mut response = Response::new(ResponseBody::none());
    *response.status_mut() = status;
    Some(response)
}

/// A response with only a status (gRPC over HTTP/2, "Trailers-Only").
fn trailers_only(fault: &Fault) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::none());
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    settle::append_fault(fault, headers);
    if fault.reason == reason::ENCODING {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static(Encoding::ACCEPTED));
    }
    response
}

async fn respond(worker: &Rc<Worker>, request: Request<Incoming>) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    if let Some(result) = services::respond(worker, &head, body).await {
        return result.unwrap_or_else(|fault| trailers_only(&fault));
    }
    trailers_only(&Fault::new(Code::Internal, "SERVICE", "the call was not handled"))
}

/// Dispatches a call to its route.
async fn route(
    worker: &Rc<Worker>,
    head: &http::request::Parts,
    body: Incoming,
) -> Result<Response<ResponseBody>, Fault> {
    let metadata = Metadata(&head.headers);
    let path = head.uri.path();
    let listener = &worker.name;
    let mut context = request_context(worker, &head.headers, &head.extensions);
    let head_of_call =
        &mut Head { context: &mut context, listener, method: "POST", path, headers: &metadata, is_accepted: false };
    let admission = worker.ingress.admit(head_of_call)?;
    let context = Arc::new(context);
    let spec = Arc::clone(&admission.entry);
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else {
        return Err(Fault::new(Code::Internal, "ENTRY", "the entry is not a gRPC entry"));
    };
    let id = HeaderValue::from_maybe_shared(context.id.clone().into_bytes());
    let result = exchange(worker, head, body, entry, admission, &context).await;
    let mut response = result.unwrap_or_else(|fault| trailers_only(&fault));
    if let Ok(id) = id {
        response.headers_mut().insert("x-request-id", id);
    }
    Ok(response)
}

async fn exchange(
    worker: &Worker,
    head: &http::request::Parts,
    body: Incoming,
    entry: &Entry,
    admission: Admission,
    context: &Arc<RequestContext>,
) -> Result<Response<ResponseBody>, Fault> {
    let outcome = match request(worker, head, body, entry, &admission, context).await {
        Ok(message) => admission.exchange.dispatch(message).await,
        Err(fault) => admission.exchange.refuse(context, fault),
    };
    let reply = match outcome {
        Outcome::Replied(reply) => reply,
        // The route accepted the message without a reply: in gRPC, an empty message.
        Outcome::Accepted => Message::new(ByteString::new(), ByteString::new()),
        Outcome::Failed(fault) => return Err(fault),
    };
    let response = reply_response(reply, entry, worker.response_encoding(&head.headers)).await;
    response.inspect_err(|fault| worker.ingress.refused(&worker.name, context, fault))
}

/// The message of a call.
async fn request(
    worker: &Worker,
    head: &http::request::Parts,
    body: Incoming,
    entry: &Entry,
    admission: &Admission,
    context: &Arc<RequestContext>,
) -> Result<Message, Fault> {
    let mut message = mapping::request(&head.headers, admission, &worker.name, context)?;
    message.work = head.extensions.get::<Arc<http2::Work>>().map(|work| Arc::clone(work) as Arc<dyn Any + Send + Sync>);
    let encoding = head.headers.get("grpc-encoding").map_or(Ok(None), |value| Encoding::from_name(value.as_bytes()))?;
    let reader = MessageReader::new(body, encoding, entry.message_len_max, caller_disconnected);
    message.body = request_body(reader, entry, message.deadline).await?;
    if entry.call.is_none() {
        message.content_type = Some(ByteString::from_static(Format::Protobuf.media_type()));
    }
    if entry.is_event {
        event::receive(&head.headers, entry.call.is_none(), &mut message)?;
    }
    Ok(message)
}

/// What is known about a call when it arrives.
fn request_context(worker: &Worker, metadata: &HeaderMap, extensions: &http::Extensions) -> RequestContext {
    let (id, now) = (worker.ingress.new_id(), Instant::now());
    let mut context = match extensions.get::<Peer>() {
        Some(peer) => peer.context(id, now),
        None => RequestContext::new(id, now),
    };
    context.trace = mapping::trace(metadata);
    context.span = tracing::debug_span!("request", protocol = "grpc", listener = %worker.name, id = %context.id, route = tracing::field::Empty);
    context
}

/// The message of a unary call, or the stream of messages.
async fn request_body(mut reader: MessageReader, entry: &Entry, deadline: Option<Deadline>) -> Result<Body, Fault> {
    let call = entry.call.as_ref();
    let body_type = call.map(|call| Arc::clone(&call.request) as Arc<dyn BodyType>);
    if let (Some(body_type), true) = (&body_type, call.is_some_and(|call| call.client_streaming)) {
        let body_type = Arc::clone(body_type);
        let reader = reader.for_stream();
        return Ok(Body::Stream(StreamCell::new(Box::new(RequestStream { reader, body_type }))));
    }
    let receive = async {
        let first = future::poll_fn(|cx| reader.poll_message(cx)).await;
        // A failed body is not polled again.
        let second = match first {
            Some(Ok(_)) => future::poll_fn(|cx| reader.poll_message(cx)).await,
            _ => None,
        };
        (first, second)
    };
    let cardinality = || {
        Fault::caller(Code::Unimplemented, "CARDINALITY", "the method requires exactly one message")
            .with_http_status(400)
    };
    let wait = deadline.map_or(MESSAGE_TIME, |deadline| deadline.left(Instant::now()).min(MESSAGE_TIME));
    match tokio::time::timeout(wait, receive).await {
        Ok((Some(Ok(message)), None)) => {
            let mut chunks = Chunks::from(message);
            chunks.keep(reader.take_guard());
            Ok(match body_type {
                Some(body_type) => Body::typed(chunks, Format::Protobuf, body_type),
                None => Body::protobuf(chunks),
            })
        }
        Ok((Some(Err(fault)), _) | (Some(Ok(_)), Some(Err(fault)))) => Err(fault),
        Ok((None, _) | (Some(Ok(_)), Some(Ok(_)))) => Err(cardinality()),
        Err(_) => Err(Fault::caller(Code::DeadlineExceeded, "BODY_TOO_SLOW", "the message was not received in time")
            .with_http_status(408)),
    }
}

fn caller_disconnected(_: &hyper::Error) -> Fault {
    Fault::caller(Code::Cancelled, "CALLER_LEFT", "the caller disconnected")
}

/// The stream of messages of the caller.
struct RequestStream {
    reader: MessageReader,
    body_type: Arc<dyn BodyType>,
}

impl BodyStream for RequestStream {
    fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Body, Fault>>> {
        let body_type = &self.body_type;
        let typed = |message: bytes::Bytes| Body::typed(message.into(), Format::Protobuf, Arc::clone(body_type));
        self.reader.poll_message(cx).map(|next| next.map(|message| message.map(typed)))
    }
}

async fn reply_response(
    mut reply: Message,
    entry: &Entry,
    encoding: Option<Encoding>,
) -> Result<Response<ResponseBody>, Fault> {
    let body_type = entry.call.as_ref().map(|call| &call.reply);
    let body = match &reply.body {
        Body::Stream(stream) => {
            let consumed = || Fault::new(Code::Internal, "STREAM", "the reply stream was already consumed");
            ResponseBody::stream(StreamBody::new(stream.take().ok_or_else(consumed)?, body_type.cloned(), encoding))
        }
        _ => {
            let body_type = body_type.map(|body_type| Arc::clone(body_type) as Arc<dyn BodyType>);
            let encoded = encode_and_take_body(&mut reply, &PROTOBUF, body_type.as_ref()).await;
            // A message that the gateway cannot encode is an internal fault.
            let encoded = encoded.map_err(|fault| Fault { code: Code::Internal, http_status: None, ..fault })?;
            // Its parsed value may be large: drop it elsewhere.
            discard(std::mem::replace(&mut reply.body, Body::Empty));
            let mut trailers = HeaderMap::new();
            mapping::append(&reply.trailers, &mut trailers);
            settle::append_ok(&mut trailers);
            ResponseBody::once(&encoded.chunks.to_bytes(), encoding, trailers)?
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if encoding.is_some() {
        headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    headers.insert("grpc-accept-encoding", HeaderValue::from_static(Encoding::ACCEPTED));
    mapping::append(&reply.headers, headers);
    Ok(response)
}
