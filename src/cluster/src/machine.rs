//! What transactions change.

use bytes::Bytes;
use crossdock_zab::Txn;

/// State that all instances change in the same way.
pub trait Machine: Send {
    /// Applies a transaction; the answer is what whoever proposed it gets. It is the same on every instance, and never fails: what
    /// cannot be done is an answer too.
    fn apply(&mut self, txn: &Txn) -> Bytes;

    /// Answers a question without changing anything.
    fn query(&self, question: &[u8]) -> Bytes;

    /// The whole state. Called between two transactions; how long it takes, all wait.
    fn snapshot(&self) -> Vec<u8>;

    /// Takes a state that [`Machine::snapshot`] gave, on this instance or another; `None` is the state before all transactions.
    ///
    /// # Errors
    /// What is wrong with it.
    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), String>;
}
