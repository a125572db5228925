//! What the front and the handler of one connection share. All of it is on one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::Chunks;
use crossdock_transport::bodies::Reservation;
use crossdock_transport::descriptors;
use tokio::sync::Notify;

use super::body::BodyDecoder;
use super::head::{Framing, ParsedHead};
use crate::request::{Announced, BODY_GRACE, BODY_RATE_MIN, BodyRefusal, RequestBody};

/// What a connection is waited for, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watch {
    Nothing,
    /// Until this instant.
    Until(Instant),
    /// A body that began then, and may take as long as its length justifies.
    Body {
        since: Instant,
        until: Instant,
    },
}

/// Bytes a second that a caller has to take of an answer: what the body of a request needs.
const WRITE_RATE_MIN: u64 = BODY_RATE_MIN;

/// How fast a caller takes an answer. Time counts only while the caller is waited for, so that a slow service harms nobody.
///
/// What the kernel has taken counts as taken by the caller: [`accept`](crossdock_transport::accept) bounds that to little.
#[derive(Debug, Default)]
pub(super) struct WriteWatch {
    /// Since when the caller is waited for.
    blocked: Option<Instant>,
    /// Bytes that were taken, and time that was waited, since the rate was looked at last.
    taken: u64,
    waited: Duration,
}

impl WriteWatch {
    /// The caller takes nothing now.
    pub(super) fn blocks(&mut self, now: Instant) {
        self.blocked.get_or_insert(now);
    }

    /// The caller took so many bytes.
    pub(super) fn took(&mut self, len: usize, now: Instant) {
        self.taken += len as u64;
        if let Some(since) = self.blocked.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// The caller has taken nothing for `timeout`, or too little within as much time of waiting for it.
    pub(super) fn is_overdue(&mut self, now: Instant, timeout: Duration) -> bool {
        let Some(since) = self.blocked else { return false };
        let blocked = now.saturating_duration_since(since);
        if blocked >= timeout {
            return true;
        }
        if self.waited + blocked < timeout {
            return false;
        }
        let is_slow = self.taken < WRITE_RATE_MIN * timeout.as_secs();
        *self = Self { blocked: Some(now), ..Self::default() };
        is_slow
    }
}

/// One connection, as its handler sees it.
pub(crate) struct Connection {
    state: RefCell<State>,
    list: Rc<Watchlist>,
    idle_timeout: Duration,
    write_timeout: Duration,
}

pub(super) struct State {
    pub(super) request: Option<ParsedHead>,
    pub(super) body: BodyDecoder,
    pub(super) pieces: VecDeque<Bytes>,
    pub(super) received: u64,
    /// `None` until the handler has said what the route takes.
    pub(super) body_len_max: Option<u64>,
    pub(super) refusal: Option<BodyRefusal>,
    body_waker: Option<Waker>,
    front_waker: Option<Waker>,
    /// The answer is in actix's buffer.
    pub(super) answered: bool,
    /// And has left it: only now may anything else be written, or the next request be looked at.
    pub(super) flushed: bool,
    pub(super) close: bool,
    pub(super) continue_wanted: bool,
    /// What is waited for from the caller.
    pub(super) watch: Watch,
    pub(super) expired: bool,
    pub(super) write: WriteWatch,
    pub(super) write_expired: bool,
    /// Bytes of a next request are here already.
    pub(super) ahead: bool,
    /// Since when nothing has been asked.
    pub(super) idle_since: Option<Instant>,
    /// The memory of the request's body.
    pub(super) held: Reservation,
}

impl Connection {
    pub(super) fn new(list: &Rc<Watchlist>, idle_timeout: Duration, write_timeout: Duration) -> Rc<Self> {
        let state = State {
            request: None,
            body: BodyDecoder::new(Framing::None),
            pieces: VecDeque::new(),
            received: 0,
            body_len_max: None,
            refusal: None,
            body_waker: None,
            front_waker: None,
            answered: false,
            flushed: false,
            close: false,
            continue_wanted: false,
            watch: Watch::Nothing,
            expired: false,
            write: WriteWatch::default(),
            write_expired: false,
            ahead: false,
            idle_since: Some(list.now()),
            held: Reservation::new(),
        };
        let connection =
            Rc::new(Self { state: RefCell::new(state), list: Rc::clone(list), idle_timeout, write_timeout });
        list.connections.borrow_mut().push(Rc::downgrade(&connection));
        connection
    }

    pub(super) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(super) fn list(&self) -> &Watchlist {
        &self.list
    }

    /// Takes the request that the front accepted.
    pub(crate) fn take_request(&self) -> Option<ParsedHead> {
        self.state().request.take()
    }

