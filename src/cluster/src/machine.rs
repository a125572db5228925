//! What transactions change.

use bytes::Bytes;
use crossdock_zab::Txn;

/// Writes a state out.
pub type Snapshotting = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// State that all instances change in the same way.
pub trait Machine: Send {
    /// Applies a transaction; the answer is what whoever proposed it gets. It is the same on every instance, and never fails: what
    /// cannot be done is an answer too.
    fn apply(&mut self, txn: &Txn) -> Bytes;

    /// Answers a question without changing anything.
    fn query(&self, question: &[u8]) -> Bytes;

    /// The whole state as it is now, to be written out by another thread. While this takes hold of the state, all wait; what it gives
    /// may take its time.
    fn snapshot(&self) -> Snapshotting;

    /// Takes a state that [`Machine::snapshot`] wrote out, on this instance or another; `None` is the state before all transactions.
    ///
    /// # Errors
    /// What is wrong with it.
    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), String>;
}
