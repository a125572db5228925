//! The port to one endpoint: calls are streams on shared connections.

mod body;
mod pool;
mod reply;

use std::future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use crossdock_cloudevents::Envelope;
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Format, Message, Origin, Retry, StreamCell};
use crossdock_ports::{AdapterError, LocalFuture, OperationSpec, Outbound, encode_body};
use crossdock_transport::{Dialer, Endpoint, unreachable, within_deadline};
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{Compression, Faults, Operation, Service};
use crate::framing::{Encoding, MessageReader};
use crate::{event, mapping, settle};
use body::CallBody;
use pool::{Checkout, ConnectionPool};
use reply::ReplyStream;

/// Bytes of a health check response.
const HEALTH_LEN_MAX: usize = 1024;

/// The port to one endpoint.
#[derive(Clone)]
pub(crate) struct GrpcOutbound {
    endpoint: Endpoint,
    name: ByteString,
    pool: Rc<ConnectionPool>,
    headers: Vec<(http::HeaderName, http::HeaderValue)>,
    message_len_max: usize,
    encoding: Option<Encoding>,
    faults: Faults,
}

impl GrpcOutbound {
    pub(crate) fn open(service: &Service, endpoint: usize) -> Result<Self, AdapterError> {
        let no_endpoint = || AdapterError::Settings("the service has no such endpoint".into());
        let endpoint = service.endpoints.get(endpoint).cloned().ok_or_else(no_endpoint)?;
        let settings = &service.settings;
        let connect_time = settings.connect_timeout.0;
        let dialer = Dialer::new(&endpoint, settings.tls.as_ref(), &[b"h2"], connect_time)?;
        Ok(Self {
            name: endpoint.host.as_str().into(),
            endpoint,
            pool: ConnectionPool::new(dialer, connect_time, settings.keep_alive.0, settings.keep_alive_timeout.0),
            headers: service.headers.clone(),
            message_len_max: service.message_len_max,
            encoding: (settings.compression == Compression::Gzip).then_some(Encoding::Gzip),
            faults: settings.faults,
        })
    }

    fn origin(&self, fault: Fault) -> Fault {
        match fault.origin {
            // A fault in the caller's messages remains the caller's.
            Origin::Caller => fault,
            _ => fault.with_origin(Origin::Service(self.name.clone())),
        }
    }

