//! Response bodies, watched while the client reads them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::activity::RequestGuard;

/// Bytes of one frame. A client that reads nothing is detected because hyper does not poll for the next frame.
const FRAME_LEN_MAX: usize = 16 * 1024;
/// The last byte of longer data becomes a frame of its own. hyper polls for it only when everything before it may be sent, so at most this many
/// bytes are in flight unwatched.
const UNWATCHED_LEN_MAX: usize = 4 * 1024;

/// The body of a response.
pub trait ResponseBody: Body<Data = Bytes, Error = Infallible> + Unpin {
    /// Whether it is a stream, produced at the pace of its source. The client may read a stream as slowly as it likes, until its deadline.
    fn is_stream(&self) -> bool;
}

/// Splits a body into frames and records whether the client is expected to read.
pub(super) struct WatchedBody<B> {
    body: B,
    /// The unsent rest of the current data.
    rest: Bytes,
    call: RequestGuard,
}

impl<B: ResponseBody> WatchedBody<B> {
    pub(super) fn new(body: B, call: RequestGuard) -> Self {
        if body.is_end_stream() {
            // hyper never polls it.
            call.set_answered();
        }
        Self { body, rest: Bytes::new(), call }
    }

    fn poll_split(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return other,
            }
        }
        let len = match self.rest.len() {
            len if len > FRAME_LEN_MAX => FRAME_LEN_MAX,
            len if len > UNWATCHED_LEN_MAX => len - 1,
            len => len,
        };
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }
}

impl<B: ResponseBody> Body for WatchedBody<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let polled = if this.body.is_stream() {
            Pin::new(&mut this.body).poll_frame(cx)
        } else {
            let polled = this.poll_split(cx);
            this.call.set_unread(polled.is_ready());
            polled
        };
        if matches!(polled, Poll::Ready(None)) || this.is_end_stream() {
            this.call.set_answered();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
