//! The stream of a connection, with filtered bytes in both directions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};

use super::Filter;
use super::sent::SentFilter;

/// The size of the read buffer.
const READ_LEN: usize = 64 << 10;

/// A stream whose bytes pass through a [`Filter`] and a [`SentFilter`].
pub(crate) struct FilteredStream<S> {
    stream: S,
    filter: Filter,
    received: Box<[u8]>,
    /// Received bytes, filtered; those before `at` have been read.
    ready: Vec<u8>,
    at: usize,
    sent_filter: SentFilter,
    /// Bytes to send, filtered; those before `sent` have been written. At most the bytes of one write.
    sending: Vec<u8>,
    sent: usize,
}

impl<S> FilteredStream<S> {
    pub(crate) fn new(stream: S, filter: Filter) -> Self {
        Self {
            stream,
            filter,
            received: vec![0; READ_LEN].into(),
            ready: Vec::new(),
            at: 0,
            sent_filter: SentFilter::default(),
            sending: Vec::new(),
            sent: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FilteredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        while this.at == this.ready.len() {
            this.ready.clear();
            this.at = 0;
            let len = ready!(Pin::new(&mut this.stream).poll_read(context, &mut this.received))?;
            if len == 0 {
                return Poll::Ready(Ok(0));
            }
            let pushed = this.filter.push(&this.received[..len], &mut this.ready);
            pushed.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed.0))?;
        }
        let len = buffer.len().min(this.ready.len() - this.at);
        buffer[..len].copy_from_slice(&this.ready[this.at..this.at + len]);
        this.at += len;
        Poll::Ready(Ok(len))
    }
}

impl<S: AsyncWrite + Unpin> FilteredStream<S> {
    /// Writes the bytes left of earlier writes.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.sending.len() {
            let len = ready!(Pin::new(&mut self.stream).poll_write(context, &self.sending[self.sent..]))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += len;
        }
        self.sending.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

/// Takes all bytes of a write once the bytes of the previous one are written; flushing and closing write the rest.
impl<S: AsyncWrite + Unpin> AsyncWrite for FilteredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_send(context))?;
        for part in parts {
            this.sent_filter.push(part, &mut this.sending);
        }
        // If this is not ready, the stream wakes the task, which flushes.
        if let Poll::Ready(sent) = this.poll_send(context) {
            sent?;
        }
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_close(context)
    }
}