    async fn exchange(&self, operation: &Operation, message: &Message, carry: &[ByteString]) -> Result<Message, Fault> {
        let stream_fault = Arc::new(Mutex::new(None));
        // When this call ends for any reason, its request stream is cancelled.
        let cancelled = CancellationToken::new();
        let cancel_guard = cancelled.clone().drop_guard();
        let mut request = self.request(operation, message, &stream_fault, cancelled)?;
        // The peer may have closed the connection. A request that was not sent is sent on another one.
        for _ in 0..2 {
            let checkout = within_deadline(message.deadline, self.pool.check_out()).await?;
            match checkout.send(request).await {
                Ok(response) => return self.receive(response, checkout, cancel_guard, operation, carry).await,
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => {
                        let caller_fault = stream_fault.lock().ok().and_then(|mut fault| fault.take());
                        return Err(caller_fault.unwrap_or_else(|| reset_fault(failed.error())));
                    }
                },
            }
        }
        Err(unreachable("the connection was closed at once"))
    }

    /// Checks a service with `grpc.health.v1.Health` (gRPC Health Checking Protocol).
    async fn check_service(&self, service: &str) -> Result<(), Fault> {
        /// Field 1 of the request: the service name, a string.
        const NAME_TAG: u8 = 0x0a;
        /// Field 1 of the response: the status; 1 is SERVING.
        const SERVING: [u8; 2] = [0x08, 1];
        let mut message = Vec::with_capacity(service.len() + 4);
        if !service.is_empty() {
            message.push(NAME_TAG);
            prost::encoding::encode_varint(service.len() as u64, &mut message);
            message.extend_from_slice(service.as_bytes());
        }
        let mut request = Request::new(CallBody::once(&message.into(), None)?);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri("/grpc.health.v1.Health/Check")?;
        *request.headers_mut() = mapping::call_metadata(
            &Message::new(ByteString::from_static("health"), ByteString::new()),
            &self.headers,
            Instant::now(),
        );
        let checkout = self.pool.check_out().await?;
        let response = checkout.send(request).await.map_err(|failed| reset_fault(failed.error()))?;
        let (head, body) = response.into_parts();
        if let Some(Err(code)) = settle::parse_status(&head.headers) {
            return Err(Fault::new(Code::Unavailable, "HEALTH", format!("the health check failed with {code}")));
        }
        let reader = MessageReader::new(body, None, HEALTH_LEN_MAX, reset_fault);
        let (response, _) = self.receive_unary(reader, &[]).await?;
        if response.to_bytes().starts_with(&SERVING) {
            return Ok(());
        }
        Err(Fault::new(Code::Unavailable, "HEALTH", "the service is not serving"))
    }

    fn uri(&self, path: &str) -> Result<Uri, Fault> {
        let scheme = if self.endpoint.secure { "https" } else { "http" };
        let authority = self.endpoint.authority.to_str().unwrap_or("");
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        uri.map_err(|_| Fault::new(Code::Internal, "ADDRESS", "the method path is invalid"))
    }

    fn request(
        &self,
        operation: &Operation,
        message: &Message,
        stream_fault: &Arc<Mutex<Option<Fault>>>,
        cancelled: CancellationToken,
    ) -> Result<Request<CallBody>, Fault> {
        let body_type = operation.call.as_ref().map(|call| &call.request);
        let attributes = match operation.envelope {
            Envelope::CloudEvents => event::attributes(message)?,
            Envelope::Plain | Envelope::Structured => Vec::new(),
        };
        let body = match (&message.body, body_type) {
            (Body::Stream(stream), Some(body_type)) => {
                let consumed = || Fault::new(Code::Internal, "STREAM", "the request stream was already consumed");
                let stream = stream.take().ok_or_else(consumed)?;
                CallBody::stream(stream, Arc::clone(body_type), self.encoding, Arc::clone(stream_fault), cancelled)
            }
            _ => {
                let body_type = body_type.map(|body_type| &**body_type as &dyn BodyType);
                let encoded = encode_body(message, &operation.body, body_type)?;
                let bytes = match operation.envelope {
                    Envelope::Structured => event::write(message, &encoded)?,
                    Envelope::Plain | Envelope::CloudEvents => encoded.chunks.to_bytes(),
                };
                CallBody::once(&bytes, self.encoding)?
            }
        };
        let mut metadata = mapping::call_metadata(message, &self.headers, Instant::now());
        event::append(&attributes, &mut metadata);
        if self.encoding.is_some() {
            metadata.insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(operation.path.as_str())?;
        *request.headers_mut() = metadata;
        Ok(request)
    }

    async fn receive(
        &self,
        response: Response<Incoming>,
        checkout: Checkout,
        cancel_guard: DropGuard,
        operation: &Operation,
        carry: &[ByteString],
    ) -> Result<Message, Fault> {
        let (head, body) = response.into_parts();
        if let Some(status) = settle::parse_status(&head.headers) {
            let fault = |code| settle::fault_from_service(code, &head.headers, carry, self.faults);
            return match status {
                Err(code) => Err(fault(code)),
                // A stream may end without any message.
                Ok(()) if operation.is_server_streaming() => {
                    let mut reply = Message::new(ByteString::new(), ByteString::new());
                    reply.trailers = mapping::carried(&head.headers, carry).unwrap_or_default();
                    reply.body = Body::Stream(StreamCell::new(Box::new(reply::EmptyReply(reply.trailers.clone()))));
                    Ok(reply)
                }
                Ok(()) => Err(bad_reply("it has no message")),
            };
        }
        if head.status != http::StatusCode::OK {
            let code = settle::code_from_http(head.status.as_u16());
            let problem = format!("the service returned HTTP status {}", head.status.as_u16());
            return Err(Fault::new(code, "SERVICE_STATUS", problem));
        }
        let is_grpc = head.headers.get(http::header::CONTENT_TYPE);
        if !is_grpc.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
            return Err(Fault::new(Code::Unknown, "BAD_REPLY", "the service's reply is not gRPC"));
        }
        let encoding = match head.headers.get("grpc-encoding") {
            None => None,
            Some(value) => {
                Encoding::from_name(value.as_bytes()).map_err(|_| bad_reply("its encoding is not supported"))?
            }
        };
        let mut reply = Message::new(ByteString::new(), ByteString::new());
        reply.headers = mapping::carried(&head.headers, carry).map_err(|_| bad_reply("a header cannot be carried"))?;
        let reader = MessageReader::new(body, encoding, self.message_len_max, reset_fault).for_reply();
        let body_type = operation.call.as_ref().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
        if let (Some(body_type), true) = (&body_type, operation.is_server_streaming()) {
            let body_type = Arc::clone(body_type);
            let stream = ReplyStream {
                reader: reader.for_stream(),
                body_type,
                carry: carry.into(),
                faults: self.faults,
                name: self.name.clone(),
                trailers: crossdock_message::Headers::new(),
                _permit: checkout.into_permit(),
                _cancel_guard: cancel_guard,
            };
            reply.body = Body::Stream(StreamCell::new(Box::new(stream)));
            return Ok(reply);
        }
        let (chunks, trailers) = self.receive_unary(reader, carry).await?;
        match body_type {
            Some(body_type) => reply.body = Body::typed(chunks, Format::Protobuf, body_type),
            None => {
                reply.content_type = Some(ByteString::from_static(Format::Protobuf.media_type()));
                reply.body = Body::protobuf(chunks);
            }
        }
        reply.trailers = mapping::carried(&trailers, carry).map_err(|_| bad_reply("a trailer cannot be carried"))?;
        drop(checkout);
        Ok(reply)
    }

    /// The single message of a reply, and the trailers.
    async fn receive_unary(
        &self,
        mut reader: MessageReader,
        carry: &[ByteString],
    ) -> Result<(Chunks, HeaderMap), Fault> {
        let first = future::poll_fn(|cx| reader.poll_message(cx)).await.transpose().map_err(reply_fault)?;
        let second = match first {
            Some(_) => future::poll_fn(|cx| reader.poll_message(cx)).await.transpose().map_err(reply_fault)?,
            None => None,
        };
        let trailers = reader.take_trailers().unwrap_or_default();
        match (settle::parse_status(&trailers), first, second) {
            (_, Some(_), Some(_)) => Err(bad_reply("it has more than one message")),
            (Some(Err(code)), ..) => Err(settle::fault_from_service(code, &trailers, carry, self.faults)),
            (Some(Ok(())), Some(message), None) => {
                let mut chunks = Chunks::from(message);
                chunks.keep(reader.take_guard());
                Ok((chunks, trailers))
            }
            (Some(Ok(())), None, _) => Err(bad_reply("it has no message")),
            (None, ..) => Err(bad_reply("it ends without a status")),
        }
    }
}

