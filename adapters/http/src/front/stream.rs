//! The stream that actix reads from and writes to.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::answer;
use super::connection::{Connection, Watch, Watchlist};
use super::head::{self, Framing, HeadLimits, ParsedHead};
use crate::request::{BODY_SHARE_OPEN, BodyRefusal, HeadRefusal, RequestHead, body_time};
use crossdock_transport::Permit;
use crossdock_transport::bodies::Reservation;

/// Bytes that one read asks for.
const READ_LEN: usize = 8 * 1024;
/// Bytes of requests to come that are read while one is unanswered: enough to see the caller leave.
const AHEAD_LEN_MAX: usize = 8 * 1024;
/// Bytes that are read and thrown away so that an answer before its request's end arrives.
const LINGER_LEN_MAX: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Limits of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) head: Duration,
    pub(crate) body: Duration,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
}

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) head: HeadLimits,
    pub(crate) timeouts: Timeouts,
}

enum Phase {
    /// Between requests, or within a head.
    Head { scanned: usize, blank_line: bool },
    /// A request is with the handler.
    InFlight,
    /// A refusal is being written.
    Refusing(Bytes),
    /// Nothing more is read.
    Ended,
}

/// A connection with the strict front before it.
pub(crate) struct Front<IO> {
    io: IO,
    buffer: BytesMut,
    connection: Rc<Connection>,
    phase: Phase,
    limits: Limits,
    /// What is left of an interim answer that is being written.
    interim: Bytes,
    /// Requests are left unread: the answer needs time to arrive before the connection goes.
    linger: bool,
    lingered: usize,
    shut: bool,
    /// Given back when the connection ends.
    _permit: Permit,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Front<IO> {
    /// Over a connection of which `first` was read already.
    pub(crate) fn new(io: IO, first: BytesMut, permit: Permit, limits: Limits, list: &Rc<Watchlist>) -> Self {
        let connection = Connection::new(list, limits.timeouts.idle, limits.timeouts.write);
        let wait = if first.is_empty() { limits.timeouts.idle } else { limits.timeouts.head };
        connection.state().watch = Watch::Until(list.now() + wait);
        if !first.is_empty() {
            connection.state().idle_since = None;
        }
        Self {
            io,
            buffer: first,
            connection,
            phase: Phase::Head { scanned: 0, blank_line: false },
            limits,
            interim: Bytes::new(),
            linger: false,
            lingered: 0,
            shut: false,
            _permit: permit,
        }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < READ_LEN / 8 {
            self.buffer.reserve(READ_LEN);
        }
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer)
    }

