//! Dead letters, for the commands that list, replay and delete them.

use bytes::Bytes;
use crossdock_message::{ByteString, Fault};

use crate::LocalFuture;

/// A message that was not delivered, and why. Fields are optional because others may put messages into the same place.
#[derive(Debug, Clone, Default)]
pub struct DeadLetter {
    /// The id that its sender gave it; otherwise `~` and a hash of the message.
    pub id: ByteString,
    /// The number of the fault's code.
    pub code: Option<i32>,
    /// The fault's reason, such as `BODY_TOO_LARGE`.
    pub reason: Option<ByteString>,
    /// The fault's message.
    pub error: Option<ByteString>,
    /// The fault's origin: `caller`, `gateway`, or a service.
    pub origin: Option<ByteString>,
    /// Where the message came from.
    pub source: Option<ByteString>,
    /// The number of attempts.
    pub attempts: Option<ByteString>,
    /// The media type.
    pub content_type: Option<ByteString>,
    /// Its headers whose values are text.
    pub headers: Vec<(ByteString, ByteString)>,
    /// Some of its headers could not be kept.
    pub is_partial: bool,
    /// Its body, unchanged.
    pub body: Bytes,
}

/// What to do with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Keep it.
    Keep,
    /// Return it unchanged to its source; remove it from here once the source has it.
    Replay,
    /// Delete it.
    Drop,
    /// Keep it and all that follow.
    Stop,
}

/// The result of a visit.
#[derive(Debug, Default)]
pub struct Visit {
    /// Dead letters that were visited.
    pub seen: usize,
    /// Those that were returned to their source.
    pub replayed: usize,
    /// Those that were deleted.
    pub dropped: usize,
    /// Those that could not be returned and were kept.
    pub failed: Vec<(ByteString, Fault)>,
}

/// A place that holds dead letters, such as a queue.
pub trait DeadLetters {
    /// Its name, such as the name of a queue.
    fn name(&self) -> &str;

    /// Visits up to `max` of the dead letters that are there now, oldest first, and treats each as `choose` decides.
    ///
    /// # Errors
    /// UNAVAILABLE if the place cannot be reached. Choices made before the error took effect.
    fn visit<'a>(
        &'a self,
        max: usize,
        choose: &'a mut dyn FnMut(&DeadLetter) -> Choice,
    ) -> LocalFuture<'a, Result<Visit, Fault>>;
}
