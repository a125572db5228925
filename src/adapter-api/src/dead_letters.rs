//! Messages that were set aside, for those who look after them.

use bytes::Bytes;
use crossdock_message::{ByteString, Fault};

use crate::LocalFuture;

/// A message that was set aside, and why. What it does not say is not there: others may put messages in the same place.
#[derive(Debug, Clone, Default)]
pub struct DeadLetter {
    /// What its sender called it; else `~` and a hash of it.
    pub id: ByteString,
    /// The code's number.
    pub code: Option<i32>,
    /// The reason, such as `BODY_TOO_LARGE`.
    pub reason: Option<ByteString>,
    /// The sentence.
    pub error: Option<ByteString>,
    /// Whose doing it was: `caller`, `gateway`, or a service.
    pub origin: Option<ByteString>,
    /// Where the message came from.
    pub source: Option<ByteString>,
    /// Tries that were made.
    pub attempts: Option<ByteString>,
    /// The media type.
    pub content_type: Option<ByteString>,
    /// Its own headers that are text.
    pub headers: Vec<(ByteString, ByteString)>,
    /// Some of its headers were lost when it was set aside.
    pub is_partial: bool,
    /// Its bytes, as they came.
    pub body: Bytes,
}

/// What becomes of a dead letter that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It stays.
    Keep,
    /// It goes back to where it came from, as it came; it leaves once it is there.
    Replay,
    /// It is deleted.
    Drop,
    /// It stays, and no more are looked at.
    Stop,
}

/// What a visit came to.
#[derive(Debug, Default)]
pub struct Visit {
    /// Dead letters that were looked at.
    pub seen: usize,
    /// Those that went back.
    pub replayed: usize,
    /// Those that were deleted.
    pub dropped: usize,
    /// Those that could not go back, and stayed.
    pub failed: Vec<(ByteString, Fault)>,
}

/// A place for messages that were set aside.
pub trait DeadLetters {
    /// Its name, such as that of a queue.
    fn name(&self) -> &str;

    /// Looks at what is there now, the oldest first, up to `max` of it, and does with each what `choose` says.
    ///
    /// # Errors
    /// UNAVAILABLE where the place cannot be reached; what was chosen before has been done.
    fn visit<'a>(
        &'a self,
        max: usize,
        choose: &'a mut dyn FnMut(&DeadLetter) -> Choice,
    ) -> LocalFuture<'a, Result<Visit, Fault>>;
}
