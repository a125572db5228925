//! The outbound port to one endpoint, over pooled connections.
//!
//! A connection has no task of its own. The call that uses it polls it, so that a response needs no second wake-up, and a
//! dropped call closes its connection.

mod connect;
mod pool;

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossdock_cloudevents::{self as cloudevents, Framed};
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Format, Limits, Message, Origin, Value};
use crossdock_ports::{AdapterError, LocalFuture, OperationSpec, Outbound, encode_body};
use crossdock_transport::bodies::Reservation;
use crossdock_transport::{Endpoint, unreachable, within_deadline};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use crate::config::{Operation, Service};
use crate::{error, mapping};
use connect::Connector;
use pool::{ConnectionDriver, Pool, PooledConnection, RequestContent};

/// The outbound port to one endpoint.
pub(crate) struct HttpOutbound {
    service: Rc<ServiceParts>,
    endpoint: Rc<Endpoint>,
    connector: Connector,
    pool: Rc<Pool>,
}

struct ServiceParts {
    /// The host name, for the origin of faults.
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
        Ok(Self::with_connector(Rc::new(parts), Rc::new(endpoint), connector))
    }

    fn with_connector(service: Rc<ServiceParts>, endpoint: Rc<Endpoint>, connector: Connector) -> Self {
        let pool = Pool::start(service.idle_connections, service.idle_timeout);
        Self { service, endpoint, connector, pool }
    }

    fn with_origin(&self, fault: Fault) -> Fault {
        fault.with_origin(Origin::Service(self.service.name.clone()))
    }

    async fn transact(&self, operation: &Operation, message: &Message, carry: &[ByteString]) -> Result<Message, Fault> {
        let mut request = self.request(operation, message)?;
        // The service may have closed a pooled connection. If nothing of the request was written, it is sent on the next one,
        // and finally on a new one.
        while let Some(connection) = self.pool.take() {
            match self.send(connection, request, operation, carry).await {
                Sent::Completed(result) => return result,
                Sent::NotWritten(unsent) => request = unsent,
            }
        }
        let connecting = within_deadline(message.deadline, self.connector.connect());
        let fresh = connecting.await.map_err(|fault| self.with_origin(fault))?;
        match self.send(fresh, request, operation, carry).await {
            Sent::Completed(result) => result,
            Sent::NotWritten(_) => Err(self.with_origin(unreachable("the service closed a new connection at once"))),
        }
    }

    /// Sends a GET request on a new connection, so that the check fails if the service does not accept connections.
    async fn check_path(&self, path: &str) -> Result<(), Fault> {
        let mut connection = self.connector.connect().await?;
        let mut request = http::Request::new(RequestContent::new(Chunks::new()));
        let target = format!("{}{path}", self.endpoint.base);
        let bad_target = |_| Fault::new(Code::Internal, "ADDRESS", "the path of the health check is invalid");
        *request.uri_mut() = http::Uri::try_from(target).map_err(bad_target)?;
        request.headers_mut().insert(http::header::HOST, self.endpoint.authority.clone());
        for (name, value) in &self.service.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let response = send(&mut connection, request).await.map_err(|_| error::connection_lost())?;
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status().as_u16();
        Err(Fault::new(Code::Unavailable, "HEALTH", format!("the health check returned status {status}")))
    }

    fn request(&self, operation: &Operation, message: &Message) -> Result<http::Request<RequestContent>, Fault> {
        use crossdock_ports::OperationSpec as _;
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
        let encoded = || chunks.to_bytes();
        let Framed { attributes, content_type, document } =
            cloudevents::frame(operation.envelope, message, content_type.as_ref(), encoded)?;
        let chunks = document.map_or(chunks, Chunks::from);
        let headers = mapping::request_headers(
            &self.endpoint,
            &self.service.headers,
            message,
            content_type,
            &attributes,
            Instant::now(),
        )?;
        let mut request = http::Request::new(RequestContent::new(chunks));
        *request.method_mut() = operation.method.clone();
        let bad_target = |_| {
            Fault::caller(
                Code::InvalidArgument,
                "ADDRESS",
                "the request target is too long or has an invalid character",
            )
        };
        *request.uri_mut() = http::Uri::try_from(target).map_err(bad_target)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn send(
        &self,
        mut connection: Box<PooledConnection>,
        request: http::Request<RequestContent>,
        operation: &Operation,
        carry: &[ByteString],
    ) -> Sent {
        let response = match send(&mut connection, request).await {
            Ok(response) => response,
            Err(mut failed) => {
                if let Some(unsent) = failed.take_message() {
                    return Sent::NotWritten(unsent);
                }
                let failure = failed.into_error();
                let fault = if failure.is_parse() {
                    error::bad_response("it is not valid HTTP")
                } else {
                    error::connection_lost()
                };
                return Sent::Completed(Err(self.with_origin(fault)));
            }
        };
        Sent::Completed(self.receive(connection, response, operation, carry).await)
    }

    async fn receive(
        &self,
        mut connection: Box<PooledConnection>,
        response: http::Response<Incoming>,
        operation: &Operation,
        carry: &[ByteString],
    ) -> Result<Message, Fault> {
        let (head, body) = response.into_parts();
        let status_fault = mapping::status_fault(&head, &self.service.name);
        let chunks =
            read_body(&mut connection, body, self.service.reply_len_max).await.map_err(|fault| self.with_origin(fault));
        if chunks.is_ok() {
            self.pool.put(connection);
        }
        if let Some(fault) = status_fault {
            return Err(fault);
        }
        if head.headers.get(http::header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(self.with_origin(error::bad_response(
                "its body is compressed, although the request accepts no content coding",
            )));
        }
        mapping::reply(&head, chunks?, operation, carry)
    }
}

