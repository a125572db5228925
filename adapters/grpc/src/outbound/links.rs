//! Connections to one endpoint, each shared by many calls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossdock_message::Fault;
use crossdock_transport::http2::LocalExecutor;
use crossdock_transport::{Dialer, unreachable};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::CallBody;

/// Calls at once on one connection: what servers usually allow.
const CALLS_MAX: usize = 100;
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
    keep_alive: Duration,
    keep_alive_timeout: Duration,
    open: RefCell<Vec<Rc<Link>>>,
    /// One connection is made at a time; who waits for it may find it good enough.
    dialling: tokio::sync::Mutex<()>,
    next: Cell<usize>,
}

struct Link {
    sender: SendRequest<CallBody>,
    calls: Arc<AtomicUsize>,
}

impl Link {
    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        self.sender.is_ready() && self.calls.load(Ordering::Relaxed) < CALLS_MAX
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
    pub(super) fn new(dialer: Dialer, keep_alive: Duration, keep_alive_timeout: Duration) -> Rc<Self> {
        Rc::new(Self {
            dialer,
            keep_alive,
            keep_alive_timeout,
            open: RefCell::default(),
            dialling: tokio::sync::Mutex::const_new(()),
            next: Cell::new(0),
        })
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
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let in_turn = (0..open.len()).map(|step| &open[(turn + step) % open.len()]);
        if let Some(link) = in_turn.into_iter().find(|link| link.has_room()) {
            return Some(Claim::of(link));
        }
        if open.len() < LINKS_MAX {
            return None;
        }
        let busy = |link: &&Rc<Link>| link.calls.load(Ordering::Relaxed);
        open.iter().min_by_key(busy).map(|link| Claim::of(link))
    }

    async fn connect(&self) -> Result<Link, Fault> {
        let stream = self.dialer.dial().await?;
        let mut builder = Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST_MAX)
            .max_send_buf_size(SEND_BUFFER_LEN_MAX)
            .keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(false);
        let closed = |_| unreachable("the connection was closed");
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(closed)?;
        // Ends with the connection; its calls hear of that themselves.
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Ok(Link { sender, calls: Arc::new(AtomicUsize::new(0)) })
    }
}
