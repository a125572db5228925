//! The listener.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossdock_embedded::Engine;
use crossdock_tls::ServerTlsSettings;
use http::{Request, Response, header};
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
/// Time for a TLS handshake, and for the head of a request over HTTP/1.1.
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
        let methods = Methods { engine, cluster, stop: stop.clone() };
        let server = Arc::new(Server {
            services: Services::new(&methods, &counts),
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
                        accepted = listener.accept() => accepted.map(|(stream, _)| (stream, permit)),
                    }
                }
            };
            match accepted {
                Ok((stream, permit)) => {
                    let server = Arc::clone(&self);
                    connections.spawn(async move {
                        server.counts.connections.fetch_add(1, Ordering::Relaxed);
                        Arc::clone(&server).connection(stream).await;
                        server.counts.connections.fetch_sub(1, Ordering::Relaxed);
                        drop(permit);
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
        let stop = self.stop.clone();
        let serve = service_fn(move |request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.answer(request, certificate).await) }
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
        };
        if let Err(problem) = ended {
            tracing::debug!(%problem, "connection of the API ended");
        }
    }

    async fn answer(&self, mut request: Request<Incoming>, certificate: Option<[u8; 32]>) -> Response<Answer> {
        let media_type = request.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
        let is_grpc = media_type.is_some_and(|value| value.starts_with(b"application/grpc"));
        let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let Some(caller) = self.identify(token, certificate.as_ref()) else {
            tracing::info!(path = request.uri().path(), "call of an unknown client of the API refused");
            self.counts.count("other", Code::Unauthenticated);
            let status = Status::unauthenticated("the call has neither a known token nor a known certificate");
            return if is_grpc { status.into_http() } else { json::problem_response(&Problem::from(&status)) };
        };
        let mut services = self.services.clone();
        if !is_grpc {
            return json::call(&mut services, request, caller, &self.counts).await;
        }
        request.extensions_mut().insert(caller);
        services.call(request).await
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
                    *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
                }
                Err(problem) => {
                    tracing::error!(%problem, "the file of clients of the API is not valid; nothing changes");
                }
            }
        }
    }
}
