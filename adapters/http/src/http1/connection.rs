//! State shared by the stream and the handler of a connection. Confined to one thread.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::Chunks;
use crossdock_transport::bodies::Reservation;
use crossdock_transport::{Peer, descriptors};
use tokio::sync::Notify;

use super::body::BodyDecoder;
use super::head::{Framing, ParsedHead};
use crate::request::{BODY_GRACE, BODY_RATE_MIN, BodyError, DeclaredLength, HeadError, RequestBody};

/// By when input from the client is expected.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadTimeout {
    None,
    /// At this instant.
    At(Instant),
    /// At `until`, or once a body that began at `since` falls below the minimum rate.
    Body {
        since: Instant,
        until: Instant,
    },
}

/// Minimum rate in bytes per second at which a client must read a response; the same as for request bodies.
const WRITE_RATE_MIN: u64 = BODY_RATE_MIN;

/// Monitors the rate at which a client reads a response. Time counts only while writes block, so that a slow service does
/// not count against the client.
///
/// Bytes in the kernel's send buffer count as read; [`accept`](crossdock_transport::accept) keeps that buffer small.
#[derive(Debug, Default)]
pub(super) struct WriteMonitor {
    blocked_since: Option<Instant>,
    /// Bytes written, and time spent blocked, since the last check of the rate.
    written: u64,
    blocked: Duration,
}

impl WriteMonitor {
    /// Records that a write blocks.
    pub(super) fn record_blocked(&mut self, now: Instant) {
        self.blocked_since.get_or_insert(now);
    }

    /// Records that `len` bytes were written.
    pub(super) fn record_written(&mut self, len: usize, now: Instant) {
        self.written += len as u64;
        if let Some(since) = self.blocked_since.take() {
            self.blocked += now.saturating_duration_since(since);
        }
    }

    /// Whether a write has blocked for `timeout`, or the rate over that much blocked time was below the minimum.
    pub(super) fn is_overdue(&mut self, now: Instant, timeout: Duration) -> bool {
        let Some(since) = self.blocked_since else { return false };
        let blocked = now.saturating_duration_since(since);
        if blocked >= timeout {
            return true;
        }
        if self.blocked + blocked < timeout {
            return false;
        }
        let is_slow = self.written < WRITE_RATE_MIN * timeout.as_secs();
        *self = Self { blocked_since: Some(now), ..Self::default() };
        is_slow
    }
}

/// One connection.
pub(crate) struct Connection {
    peer: OnceCell<Peer>,
    state: RefCell<State>,
    list: Rc<ConnectionList>,
    idle_timeout: Duration,
    write_timeout: Duration,
}

pub(super) struct State {
    pub(super) request: Option<ParsedHead>,
    pub(super) body: BodyDecoder,
    pub(super) chunks: VecDeque<Bytes>,
    pub(super) received: u64,
    /// The route's limit; `None` until the handler reads the body.
    pub(super) body_len_max: Option<u64>,
    pub(super) body_error: Option<BodyError>,
    body_waker: Option<Waker>,
    io_waker: Option<Waker>,
    /// The response is in actix's buffer.
    pub(super) is_buffered: bool,
    /// The response is written to the socket. Until then, nothing else may be written and no other request be parsed.
    pub(super) is_flushed: bool,
    pub(super) close: bool,
    pub(super) continue_wanted: bool,
    pub(super) read_timeout: ReadTimeout,
    pub(super) read_expired: bool,
    pub(super) write: WriteMonitor,
    pub(super) write_expired: bool,
    /// Bytes after the current request have been received.
    pub(super) has_pipelined: bool,
    /// `None` while a request is received or processed.
    pub(super) idle_since: Option<Instant>,
    /// The memory of the request's body.
    pub(super) held: Reservation,
}

impl Connection {
    pub(super) fn new(list: &Rc<ConnectionList>, idle_timeout: Duration, write_timeout: Duration) -> Rc<Self> {
        let state = State {
            request: None,
            body: BodyDecoder::new(Framing::None),
            chunks: VecDeque::new(),
            received: 0,
            body_len_max: None,
            body_error: None,
            body_waker: None,
            io_waker: None,
            is_buffered: false,
            is_flushed: false,
            close: false,
            continue_wanted: false,
            read_timeout: ReadTimeout::None,
            read_expired: false,
            write: WriteMonitor::default(),
            write_expired: false,
            has_pipelined: false,
            idle_since: Some(list.now()),
            held: Reservation::new(),
        };
        let connection = Rc::new(Self {
            peer: OnceCell::new(),
            state: RefCell::new(state),
            list: Rc::clone(list),
            idle_timeout,
            write_timeout,
        });
        list.connections.borrow_mut().push(Rc::downgrade(&connection));
        connection
    }

    pub(super) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(super) fn list(&self) -> &ConnectionList {
        &self.list
    }

    /// Sets the other end, once it is known.
    pub(crate) fn set_peer(&self, peer: Peer) {
        let _ = self.peer.set(peer);
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.get()
    }

