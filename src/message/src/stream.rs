//! Streams of bodies.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::{Body, Fault, Headers};

/// A stream of bodies. It reads nothing ahead, so that a slow consumer slows down the source. Dropping the stream cancels the source.
pub trait BodyStream: Send {
    /// The next body; `None` at the end. Must not be polled again after the end or a fault.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>>;

    /// The trailers. Called once, after the end.
    fn trailers(&mut self) -> Headers {
        Headers::new()
    }
}

/// A stream on its way through a route. Copies of the message share it; only the first to take it gets it.
#[derive(Clone)]
pub struct StreamCell(Arc<Mutex<Option<Box<dyn BodyStream>>>>);

impl StreamCell {
    /// Wraps a stream.
    #[must_use]
    pub fn new(stream: Box<dyn BodyStream>) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// Whether the stream has been taken, so that it cannot be sent again.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Takes the stream; `None` if it has been taken.
    #[must_use]
    pub fn take(&self) -> Option<Box<dyn BodyStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for StreamCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamCell")
    }
}