/// Sends a request while driving its connection. The error has the request if nothing of it was written.
async fn send(
    connection: &mut PooledConnection,
    request: http::Request<RequestContent>,
) -> Result<http::Response<Incoming>, TrySendError<http::Request<RequestContent>>> {
    let mut sending = pin!(connection.sender.try_send_request(request));
    let driver = &mut connection.driver;
    std::future::poll_fn(|cx| {
        drive(driver, cx);
        sending.as_mut().poll(cx)
    })
    .await
}

/// Polls the driver of a connection. A driver that has ended is dropped at once: only then does hyper return a request that
/// was not written.
fn drive(driver: &mut Option<ConnectionDriver>, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|driver| std::pin::Pin::new(driver).poll(cx).is_ready()) {
        *driver = None;
    }
}

enum Sent {
    Completed(Result<Message, Fault>),
    /// Nothing of the request was written.
    NotWritten(http::Request<RequestContent>),
}

/// Reads a response body of up to `len_max` bytes while driving its connection.
async fn read_body(connection: &mut PooledConnection, body: Incoming, len_max: u64) -> Result<Chunks, Fault> {
    let mut chunks = Chunks::new();
    if body.is_end_stream() {
        return Ok(chunks);
    }
    if body.size_hint().lower() > len_max {
        return Err(error::bad_response("its body exceeds the limit of the service"));
    }
    let mut body = pin!(body);
    let mut received = 0;
    let mut held = Reservation::for_reply();
    loop {
        let frame = std::future::poll_fn(|cx| {
            // Frames that have been read come first; then the connection may read on.
            if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                return Poll::Ready(frame);
            }
            drive(&mut connection.driver, cx);
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
                    return Err(error::bad_response("its body exceeds the limit of the service"));
                }
            }
        }
    }
}

/// The message without the body fields that are sent in the path and query; `None` if there are none or the body is opaque.
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
    let sent = operation.path.names().chain(in_query).filter(|name| record.iter().any(|(field, _)| field == *name));
    let sent: Vec<&ByteString> = sent.collect();
    if sent.is_empty() {
        return Ok(None);
    }
    let mut rest = record.clone();
    for name in sent {
        rest.remove(name);
    }
    let mut message = message.clone();
    message.body = match of_type {
        None => Body::Value(Value::Record(rest)),
        // The other fields still have the type of the message.
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
                Some(operation) => self.transact(operation, message, carry).await,
                None => Err(Fault::new(Code::Internal, "OPERATION", "the operation is not an HTTP operation")),
            }
        })
    }

    fn at(&self, address: IpAddr) -> Option<Rc<dyn Outbound>> {
        let (service, endpoint) = (Rc::clone(&self.service), Rc::clone(&self.endpoint));
        Some(Rc::new(Self::with_connector(service, endpoint, self.connector.at(address))))
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let connection = self.connector.connect().await.map_err(|fault| self.with_origin(fault))?;
            self.pool.put(connection);
            Ok(())
        })
    }

    fn check<'a>(&'a self, target: Option<&'a str>) -> LocalFuture<'a, Result<(), Fault>> {
        match target {
            None => self.probe(),
            Some(path) => Box::pin(async move { self.check_path(path).await.map_err(|fault| self.with_origin(fault)) }),
        }
    }
}
