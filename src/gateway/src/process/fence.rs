//! The lock of the cluster under which a message is processed.

use std::sync::Arc;

use crossdock_coordination::Token;
use crossdock_embedded::{Held, Loss, Validity};
use crossdock_message::{ByteString, Code, Fault, Message};

/// The header with the fencing token.
const HEADER: ByteString = ByteString::from_static("crossdock-fence");

/// A lock that is held.
#[derive(Clone)]
pub(crate) struct Fence {
    token: ByteString,
    validity: Validity,
    /// The lock that was held before.
    outer: Option<Arc<Fence>>,
}

impl Fence {
    pub(crate) fn new(held: &Held, outer: Option<Self>) -> Self {
        let Token(token) = held.token();
        Self { token: token.to_string().into(), validity: held.validity(), outer: outer.map(Arc::new) }
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

    /// Checks the locks before a call: after a pause, they may be lost without a notice.
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
