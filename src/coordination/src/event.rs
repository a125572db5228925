//! Events, which subscribers on each instance receive when a command takes effect.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{RequestId, SessionId, Token};
use crate::queues::{Message, Place};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request holds its locks.
    Granted(RequestId, Token),
    /// A request neither holds its locks nor waits any more.
    Ended(RequestId, EndReason),
    /// The holder is asked to release a lock, for this reason.
    Revoked(RequestId, Arc<str>),
    /// A session has ended; its requests as well.
    SessionEnded(SessionId),
    /// Something expires sooner than anything did before these commands.
    ExpiresSooner,
    /// A session delivers the messages of a slot of a queue from now on. Those that are in it already are not told one by one;
    /// see [`Queue::deliverable`](crate::Queue::deliverable).
    SlotGranted(SlotOf),
    /// A session is asked to give a slot back, once the messages that it has begun are settled.
    SlotRecalled(SlotOf),
    /// A session does not consume this queue any more, and is to give its slots back.
    Left(Arc<str>, SessionId),
    /// A message can be delivered: it is the first of its lane.
    Ready(Box<Ready>),
    /// Instances that serve routes are to prepare this generation.
    GenerationProposed(u64),
    /// This generation of the routes is in force from here on.
    GenerationInForce(u64),
    /// Some instances serve this generation from here on.
    GenerationStaged(u64),
    /// No instance serves this generation any more: its stage has ended.
    GenerationWithdrawn(u64),
    /// This generation was rejected: an instance cannot prepare it, or did not answer in time.
    GenerationRejected(u64),
    /// A message that a session watches was processed, or is a dead letter.
    Finished(Box<Finished>),
}

/// A slot of a queue, and the session that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotOf {
    /// The queue.
    pub queue: Arc<str>,
    /// The slot.
    pub slot: u32,
    /// The session.
    pub session: SessionId,
    /// Its token.
    pub token: Token,
}

/// See [`Event::Ready`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The slot of the message.
    pub slot: SlotOf,
    /// Its place.
    pub place: Place,
    /// The message.
    pub message: Arc<Message>,
}

/// See [`Event::Finished`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The queue.
    pub queue: Arc<str>,
    /// The session that watches the message.
    pub session: SessionId,
    /// The position that was returned when it was enqueued.
    pub enqueued_as: u64,
    /// The result.
    pub result: Bytes,
    /// It is a dead letter.
    pub is_dead: bool,
}

/// Why a request has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// The session released or cancelled it.
    Released,
    /// It has waited as long as it was to.
    TimedOut,
    /// It has held the locks for its maximum time.
    HoldExpired,
    /// The session was not kept alive.
    SessionExpired,
    /// The session was closed.
    SessionClosed,
    /// A lock was taken from it, for this reason.
    Broken(Arc<str>),
}

impl EndReason {
    /// Whether the holder may not know yet that it has lost the locks.
    pub(crate) fn is_sudden(&self) -> bool {
        matches!(self, Self::HoldExpired | Self::SessionExpired | Self::Broken(_))
    }
}
