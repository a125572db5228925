//! The stream of a connection, with received bytes filtered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};

use super::Filter;

/// The size of the read buffer.
const READ_LEN: usize = 64 << 10;

/// A stream whose received bytes pass through a [`Filter`].
pub(crate) struct FilteredStream<S> {
    stream: S,
    filter: Filter,
    received: Box<[u8]>,
    /// Filtered bytes; those before `at` have been read.
    ready: Vec<u8>,
    at: usize,
}

impl<S> FilteredStream<S> {
    pub(crate) fn new(stream: S, filter: Filter) -> Self {
        Self { stream, filter, received: vec![0; READ_LEN].into(), ready: Vec::new(), at: 0 }
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

impl<S: AsyncWrite + Unpin> AsyncWrite for FilteredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
