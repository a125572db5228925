//! Received events.

use bytes::Bytes;
use crossdock_message::{ByteString, Code, Event, Fault};

/// A received event.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Its attributes.
    pub event: Event,
    /// The media type of its data.
    pub content_type: Option<ByteString>,
    /// Its data.
    pub data: Data,
}

/// The data of a received event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// The body of its message: in binary mode.
    Body,
    /// These bytes.
    Bytes(Bytes),
    /// None.
    None,
}

/// The fault of a message that should be an event.
pub(crate) fn not_an_event(problem: impl Into<ByteString>) -> Fault {
    Fault::caller(Code::InvalidArgument, "EVENT", problem)
}
