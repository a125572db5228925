//! A listener: accepts connections and detects their HTTP version.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, panic};

use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_service::{Service as _, ServiceFactory as _, fn_service};
use bytes::BytesMut;
use crossdock_message::ByteString;
use crossdock_ports::{AdapterError, Inbound, Ingress, OpenIngress, SendFuture, Stop};
use crossdock_transport::{
    AcceptedStream, ConnectionLimiter, Peer, Permit, Rewind, accept, http2 as connection, listen, serve, tls,
    with_token,
};
use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Listener;
use crate::http1::{
    Connection, ConnectionList, HeadLimits, IncomingBody, Limits, ResponseBody, StrictStream, Timeouts, respond,
};
use crate::request::RequestHead as _;
use crate::settle::head_fault;
use crate::{http2, transaction};

/// A bound listener.
pub(crate) struct HttpInbound {
    name: ByteString,
    socket: TcpListener,
    address: SocketAddr,
    limits: Limits,
    /// `None` if HTTP/2 is disabled.
    http2: Option<connection::Limits>,
    acceptor: Option<TlsAcceptor>,
    limiter: Arc<ConnectionLimiter>,
}

impl HttpInbound {
    pub(crate) fn open(name: &str, listener: &Listener) -> Result<Self, AdapterError> {
        let settings = &listener.settings;
        let versions: &[&[u8]] =
            if settings.http2 { &[b"h2", b"http/1.1", b"http/1.0"] } else { &[b"http/1.1", b"http/1.0"] };
        let acceptor = settings.tls.as_ref().map(|tls| tls::server(tls, versions)).transpose()?.map(TlsAcceptor::from);
        let failed = |source| AdapterError::Listen { address: listener.bind.to_string(), source };
        let socket = listen(listener.bind).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Self {
            name: name.into(),
            socket,
            address,
            acceptor,
            limits: Limits {
                head: HeadLimits {
                    head_len_max: size(settings.head.0),
                    headers_max: settings.headers,
                    target_len_max: size(settings.target.0),
                },
                timeouts: Timeouts {
                    head: settings.head_timeout.0,
                    body: settings.body_timeout.0,
                    idle: settings.idle_timeout.0,
                    write: settings.write_timeout.0,
                },
            },
            http2: settings.http2.then(|| settings.http2_limits()),
            limiter: Arc::new(ConnectionLimiter::from_settings(settings.connections, settings.connections_per_address)),
        })
    }
}

impl Inbound for HttpInbound {
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
            let Self { name, socket, limits, http2, acceptor, limiter, .. } = *self;
            let serving = stop.clone();
            serve(&name.clone(), socket, arbiters, stop, move || {
                // Runs once on each data arbiter.
                let worker = Worker::start(name.clone(), limits, http2, ingress.open(), serving.clone());
                let (acceptor, limiter, handling) = (acceptor.clone(), Arc::clone(&limiter), Rc::clone(&worker));
                let factory = HttpService::<StrictStream<AcceptedStream>, _, ResponseBody>::build()
                    .keep_alive(KeepAlive::Os)
                    .client_request_timeout(Duration::ZERO)
                    .h1_allow_half_closed(false)
                    .on_connect_ext(|stream: &StrictStream<AcceptedStream>, data| {
                        data.insert(Rc::clone(stream.connection()));
                    })
                    .h1(fn_service(move |request: Request| handle(Rc::clone(&handling), request)));
                async move {
                    let http1 = factory.new_service(()).await?;
                    Ok(async move |socket: TcpStream| match worker.open(socket, acceptor.as_ref(), &limiter).await? {
                        Opened::Http1(stream, peer) => {
                            http1.call((*stream, Some(peer))).await.map_err(|error| io::Error::other(error.to_string()))
                        }
                        Opened::Http2(stream, peer, limits, _permit) => {
                            let handle = |request| worker.http2(peer.clone(), request);
                            connection::serve(*stream, &limits, &worker.stop, handle).await;
                            Ok(())
                        }
                        Opened::Closed => Ok(()),
                    })
                }
            })
            .await
        }))
    }
}

/// Shared by the connections of one data arbiter.
struct Worker {
    name: ByteString,
    limits: Limits,
    http2: Option<connection::Limits>,
    ingress: Rc<dyn Ingress>,
    list: Rc<ConnectionList>,
    stop: CancellationToken,
}

/// A connection whose HTTP version is known.
enum Opened {
    Http1(Box<StrictStream<AcceptedStream>>, SocketAddr),
    Http2(Box<Rewind<AcceptedStream>>, Peer, connection::Limits, Permit),
    /// It was closed before its version was known.
    Closed,
}

