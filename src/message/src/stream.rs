//! Bodies one after another.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::{Body, Fault, Headers};

/// Bodies one after another, at the pace of who takes them: nothing is read ahead of what is asked for, so that a slow
/// taker slows the source down. Dropping it cancels the source.
pub trait BodyStream: Send {
    /// The next body; nothing at the end. After the end or a fault it is not asked again.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>>;

    /// Headers that came behind the last body; asked for once, at the end.
    fn trailers(&mut self) -> Headers {
        Headers::new()
    }
}

/// A stream on its way through a route. Copies of a message share it, and the first who takes it has it.
#[derive(Clone)]
pub struct StreamCell(Arc<Mutex<Option<Box<dyn BodyStream>>>>);

impl StreamCell {
    /// Holds a stream.
    #[must_use]
    pub fn new(stream: Box<dyn BodyStream>) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// Somebody has the stream: it cannot be sent once more.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// The stream; nothing where it was taken.
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
