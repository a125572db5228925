//! The envelope.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use crate::{Body, Headers, Record};

/// When an exchange must have ended, on the monotonic clock of this process.
///
/// What travels to the next hop is the time that is left, never the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline at that instant.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The instant.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left at `now`; zero where it is spent.
    #[must_use]
    pub fn left(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether nothing is left at `now`.
    #[must_use]
    pub fn is_spent(self, now: Instant) -> bool {
        self.0 <= now
    }
}

/// The W3C trace context, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// `traceparent`, whole.
    pub parent: ByteString,
    /// `tracestate`, whole.
    pub state: Option<ByteString>,
}

/// What adapters and routes hand to one another: one request, reply or event.
///
/// The names are those of CloudEvents 1.0 where it has one.
#[derive(Debug, Clone)]
pub struct Message {
    /// Identifies the message in this gateway and goes to services as the request id; empty in a reply, which belongs to the
    /// request that it answers.
    pub id: ByteString,
    /// Where it came in, such as the listener's name.
    pub source: ByteString,
    /// When the exchange must have ended.
    pub deadline: Option<Deadline>,
    /// The caller's trace.
    pub trace: Option<Box<TraceContext>>,
    /// The media type of the body with its parameters.
    pub content_type: Option<ByteString>,
    /// A status that a protocol gave to a reply or a route set for one; 200 where nothing is said.
    pub status: Option<u16>,
    /// Headers that may cross.
    pub headers: Headers,
    /// Headers behind the body, where the protocol has such: a reply's trailing metadata.
    pub trailers: Headers,
    /// What the address said: fields of the path and the query.
    pub params: Record,
    /// The query of the address as it was received, where its entry takes all of it. It holds only what may stand in a target
    /// (RFC 3986 §3.4).
    pub query: Option<ByteString>,
    /// The body.
    pub body: Body,
    /// Held for as long as work for the message goes on, also where its caller has left: counts that work where it came in.
    pub work: Option<Arc<dyn Any + Send + Sync>>,
}

impl Message {
    /// A message without anything but an identity.
    #[must_use]
    pub fn new(id: ByteString, source: ByteString) -> Self {
        Self {
            id,
            source,
            deadline: None,
            trace: None,
            content_type: None,
            status: None,
            headers: Headers::new(),
            trailers: Headers::new(),
            params: Record::new(),
            query: None,
            body: Body::Empty,
            work: None,
        }
    }
}
