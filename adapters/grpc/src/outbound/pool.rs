//! The connection pool of one endpoint. Calls share connections.

use std::cell::RefCell;
use std::future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use crossdock_message::Fault;
use crossdock_transport::http2::{LocalExecutor, WriteCoalescer};
use crossdock_transport::{Dialer, DialledStream, unreachable};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::body::CallBody;

/// Concurrent calls per connection, even if the service allows more: the usual limit of servers.
const STREAMS_MAX: usize = 100;
/// The limit before the SETTINGS of the service arrive: a value that no service sends.
const STREAMS_UNKNOWN: usize = u32::MAX as usize - 1;
/// Connections to one endpoint per data arbiter; beyond that, calls share the existing ones.
const CONNECTIONS_MAX: usize = 32;
/// The flow-control window of a stream.
const STREAM_WINDOW: u32 = 128 << 10;
/// The flow-control window of a connection: unread streams must not starve the others.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;
/// Bytes of reply metadata.
const HEADER_LIST_MAX: u32 = 64 * 1024;
/// Bytes buffered for sending per stream.
const SEND_BUFFER_LEN_MAX: usize = 256 * 1024;

/// The connections to one endpoint on one data arbiter.
pub(super) struct ConnectionPool {
    dialer: Dialer,
    /// Timeout for the SETTINGS of the service on a new connection.
    settings_timeout: Duration,
    keep_alive: Duration,
    keep_alive_timeout: Duration,
    open: RefCell<Vec<Rc<PooledConnection>>>,
    /// One connection is established at a time; waiters may then share it.
    connecting: tokio::sync::Mutex<()>,
}

type Http2 = Connection<TokioIo<WriteCoalescer<DialledStream>>, CallBody, LocalExecutor>;

struct PooledConnection {
    sender: SendRequest<CallBody>,
    /// Driven by its own task until it ends; read here for the stream limit of the service.
    http2: Rc<RefCell<Option<Http2>>>,
    calls: Arc<AtomicUsize>,
}

impl PooledConnection {
    fn is_open(&self) -> bool {
        self.http2.borrow().is_some() && !self.sender.is_closed()
    }

    /// The concurrent streams that the service allows (RFC 9113 §5.1.2).
    fn peer_streams_max(&self) -> usize {
        self.http2.borrow().as_ref().map_or(0, Http2::current_max_send_streams)
    }

    fn has_room(&self) -> bool {
        self.is_open() && self.calls.load(Ordering::Relaxed) < STREAMS_MAX.min(self.peer_streams_max())
    }
}

/// A connection reserved for one call, released on drop.
pub(super) struct Checkout {
    sender: SendRequest<CallBody>,
    permit: CallPermit,
}

/// Counts a call on its connection until dropped.
pub(super) struct CallPermit(Arc<AtomicUsize>);

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Checkout {
    fn new(connection: &PooledConnection) -> Self {
        connection.calls.fetch_add(1, Ordering::Relaxed);
        Self { sender: connection.sender.clone(), permit: CallPermit(Arc::clone(&connection.calls)) }
    }

    /// Sends a request; the error returns it if nothing of it was sent.
    pub(super) async fn send(
        &self,
        request: Request<CallBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<CallBody>>> {
        self.sender.clone().try_send_request(request).await
    }

    /// Keeps only the permit, for a streamed reply.
    pub(super) fn into_permit(self) -> CallPermit {
        self.permit
    }
}

impl ConnectionPool {
    pub(super) fn new(
        dialer: Dialer,
        settings_timeout: Duration,
        keep_alive: Duration,
        keep_alive_timeout: Duration,
    ) -> Rc<Self> {
        Rc::new(Self {
            dialer,
            settings_timeout,
            keep_alive,
            keep_alive_timeout,
            open: RefCell::default(),
            connecting: tokio::sync::Mutex::const_new(()),
        })
    }

    /// An empty pool for one address of the endpoint's host.
    pub(super) fn at(&self, address: IpAddr) -> Rc<Self> {
        Self::new(self.dialer.at(address), self.settings_timeout, self.keep_alive, self.keep_alive_timeout)
    }

    /// Reserves a connection with room, or establishes a new one.
    pub(super) async fn check_out(&self) -> Result<Checkout, Fault> {
        if let Some(checkout) = self.find_open() {
            return Ok(checkout);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(checkout) = self.find_open() {
            return Ok(checkout);
        }
        let connection = Rc::new(self.connect().await?);
        let checkout = Checkout::new(&connection);
        self.open.borrow_mut().push(connection);
        Ok(checkout)
    }

    fn find_open(&self) -> Option<Checkout> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| connection.is_open());
        if open.is_empty() {
            return None;
        }
        // Prefer the first connections: calls on the same connection share its writes.
        if let Some(connection) = open.iter().find(|connection| connection.has_room()) {
            return Some(Checkout::new(connection));
        }
        if open.len() < CONNECTIONS_MAX {
            return None;
        }
        let busy = |connection: &&Rc<PooledConnection>| connection.calls.load(Ordering::Relaxed);
        open.iter().min_by_key(busy).map(|connection| Checkout::new(connection))
    }

    async fn connect(&self) -> Result<PooledConnection, Fault> {
        let stream = WriteCoalescer::new(self.dialer.dial().await?);
        let received = stream.read_notify();
        let mut builder = Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(STREAMS_UNKNOWN)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST_MAX)
            .max_send_buf_size(SEND_BUFFER_LEN_MAX)
            .keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(false);
        let closed = || unreachable("the connection was closed");
        let (sender, http2) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| closed())?;
        let (http2, calls) = (Rc::new(RefCell::new(Some(http2))), Arc::default());
        tokio::task::spawn_local(drive(Rc::clone(&http2), Rc::clone(&received)));
        let connection = PooledConnection { sender, http2, calls };
        // A call sent before the SETTINGS of the service might be refused.
        let settings = async {
            loop {
                let notified = received.notified();
                if !connection.is_open() || connection.peer_streams_max() != STREAMS_UNKNOWN {
                    return;
                }
                notified.await;
            }
        };
        let in_time = tokio::time::timeout(self.settings_timeout, settings).await.is_ok();
        match connection.is_open() {
            true if in_time => Ok(connection),
            true => Err(unreachable("no HTTP/2 SETTINGS received in time")),
            false => Err(closed()),
        }
    }
}

/// Drives a connection to its end. Its calls observe the end themselves; waiters are notified after it is dropped.
async fn drive(http2: Rc<RefCell<Option<Http2>>>, ended: Rc<Notify>) {
    let ran = future::poll_fn(|cx| match &mut *http2.borrow_mut() {
        Some(running) => Pin::new(running).poll(cx).map(drop),
        None => Poll::Ready(()),
    });
    ran.await;
    drop(http2.take());
    ended.notify_waiters();
}
