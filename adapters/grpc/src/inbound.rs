//! A listener: from a connection to answers.

mod answer;
mod services;

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{future, io};

use crossdock_adapter_api::offload::discard;
use crossdock_adapter_api::{
    AdapterError, Admission, Head, Inbound, Ingress, OpenIngress, Outcome, SendFuture, WriteFormat, take_body_apart,
};
use crossdock_message::{
    Body, BodyStream, BodyType, ByteString, Chunks, Code, Deadline, Fault, Format, Message, StreamCell,
};
use crossdock_transport::{ConnectionLimiter, accept, http2, listen, serve, tls};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::{Compression, Entry, Listener, ListenerSettings};
use crate::framing::{Coding, MessageReader};
use crate::mapping::{self, Metadata};
use crate::settle;
use answer::{AnswerBody, StreamAnswer};

/// For the one message of a call that is no stream.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// A listener whose address is taken.
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
        stop: CancellationToken,
    ) -> SendFuture<'static, Result<(), AdapterError>> {
        Box::pin(async move {
            let Self { name, socket, settings, acceptor, limiter, .. } = *self;
            let serving = stop.clone();
            serve(&name.clone(), socket, arbiters, stop, move || {
                // Runs once on each data arbiter.
                let worker = Rc::new(Worker {
                    name: name.clone(),
                    settings: settings.clone(),
                    ingress: ingress.open(),
                    stop: serving.clone(),
                });
                let (acceptor, limiter) = (acceptor.clone(), Arc::clone(&limiter));
                let taking = async move |socket: TcpStream| worker.serve(socket, acceptor.as_ref(), &limiter).await;
                std::future::ready(Ok(taking))
            })
            .await
        })
    }
}

/// What all connections of one data arbiter share.
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
        let peer = socket.peer_addr()?;
        let _permit = limiter.acquire(peer.ip()).await.ok_or_else(|| io::Error::other("too many connections"))?;
        let stream = accept(socket, acceptor).await?;
        let limits = self.settings.limits();
        http2::serve(stream, &limits, &self.stop, |request| handle(Rc::clone(self), request)).await;
        Ok(())
    }

    fn answer_coding(&self, metadata: &HeaderMap) -> Option<Coding> {
        let takes =
            |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b',').any(|name| name.trim_ascii() == b"gzip");
        let taken = metadata.get("grpc-accept-encoding").is_some_and(takes);
        (self.settings.compression == Compression::Gzip && taken).then_some(Coding::Gzip)
    }
}

/// Answers one call, whatever happens.
async fn handle(worker: Rc<Worker>, request: Request<Incoming>) -> Response<AnswerBody> {
    if let Some(refusal) = refused_by_http(&request) {
        return refusal;
    }
    if let Err(fault) = http2::check_work(request.extensions()) {
        return failure(&fault);
    }
    let content_type = request.headers().get(http::header::CONTENT_TYPE).cloned();
    let answered = AssertUnwindSafe(answer(&worker, request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(listener = %worker.name, "a call panicked; its caller got INTERNAL");
        failure(&Fault::new(Code::Internal, "PANIC", "the gateway failed on this call"))
    });
    if let Some(content_type) = content_type {
        response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    }
    response
}

/// What is no call of gRPC is told so in HTTP's words (gRPC over HTTP/2, "Requests").
fn refused_by_http(request: &Request<Incoming>) -> Option<Response<AnswerBody>> {
    let is_grpc = request.headers().get(http::header::CONTENT_TYPE).is_some_and(|value| {
        let name = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        // Messages of another subtype are not protobuf.
        [&b"application/grpc"[..], b"application/grpc+proto"].iter().any(|taken| name.eq_ignore_ascii_case(taken))
    });
    let status = match *request.method() {
        http::Method::POST if is_grpc => return None,
        http::Method::POST => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    let mut response = Response::new(AnswerBody::none());
    *response.status_mut() = status;
    Some(response)
}

/// An answer that is only a status (gRPC over HTTP/2, "Trailers-Only").
fn failure(fault: &Fault) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::none());
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    settle::status(fault, headers);
    if fault.reason == "ENCODING" {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static(Coding::ACCEPTED));
    }
    response
}

async fn answer(worker: &Rc<Worker>, request: Request<Incoming>) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    if let Some(answered) = services::answer(worker, &head, body).await {
        return answered.unwrap_or_else(|fault| failure(&fault));
    }
    failure(&Fault::new(Code::Internal, "SERVICE", "the call was not taken"))
}

