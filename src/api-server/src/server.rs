//! The listener.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossdock_embedded::Engine;
use crossdock_tls::ServerTlsSettings;
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body as Answer;
use tonic::{Code, Status};

use crate::access::{Access, AccessError, Caller, digest};
use crate::counts::Counts;
use crate::grpc::Services;
use crate::json::{self, Problem};
use crate::services::Methods;

/// Connections at a time, and calls of each.
const CONNECTIONS_MAX: usize = 1_000;
const CALLS_MAX: u32 = 200;
/// The most of one address.
const CONNECTIONS_OF_ADDRESS_MAX: usize = CONNECTIONS_MAX / 2;
/// A connection without calls is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Time after which a connection over TCP is gone whose other end acknowledges nothing, and between two probes of a quiet one.
const GONE_TIMEOUT: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Time for a TLS handshake, for the first call of a known client, and for the head of a request over HTTP/1.1.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection over HTTP/2 that does not answer a ping is gone: what its calls hold is free.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of the head of a request, in bytes.
const HEAD_LEN_MAX: u32 = 16 << 10;
/// Interval between two looks at the file of clients.
const ACCESS_INTERVAL: Duration = Duration::from_secs(2);
/// How long calls may go on once the instance stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of a listener.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address.
    pub address: SocketAddr,
    /// TLS; without it, tokens can be read on the way.
    pub tls: Option<ServerTlsSettings>,
    /// The file of clients. It is read again when it changes; a file that is not valid changes nothing.
    pub access: PathBuf,
}

/// The API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be used.
    #[error("the address {0} cannot be used: {1}")]
    Address(SocketAddr, io::Error),
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] crossdock_tls::Error),
    /// The file of clients cannot be used.
    #[error("{}: {problem}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: AccessError,
    },
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
}

/// The running API, on a thread of its own.
pub struct ApiServer {
    address: SocketAddr,
    stop: CancellationToken,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: Options, engine: Engine, cluster: crossdock_cluster::Client) -> Result<Self, StartError> {
        let Options { address, tls, access: path } = options;
        let access = Access::read(&path).map_err(|problem| StartError::Access { path: path.clone(), problem })?;
        let tls = tls.map(|tls| crossdock_tls::server(&tls, &[b"h2", b"http/1.1"])).transpose()?;
        let failed = |problem| StartError::Address(address, problem);
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let stop = CancellationToken::new();
        let counts = Arc::<Counts>::default();
        let methods = Methods { engine, cluster, stop: stop.clone(), opening: Arc::default() };
        let server = Arc::new(Server {
            services: Services::new(&methods, &counts),
            started: Instant::now(),
            unknown: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            by_address: Mutex::default(),
            counts: Arc::clone(&counts),
            access: RwLock::new(access),
            tls: tls.map(TlsAcceptor::from),
            stop: stop.clone(),
        });
        let serve = async move {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(problem) => return tracing::error!(%problem, "the API cannot be served"),
            };
            server.serve(listener, path).await;
        };
        let thread = std::thread::Builder::new().name("api".to_owned()).spawn(move || runtime.block_on(serve));
        Ok(Self { address, stop, counts, thread: Some(thread.map_err(StartError::Thread)?) })
    }

    /// What was called.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ApiServer {
    /// Ends streams, and waits for other calls for a limited time.
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    services: Services,
    access: RwLock<Access>,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
    counts: Arc<Counts>,
    started: Instant,
    /// Calls of unknown clients, and the second in which that was logged last.
    unknown: AtomicU64,
    logged: AtomicU64,
    /// Connections by the address of the other end.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that is counted, also if a call of it panics.
struct Counted(Arc<Server>, IpAddr);

impl Counted {
    /// `None` if there are too many from this address.
    fn new(server: &Arc<Server>, from: IpAddr) -> Option<Self> {
        let mut by_address = server.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(from).or_default();
        if *count >= CONNECTIONS_OF_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        server.counts.connections.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(server), from))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(server, from) = self;
        server.counts.connections.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = server.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(from) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(from);
            }
        }
    }
}

/// What the calls of a connection do.
#[derive(Default)]
struct Connection {
    /// One of them was that of a known client.
    is_identified: AtomicBool,
    /// How many are open, until their answers have been sent, and how many have begun.
    calls: AtomicUsize,
    begun: AtomicU64,
}