impl Worker {
    fn start(
        name: ByteString,
        limits: Limits,
        http2: Option<connection::Limits>,
        ingress: Rc<dyn Ingress>,
        stop: CancellationToken,
    ) -> Rc<Self> {
        let list = ConnectionList::new(Instant::now());
        let (refusing, listener) = (Rc::clone(&ingress), name.clone());
        list.on_rejected(move |peer, error| {
            transaction::log_rejection(&listener, &*refusing, peer, &head_fault(error));
        });
        let (swept, stopped) = (Rc::downgrade(&list), stop.clone());
        actix_rt::spawn(async move {
            let mut ticks = tokio::time::interval(ConnectionList::SWEEP_INTERVAL);
            loop {
                ticks.tick().await;
                let Some(list) = swept.upgrade() else { return };
                if stopped.is_cancelled() {
                    list.drain();
                }
                list.sweep(Instant::now());
            }
        });
        Rc::new(Self { name, limits, http2, ingress, list, stop })
    }

    async fn open(
        &self,
        socket: TcpStream,
        acceptor: Option<&TlsAcceptor>,
        limiter: &Arc<ConnectionLimiter>,
    ) -> io::Result<Opened> {
        let address = socket.peer_addr()?;
        // A burst of connections cannot wait for the next sweep.
        self.list.shed_idle();
        let permit = limiter.acquire(address.ip()).await.ok_or_else(|| io::Error::other("too many connections"))?;
        let mut stream = accept(socket, acceptor).await?;
        let mut first = BytesMut::new();
        let is_http2 = match (&self.http2, stream.protocol()) {
            (None, _) => false,
            (Some(_), Some(protocol)) => protocol == b"h2",
            // Without TLS, a client may use HTTP/2 with prior knowledge (RFC 9113 §3.3).
            (Some(_), None) if acceptor.is_none() => match self.detect_http2(&mut stream, &mut first).await {
                Some(is_http2) => is_http2,
                None => return Ok(Opened::Closed),
            },
            (Some(_), None) => false,
        };
        let peer = Peer::new(address, &stream);
        Ok(match self.http2 {
            Some(limits) if is_http2 => {
                Opened::Http2(Box::new(Rewind::new(first.freeze(), stream)), peer, limits, permit)
            }
            _ => {
                let stream = StrictStream::new(stream, first, permit, self.limits, &self.list);
                stream.connection().set_peer(peer);
                Opened::Http1(Box::new(stream), address)
            }
        })
    }

    /// Reads until it is clear whether the connection starts with the preface of HTTP/2. `None` if the client closes it, its
    /// timeout expires or the gateway drains.
    async fn detect_http2(&self, stream: &mut AcceptedStream, first: &mut BytesMut) -> Option<bool> {
        let mut until = Instant::now() + self.limits.timeouts.idle;
        let pending = self.list.add_pending(Instant::now());
        loop {
            let was_empty = first.is_empty();
            let reading = tokio::time::timeout_at(until.into(), stream.read_buf(first));
            let read = tokio::select! {
                read = reading => match read {
                    Ok(read) => read.ok()?,
                    Err(_) if was_empty => return None,
                    // The HTTP/1.1 parser responds as to any head that is not received in time.
                    Err(_) => return Some(false),
                },
                () = self.stop.cancelled() => return None,
                () = pending.shed(), if was_empty => return None,
            };
            if was_empty {
                pending.mark_active();
                until = Instant::now() + self.limits.timeouts.head;
            }
            let len = first.len().min(http2::PREFACE.len());
            if read == 0 {
                return None;
            }
            if first[..len] != http2::PREFACE[..len] {
                return Some(false);
            }
            if len == http2::PREFACE.len() {
                return Some(true);
            }
        }
    }

    fn http2(
        &self,
        peer: Peer,
        request: http::Request<hyper::body::Incoming>,
    ) -> impl Future<Output = http::Response<http2::ResponseBody>> + use<> {
        let (name, ingress) = (self.name.clone(), Rc::clone(&self.ingress));
        http2::handle(name, ingress, peer, self.limits.head, self.limits.timeouts.body, request)
    }
}

/// Handles one HTTP/1.1 request. A panic of its handler is a response too.
async fn handle(worker: Rc<Worker>, mut request: Request) -> Result<Response<ResponseBody>, Infallible> {
    request.head_mut().headers.clear();
    let connection = request.conn_data::<Rc<Connection>>().cloned();
    let parts = connection.and_then(|connection| Some((connection.take_request()?, connection)));
    let Some((head, connection)) = parts else {
        // `StrictStream` gives actix a head only for a request that it has stored.
        unreachable!("a request without its head");
    };
    let body = IncomingBody::new(&connection, &head);
    let processing = transaction::process(&worker.name, &*worker.ingress, &head, body, connection.peer(), None);
    let response = panic::AssertUnwindSafe(processing).catch_unwind().await.unwrap_or_else(|_| {
        connection.close_after_response();
        transaction::panic_response(head.method() == "HEAD")
    });
    Ok(respond(response, connection))
}
