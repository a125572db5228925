//! Connections to one endpoint, each shared by many calls.

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

/// Calls at once on one connection, also where the service takes more: what servers usually allow.
const CALLS_MAX: usize = 100;
/// Calls at once on a connection before the service has said how many it takes: a number that no service says.
const CALLS_UNTOLD: usize = u32::MAX as usize - 1;
/// Connections to one endpoint on one data arbiter; beyond that, calls share those that there are.
const LINKS_MAX: usize = 32;
/// What may be on its way to one call without having been taken.
const STREAM_WINDOW: u32 = 128 << 10;
/// The same of all calls of a connection: calls that nobody takes from must not use up what the others need.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;
/// What metadata of a reply may weigh.
const HEADER_LIST_MAX: u32 = 64 * 1024;
/// What waits to be sent on one call.
const SEND_BUFFER_LEN_MAX: usize = 256 * 1024;

/// The connections to one endpoint on one data arbiter.
pub(super) struct Links {
    dialer: Dialer,
    /// What a service may take to say its settings on a new connection.
    settings_time: Duration,
    keep_alive: Duration,
    keep_alive_timeout: Duration,
    open: RefCell<Vec<Rc<Link>>>,
    /// One connection is made at a time; who waits for it may find it good enough.
    dialling: tokio::sync::Mutex<()>,
}

type Http2 = Connection<TokioIo<WriteCoalescer<DialledStream>>, CallBody, LocalExecutor>;

struct Link {
    sender: SendRequest<CallBody>,
    /// Driven by a task of its own until it ends; asked here how many calls the service takes.
    connection: Rc<RefCell<Option<Http2>>>,
    calls: Arc<AtomicUsize>,
}

impl Link {
    fn is_open(&self) -> bool {
        self.connection.borrow().is_some() && !self.sender.is_closed()
    }

    /// Calls at once that the service takes (RFC 9113 §5.1.2).
    fn calls_told(&self) -> usize {
        self.connection.borrow().as_ref().map_or(0, Http2::current_max_send_streams)
    }

    fn has_room(&self) -> bool {
        self.is_open() && self.calls.load(Ordering::Relaxed) < CALLS_MAX.min(self.calls_told())
    }
}

/// A call's place on a connection, given back when it is dropped.
pub(super) struct Claim {
    sender: SendRequest<CallBody>,
    place: CallPlace,
}

/// What counts a call on its connection.
pub(super) struct CallPlace(Arc<AtomicUsize>);

impl Drop for CallPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Claim {
    fn of(link: &Link) -> Self {
        link.calls.fetch_add(1, Ordering::Relaxed);
        Self { sender: link.sender.clone(), place: CallPlace(Arc::clone(&link.calls)) }
    }

    /// Sends a request; an error gives it back where nothing of it was sent.
    pub(super) async fn send(
        &self,
        request: Request<CallBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<CallBody>>> {
        self.sender.clone().try_send_request(request).await
    }

    /// The place alone, for a reply that comes as a stream.
    pub(super) fn into_streaming(self) -> CallPlace {
        self.place
    }
}

impl Links {
    pub(super) fn new(
        dialer: Dialer,
        settings_time: Duration,
        keep_alive: Duration,
        keep_alive_timeout: Duration,
    ) -> Rc<Self> {
        Rc::new(Self {
            dialer,
            settings_time,
            keep_alive,
            keep_alive_timeout,
            open: RefCell::default(),
            dialling: tokio::sync::Mutex::const_new(()),
        })
    }

    /// None yet, to one address of the endpoint's host.
    pub(super) fn at(&self, address: IpAddr) -> Rc<Self> {
        Self::new(self.dialer.at(address), self.settings_time, self.keep_alive, self.keep_alive_timeout)
    }

    /// A place for one call: on a connection with room, else on a new one.
    pub(super) async fn claim(&self) -> Result<Claim, Fault> {
        if let Some(claim) = self.find() {
            return Ok(claim);
        }
        let _dialling = self.dialling.lock().await;
        if let Some(claim) = self.find() {
            return Ok(claim);
        }
        let link = Rc::new(self.connect().await?);
        let claim = Claim::of(&link);
        self.open.borrow_mut().push(link);
        Ok(claim)
    }

    fn find(&self) -> Option<Claim> {
        let mut open = self.open.borrow_mut();
        open.retain(|link| link.is_open());
        if open.is_empty() {
            return None;
        }
        // Calls that share a connection share its writes too; the later ones serve what the first have no room for.
        if let Some(link) = open.iter().find(|link| link.has_room()) {
            return Some(Claim::of(link));
        }
        if open.len() < LINKS_MAX {
            return None;
        }
        let busy = |link: &&Rc<Link>| link.calls.load(Ordering::Relaxed);
        open.iter().min_by_key(busy).map(|link| Claim::of(link))
    }

    async fn connect(&self) -> Result<Link, Fault> {
        let stream = WriteCoalescer::new(self.dialer.dial().await?);
        let heard = stream.read_notify();
        let mut builder = Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(CALLS_UNTOLD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST_MAX)
            .max_send_buf_size(SEND_BUFFER_LEN_MAX)
            .keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(false);
        let closed = || unreachable("the connection was closed");
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| closed())?;
        let (connection, calls) = (Rc::new(RefCell::new(Some(connection))), Arc::default());
        tokio::task::spawn_local(drive(Rc::clone(&connection), Rc::clone(&heard)));
        let link = Link { sender, connection, calls };
        // A call that is sent before the service has said how many it takes may be refused.
        let told = async {
            loop {
                let hearing = heard.notified();
                if !link.is_open() || link.calls_told() != CALLS_UNTOLD {
                    return;
                }
                hearing.await;
            }
        };
        let in_time = tokio::time::timeout(self.settings_time, told).await.is_ok();
        match link.is_open() {
            true if in_time => Ok(link),
            true => Err(unreachable("no HTTP/2 settings in time")),
            false => Err(closed()),
        }
    }
}

/// Runs a connection to its end. Its calls hear of that themselves, and are told when it is dropped.
async fn drive(connection: Rc<RefCell<Option<Http2>>>, ended: Rc<Notify>) {
    let ran = future::poll_fn(|cx| match &mut *connection.borrow_mut() {
        Some(running) => Pin::new(running).poll(cx).map(drop),
        None => Poll::Ready(()),
    });
    ran.await;
    drop(connection.take());
    ended.notify_waiters();
}
