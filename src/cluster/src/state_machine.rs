//! The replicated state machine.

use bytes::Bytes;
use crossdock_zab::Zxid;

/// Why a state cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("the state cannot be decoded: {0}")]
pub struct InvalidState(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Encodes a snapshot of the state.
pub type SnapshotEncoder = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// State that all instances change in the same way.
pub trait StateMachine: Send {
    /// Applies the command of a transaction and returns the response for its proposer. It must be deterministic and
    /// cannot fail: a command that cannot be executed has a response, too.
    ///
    /// `time` is the clock of the leader that proposed it, in milliseconds since the Unix epoch. It is the same on all
    /// instances and never goes back.
    fn apply(&mut self, zxid: Zxid, time: u64, command: &Bytes) -> Bytes;

    /// Answers a query without changing the state.
    fn query(&self, query: &[u8]) -> Bytes;

    /// Captures the current state, to be encoded by another thread. Capturing blocks the instance and must be fast;
    /// encoding may take long.
    fn snapshot(&self) -> SnapshotEncoder;

    /// Replaces the state by one that [`StateMachine::snapshot`] encoded, on this instance or another; `None` is the
    /// initial state.
    ///
    /// # Errors
    /// The state cannot be decoded.
    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), InvalidState>;
}
