//! A stream that coalesces the small writes of many tasks.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Maximum length of the buffer; longer writes are not copied.
const BUFFER_LEN_MAX: usize = 16 * 1024;
/// Maximum capacity of the buffer that an idle connection keeps.
const IDLE_CAPACITY_MAX: usize = 4 * 1024;

/// Buffers small writes, and defers the first flush of a turn until the other ready tasks have run, so that their data leaves in the same
/// write: the head of a request with its body, and the responses of many streams. An HTTP/2 connection polls its reader at the start of each
/// turn, before it writes. No write is deferred for longer than those tasks run.
pub struct WriteCoalescer<IO> {
    io: IO,
    buffer: BytesMut,
    turn: Turn,
    read_notify: Rc<Notify>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing was written since the reader was polled.
    Fresh,
    /// A write was deferred, and the task woken for it.
    Deferred,
    /// Writes pass through until the reader is polled again.
    Writing,
}

impl<IO> WriteCoalescer<IO> {
    /// Wraps a stream. Only one task may poll it.
    pub fn new(io: IO) -> Self {
        Self { io, buffer: BytesMut::new(), turn: Turn::Fresh, read_notify: Rc::default() }
    }

    /// Notified when bytes, the end of the stream or an error are read.
    pub fn read_notify(&self) -> Rc<Notify> {
        Rc::clone(&self.read_notify)
    }
}

impl<IO: AsyncWrite + Unpin> WriteCoalescer<IO> {
    /// Writes the buffer and then as much of `more` as possible; returns how much of `more` was written.
    fn poll_write_out(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        if self.turn == Turn::Fresh {
            self.turn = Turn::Deferred;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn = Turn::Writing;
        while !self.buffer.is_empty() {
            let buffered = self.buffer.len();
            let pieces = [IoSlice::new(&self.buffer), IoSlice::new(more)];
            let written = match more {
                [] => ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer))?,
                _ => ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written.min(buffered));
            if self.buffer.is_empty() {
                self.buffer.clear();
                if self.buffer.capacity() > IDLE_CAPACITY_MAX {
                    self.buffer = BytesMut::new();
                }
            }
            if written > buffered {
                return Poll::Ready(Ok(written - buffered));
            }
        }
        if more.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.io).poll_write(cx, more)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for WriteCoalescer<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.turn == Turn::Writing {
            this.turn = Turn::Fresh;
        }
        let read = Pin::new(&mut this.io).poll_read(cx, out);
        if read.is_ready() {
            this.read_notify.notify_waiters();
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for WriteCoalescer<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.buffer.len() + bytes.len() > BUFFER_LEN_MAX {
            return this.poll_write_out(cx, bytes);
        }
        this.buffer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.buffer.is_empty() {
            ready!(this.poll_write_out(cx, &[]))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.buffer.is_empty() {
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
    fn only_the_first_flush_of_a_turn_is_deferred() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut coalescer = WriteCoalescer::new(ours);
        let mut cx = Context::from_waker(Waker::noop());
        let mut space = [0; 8];
        for _ in 0..2 {
            assert!(Pin::new(&mut coalescer).poll_read(&mut cx, &mut ReadBuf::new(&mut space)).is_pending());
            assert!(matches!(Pin::new(&mut coalescer).poll_write(&mut cx, b"head"), Poll::Ready(Ok(4))));
            assert!(Pin::new(&mut coalescer).poll_flush(&mut cx).is_pending());
            // The woken task polls again, the reader first.
            assert!(Pin::new(&mut coalescer).poll_read(&mut cx, &mut ReadBuf::new(&mut space)).is_pending());
            for _ in 0..2 {
                assert!(matches!(Pin::new(&mut coalescer).poll_write(&mut cx, b"body"), Poll::Ready(Ok(4))));
                assert!(Pin::new(&mut coalescer).poll_flush(&mut cx).is_ready());
            }
        }
    }

    #[test]
    fn a_flush_is_deferred_once_if_nothing_is_read() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut coalescer = WriteCoalescer::new(ours);
        let mut cx = Context::from_waker(Waker::noop());
        for bytes in [b"head", b"body"] {
            assert!(Pin::new(&mut coalescer).poll_write(&mut cx, bytes).is_ready());
        }
        assert!(Pin::new(&mut coalescer).poll_flush(&mut cx).is_pending());
        assert!(Pin::new(&mut coalescer).poll_flush(&mut cx).is_ready());
    }

    #[tokio::test]
    async fn small_and_large_writes_keep_their_order() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let pieces = [9, 300, BUFFER_LEN_MAX, 9, 1, BUFFER_LEN_MAX + 1, 7, 2 * BUFFER_LEN_MAX, 5];
        for (number, len) in pieces.into_iter().enumerate() {
            sent.extend((0..len).map(|at| u8::try_from((at + number) % 251).unwrap()));
        }
        let sending = async {
            let mut coalescer = WriteCoalescer::new(ours);
            let mut rest = &sent[..];
            for len in pieces {
                let (piece, after) = rest.split_at(len);
                coalescer.write_all(piece).await.unwrap();
                rest = after;
            }
            coalescer.shutdown().await.unwrap();
        };
        tokio::join!(sending, async { theirs.read_to_end(&mut received).await.unwrap() });
        assert!(sent == received);
    }
}
