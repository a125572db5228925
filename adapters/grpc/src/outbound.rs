//! The port to one endpoint: calls as streams of shared connections.

mod body;
mod links;
mod reply;

use std::future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use crossdock_adapter_api::{AdapterError, LocalFuture, OperationSpec, Outbound, WriteFormat, encode_body};
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Format, Message, Origin, Retry, StreamCell};
use crossdock_transport::{Dialer, Endpoint, unreachable, within_deadline};
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{Compression, Faults, Operation, Service};
use crate::framing::{Coding, MessageReader};
use crate::{mapping, settle};
use body::CallBody;
use links::{Claim, Links};
use reply::Replies;

/// What the answer to a health check may weigh.
const HEALTH_LEN_MAX: usize = 1024;

/// The port to one endpoint.
#[derive(Clone)]
pub(crate) struct GrpcOutbound {
    endpoint: Endpoint,
    name: ByteString,
    links: Rc<Links>,
    headers: Vec<(http::HeaderName, http::HeaderValue)>,
    message_len_max: usize,
    coding: Option<Coding>,
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
            links: Links::new(dialer, connect_time, settings.keep_alive.0, settings.keep_alive_timeout.0),
            headers: service.headers.clone(),
            message_len_max: service.message_len_max,
            coding: (settings.compression == Compression::Gzip).then_some(Coding::Gzip),
            faults: settings.faults,
        })
    }

    fn origin(&self, fault: Fault) -> Fault {
        match fault.origin {
            // What is wrong with the caller's own messages is told as that.
            Origin::Caller => fault,
            _ => fault.with_origin(Origin::Service(self.name.clone())),
        }
    }

    async fn exchange(&self, operation: &Operation, message: &Message, carry: &[ByteString]) -> Result<Message, Fault> {
        let broken_stream = Arc::new(Mutex::new(None));
        // However this call ends, its part of the caller's stream ends with it.
        let given_up = CancellationToken::new();
        let giving_up = given_up.clone().drop_guard();
        let mut request = self.request(operation, message, &broken_stream, given_up)?;
        // A connection may have been closed by the other side. Where the request was not sent, it is sent on another.
        for _ in 0..2 {
            let claim = within_deadline(message.deadline, self.links.claim()).await?;
            match claim.send(request).await {
                Ok(response) => return self.receive(response, claim, giving_up, operation, carry).await,
                Err(mut failed) => match failed.take_message() {
                    Some(back) => request = back,
                    None => {
                        let of_caller = broken_stream.lock().ok().and_then(|mut fault| fault.take());
                        return Err(of_caller.unwrap_or_else(|| reset_fault(failed.error())));
                    }
                },
            }
        }
        Err(unreachable("the connection was closed at once"))
    }

    /// Asks `grpc.health.v1.Health` (gRPC Health Checking Protocol) about a service.
    async fn check_service(&self, service: &str) -> Result<(), Fault> {
        /// Field 1 of the request is the service's name, a text.
        const NAME_TAG: u8 = 0x0a;
        /// Field 1 of the response is its status; 1 is SERVING.
        const SERVING: [u8; 2] = [0x08, 1];
        let mut asked = Vec::with_capacity(service.len() + 4);
        if !service.is_empty() {
            asked.push(NAME_TAG);
            prost::encoding::encode_varint(service.len() as u64, &mut asked);
            asked.extend_from_slice(service.as_bytes());
        }
        let mut request = Request::new(CallBody::once(&asked.into(), None)?);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri("/grpc.health.v1.Health/Check")?;
        *request.headers_mut() = mapping::call_metadata(
            &Message::new(ByteString::from_static("health"), ByteString::new()),
            &self.headers,
            Instant::now(),
        );
        let claim = self.links.claim().await?;
        let response = claim.send(request).await.map_err(|failed| reset_fault(failed.error()))?;
        let (head, body) = response.into_parts();
        if let Some(Err(code)) = settle::status_of(&head.headers) {
            return Err(Fault::new(Code::Unavailable, "HEALTH", format!("the health check failed with {code}")));
        }
        let reader = MessageReader::new(body, None, HEALTH_LEN_MAX, reset_fault);
        let (answer, _) = self.one_message(reader, &[]).await?;
        if answer.to_bytes().starts_with(&SERVING) {
            return Ok(());
        }
        Err(Fault::new(Code::Unavailable, "HEALTH", "the health check says that the service is not serving"))
    }

    fn uri(&self, path: &str) -> Result<Uri, Fault> {
        let scheme = if self.endpoint.secure { "https" } else { "http" };
        let authority = self.endpoint.authority.to_str().unwrap_or("");
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        uri.map_err(|_| Fault::new(Code::Internal, "ADDRESS", "the method has no address"))
    }

    fn request(
        &self,
        operation: &Operation,
        message: &Message,
        broken_stream: &Arc<Mutex<Option<Fault>>>,
        given_up: CancellationToken,
    ) -> Result<Request<CallBody>, Fault> {
        let of_type = operation.call.as_ref().map(|call| &call.request);
        let body = match (&message.body, of_type) {
            (Body::Stream(stream), Some(of_type)) => {
                let taken = || Fault::new(Code::Internal, "STREAM", "the stream of the request was taken already");
                let stream = stream.take().ok_or_else(taken)?;
                CallBody::stream(stream, Arc::clone(of_type), self.coding, Arc::clone(broken_stream), given_up)
            }
            _ => {
                let of_type = of_type.map(|of_type| &**of_type as &dyn BodyType);
                let encoded = encode_body(message, &WriteFormat::Protobuf, of_type)?;
                CallBody::once(&encoded.chunks.to_bytes(), self.coding)?
            }
        };
        let mut metadata = mapping::call_metadata(message, &self.headers, Instant::now());
        if self.coding.is_some() {
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
        claim: Claim,
        giving_up: DropGuard,
        operation: &Operation,
        carry: &[ByteString],
    ) -> Result<Message, Fault> {
        let (head, body) = response.into_parts();
        if let Some(status) = settle::status_of(&head.headers) {
            let fault = |code| settle::service_fault(code, &head.headers, carry, self.faults);
            return match status {
                Err(code) => Err(fault(code)),
                // A stream may end before its first message.
                Ok(()) if operation.replies_stream() => {
                    let mut reply = Message::new(ByteString::new(), ByteString::new());
                    reply.trailers = mapping::carried(&head.headers, carry).unwrap_or_default();
                    reply.body = Body::Stream(StreamCell::new(Box::new(reply::Nothing(reply.trailers.clone()))));
                    Ok(reply)
                }
                Ok(()) => Err(bad_reply("it has no message")),
            };
        }
        if head.status != http::StatusCode::OK {
            let code = settle::code_of_http(head.status.as_u16());
            let problem = format!("the service answered in HTTP with status {}", head.status.as_u16());
            return Err(Fault::new(code, "SERVICE_STATUS", problem));
        }
        let is_grpc = head.headers.get(http::header::CONTENT_TYPE);
        if !is_grpc.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
            return Err(Fault::new(Code::Unknown, "BAD_REPLY", "the service's reply is not gRPC"));
        }
        let coding = match head.headers.get("grpc-encoding") {
            None => None,
            Some(value) => {
                Coding::of_name(value.as_bytes()).map_err(|_| bad_reply("it is packed in an unknown way"))?
            }
        };
        let mut reply = Message::new(ByteString::new(), ByteString::new());
        reply.headers = mapping::carried(&head.headers, carry).map_err(|_| bad_reply("a header cannot be carried"))?;
        let reader = MessageReader::new(body, coding, self.message_len_max, reset_fault).of_reply();
        let of_type = operation.call.as_ref().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
        if let (Some(of_type), true) = (&of_type, operation.replies_stream()) {
            let of_type = Arc::clone(of_type);
            let replies = Replies {
                reader: reader.streaming(),
                of_type,
                carry: carry.into(),
                faults: self.faults,
                name: self.name.clone(),
                trailers: crossdock_message::Headers::new(),
                _claim: claim.into_streaming(),
                _giving_up: giving_up,
            };
            reply.body = Body::Stream(StreamCell::new(Box::new(replies)));
            return Ok(reply);
        }
        let (chunks, trailers) = self.one_message(reader, carry).await?;
        match of_type {
            Some(of_type) => reply.body = Body::typed(chunks, Format::Protobuf, of_type),
            None => {
                reply.content_type = Some(ByteString::from_static(Format::Protobuf.media_type()));
                reply.body = Body::protobuf(chunks);
            }
        }
        reply.trailers = mapping::carried(&trailers, carry).map_err(|_| bad_reply("a trailer cannot be carried"))?;
        drop(claim);
        Ok(reply)
    }

    /// The one message of a reply, and what came behind it.
    async fn one_message(&self, mut reader: MessageReader, carry: &[ByteString]) -> Result<(Chunks, HeaderMap), Fault> {
        let first = future::poll_fn(|cx| reader.poll_message(cx)).await.transpose().map_err(of_reply)?;
        let second = match first {
            Some(_) => future::poll_fn(|cx| reader.poll_message(cx)).await.transpose().map_err(of_reply)?,
            None => None,
        };
        let trailers = reader.take_trailers().unwrap_or_default();
        match (settle::status_of(&trailers), first, second) {
            (_, Some(_), Some(_)) => Err(bad_reply("it has more than one message")),
            (Some(Err(code)), ..) => Err(settle::service_fault(code, &trailers, carry, self.faults)),
            (Some(Ok(())), Some(message), None) => {
                let mut chunks = Chunks::from(message);
                chunks.keep(reader.take_keeper());
                Ok((chunks, trailers))
            }
            (Some(Ok(())), None, _) => Err(bad_reply("it has no message")),
            (None, ..) => Err(bad_reply("it ends without a status")),
        }
    }
}