    /// Waits for a head; gives the head that actix is to see, or nothing where the phase has changed.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        mut scanned: usize,
        mut blank_line: bool,
    ) -> Poll<io::Result<Option<&'static [u8]>>> {
        loop {
            // One empty line before a request is passed over (RFC 9112 §2.2).
            if !blank_line && self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
                (scanned, blank_line) = (0, true);
            }
            match head::find_end(&self.buffer, scanned, &self.limits.head) {
                Ok(Some(end)) => {
                    let raw = self.buffer.split_to(end).freeze();
                    return Poll::Ready(Ok(match head::parse(raw, &self.limits.head) {
                        Ok(head) => Some(self.accept(head)),
                        Err(refusal) => self.refuse(refusal),
                    }));
                }
                Ok(None) => scanned = self.buffer.len(),
                Err(refusal) => return Poll::Ready(Ok(self.refuse(refusal))),
            }
            self.phase = Phase::Head { scanned, blank_line };
            let expired = {
                let mut state = self.connection.state();
                if self.buffer.is_empty() && self.connection.is_draining() {
                    self.phase = Phase::Ended;
                    return Poll::Ready(Ok(None));
                }
                state.remember_front(cx);
                std::mem::take(&mut state.expired)
            };
            if expired {
                if self.buffer.is_empty() {
                    self.phase = Phase::Ended;
                    return Poll::Ready(Ok(None));
                }
                let refusal = HeadRefusal { status: 408, problem: "the head did not come in time" };
                return Poll::Ready(Ok(self.refuse(refusal)));
            }
            let was_empty = self.buffer.is_empty();
            if ready!(self.poll_fill(cx))? == 0 {
                self.phase = Phase::Ended;
                return Poll::Ready(Ok(None));
            }
            if was_empty {
                let until = self.connection.list().now() + self.limits.timeouts.head;
                let mut state = self.connection.state();
                state.watch = Watch::Until(until);
                state.idle_since = None;
            }
        }
    }

    /// Hands a request over. What has come of its body is taken at once, so that a short one costs no extra turn.
    fn accept(&mut self, head: ParsedHead) -> &'static [u8] {
        let envelope = envelope(&head);
        let now = self.connection.list().now();
        let mut state = self.connection.state();
        let share = match head.framing {
            Framing::None => None,
            Framing::Length(length) => Some(length),
            Framing::Chunked => Some(BODY_SHARE_OPEN),
        };
        state.close = !head.keep_alive;
        state.begin(head);
        state.watch = match share {
            None => Watch::Nothing,
            Some(length) => {
                let until = now + body_time(self.limits.timeouts.body, length);
                Watch::Body { since: now, until }
            }
        };
        drop(state);
        self.phase = Phase::InFlight;
        self.decode();
        envelope
    }

    fn refuse(&mut self, refusal: HeadRefusal) -> Option<&'static [u8]> {
        self.linger = true;
        self.phase = Phase::Refusing(answer::refusal(refusal));
        None
    }

    /// Takes the body out of what was read; true where it came to an end, good or bad.
    fn decode(&mut self) -> bool {
        let mut state = self.connection.state();
        if state.body.is_done() || state.refusal.is_some() {
            return true;
        }
        loop {
            match state.body.take(&mut self.buffer) {
                Ok(Some(piece)) => {
                    state.received += piece.len() as u64;
                    if state.body_len_max.is_some_and(|max| state.received > max) {
                        state.refusal = Some(BodyRefusal::TooLarge);
                    } else if state.held.grow(piece.len()).is_err() {
                        state.refusal = Some(BodyRefusal::NoMemory);
                    } else {
                        state.pieces.push_back(piece);
                        continue;
                    }
                }
                Ok(None) if state.body.is_done() => {}
                Ok(None) => return false,
                Err(refusal) => state.refusal = Some(refusal),
            }
            if state.refusal.is_some() {
                // Others may need it to come to their end.
                state.pieces.clear();
                state.held = Reservation::new();
            }
            state.watch = Watch::Nothing;
            state.wake_body();
            return true;
        }
    }

    /// While a request is with the handler: reads its body, and sees the caller leave.
    fn poll_in_flight(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let mut state = self.connection.state();
                if state.answered && state.flushed {
                    let done = state.body.is_done() && state.refusal.is_none();
                    self.linger |= !done;
                    if !self.buffer.is_empty() {
                        state.watch = Watch::Until(self.connection.list().now() + self.limits.timeouts.head);
                    }
                    self.phase =
                        if done && !state.close { Phase::Head { scanned: 0, blank_line: false } } else { Phase::Ended };
                    return Poll::Ready(Ok(()));
                }
                state.remember_front(cx);
                if state.expired && !state.body.is_done() && state.refusal.is_none() {
                    state.expired = false;
                    state.refusal = Some(BodyRefusal::TooSlow);
                    state.watch = Watch::Nothing;
                    state.wake_body();
                }
                if std::mem::take(&mut state.continue_wanted) {
                    self.interim = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
            }
            ready!(self.poll_interim(cx))?;
            let ended = self.decode();
            let mut state = self.connection.state();
            state.ahead = ended && !self.buffer.is_empty();
            let wanted = ended || state.body_len_max.is_some();
            drop(state);
            if !wanted || (ended && self.buffer.len() >= AHEAD_LEN_MAX) {
                // The handler wakes this task when it lets the body in, or has answered.
                return Poll::Pending;
            }
            if ready!(self.poll_fill(cx))? == 0 {
                let mut state = self.connection.state();
                if !ended {
                    state.refusal = Some(BodyRefusal::Incomplete);
                    state.wake_body();
                }
                drop(state);
                self.phase = Phase::Ended;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Gives a caller who takes nothing of an answer a limited time.
    fn watch_write(&self, written: Poll<io::Result<usize>>, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let now = self.connection.list().now();
        let mut state = self.connection.state();
        if let Poll::Ready(Ok(len)) = written {
            state.write.took(len, now);
            return written;
        }
        if written.is_ready() {
            return written;
        }
        if state.write_expired {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        state.write.blocks(now);
        state.remember_front(cx);
        Poll::Pending
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))?;
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_refusing(&mut self, cx: &mut Context<'_>, mut answer: Bytes) -> Poll<io::Result<()>> {
        while !answer.is_empty() {
            let written = Pin::new(&mut self.io).poll_write(cx, &answer);
            match self.watch_write(written, cx) {
                Poll::Ready(written) => answer.advance(written?),
                Poll::Pending => {
                    self.phase = Phase::Refusing(answer);
                    return Poll::Pending;
                }
            }
        }
        self.phase = Phase::Ended;
        Poll::Ready(Ok(()))
    }

    /// Reads and throws away until the caller has seen the answer, within limits of bytes and time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.buffer.clear();
            {
                let mut state = self.connection.state();
                state.remember_front(cx);
                if std::mem::take(&mut state.expired) {
                    return Poll::Ready(());
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(read) => self.lingered += read,
            }
            if self.lingered > LINGER_LEN_MAX {
                return Poll::Ready(());
            }
        }
    }
}

/// All that decides how actix frames an answer.
fn envelope(head: &ParsedHead) -> &'static [u8] {
    match (head.method() == "HEAD", head.old_version, head.keep_alive) {
        (false, false, true) => b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        (false, false, false) => b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        (true, false, true) => b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n",
        (true, false, false) => b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        (false, true, true) => b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        (false, true, false) => b"GET / HTTP/1.0\r\n\r\n",
        (true, true, true) => b"HEAD / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        (true, true, false) => b"HEAD / HTTP/1.0\r\n\r\n",
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Front<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.phase {
                Phase::Head { scanned, blank_line } => {
                    let (scanned, blank_line) = (*scanned, *blank_line);
                    if let Some(envelope) = ready!(this.poll_head(cx, scanned, blank_line))? {
                        if out.remaining() < envelope.len() {
                            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                        }
                        out.put_slice(envelope);
                        return Poll::Ready(Ok(()));
                    }
                }
                Phase::InFlight => ready!(this.poll_in_flight(cx))?,
                Phase::Refusing(answer) => {
                    let answer = std::mem::take(answer);
                    ready!(this.poll_refusing(cx, answer))?;
                }
                Phase::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Front<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // An interim answer that was begun comes whole before the answer.
        let written = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_write(cx, bytes),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.watch_write(written, cx)
    }

    /// actix calls this when its buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        ready!(this.watch_write(flushed.map_ok(|()| 0), cx))?;
        this.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.shut = true;
            let mut state = this.connection.state();
            this.linger |= !(state.body.is_done() && state.refusal.is_none());
            state.expired = false;
            state.watch = Watch::Until(this.connection.list().now() + LINGER_TIME);
        }
        if this.linger {
            ready!(this.poll_linger(cx));
            this.linger = false;
        }
        Poll::Ready(Ok(()))
    }
}
