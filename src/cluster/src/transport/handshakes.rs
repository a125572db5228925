//! Connections whose peer is not known yet. Anyone who can reach the port can open them, so their number is limited:
//! each costs a file descriptor, which the log and the connections of members need as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::platform::Instant;

/// Maximum number of connections in the handshake.
const PENDING_MAX: usize = 64;
/// Minimum interval between log lines about closed connections.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The incoming connections in the handshake.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    /// The tasks, by age.
    tasks: BTreeMap<u64, AbortHandle>,
    /// The number of connections closed since the last log line.
    closed: u64,
    logged: Option<Instant>,
}

impl Handshakes {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task of a new connection. If there are too many, the oldest one is closed: a member completes its
    /// handshake within milliseconds, so those that stay are not members.
    ///
    /// The task must [end](Self::end) its handshake by this number.
    pub(super) fn start(&self, spawn: impl FnOnce(u64) -> AbortHandle) {
        let mut pending = self.pending();
        pending.next += 1;
        let number = pending.next;
        // The task cannot end its handshake before it is recorded here, as that takes the same lock.
        let task = spawn(number);
        pending.tasks.insert(number, task);
        if pending.tasks.len() <= PENDING_MAX {
            return;
        }
        if let Some((_, oldest)) = pending.tasks.pop_first() {
            oldest.abort();
            pending.closed += 1;
        }
        if pending.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(
                closed = pending.closed,
                limit = PENDING_MAX,
                "too many cluster connections that send no valid Hello; the oldest are closed"
            );
            pending.closed = 0;
            pending.logged = Some(Instant::now());
        }
    }

    /// Ends a handshake: the peer is known, or the connection has failed.
    pub(super) fn end(&self, number: u64) {
        self.pending().tasks.remove(&number);
    }
}