/// A body whose bytes are there, framed already.
pub(crate) fn whole_body(bytes: Bytes) -> CallBody {
    CallBody::whole(bytes)
}

/// A reply that breaks the rules is the service's fault, not the caller's.
fn of_reply(fault: Fault) -> Fault {
    Fault { origin: Origin::Gateway, http_status: None, ..fault }
}

fn bad_reply(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "BAD_REPLY", format!("the service's reply cannot be used: {problem}"))
}

/// What a stream that ended before its time means.
fn reset_fault(error: &hyper::Error) -> Fault {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        let http2 = cause.downcast_ref::<h2::Error>();
        if http2.is_some_and(h2::Error::is_go_away) {
            return connection_fault(http2.is_some_and(h2::Error::is_remote));
        }
        if let Some(reset) = http2.and_then(h2::Error::reason) {
            let code = settle::code_of_reset(reset);
            let fault =
                Fault::new(code, "STREAM_RESET", format!("the service reset the call: {}", reset.description()));
            // Only then has it not been looked at (RFC 9113 §8.7).
            return if reset == h2::Reason::REFUSED_STREAM { fault.with_retry(Retry::Same) } else { fault };
        }
        source = cause.source();
    }
    Fault::new(Code::Unavailable, "CONNECTION_LOST", "the connection to the service ended before its reply")
}

/// What the end of a connection means to a call on it. A service that says GOAWAY has not looked at the streams that it ends so:
/// they may be sent again (RFC 9113 §6.8).
fn connection_fault(by_service: bool) -> Fault {
    if by_service {
        let message = "the service closed the connection before it looked at the call";
        return Fault::new(Code::Unavailable, "CONNECTION_CLOSED", message).with_retry(Retry::Same);
    }
    let message = "the connection was ended: what the service sent is not HTTP/2";
    Fault::new(Code::Unavailable, "NOT_HTTP2", message)
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
                None => Err(Fault::new(Code::Internal, "OPERATION", "the operation is not one of gRPC")),
            }
        })
    }

    fn at(&self, address: IpAddr) -> Option<Rc<dyn Outbound>> {
        Some(Rc::new(Self { links: self.links.at(address), ..self.clone() }))
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.links.claim().await.map(drop).map_err(|fault| self.origin(fault)) })
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