    /// Takes the head of the accepted request.
    pub(crate) fn take_request(&self) -> Option<ParsedHead> {
        self.state().request.take()
    }

    /// Whether the gateway is draining, so that the connection must close after this response.
    pub(crate) fn is_draining(&self) -> bool {
        self.list.draining.get()
    }

    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Chunks, BodyError>> {
        let mut state = self.state();
        if state.body_len_max.is_some_and(|max| state.received > max) {
            return Poll::Ready(Err(BodyError::TooLarge));
        }
        if let Some(error) = state.body_error {
            return Poll::Ready(Err(error));
        }
        if !state.body.is_done() {
            register(&mut state.body_waker, cx);
            return Poll::Pending;
        }
        let mut chunks = Chunks::new();
        for chunk in state.chunks.drain(..) {
            chunks.push(chunk);
        }
        chunks.keep(std::mem::take(&mut state.held).into_guard());
        Poll::Ready(Ok(chunks))
    }

    /// Whether the body was received completely, so that another request can follow.
    pub(crate) fn is_body_done(&self) -> bool {
        let state = self.state();
        state.body.is_done() && state.body_error.is_none()
    }

    /// Closes the connection after the response.
    pub(crate) fn close_after_response(&self) {
        self.state().close = true;
    }

    /// Marks the response as buffered by actix or abandoned.
    pub(crate) fn mark_buffered(&self) {
        self.state().is_buffered = true;
    }

    /// Marks a buffered response as written: actix's buffer is empty.
    pub(super) fn mark_flushed(&self) {
        let mut state = self.state();
        if !state.is_buffered || state.is_flushed {
            return;
        }
        state.is_flushed = true;
        state.read_expired = false;
        state.read_timeout = ReadTimeout::At(self.list.now() + self.idle_timeout);
        state.idle_since = (!state.has_pipelined).then(|| self.list.now());
        // Otherwise the next bytes wake the stream.
        if state.has_pipelined || state.close || !state.body.is_done() || state.body_error.is_some() {
            wake(&mut state.io_waker);
        }
    }
}

/// The body of the current request.
pub(crate) struct IncomingBody {
    connection: Rc<Connection>,
    framing: Framing,
    send_continue: bool,
}

impl IncomingBody {
    pub(crate) fn new(connection: &Rc<Connection>, head: &ParsedHead) -> Self {
        Self { connection: Rc::clone(connection), framing: head.framing, send_continue: head.expects_continue }
    }
}

impl RequestBody for IncomingBody {
    fn declared_length(&self) -> DeclaredLength {
        match self.framing {
            Framing::None => DeclaredLength::NoBody,
            Framing::Length(length) => DeclaredLength::Known(length),
            Framing::Chunked => DeclaredLength::Unknown,
        }
    }

    /// Sets the limit, which starts reading from the socket. Cancel safe: received bytes are kept.
    async fn read(self, len_max: u64) -> Result<Chunks, BodyError> {
        {
            let mut state = self.connection.state();
            state.body_len_max = Some(len_max);
            if !state.body.is_done() && state.body_error.is_none() {
                state.continue_wanted = self.send_continue && state.received == 0;
                wake(&mut state.io_waker);
            }
        }
        std::future::poll_fn(|cx| self.connection.poll_body(cx)).await
    }
}

impl State {
    /// Resets the state for a request.
    pub(super) fn begin(&mut self, head: ParsedHead) {
        self.body = BodyDecoder::new(head.framing);
        self.chunks.clear();
        self.received = 0;
        self.body_len_max = None;
        self.body_error = None;
        self.is_buffered = false;
        self.is_flushed = false;
        self.read_expired = false;
        self.continue_wanted = false;
        self.write = WriteMonitor::default();
        self.idle_since = None;
        self.held = Reservation::new();
        self.request = Some(head);
    }

    pub(super) fn register_io_waker(&mut self, cx: &Context<'_>) {
        register(&mut self.io_waker, cx);
    }

    pub(super) fn wake_body_reader(&mut self) {
        wake(&mut self.body_waker);
    }

    fn is_read_overdue(&self, now: Instant) -> bool {
        match self.read_timeout {
            ReadTimeout::None => false,
            ReadTimeout::At(until) => now >= until,
            ReadTimeout::Body { since, until } => {
                let elapsed = now.saturating_duration_since(since);
                now >= until || (elapsed >= BODY_GRACE && self.received < BODY_RATE_MIN * elapsed.as_secs())
            }
        }
    }
}

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

/// A connection whose HTTP version is not known yet.
pub(crate) struct PendingConnection {
    since: Instant,
    shed: Notify,
    /// The first byte has been received.
    is_active: Cell<bool>,
}

impl PendingConnection {
    /// Marks the connection as no longer idle: its first byte was received.
    pub(crate) fn mark_active(&self) {
        self.is_active.set(true);
    }

    /// Waits until the connection is to be closed in favour of others.
    pub(crate) async fn shed(&self) {
        self.shed.notified().await;
    }
}

