//! The body of an answer, watched while its caller takes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::activity::Call;

/// Bytes that are handed over at once. A caller who takes nothing is noticed by a piece that is not asked for.
const PIECE_LEN_MAX: usize = 16 * 1024;
/// What is longer has its last byte handed over alone: that is asked for only when all before it may be sent, so that no more
/// than this is ever on its way without being watched.
const UNWATCHED_LEN_MAX: usize = 4 * 1024;

/// The body of an answer.
pub trait Answer: Body<Data = Bytes, Error = Infallible> + Unpin {
    /// Whether it comes at its source's pace: such a one may be taken as slowly as the caller likes, until its deadline.
    fn is_stream(&self) -> bool;
}

/// An answer in pieces, with a note of when the last was handed over.
pub(super) struct Watched<B> {
    body: B,
    /// What is left of a longer piece.
    rest: Bytes,
    call: Call,
}

impl<B: Answer> Watched<B> {
    pub(super) fn new(body: B, call: Call) -> Self {
        if body.is_end_stream() {
            // It is never asked for.
            call.answered();
        }
        Self { body, rest: Bytes::new(), call }
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
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
            len if len > PIECE_LEN_MAX => PIECE_LEN_MAX,
            len if len > UNWATCHED_LEN_MAX => len - 1,
            len => len,
        };
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }
}

impl<B: Answer> Body for Watched<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let polled = if this.body.is_stream() {
            Pin::new(&mut this.body).poll_frame(cx)
        } else {
            let polled = this.poll_whole(cx);
            this.call.set_untaken(polled.is_ready());
            polled
        };
        if matches!(polled, Poll::Ready(None)) || this.is_end_stream() {
            this.call.answered();
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
