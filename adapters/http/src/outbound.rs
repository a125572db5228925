//! The port to one endpoint: pooled connections, driven by the call that uses them.
//!
//! A connection has no task of its own. The call polls it, so that a reply is read in the turn that wakes the call, and
//! a call that is dropped takes its connection with it.

mod connect;
mod pool;

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossdock_adapter_api::{AdapterError, LocalFuture, OperationSpec, Outbound, encode_body};
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Format, Limits, Message, Origin, Value};
use crossdock_transport::bodies::Reservation;
use crossdock_transport::{Endpoint, unreachable, within_deadline};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use crate::config::{Operation, Service};
use crate::{error, mapping};
use connect::Connector;
use pool::{CallBody, Link, LiveConnection, Pool};

/// The port to one endpoint.
pub(crate) struct HttpOutbound {
    service: Rc<ServiceParts>,
    endpoint: Rc<Endpoint>,
    connector: Connector,
    pool: Rc<Pool>,
}

struct ServiceParts {
    name: ByteString,
    headers: Vec<(http::HeaderName, http::HeaderValue)>,
    reply_len_max: u64,
    idle_connections: usize,
    idle_timeout: Duration,
}

impl HttpOutbound {
    pub(crate) fn open(service: &Service, endpoint: usize) -> Result<Self, AdapterError> {
        let no_endpoint = || AdapterError::Settings("the service has no such endpoint".into());
        let endpoint = service.endpoints.get(endpoint).cloned().ok_or_else(no_endpoint)?;
        let connector = Connector::new(&endpoint, service.tls.as_ref(), service.connect_timeout)?;
        let parts = ServiceParts {
            name: endpoint.host.as_str().into(),
            headers: service.headers.clone(),
            reply_len_max: service.reply_len_max,
            idle_connections: service.idle_connections,
            idle_timeout: service.idle_timeout,
        };
        Ok(Self::connected_by(Rc::new(parts), Rc::new(endpoint), connector))
    }

    fn connected_by(service: Rc<ServiceParts>, endpoint: Rc<Endpoint>, connector: Connector) -> Self {
        let pool = Pool::start(service.idle_connections, service.idle_timeout);
        Self { service, endpoint, connector, pool }
    }

    fn origin(&self, fault: Fault) -> Fault {
        fault.with_origin(Origin::Service(self.service.name.clone()))
    }

    async fn exchange(&self, operation: &Operation, message: &Message, carry: &[ByteString]) -> Result<Message, Fault> {
        let mut request = self.request(operation, message)?;
        // A pooled connection may have been closed by the other side. Where the request was not written, it is written
        // on another; a new connection is the last try.
        while let Some(link) = self.pool.take() {
            match self.send(link, request, operation, carry).await {
                Sent::Answered(answer) => return answer,
                Sent::Unwritten(back) => request = back,
            }
        }
        let connecting = within_deadline(message.deadline, self.connector.connect());
        let fresh = connecting.await.map_err(|fault| self.origin(fault))?;
        match self.send(fresh, request, operation, carry).await {
            Sent::Answered(answer) => answer,
            Sent::Unwritten(_) => Err(self.origin(unreachable("the connection was closed at once"))),
        }
    }

    /// Asks for a path on a new connection, so that a service that accepts none is noticed.
    async fn check_path(&self, path: &str) -> Result<(), Fault> {
        let mut link = self.connector.connect().await?;
        let mut request = http::Request::new(CallBody::new(Chunks::new()));
        let target = format!("{}{path}", self.endpoint.base);
        let bad_target = |_| Fault::new(Code::Internal, "ADDRESS", "the path of the health check is no path");
        *request.uri_mut() = http::Uri::try_from(target).map_err(bad_target)?;
        request.headers_mut().insert(http::header::HOST, self.endpoint.authority.clone());
        for (name, value) in &self.service.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let response = send(&mut link, request).await.map_err(|_| error::connection_lost())?;
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status().as_u16();
        Err(Fault::new(Code::Unavailable, "HEALTH", format!("the health check was answered with status {status}")))
    }

