//! The lock of the cluster under which a message is processed.

use std::sync::Arc;

use crossdock_embedded::SlotValidity;
use crossdock_message::{ByteString, Code, Fault, Message, Retry};
use crossdock_ports::{LockError, LockGrant, LockLoss};

use super::singletons::Turn;

/// The header with the fencing token.
const HEADER: ByteString = ByteString::from_static("crossdock-fence");

/// A lock that is held, or the slot of a message of a queue, which is held until the message is settled. A lock is released once the last clone is dropped: each call under it has one until it ends, even if its
/// caller has left, so that the next holder does not overlap with it.
#[derive(Clone)]
pub(crate) struct Fence {
    /// What calls carry; `None` if it is that of the lock that was held before.
    token: Option<ByteString>,
    guard: Guard,
    /// The lock that was held before.
    outer: Option<Arc<Fence>>,
    /// The message is one of an entry that one instance reads at a time.
    _turn: Option<Arc<Turn>>,
}

/// What must be held.
#[derive(Clone)]
enum Guard {
    /// Dropping the last clone releases it.
    Lock(Arc<dyn LockGrant>),
    /// The slot of a message of a queue.
    Slot(SlotValidity),
}

impl Guard {
    fn holds(&self) -> bool {
        match self {
            Self::Lock(held) => held.holds(),
            Self::Slot(validity) => validity.holds(),
        }
    }
}

impl Fence {
    pub(crate) fn new(held: Arc<dyn LockGrant>, outer: Option<Self>) -> Self {
        let token = Some(held.token().to_string().into());
        Self { token, guard: Guard::Lock(held), outer: outer.map(Arc::new), _turn: None }
    }

    /// A fence of which services learn nothing.
    pub(crate) fn without_token(held: Arc<dyn LockGrant>, outer: Option<Self>) -> Self {
        Self { token: None, ..Self::new(held, outer) }
    }

    /// The fence of a message of a queue, which one instance delivers at a time.
    pub(crate) fn of_slot(validity: SlotValidity) -> Self {
        let token = Some(validity.token().to_string().into());
        Self { token, guard: Guard::Slot(validity), outer: None, _turn: None }
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
        let own =
            std::iter::successors(Some(self), |fence| fence.outer.as_deref()).find_map(|fence| fence.token.clone());
        if let Some(token) = own {
            // Routes cannot set it.
            let _ = message.headers.set(HEADER, token);
        }
    }

    /// Whether this lock and those around it are held, as far as this instance knows.
    pub(crate) fn holds(&self) -> bool {
        self.guard.holds() && self.outer.as_ref().is_none_or(|outer| outer.holds())
    }

    /// Checks the locks before an attempt of a call: after a pause, they may be lost without a notice.
    ///
    /// # Errors
    /// ABORTED if one is lost.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.holds() { Ok(()) } else { Err(lost(&LockLoss::SessionLost)) }
    }
}

/// The fault of a message whose lock was lost.
pub(crate) fn lost(loss: &LockLoss) -> Fault {
    let message = "the lock was lost while the message was processed";
    Fault::new(Code::Aborted, "LOCK_LOST", message).with_cause(loss.to_string())
}

/// The fault of a message that was not granted a lock, for reasons that do not depend on the message.
pub(crate) fn not_granted(problem: &LockError) -> Fault {
    match problem {
        LockError::TooMany => Fault::new(Code::ResourceExhausted, "LOCKS", "there are too many locks"),
        LockError::Lost(loss) => lost(loss),
        _ => {
            let message = "locks cannot be granted at the moment";
            let fault = Fault::new(Code::Unavailable, "NO_QUORUM", message).with_retry(Retry::Same);
            fault.with_cause(problem.to_string())
        }
    }
}
