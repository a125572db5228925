//! The stream that actix reads from and writes to.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::connection::{Connection, ConnectionList, ReadTimeout};
use super::head::{self, Framing, HeadLimits, ParsedHead};
use super::response;
use crate::request::{BODY_LEN_ASSUMED, BodyError, HeadError, RequestHead, body_timeout_for};
use crossdock_transport::Permit;
use crossdock_transport::bodies::Reservation;

/// Buffer space for one read in bytes.
const READ_LEN: usize = 8 * 1024;
/// Maximum bytes of pipelined requests that are read during a request. Reading on detects that the client disconnects.
const PIPELINED_LEN_MAX: usize = 8 * 1024;
/// Maximum bytes that are discarded after an early response, so that the client receives it before the connection is reset.
const LINGER_LEN_MAX: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) head: Duration,
    pub(crate) body: Duration,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
}

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) head: HeadLimits,
    pub(crate) timeouts: Timeouts,
}

enum Phase {
    /// Between requests, or within a head.
    Head { scanned: usize, blank_line: bool },
    /// The handler processes a request.
    InFlight,
    /// The response to a rejected head is being written; the remaining bytes.
    Rejecting(Bytes),
    /// No more input is read.
    Ended,
}

/// A connection as actix sees it: reads yield fixed heads of accepted requests, writes pass through.
pub(crate) struct StrictStream<IO> {
    io: IO,
    buffer: BytesMut,
    connection: Rc<Connection>,
    phase: Phase,
    limits: Limits,
    /// The unwritten part of an interim response.
    interim: Bytes,
    /// Input is left unread: the client needs time to receive the response before the connection is reset.
    linger: bool,
    lingered: usize,
    is_shut_down: bool,
    /// Released when the connection ends.
    _permit: Permit,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> StrictStream<IO> {
    /// A stream over a connection of which `first` was read already.
    pub(crate) fn new(io: IO, first: BytesMut, permit: Permit, limits: Limits, list: &Rc<ConnectionList>) -> Self {
        let connection = Connection::new(list, limits.timeouts.idle, limits.timeouts.write);
        let timeout = if first.is_empty() { limits.timeouts.idle } else { limits.timeouts.head };
        connection.state().read_timeout = ReadTimeout::At(list.now() + timeout);
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
            is_shut_down: false,
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

    /// Waits for a head. Returns the head for actix, or `None` if the phase has changed.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        mut scanned: usize,
        mut blank_line: bool,
    ) -> Poll<io::Result<Option<&'static [u8]>>> {
        loop {
            // An empty line before a request is ignored (RFC 9112 §2.2).
            if !blank_line && self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
                (scanned, blank_line) = (0, true);
            }
            match head::find_end(&self.buffer, scanned, &self.limits.head) {
                Ok(Some(end)) => {
                    let raw = self.buffer.split_to(end).freeze();
                    return Poll::Ready(Ok(match head::parse(raw, &self.limits.head) {
                        Ok(head) => Some(self.accept(head)),
                        Err(error) => self.reject(error),
                    }));
                }
                Ok(None) => scanned = self.buffer.len(),
                Err(error) => return Poll::Ready(Ok(self.reject(error))),
            }
            self.phase = Phase::Head { scanned, blank_line };
            let expired = {
                let mut state = self.connection.state();
                if self.buffer.is_empty() && self.connection.is_draining() {
                    self.phase = Phase::Ended;
                    return Poll::Ready(Ok(None));
                }
                state.register_io_waker(cx);
                std::mem::take(&mut state.read_expired)
            };
            if expired {
                if self.buffer.is_empty() {
                    self.phase = Phase::Ended;
                    return Poll::Ready(Ok(None));
                }
                let error = HeadError { status: 408, problem: "the head was not received in time" };
                return Poll::Ready(Ok(self.reject(error)));
            }
            let was_empty = self.buffer.is_empty();
            if ready!(self.poll_fill(cx))? == 0 {
                self.phase = Phase::Ended;
                return Poll::Ready(Ok(None));
            }
            if was_empty {
                let until = self.connection.list().now() + self.limits.timeouts.head;
                let mut state = self.connection.state();
                state.read_timeout = ReadTimeout::At(until);
                state.idle_since = None;
            }
        }
    }

    /// Passes a request to the handler. The part of its body that has been received is decoded at once, so that a short body
    /// costs no extra wake-up.
    fn accept(&mut self, head: ParsedHead) -> &'static [u8] {
        let actix_head = actix_head(&head);
        let now = self.connection.list().now();
        let mut state = self.connection.state();
        let timed_len = match head.framing {
            Framing::None => None,
            Framing::Length(length) => Some(length),
            Framing::Chunked => Some(BODY_LEN_ASSUMED),
        };
        state.close = !head.keep_alive;
        state.begin(head);
        state.read_timeout = match timed_len {
            None => ReadTimeout::None,
            Some(length) => {
                let until = now + body_timeout_for(self.limits.timeouts.body, length);
                ReadTimeout::Body { since: now, until }
            }
        };
        drop(state);
        self.phase = Phase::InFlight;
        self.decode();
        actix_head
    }

    fn reject(&mut self, error: HeadError) -> Option<&'static [u8]> {
        self.linger = true;
        self.connection.list().report_rejected(self.connection.peer(), error);
        self.phase = Phase::Rejecting(response::reject(error));
        None
    }

    /// Decodes received bytes of the body. Returns whether the body is complete or has failed.
    fn decode(&mut self) -> bool {
        let mut state = self.connection.state();
        if state.body.is_done() || state.body_error.is_some() {
            return true;
        }
        loop {
            match state.body.decode(&mut self.buffer) {
                Ok(Some(chunk)) => {
                    state.received += chunk.len() as u64;
                    if state.body_len_max.is_some_and(|max| state.received > max) {
                        state.body_error = Some(BodyError::TooLarge);
                    } else if state.held.grow(chunk.len()).is_err() {
                        state.body_error = Some(BodyError::NoMemory);
                    } else {
                        state.chunks.push_back(chunk);
                        continue;
                    }
                }
                Ok(None) if state.body.is_done() => {}
                Ok(None) => return false,
                Err(error) => state.body_error = Some(error),
            }
            if state.body_error.is_some() {
                // Release the memory at once, for other bodies.
                state.chunks.clear();
                state.held = Reservation::new();
            }
            state.read_timeout = ReadTimeout::None;
            state.wake_body_reader();
            return true;
        }
    }

    /// While the handler processes a request: reads its body, and detects that the client disconnects.
    fn poll_in_flight(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let mut state = self.connection.state();
                if state.is_buffered && state.is_flushed {
                    let done = state.body.is_done() && state.body_error.is_none();
                    self.linger |= !done;
                    if !self.buffer.is_empty() {
                        state.read_timeout = ReadTimeout::At(self.connection.list().now() + self.limits.timeouts.head);
                    }
                    self.phase =
                        if done && !state.close { Phase::Head { scanned: 0, blank_line: false } } else { Phase::Ended };
                    return Poll::Ready(Ok(()));
                }
                state.register_io_waker(cx);
                if state.read_expired && !state.body.is_done() && state.body_error.is_none() {
                    state.read_expired = false;
                    state.body_error = Some(BodyError::TooSlow);
                    state.read_timeout = ReadTimeout::None;
                    state.wake_body_reader();
                }
                if std::mem::take(&mut state.continue_wanted) {
                    self.interim = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
            }
            ready!(self.poll_interim(cx))?;
            let ended = self.decode();
            let mut state = self.connection.state();
            state.has_pipelined = ended && !self.buffer.is_empty();
            let reads_on = ended || state.body_len_max.is_some();
            drop(state);
            if !reads_on || (ended && self.buffer.len() >= PIPELINED_LEN_MAX) {
                // The handler wakes this task when it reads the body or the response is written.
                return Poll::Pending;
            }
            if ready!(self.poll_fill(cx))? == 0 {
                let mut state = self.connection.state();
                if !ended {
                    state.body_error = Some(BodyError::Incomplete);
                    state.wake_body_reader();
                }
                drop(state);
                self.phase = Phase::Ended;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Enforces the write timeout on the result of a write.
    fn monitor_write(&self, written: Poll<io::Result<usize>>, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let now = self.connection.list().now();
        let mut state = self.connection.state();
        if let Poll::Ready(Ok(len)) = written {
            state.write.record_written(len, now);
            return written;
        }
        if written.is_ready() {
            return written;
        }
        if state.write_expired {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        state.write.record_blocked(now);
        state.register_io_waker(cx);
        Poll::Pending
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))?;
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_rejecting(&mut self, cx: &mut Context<'_>, mut response: Bytes) -> Poll<io::Result<()>> {
        while !response.is_empty() {
            let written = Pin::new(&mut self.io).poll_write(cx, &response);
            match self.monitor_write(written, cx) {
                Poll::Ready(written) => response.advance(written?),
                Poll::Pending => {
                    self.phase = Phase::Rejecting(response);
                    return Poll::Pending;
                }
            }
        }
        self.phase = Phase::Ended;
        Poll::Ready(Ok(()))
    }

    /// Discards input until the client closes the connection, within limits of length and time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.buffer.clear();
            {
                let mut state = self.connection.state();
                state.register_io_waker(cx);
                if std::mem::take(&mut state.read_expired) {
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

/// The head for actix, with just what determines the framing of the response.
fn actix_head(head: &ParsedHead) -> &'static [u8] {
    match (head.method() == "HEAD", head.is_http10, head.keep_alive) {
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

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for StrictStream<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.phase {
                Phase::Head { scanned, blank_line } => {
                    let (scanned, blank_line) = (*scanned, *blank_line);
                    if let Some(actix_head) = ready!(this.poll_head(cx, scanned, blank_line))? {
                        if out.remaining() < actix_head.len() {
                            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                        }
                        out.put_slice(actix_head);
                        return Poll::Ready(Ok(()));
                    }
                }
                Phase::InFlight => ready!(this.poll_in_flight(cx))?,
                Phase::Rejecting(response) => {
                    let response = std::mem::take(response);
                    ready!(this.poll_rejecting(cx, response))?;
                }
                Phase::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for StrictStream<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A partly written interim response must be completed first.
        let written = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_write(cx, bytes),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.monitor_write(written, cx)
    }

    /// Called by actix when its buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        ready!(this.monitor_write(flushed.map_ok(|()| 0), cx))?;
        this.connection.mark_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut_down {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.is_shut_down = true;
            let mut state = this.connection.state();
            this.linger |= !(state.body.is_done() && state.body_error.is_none());
            state.read_expired = false;
            state.read_timeout = ReadTimeout::At(this.connection.list().now() + LINGER_TIME);
        }
        if this.linger {
            ready!(this.poll_linger(cx));
            this.linger = false;
        }
        Poll::Ready(Ok(()))
    }
}
