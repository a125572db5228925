//! Connections without a call.

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

/// How often connections are looked through for those that the other side has closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A connection's own work, which its call does.
pub(super) type LiveConnection = Connection<TokioIo<DialledStream>, CallBody>;

/// A connection with a call, or waiting for one.
pub(super) struct Link {
    pub(super) sender: SendRequest<CallBody>,
    /// `None` once it has ended.
    pub(super) connection: Option<LiveConnection>,
    /// A write has failed: what is written from then on is discarded.
    pub(super) gone: Arc<AtomicBool>,
    /// When its last call ended.
    pub(super) since: Instant,
}

impl Link {
    /// Whether it can take a call: the other side may have closed it, or sent what nobody asked for.
    fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        if self.gone.load(Ordering::Relaxed) {
            return false;
        }
        let connection = self.connection.as_mut();
        connection.is_some_and(|connection| Pin::new(connection).poll(cx).is_pending()) && self.sender.is_ready()
    }
}

/// The connections of one endpoint on one data arbiter.
pub(super) struct Pool {
    idle: RefCell<VecDeque<Box<Link>>>,
    len_max: usize,
}

impl Pool {
    /// A pool that drops what is too old, for as long as somebody holds it.
    pub(super) fn start(len_max: usize, age_max: Duration) -> Rc<Self> {
        let pool = Rc::new(Self { idle: RefCell::new(VecDeque::new()), len_max });
        let swept = Rc::downgrade(&pool);
        actix_rt::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                ticks.tick().await;
                let Some(pool) = swept.upgrade() else { return };
                let now = Instant::now();
                let mut cx = Context::from_waker(Waker::noop());
                let young = |idle: &Link| now.saturating_duration_since(idle.since) < age_max;
                pool.idle.borrow_mut().retain_mut(|idle| young(idle) && idle.is_usable(&mut cx));
            }
        });
        pool
    }

    /// The connection that was used last. One that the other side has closed meanwhile gives an unwritten request back.
    pub(super) fn take(&self) -> Option<Box<Link>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(newest) = idle.pop_back() {
            if newest.sender.is_ready() && !newest.gone.load(Ordering::Relaxed) {
                return Some(newest);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, if it can take another.
    pub(super) fn give(&self, mut idle: Box<Link>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut kept = self.idle.borrow_mut();
        if kept.len() < self.len_max && idle.is_usable(&mut cx) {
            idle.since = Instant::now();
            kept.push_back(idle);
        }
    }
}

/// The body of a call: pieces that are all there.
pub(super) struct CallBody {
    chunks: Chunks,
    left: u64,
}

impl CallBody {
    pub(super) fn new(chunks: Chunks) -> Self {
        let left = chunks.len() as u64;
        Self { chunks, left }
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let piece = this.chunks.pop_front();
        if let Some(piece) = &piece {
            this.left -= piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