    fn request(&self, operation: &Operation, message: &Message) -> Result<http::Request<CallBody>, Fault> {
        use crossdock_adapter_api::OperationSpec as _;
        let target = mapping::target(&self.endpoint, operation, message)?;
        let (chunks, content_type) = match operation.body() {
            None => (Chunks::new(), None),
            Some(format) => {
                let of_type = operation.call_type().map(|call| &*call.request as &dyn BodyType);
                let body = match without_address_fields(message, operation)? {
                    Some(rest) => encode_body(&rest, format, of_type)?,
                    None => encode_body(message, format, of_type)?,
                };
                (body.chunks, body.content_type)
            }
        };
        let headers =
            mapping::call_headers(&self.endpoint, &self.service.headers, message, content_type, Instant::now())?;
        let mut request = http::Request::new(CallBody::new(chunks));
        *request.method_mut() = operation.method.clone();
        let bad_target = |_| {
            Fault::caller(
                Code::InvalidArgument,
                "ADDRESS",
                "the address of the service would be too long, or hold a character that none can",
            )
        };
        *request.uri_mut() = http::Uri::try_from(target).map_err(bad_target)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn send(
        &self,
        mut link: Box<Link>,
        request: http::Request<CallBody>,
        operation: &Operation,
        carry: &[ByteString],
    ) -> Sent {
        let response = match send(&mut link, request).await {
            Ok(response) => response,
            Err(mut failed) => {
                if let Some(back) = failed.take_message() {
                    return Sent::Unwritten(back);
                }
                let failure = failed.into_error();
                let fault =
                    if failure.is_parse() { error::bad_reply("it is not HTTP") } else { error::connection_lost() };
                return Sent::Answered(Err(self.origin(fault)));
            }
        };
        Sent::Answered(self.receive(link, response, operation, carry).await)
    }

    async fn receive(
        &self,
        mut link: Box<Link>,
        response: http::Response<Incoming>,
        operation: &Operation,
        carry: &[ByteString],
    ) -> Result<Message, Fault> {
        let (head, body) = response.into_parts();
        let failed = mapping::status_fault(&head, &self.service.name);
        let chunks = read_body(&mut link, body, self.service.reply_len_max).await.map_err(|fault| self.origin(fault));
        if chunks.is_ok() {
            self.pool.give(link);
        }
        if let Some(fault) = failed {
            return Err(fault);
        }
        if head.headers.get(http::header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(self.origin(error::bad_reply("its body is compressed, and nobody asked for that")));
        }
        mapping::reply(&head, chunks?, operation, carry)
    }
}

/// Sends a request while driving its connection. An error returns the request if nothing of it was written.
async fn send(
    link: &mut Link,
    request: http::Request<CallBody>,
) -> Result<http::Response<Incoming>, TrySendError<http::Request<CallBody>>> {
    let mut sending = pin!(link.sender.try_send_request(request));
    let connection = &mut link.connection;
    std::future::poll_fn(|cx| {
        drive(connection, cx);
        sending.as_mut().poll(cx)
    })
    .await
}

/// Polls a connection on behalf of its call. One that has ended is dropped at once: only then does it give back a request
/// that it has not written.
fn drive(connection: &mut Option<LiveConnection>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|connection| std::pin::Pin::new(connection).poll(cx).is_ready()) {
        *connection = None;
    }
}

enum Sent {
    Answered(Result<Message, Fault>),
    /// Not a byte of it was written.
    Unwritten(http::Request<CallBody>),
}

/// Reads a reply's body while driving its connection.
async fn read_body(link: &mut Link, body: Incoming, len_max: u64) -> Result<Chunks, Fault> {
    let mut chunks = Chunks::new();
    if body.is_end_stream() {
        return Ok(chunks);
    }
    if body.size_hint().lower() > len_max {
        return Err(error::bad_reply("it is larger than what is taken from this service"));
    }
    let mut body = pin!(body);
    let mut received = 0;
    let mut held = Reservation::for_reply();
    loop {
        let frame = std::future::poll_fn(|cx| {
            // What was read already is taken first; then the connection may read on.
            if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                return Poll::Ready(frame);
            }
            drive(&mut link.connection, cx);
            body.as_mut().poll_frame(cx)
        })
        .await;
        match frame {
            None => {
                chunks.keep(held.into_guard());
                return Ok(chunks);
            }
            Some(Err(_)) => return Err(error::connection_lost()),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                received += data.len() as u64;
                held.grow(data.len())?;
                chunks.push(data);
                if received > len_max {
                    return Err(error::bad_reply("it is larger than what is taken from this service"));
                }
            }
        }
    }
}

/// A body whose fields are known, without those that the address took; `None` where it took none.
fn without_address_fields(message: &Message, operation: &Operation) -> Result<Option<Message>, Fault> {
    let (record, of_type) = match &message.body {
        Body::Value(Value::Record(record)) => (record, None),
        typed @ Body::Raw { of_type: Some(of_type), .. } => match typed.value(&Limits::default())? {
            Some(Value::Record(record)) => (record, Some(of_type)),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let in_query = operation.query.iter().map(|param| &param.field);
    let taken = operation.path.names().chain(in_query).filter(|name| record.iter().any(|(field, _)| field == *name));
    let taken: Vec<&ByteString> = taken.collect();
    if taken.is_empty() {
        return Ok(None);
    }
    let mut rest = record.clone();
    for name in taken {
        rest.remove(name);
    }
    let mut message = message.clone();
    message.body = match of_type {
        None => Body::Value(Value::Record(rest)),
        // What is left is still of its type, and is written as that.
        Some(of_type) => {
            let written = of_type.write(&Value::Record(rest), Format::Protobuf)?;
            Body::typed(written.into(), Format::Protobuf, Arc::clone(of_type))
        }
    };
    Ok(Some(message))
}

impl Outbound for HttpOutbound {
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        carry: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            match operation.as_any().downcast_ref::<Operation>() {
                Some(operation) => self.exchange(operation, message, carry).await,
                None => Err(Fault::new(Code::Internal, "OPERATION", "the operation is not one of HTTP")),
            }
        })
    }

    fn at(&self, address: IpAddr) -> Option<Rc<dyn Outbound>> {
        let (service, endpoint) = (Rc::clone(&self.service), Rc::clone(&self.endpoint));
        Some(Rc::new(Self::connected_by(service, endpoint, self.connector.at(address))))
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let link = self.connector.connect().await.map_err(|fault| self.origin(fault))?;
            self.pool.give(link);
            Ok(())
        })
    }

    fn check<'a>(&'a self, target: Option<&'a str>) -> LocalFuture<'a, Result<(), Fault>> {
        match target {
            None => self.probe(),
            Some(path) => Box::pin(async move { self.check_path(path).await.map_err(|fault| self.origin(fault)) }),
        }
    }
}