/// A call that is open.
struct Open(Arc<Connection>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer. Its call is open until it has been sent.
struct OpenBody {
    body: Answer,
    _open: Open,
}

impl Body for OpenBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Connection {
    /// Waits until there is no reason to keep the connection: no known client has called in time, or nothing was called for long.
    async fn is_unused(&self) {
        tokio::time::sleep(HANDSHAKE_TIMEOUT).await;
        let (mut quiet, mut begun) = (Duration::ZERO, 0);
        while self.is_identified.load(Ordering::Relaxed) && quiet < IDLE_TIMEOUT {
            tokio::time::sleep(HANDSHAKE_TIMEOUT).await;
            let now = self.begun.load(Ordering::Relaxed);
            let is_used = self.calls.load(Ordering::Relaxed) > 0 || now != begun;
            quiet = if is_used { Duration::ZERO } else { quiet + HANDSHAKE_TIMEOUT };
            begun = now;
        }
    }
}

impl Server {
    async fn serve(self: Arc<Self>, listener: tokio::net::TcpListener, path: PathBuf) {
        let following = tokio::spawn(Arc::clone(&self).follow_access(path));
        let (permits, connections) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                permit = Arc::clone(&permits).acquire_owned() => {
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        accepted = listener.accept() => accepted.map(|(stream, from)| (stream, from.ip(), permit)),
                    }
                }
            };
            match accepted {
                Ok((stream, from, permit)) => {
                    let Some(counted) = Counted::new(&self, from) else {
                        tracing::info!(%from, "connection to the API refused: there are too many from this address");
                        continue;
                    };
                    let server = Arc::clone(&self);
                    connections.spawn(async move {
                        server.connection(stream).await;
                        drop((counted, permit));
                    });
                }
                Err(problem) => {
                    tracing::warn!(%problem, "connection to the API not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        following.abort();
        connections.close();
        if timeout(STOP_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "calls of the API are ended");
        }
    }

    async fn connection(self: Arc<Self>, stream: tokio::net::TcpStream) {
        let _ = stream.set_nodelay(true);
        // Also over HTTP/1.1, a client that vanished must not hold locks for long.
        let socket = socket2::SockRef::from(&stream);
        let probes = socket2::TcpKeepalive::new().with_time(PROBE_INTERVAL).with_interval(PROBE_INTERVAL);
        let _ = socket.set_tcp_keepalive(&probes);
        let _ = socket.set_tcp_user_timeout(Some(GONE_TIMEOUT));
        match &self.tls {
            None => self.exchange(stream, None).await,
            Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let certificates = stream.get_ref().1.peer_certificates();
                    let certificate = certificates.and_then(|chain| chain.first()).map(|first| digest(first));
                    self.exchange(stream, certificate).await;
                }
                Ok(Err(problem)) => tracing::info!(%problem, "TLS handshake with a client of the API failed"),
                Err(_) => tracing::info!("TLS handshake with a client of the API took too long"),
            },
        }
    }

    async fn exchange(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificate: Option<[u8; 32]>,
    ) {
        let (stop, calls) = (self.stop.clone(), Arc::<Connection>::default());
        let of = Arc::clone(&calls);
        let serve = service_fn(move |request| {
            let (server, of) = (Arc::clone(&self), Arc::clone(&of));
            async move {
                of.calls.fetch_add(1, Ordering::Relaxed);
                of.begun.fetch_add(1, Ordering::Relaxed);
                let open = Open(Arc::clone(&of));
                let answer = server.answer(request, certificate, &of).await;
                Ok::<_, Infallible>(answer.map(|body| OpenBody { body, _open: open }))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).max_buf_size(64 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(CALLS_MAX)
            .max_header_list_size(HEAD_LEN_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), serve);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = calls.is_unused() => {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(STOP_TIMEOUT, connection).await;
                return;
            }
        };
        if let Err(problem) = ended {
            tracing::debug!(%problem, "connection of the API ended");
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        certificate: Option<[u8; 32]>,
        connection: &Connection,
    ) -> Response<Answer> {
        let media_type = request.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
        let is_grpc = media_type.is_some_and(|value| value.starts_with(b"application/grpc"));
        let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let Some(caller) = self.identify(token, certificate.as_ref()) else {
            self.log_unknown();
            self.counts.count("other", Code::Unauthenticated);
            let status = Status::unauthenticated("the call has neither a known token nor a known certificate");
            return if is_grpc { status.into_http() } else { json::problem_response(&Problem::from(&status)) };
        };
        connection.is_identified.store(true, Ordering::Relaxed);
        let mut services = self.services.clone();
        if !is_grpc {
            return json::call(&mut services, request, caller, &self.counts).await;
        }
        request.extensions_mut().insert(caller);
        services.call(request).await
    }

    /// Logs that the call of an unknown client was refused, once a second.
    fn log_unknown(&self) {
        let refused = self.unknown.fetch_add(1, Ordering::Relaxed) + 1;
        let second = self.started.elapsed().as_secs() + 1;
        if self.logged.swap(second, Ordering::Relaxed) != second {
            tracing::info!(refused, "calls of unknown clients of the API refused, since the start");
        }
    }

    fn identify(&self, token: Option<&str>, certificate: Option<&[u8; 32]>) -> Option<Arc<Caller>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).identify(token, certificate)
    }

    /// Reads the file of clients again when it has changed.
    async fn follow_access(self: Arc<Self>, path: PathBuf) {
        let changed_at = |path: &PathBuf| -> Option<(SystemTime, u64)> {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let mut known = changed_at(&path);
        loop {
            tokio::time::sleep(ACCESS_INTERVAL).await;
            let now = changed_at(&path);
            if now == known {
                continue;
            }
            known = now;
            match Access::read(&path) {
                Ok(access) => {
                    tracing::info!(clients = access.len(), "clients of the API read again");
                    self.access.write().unwrap_or_else(PoisonError::into_inner).replace(access);
                }
                Err(problem) => {
                    tracing::error!(%problem, "the file of clients of the API is not valid; nothing changes");
                }
            }
        }
    }
}
