//! The message envelope.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Body, Event, Headers, Record, RequestContext, Time, TraceContext};

/// The instant at which an exchange expires, on the monotonic clock of this process.
///
/// The next hop receives the remaining time, never the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline at `instant`.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The instant.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time remaining at `now`; zero if the deadline has passed.
    #[must_use]
    pub fn left(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether the deadline has passed at `now`.
    #[must_use]
    pub fn is_spent(self, now: Instant) -> bool {
        self.0 <= now
    }
}

/// A request, reply or event, as adapters and routes exchange it.
///
/// Field names follow CloudEvents 1.0 where it defines one.
#[derive(Debug, Clone)]
pub struct Message {
    /// Identifies the message in this gateway, and is sent to services as the request id. Empty in a reply, which belongs to its request.
    pub id: ByteString,
    /// Where the message was received, such as the name of the listener.
    pub source: ByteString,
    /// When the exchange expires.
    pub deadline: Option<Deadline>,
    /// What is known about the request that it belongs to; `None` in a reply of a service.
    pub context: Option<Arc<RequestContext>>,
    /// The media type of the body, with parameters.
    pub content_type: Option<ByteString>,
    /// The status of a reply, from its protocol or set by a route; `None` means 200.
    pub status: Option<u16>,
    /// The headers that may pass from one protocol to another.
    pub headers: Headers,
    /// Trailers, if the protocol has them: the trailing metadata of a reply.
    pub trailers: Headers,
    /// Parameters of the target: fields of the path and the query.
    pub params: Record,
    /// The query as received, if the entry forwards all of it. Contains only characters allowed in a query (RFC 3986 §3.4).
    pub query: Option<ByteString>,
    /// The key by which a broker orders or partitions messages.
    pub key: Option<Bytes>,
    /// When it was produced, if its source says so.
    pub time: Option<Time>,
    /// Its attributes if it is an event, or those that a route has set for one.
    pub event: Option<Event>,
    /// The body.
    pub body: Body,
    /// A guard held for as long as the message is processed, even if the caller has left. It counts that work at the listener.
    pub work: Option<Arc<dyn Any + Send + Sync>>,
}

impl Message {
    /// A message with an identity and nothing else.
    #[must_use]
    pub fn new(id: ByteString, source: ByteString) -> Self {
        Self {
            id,
            source,
            deadline: None,
            context: None,
            content_type: None,
            status: None,
            headers: Headers::new(),
            trailers: Headers::new(),
            params: Record::new(),
            query: None,
            key: None,
            time: None,
            event: None,
            body: Body::Empty,
            work: None,
        }
    }

    /// The trace of the request that it belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceContext> {
        self.context.as_ref().and_then(|context| context.trace.as_ref())
    }
}