    /// Whether the gateway is draining, so that the connection ends with this answer.
    pub(crate) fn is_draining(&self) -> bool {
        self.list.draining.get()
    }

    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Chunks, BodyRefusal>> {
        let mut state = self.state();
        if state.body_len_max.is_some_and(|max| state.received > max) {
            return Poll::Ready(Err(BodyRefusal::TooLarge));
        }
        if let Some(refusal) = state.refusal {
            return Poll::Ready(Err(refusal));
        }
        if !state.body.is_done() {
            remember(&mut state.body_waker, cx);
            return Poll::Pending;
        }
        let mut chunks = Chunks::new();
        for piece in state.pieces.drain(..) {
            chunks.push(piece);
        }
        chunks.keep(std::mem::take(&mut state.held).into_guard());
        Poll::Ready(Ok(chunks))
    }

    /// Whether the body came to its end, so that another request can follow.
    pub(crate) fn body_is_done(&self) -> bool {
        let state = self.state();
        state.body.is_done() && state.refusal.is_none()
    }

    /// The answer ends the connection.
    pub(crate) fn close_after_answer(&self) {
        self.state().close = true;
    }

    /// The answer was handed to the connection's buffer, or given up.
    pub(crate) fn answered(&self) {
        self.state().answered = true;
    }

    /// The connection's buffer is empty.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if !state.answered || state.flushed {
            return;
        }
        state.flushed = true;
        state.expired = false;
        state.watch = Watch::Until(self.list.now() + self.idle_timeout);
        state.idle_since = (!state.ahead).then(|| self.list.now());
        // The front is polled by the next bytes anyway, unless there is something to do without any.
        if state.ahead || state.close || !state.body.is_done() || state.refusal.is_some() {
            wake(&mut state.front_waker);
        }
    }
}

/// The body of the request that a connection is at.
pub(crate) struct Incoming {
    connection: Rc<Connection>,
    framing: Framing,
    send_continue: bool,
}

impl Incoming {
    pub(crate) fn new(connection: &Rc<Connection>, head: &ParsedHead) -> Self {
        Self { connection: Rc::clone(connection), framing: head.framing, send_continue: head.expects_continue }
    }
}

impl RequestBody for Incoming {
    fn announced(&self) -> Announced {
        match self.framing {
            Framing::None => Announced::Nothing,
            Framing::Length(length) => Announced::Length(length),
            Framing::Chunked => Announced::Open,
        }
    }

    /// Lets the body in. Cancel safe: what has come stays.
    async fn read(self, len_max: u64) -> Result<Chunks, BodyRefusal> {
        {
            let mut state = self.connection.state();
            state.body_len_max = Some(len_max);
            if !state.body.is_done() && state.refusal.is_none() {
                state.continue_wanted = self.send_continue && state.received == 0;
                wake(&mut state.front_waker);
            }
        }
        std::future::poll_fn(|cx| self.connection.poll_body(cx)).await
    }
}

impl State {
    /// Begins a request.
    pub(super) fn begin(&mut self, head: ParsedHead) {
        self.body = BodyDecoder::new(head.framing);
        self.pieces.clear();
        self.received = 0;
        self.body_len_max = None;
        self.refusal = None;
        self.answered = false;
        self.flushed = false;
        self.expired = false;
        self.continue_wanted = false;
        self.write = WriteWatch::default();
        self.idle_since = None;
        self.held = Reservation::new();
        self.request = Some(head);
    }

    pub(super) fn remember_front(&mut self, cx: &Context<'_>) {
        remember(&mut self.front_waker, cx);
    }

    pub(super) fn wake_body(&mut self) {
        wake(&mut self.body_waker);
    }

    fn is_overdue(&self, now: Instant) -> bool {
        match self.watch {
            Watch::Nothing => false,
            Watch::Until(until) => now >= until,
            Watch::Body { since, until } => {
                let elapsed = now.saturating_duration_since(since);
                now >= until || (elapsed >= BODY_GRACE && self.received < BODY_RATE_MIN * elapsed.as_secs())
            }
        }
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

/// A connection that has not said a word yet.
pub(crate) struct Silent {
    since: Instant,
    end: Notify,
    /// It has sent its first byte.
    spoke: Cell<bool>,
}

impl Silent {
    /// Notes its first byte: it is no longer idle.
    pub(crate) fn spoke(&self) {
        self.spoke.set(true);
    }

    /// Waits until the connection has to make room for others.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }
}

/// A connection that can be closed without harm.
enum Idle<'c> {
    Silent(&'c Silent),
    Connection(&'c Connection),
}

/// All connections of one data arbiter, looked through a few times a second: no timer is set or moved per request.
pub(crate) struct Watchlist {
    connections: RefCell<Vec<Weak<Connection>>>,
    silent: RefCell<Vec<Weak<Silent>>>,
    draining: Cell<bool>,
    now: Cell<Instant>,
}

impl Watchlist {
    /// How often connections are looked through, and so how exact their limits of time are.
    pub(crate) const INTERVAL: Duration = Duration::from_millis(250);

    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            connections: RefCell::default(),
            silent: RefCell::default(),
            draining: Cell::new(false),
            now: Cell::new(now),
        })
    }

