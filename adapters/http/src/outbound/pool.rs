//! The pool of idle connections.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::Chunks;
use crossdock_transport::DialledStream;
use http_body::{Frame, SizeHint};
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;

/// Interval at which closed and expired connections are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Performs the I/O of a connection when polled.
pub(super) type ConnectionDriver = Connection<TokioIo<DialledStream>, RequestContent>;

/// A connection, idle or in use by a call.
pub(super) struct PooledConnection {
    pub(super) sender: SendRequest<RequestContent>,
    /// `None` once the connection has ended.
    pub(super) driver: Option<ConnectionDriver>,
    /// A write has failed; later writes are discarded.
    pub(super) write_failed: Arc<AtomicBool>,
    pub(super) idle_since: Instant,
}

impl PooledConnection {
    /// Whether the connection can be used for a call. The service may have closed it or sent unsolicited data.
    fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        if self.write_failed.load(Ordering::Relaxed) {
            return false;
        }
        let driver = self.driver.as_mut();
        driver.is_some_and(|driver| Pin::new(driver).poll(cx).is_pending()) && self.sender.is_ready()
    }
}

/// The idle connections to one endpoint on one data arbiter.
pub(super) struct Pool {
    idle: RefCell<VecDeque<Box<PooledConnection>>>,
    len_max: usize,
}

impl Pool {
    /// Starts a pool that closes connections after `idle_timeout`. Its task ends when the pool is dropped.
    pub(super) fn start(len_max: usize, idle_timeout: Duration) -> Rc<Self> {
        let pool = Rc::new(Self { idle: RefCell::new(VecDeque::new()), len_max });
        let swept = Rc::downgrade(&pool);
        actix_rt::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                ticks.tick().await;
                let Some(pool) = swept.upgrade() else { return };
                let now = Instant::now();
                let mut cx = Context::from_waker(Waker::noop());
                let is_current =
                    |idle: &PooledConnection| now.saturating_duration_since(idle.idle_since) < idle_timeout;
                pool.idle.borrow_mut().retain_mut(|idle| is_current(idle) && idle.is_usable(&mut cx));
            }
        });
        pool
    }

    /// Takes the most recently used connection. The service may have closed it; sending on it then returns the request.
    pub(super) fn take(&self) -> Option<Box<PooledConnection>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(newest) = idle.pop_back() {
            if newest.sender.is_ready() && !newest.write_failed.load(Ordering::Relaxed) {
                return Some(newest);
            }
        }
        None
    }

    /// Returns a connection after a call. It is dropped if it is not reusable or the pool is full.
    pub(super) fn put(&self, mut idle: Box<PooledConnection>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut kept = self.idle.borrow_mut();
        if kept.len() < self.len_max && idle.is_usable(&mut cx) {
            idle.idle_since = Instant::now();
            kept.push_back(idle);
        }
    }
}

/// The complete content of a request.
pub(super) struct RequestContent {
    chunks: Chunks,
    left: u64,
}

impl RequestContent {
    pub(super) fn new(chunks: Chunks) -> Self {
        let left = chunks.len() as u64;
        Self { chunks, left }
    }
}

impl http_body::Body for RequestContent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let chunk = this.chunks.pop_front();
        if let Some(chunk) = &chunk {
            this.left -= chunk.len() as u64;
        }
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