/// A call that a route takes.
async fn route(
    worker: &Rc<Worker>,
    head: &http::request::Parts,
    body: Incoming,
) -> Result<Response<AnswerBody>, Fault> {
    let metadata = Metadata(&head.headers);
    let path = head.uri.path();
    let listener = &worker.name;
    let admission = worker.ingress.admit(&Head { listener, method: "POST", path, headers: &metadata })?;
    let spec = Arc::clone(&admission.entry);
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else {
        return Err(Fault::new(Code::Internal, "ENTRY", "the route is not one of gRPC"));
    };
    let id = HeaderValue::from_maybe_shared(admission.id.clone().into_bytes());
    let answered = exchange(worker, head, body, entry, admission).await;
    let mut response = answered.unwrap_or_else(|fault| failure(&fault));
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
) -> Result<Response<AnswerBody>, Fault> {
    let mut message = mapping::request(&head.headers, &admission, &worker.name, Instant::now())?;
    message.work = head.extensions.get::<Arc<http2::Work>>().map(|work| Arc::clone(work) as Arc<dyn Any + Send + Sync>);
    let coding = head.headers.get("grpc-encoding").map_or(Ok(None), |value| Coding::of_name(value.as_bytes()))?;
    let reader = MessageReader::new(body, coding, entry.message_len_max, caller_left);
    message.body = request_body(reader, entry, message.deadline).await?;
    if entry.call.is_none() {
        message.content_type = Some(ByteString::from_static(Format::Protobuf.media_type()));
    }
    let Admission { exchange, .. } = admission;
    let answer_coding = worker.answer_coding(&head.headers);
    match exchange.dispatch(message).await {
        Outcome::Replied(reply) => replied(reply, entry, answer_coding).await,
        Outcome::Accepted => {
            // The route took the message on and has nothing to say: in gRPC, that is a reply of defaults.
            let reply = Message::new(ByteString::new(), ByteString::new());
            replied(reply, entry, answer_coding).await
        }
        Outcome::Failed(fault) => Err(fault),
    }
}

/// The one message, or the stream of them.
async fn request_body(mut reader: MessageReader, entry: &Entry, deadline: Option<Deadline>) -> Result<Body, Fault> {
    let call = entry.call.as_ref();
    let of_type = call.map(|call| Arc::clone(&call.request) as Arc<dyn BodyType>);
    if let (Some(of_type), true) = (&of_type, call.is_some_and(|call| call.client_streaming)) {
        let of_type = Arc::clone(of_type);
        let reader = reader.streaming();
        return Ok(Body::Stream(StreamCell::new(Box::new(Requests { reader, of_type }))));
    }
    let one = async {
        let first = future::poll_fn(|cx| reader.poll_message(cx)).await;
        // What is broken is not asked again.
        let second = match first {
            Some(Ok(_)) => future::poll_fn(|cx| reader.poll_message(cx)).await,
            _ => None,
        };
        (first, second)
    };
    let cardinality = || {
        Fault::caller(Code::Unimplemented, "CARDINALITY", "the method takes exactly one message").with_http_status(400)
    };
    let wait = deadline.map_or(MESSAGE_TIME, |deadline| deadline.left(Instant::now()).min(MESSAGE_TIME));
    match tokio::time::timeout(wait, one).await {
        Ok((Some(Ok(message)), None)) => {
            let mut chunks = Chunks::from(message);
            chunks.keep(reader.take_keeper());
            Ok(match of_type {
                Some(of_type) => Body::typed(chunks, Format::Protobuf, of_type),
                None => Body::protobuf(chunks),
            })
        }
        Ok((Some(Err(fault)), _) | (Some(Ok(_)), Some(Err(fault)))) => Err(fault),
        Ok((None, _) | (Some(Ok(_)), Some(Ok(_)))) => Err(cardinality()),
        Err(_) => {
            Err(Fault::caller(Code::DeadlineExceeded, "BODY_TOO_SLOW", "the message came too slowly")
                .with_http_status(408))
        }
    }
}

fn caller_left(_: &hyper::Error) -> Fault {
    Fault::caller(Code::Cancelled, "CALLER_LEFT", "the caller left")
}

/// The caller's messages.
struct Requests {
    reader: MessageReader,
    of_type: Arc<dyn BodyType>,
}

impl BodyStream for Requests {
    fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Body, Fault>>> {
        let of_type = &self.of_type;
        let typed = |message: bytes::Bytes| Body::typed(message.into(), Format::Protobuf, Arc::clone(of_type));
        self.reader.poll_message(cx).map(|next| next.map(|message| message.map(typed)))
    }
}

async fn replied(mut reply: Message, entry: &Entry, coding: Option<Coding>) -> Result<Response<AnswerBody>, Fault> {
    let of_type = entry.call.as_ref().map(|call| &call.reply);
    let body = match &reply.body {
        Body::Stream(stream) => {
            let taken = || Fault::new(Code::Internal, "STREAM", "the stream of the reply was taken already");
            AnswerBody::stream(StreamAnswer::new(stream.take().ok_or_else(taken)?, of_type.cloned(), coding))
        }
        _ => {
            let of_type = of_type.map(|of_type| Arc::clone(of_type) as Arc<dyn BodyType>);
            let encoded = take_body_apart(&mut reply, &WriteFormat::Protobuf, of_type.as_ref()).await;
            // What the gateway cannot write is its own fault.
            let encoded = encoded.map_err(|fault| Fault { code: Code::Internal, http_status: None, ..fault })?;
            // It may have been read on its way.
            discard(std::mem::replace(&mut reply.body, Body::Empty));
            let mut trailers = HeaderMap::new();
            mapping::append(&reply.trailers, &mut trailers);
            settle::ok(&mut trailers);
            AnswerBody::once(&encoded.chunks.to_bytes(), coding, trailers)?
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if coding.is_some() {
        headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    headers.insert("grpc-accept-encoding", HeaderValue::from_static(Coding::ACCEPTED));
    mapping::append(&reply.headers, headers);
    Ok(response)
}
