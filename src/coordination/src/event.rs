//! Events, which subscribers on each instance receive when a command takes effect.

use std::sync::Arc;

use crate::ids::{RequestId, SessionId, Token};

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
