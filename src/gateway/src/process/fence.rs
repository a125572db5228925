//! The lock of the cluster under which a message is processed.

use std::sync::Arc;

use crossdock_coordination::Token;
use crossdock_embedded::{Held, Loss, Validity};
use crossdock_message::{ByteString, Code, Fault, Message};

use super::singletons::Turn;

/// The header with the fencing token.
const HEADER: ByteString = ByteString::from_static("crossdock-fence");

/// A lock that is held. It is released once the last clone is dropped: each call under it has one until it ends, even if its
/// caller has left, so that the next holder does not overlap with it.
#[derive(Clone)]
pub(crate) struct Fence {
    token: ByteString,
    validity: Validity,
    _held: Arc<Held>,
    /// The lock that was held before.
    outer: Option<Arc<Fence>>,
    /// The message is one of an entry that one instance reads at a time.
    _turn: Option<Arc<Turn>>,
}

impl Fence {
    pub(crate) fn new(held: &Arc<Held>, outer: Option<Self>) -> Self {
        let Token(token) = held.token();
        let (validity, outer) = (held.validity(), outer.map(Arc::new));
        Self { token: token.to_string().into(), validity, _held: Arc::clone(held), outer, _turn: None }
    }

    /// The fence of a message of an entry that one instance reads at a time.
    pub(super) fn with_turn(self, turn: Turn) -> Self {
        Self { _turn: Some(Arc::new(turn)), ..self }
    }

    /// The fence without this lock.
    pub(crate) fn into_outer(self) -> Option<Self> {
        self.outer.map(Arc::unwrap_or_clone)
    }

    /// Adds the token to a message to a service.
    pub(crate) fn mark(&self, message: &mut Message) {
        // Routes cannot set it.
        let _ = message.headers.set(HEADER, self.token.clone());
    }

    /// Whether this lock and those around it are held, as far as this instance knows.
    pub(crate) fn holds(&self) -> bool {
        self.validity.holds() && self.outer.as_ref().is_none_or(|outer| outer.holds())
    }

    /// Checks the locks before an attempt of a call: after a pause, they may be lost without a notice.
    ///
    /// # Errors
    /// ABORTED if one is lost.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.holds() { Ok(()) } else { Err(lost(&Loss::SessionLost)) }
    }
}

/// The fault of a message whose lock was lost.
pub(crate) fn lost(loss: &Loss) -> Fault {
    let message = "the lock was lost while the message was processed";
    Fault::new(Code::Aborted, "LOCK_LOST", message).with_cause(loss.to_string())
}