/// An idle connection, which may be closed at any time.
enum Idle<'c> {
    Pending(&'c PendingConnection),
    Open(&'c Connection),
}

/// The connections of one data arbiter. A periodic sweep enforces their timeouts, so that requests need no timers.
pub(crate) struct ConnectionList {
    connections: RefCell<Vec<Weak<Connection>>>,
    pending: RefCell<Vec<Weak<PendingConnection>>>,
    draining: Cell<bool>,
    now: Cell<Instant>,
    rejected: OnceCell<Box<dyn Fn(Option<&Peer>, HeadError)>>,
}

impl ConnectionList {
    /// Interval of [`Self::sweep`]; the precision of timeouts.
    pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            connections: RefCell::default(),
            pending: RefCell::default(),
            draining: Cell::new(false),
            now: Cell::new(now),
            rejected: OnceCell::new(),
        })
    }

    /// Sets what is called for each rejected head.
    pub(crate) fn on_rejected(&self, report: impl Fn(Option<&Peer>, HeadError) + 'static) {
        let _ = self.rejected.set(Box::new(report));
    }

    pub(super) fn report_rejected(&self, peer: Option<&Peer>, error: HeadError) {
        if let Some(report) = self.rejected.get() {
            report(peer, error);
        }
    }

    /// The time of the last sweep.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Makes every connection close after its current request.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
    }

    /// Wakes the connections whose timeouts have expired and, while the gateway drains, all of them.
    pub(crate) fn sweep(&self, now: Instant) {
        self.now.set(now);
        let draining = self.draining.get();
        self.connections.borrow_mut().retain(|weak| {
            let Some(connection) = weak.upgrade() else { return false };
            let mut state = connection.state();
            if state.is_read_overdue(now) {
                state.read_expired = true;
            }
            state.write_expired |= state.write.is_overdue(now, connection.write_timeout);
            if state.read_expired || state.write_expired || draining {
                wake(&mut state.io_waker);
            }
            true
        });
        self.pending.borrow_mut().retain(|pending| pending.strong_count() > 0);
        self.shed_idle();
    }

    /// Closes the longest idle connections if few file descriptors are left.
    pub(crate) fn shed_idle(&self) {
        if !descriptors::is_crowded() {
            return;
        }
        let connections: Vec<_> = self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        let pending: Vec<_> =
            self.pending.borrow().iter().filter_map(Weak::upgrade).filter(|pending| !pending.is_active.get()).collect();
        let idle = connections.iter().filter_map(|connection| {
            let since = connection.state().idle_since?;
            Some((since, Idle::Open(connection)))
        });
        let mut idle: Vec<(Instant, Idle<'_>)> =
            idle.chain(pending.iter().map(|pending| (pending.since, Idle::Pending(pending)))).collect();
        let count = descriptors::claim_to_shed(idle.len());
        idle.sort_by_key(|(since, _)| *since);
        for (_, longest) in idle.into_iter().take(count) {
            descriptors::count_shed();
            match longest {
                Idle::Pending(pending) => pending.shed.notify_one(),
                Idle::Open(connection) => {
                    let mut state = connection.state();
                    state.idle_since = None;
                    state.read_expired = true;
                    wake(&mut state.io_waker);
                }
            }
        }
    }

    /// Adds a connection on which no byte has been received.
    pub(crate) fn add_pending(&self, now: Instant) -> Rc<PendingConnection> {
        let pending = Rc::new(PendingConnection { since: now, shed: Notify::new(), is_active: Cell::new(false) });
        self.pending.borrow_mut().push(Rc::downgrade(&pending));
        pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    /// Whether a client that reads at this rate in bytes per second is disconnected.
    fn is_disconnected(rate: usize) -> bool {
        let (mut monitor, mut now) = (WriteMonitor::default(), Instant::now());
        for _ in 0..120 {
            monitor.record_blocked(now);
            now += SECOND;
            if monitor.is_overdue(now, TIMEOUT) {
                return true;
            }
            if rate > 0 {
                monitor.record_written(rate, now);
            }
        }
        false
    }

    #[test]
    fn a_client_below_the_minimum_rate_is_disconnected() {
        assert!(is_disconnected(0));
        assert!(is_disconnected(400));
        assert!(is_disconnected(500));
        assert!(!is_disconnected(530));
        assert!(!is_disconnected(1 << 20));
    }

    #[test]
    fn time_without_a_blocked_write_does_not_count() {
        let (mut monitor, mut now) = (WriteMonitor::default(), Instant::now());
        for _ in 0..1000 {
            // One byte every ten seconds, written at once.
            monitor.record_written(1, now);
            now += 10 * SECOND;
            assert!(!monitor.is_overdue(now, TIMEOUT));
        }
    }

    #[test]
    fn an_initial_burst_is_not_a_lasting_credit() {
        let (mut monitor, mut now) = (WriteMonitor::default(), Instant::now());
        monitor.record_written(100 << 20, now);
        let mut seconds = 0;
        while !monitor.is_overdue(now, TIMEOUT) {
            monitor.record_written(10, now);
            monitor.record_blocked(now);
            now += SECOND;
            seconds += 1;
        }
        assert!(seconds <= 62, "{seconds} seconds");
    }
}
