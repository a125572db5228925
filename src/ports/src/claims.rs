//! What the instances of a cluster divide among them.

use crate::SendFuture;

/// Gives something back when it is dropped.
pub trait ClaimGuard: Send {
    /// Whether this instance is still the only one that uses it, as far as it knows: it is not once its session with the cluster has ended.
    fn holds(&self) -> bool;
}

/// Something that one instance of the cluster uses.
pub struct Claimed {
    /// Its place among the names that were given.
    pub at: usize,
    /// Gives it back.
    pub guard: Box<dyn ClaimGuard>,
}

/// Divides things among the instances of a cluster, for adapters.
pub trait Claim: Send + Sync {
    /// Takes the first thing that no instance uses, of those with these names. `None` if all are in use, or the cluster cannot be reached at
    /// the moment. If the future is dropped, nothing is taken.
    fn claim(&self, names: Vec<String>) -> SendFuture<'static, Option<Claimed>>;
}
