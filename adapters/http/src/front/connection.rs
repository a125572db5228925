//! What the front and the handler of one connection share. All of it is on one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::Chunks;

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

/// One connection, as its handler sees it.
pub(crate) struct Connection {
    state: RefCell<State>,
    list: Rc<Watchlist>,
    idle_timeout: Duration,
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
    /// Until when the caller has to take more of the answer, where it takes none.
    pub(super) write_until: Option<Instant>,
    pub(super) write_expired: bool,
    /// Bytes of a next request are here already.
    pub(super) ahead: bool,
}

impl Connection {
    pub(super) fn new(list: &Rc<Watchlist>, idle_timeout: Duration) -> Rc<Self> {
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
            write_until: None,
            write_expired: false,
            ahead: false,
        };
        let connection = Rc::new(Self { state: RefCell::new(state), list: Rc::clone(list), idle_timeout });
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

/// All connections of one data arbiter, looked through a few times a second: no timer is set or moved per request.
pub(crate) struct Watchlist {
    connections: RefCell<Vec<Weak<Connection>>>,
    draining: Cell<bool>,
    now: Cell<Instant>,
}

impl Watchlist {
    /// How often connections are looked through, and so how exact their limits of time are.
    pub(crate) const INTERVAL: Duration = Duration::from_millis(250);

    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self { connections: RefCell::new(Vec::new()), draining: Cell::new(false), now: Cell::new(now) })
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
    pub(crate) fn look(&self, now: Instant) {
        self.now.set(now);
        let draining = self.draining.get();
        self.connections.borrow_mut().retain(|weak| {
            let Some(connection) = weak.upgrade() else { return false };
            let mut state = connection.state();
            if state.is_overdue(now) {
                state.expired = true;
            }
            state.write_expired |= state.write_until.is_some_and(|until| now >= until);
            if state.expired || state.write_expired || draining {
                wake(&mut state.front_waker);
            }
            true
        });
    }
}