/// A body of framed messages.
pub(crate) fn framed_body(bytes: Bytes) -> CallBody {
    CallBody::from_framed(bytes)
}

/// A malformed reply is a fault of the service, not of the caller.
fn reply_fault(fault: Fault) -> Fault {
    Fault { origin: Origin::Gateway, http_status: None, ..fault }
}

fn bad_reply(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "BAD_REPLY", format!("the service's reply cannot be used: {problem}")).logged()
}

/// The fault for a stream that ended early.
fn reset_fault(error: &hyper::Error) -> Fault {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        let http2 = cause.downcast_ref::<h2::Error>();
        if http2.is_some_and(h2::Error::is_go_away) {
            return connection_fault(http2.is_some_and(h2::Error::is_remote));
        }
        if let Some(reset) = http2.and_then(h2::Error::reason) {
            let code = settle::code_from_reset(reset);
            let fault =
                Fault::new(code, "STREAM_RESET", format!("the service reset the call: {}", reset.description()))
                    .logged();
            // Only then was it not processed (RFC 9113 §8.7).
            return if reset == h2::Reason::REFUSED_STREAM { fault.with_retry(Retry::Same) } else { fault };
        }
        source = cause.source();
    }
    Fault::new(Code::Unavailable, "CONNECTION_LOST", "the connection to the service ended before its reply").logged()
}

/// The fault for a connection that ended. Streams closed by a GOAWAY of the service were not processed and may be retried
/// (RFC 9113 §6.8).
fn connection_fault(is_remote: bool) -> Fault {
    if is_remote {
        let message = "the service closed the connection before it processed the call";
        return Fault::new(Code::Unavailable, "CONNECTION_CLOSED", message).with_retry(Retry::Same).logged();
    }
    let message = "the connection was closed: the service does not speak HTTP/2";
    Fault::new(Code::Unavailable, "NOT_HTTP2", message).logged()
}

impl Outbound for GrpcOutbound {
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        carry: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            match operation.as_any().downcast_ref::<Operation>() {
                Some(operation) => self.exchange(operation, message, carry).await.map_err(|fault| self.origin(fault)),
                None => Err(Fault::new(Code::Internal, "OPERATION", "the operation is not a gRPC operation")),
            }
        })
    }

    fn at(&self, address: IpAddr) -> Option<Rc<dyn Outbound>> {
        Some(Rc::new(Self { pool: self.pool.at(address), ..self.clone() }))
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.pool.check_out().await.map(drop).map_err(|fault| self.origin(fault)) })
    }

    fn check<'a>(&'a self, target: Option<&'a str>) -> LocalFuture<'a, Result<(), Fault>> {
        match target {
            None => self.probe(),
            Some(service) => {
                Box::pin(async move { self.check_service(service).await.map_err(|fault| self.origin(fault)) })
            }
        }
    }
}