    /// The instant of the last look; exact enough for limits of seconds.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// No connection takes another request.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
    }

    /// Wakes those whose time is over, and all that are idle while the gateway drains.
    pub(crate) fn sweep(&self, now: Instant) {
        self.now.set(now);
        let draining = self.draining.get();
        self.connections.borrow_mut().retain(|weak| {
            let Some(connection) = weak.upgrade() else { return false };
            let mut state = connection.state();
            if state.is_overdue(now) {
                state.expired = true;
            }
            state.write_expired |= state.write.is_overdue(now, connection.write_timeout);
            if state.expired || state.write_expired || draining {
                wake(&mut state.front_waker);
            }
            true
        });
        self.silent.borrow_mut().retain(|silent| silent.strong_count() > 0);
        self.make_room();
    }

    /// Closes the longest idle connections if few places are left.
    pub(crate) fn make_room(&self) {
        if !descriptors::is_crowded() {
            return;
        }
        let connections: Vec<_> = self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        let silent: Vec<_> =
            self.silent.borrow().iter().filter_map(Weak::upgrade).filter(|silent| !silent.spoke.get()).collect();
        let idle = connections.iter().filter_map(|connection| {
            let since = connection.state().idle_since?;
            Some((since, Idle::Connection(connection)))
        });
        let mut idle: Vec<(Instant, Idle<'_>)> =
            idle.chain(silent.iter().map(|silent| (silent.since, Idle::Silent(silent)))).collect();
        let count = descriptors::claim_to_shed(idle.len());
        idle.sort_by_key(|(since, _)| *since);
        for (_, longest) in idle.into_iter().take(count) {
            descriptors::count_shed();
            match longest {
                Idle::Silent(silent) => silent.end.notify_one(),
                Idle::Connection(connection) => {
                    let mut state = connection.state();
                    state.idle_since = None;
                    state.expired = true;
                    wake(&mut state.front_waker);
                }
            }
        }
    }

    /// Notes a connection that has not said a word; what is given ends when it has to make room.
    pub(crate) fn silent(&self, now: Instant) -> Rc<Silent> {
        let silent = Rc::new(Silent { since: now, end: Notify::new(), spoke: Cell::new(false) });
        self.silent.borrow_mut().push(Rc::downgrade(&silent));
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    /// Whether a caller is cut off who takes so many bytes each second.
    fn is_cut_off(bytes_a_second: usize) -> bool {
        let (mut watch, mut now) = (WriteWatch::default(), Instant::now());
        for _ in 0..120 {
            watch.blocks(now);
            now += SECOND;
            if watch.is_overdue(now, TIMEOUT) {
                return true;
            }
            if bytes_a_second > 0 {
                watch.took(bytes_a_second, now);
            }
        }
        false
    }

    #[test]
    fn a_caller_has_to_take_a_least_rate_and_may_take_no_more() {
        assert!(is_cut_off(0));
        assert!(is_cut_off(400));
        assert!(is_cut_off(500));
        assert!(!is_cut_off(530));
        assert!(!is_cut_off(1 << 20));
    }

    #[test]
    fn the_time_of_a_slow_service_does_not_count() {
        let (mut watch, mut now) = (WriteWatch::default(), Instant::now());
        for _ in 0..1000 {
            // Taken at once, a byte each ten seconds.
            watch.took(1, now);
            now += 10 * SECOND;
            assert!(!watch.is_overdue(now, TIMEOUT));
        }
    }

    #[test]
    fn much_at_the_beginning_is_no_credit_for_ever() {
        let (mut watch, mut now) = (WriteWatch::default(), Instant::now());
        watch.took(100 << 20, now);
        let mut seconds = 0;
        while !watch.is_overdue(now, TIMEOUT) {
            watch.took(10, now);
            watch.blocks(now);
            now += SECOND;
            seconds += 1;
        }
        assert!(seconds <= 62, "{seconds} seconds");
    }
}
