//! A connection that writes once for all who have something to say.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes that are gathered; what is longer is not copied.
const GATHERED_LEN_MAX: usize = 16 * 1024;
/// Room that a connection keeps while it has nothing to say.
const KEPT_LEN_MAX: usize = 4 * 1024;

/// Gathers small writes, and puts the first of a turn off until the other tasks that are ready have run, so that what they
/// send leaves with it: a request's head with its body, and the answers of many streams. HTTP/2 polls a connection's reader at
/// each turn before it writes; no write waits longer than for those tasks.
pub struct Gathered<IO> {
    io: IO,
    bytes: BytesMut,
    turn: Turn,
    heard: Rc<Notify>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing was written since the reader was polled.
    Fresh,
    /// A write was put off; the task is woken for it.
    PutOff,
    /// Writes go through until the reader is polled again.
    Writing,
}

impl<IO> Gathered<IO> {
    /// Over that connection. It is to be polled by one task only.
    pub fn new(io: IO) -> Self {
        Self { io, bytes: BytesMut::new(), turn: Turn::Fresh, heard: Rc::default() }
    }

    /// Notified when bytes came, or the end.
    pub fn heard(&self) -> Rc<Notify> {
        Rc::clone(&self.heard)
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    /// Writes what was gathered and then `more`, as far as it goes; gives how much of `more` was written.
    fn poll_write_out(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        if self.turn == Turn::Fresh {
            self.turn = Turn::PutOff;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn = Turn::Writing;
        while !self.bytes.is_empty() {
            let gathered = self.bytes.len();
            let pieces = [IoSlice::new(&self.bytes), IoSlice::new(more)];
            let written = match more {
                [] => ready!(Pin::new(&mut self.io).poll_write(cx, &self.bytes))?,
                _ => ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(written.min(gathered));
            if self.bytes.is_empty() {
                self.bytes.clear();
                if self.bytes.capacity() > KEPT_LEN_MAX {
                    self.bytes = BytesMut::new();
                }
            }
            if written > gathered {
                return Poll::Ready(Ok(written - gathered));
            }
        }
        if more.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.io).poll_write(cx, more)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.turn == Turn::Writing {
            this.turn = Turn::Fresh;
        }
        let read = Pin::new(&mut this.io).poll_read(cx, buffer);
        if read.is_ready() {
            this.heard.notify_waiters();
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.bytes.len() + bytes.len() > GATHERED_LEN_MAX {
            return this.poll_write_out(cx, bytes);
        }
        this.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.bytes.is_empty() {
            ready!(this.poll_write_out(cx, &[]))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.bytes.is_empty() {
            ready!(this.poll_write_out(cx, &[]))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn only_the_first_flush_of_a_turn_is_put_off() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut gathered = Gathered::new(ours);
        let mut cx = Context::from_waker(Waker::noop());
        let mut space = [0; 8];
        for _ in 0..2 {
            assert!(Pin::new(&mut gathered).poll_read(&mut cx, &mut ReadBuf::new(&mut space)).is_pending());
            assert!(matches!(Pin::new(&mut gathered).poll_write(&mut cx, b"head"), Poll::Ready(Ok(4))));
            assert!(Pin::new(&mut gathered).poll_flush(&mut cx).is_pending());
            // The task comes again for it, and reads first.
            assert!(Pin::new(&mut gathered).poll_read(&mut cx, &mut ReadBuf::new(&mut space)).is_pending());
            for _ in 0..2 {
                assert!(matches!(Pin::new(&mut gathered).poll_write(&mut cx, b"body"), Poll::Ready(Ok(4))));
                assert!(Pin::new(&mut gathered).poll_flush(&mut cx).is_ready());
            }
        }
    }

    #[test]
    fn a_flush_is_not_put_off_twice_where_nothing_is_read() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut gathered = Gathered::new(ours);
        let mut cx = Context::from_waker(Waker::noop());
        for bytes in [b"head", b"body"] {
            assert!(Pin::new(&mut gathered).poll_write(&mut cx, bytes).is_ready());
        }
        assert!(Pin::new(&mut gathered).poll_flush(&mut cx).is_pending());
        assert!(Pin::new(&mut gathered).poll_flush(&mut cx).is_ready());
    }

    #[tokio::test]
    async fn small_and_large_pieces_come_in_their_order() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let pieces = [9, 300, GATHERED_LEN_MAX, 9, 1, GATHERED_LEN_MAX + 1, 7, 2 * GATHERED_LEN_MAX, 5];
        for (number, len) in pieces.into_iter().enumerate() {
            sent.extend((0..len).map(|at| u8::try_from((at + number) % 251).unwrap()));
        }
        let sending = async {
            let mut gathered = Gathered::new(ours);
            let mut rest = &sent[..];
            for len in pieces {
                let (piece, after) = rest.split_at(len);
                gathered.write_all(piece).await.unwrap();
                rest = after;
            }
            gathered.shutdown().await.unwrap();
        };
        tokio::join!(sending, async { theirs.read_to_end(&mut received).await.unwrap() });
        assert!(sent == received);
    }
}
