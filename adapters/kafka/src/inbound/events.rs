//! Counts what happens to a member of a group, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counters of a listener.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Assignments and revocations of partitions.
    pub(super) rebalances: Counter,
    /// Partitions that left before all their started records had ended.
    pub(super) unfinished_revocations: Counter,
    /// Commits of offsets that the brokers refused.
    pub(super) refused_commits: Counter,
    pub(super) committed_transactions: Counter,
    pub(super) aborted_transactions: Counter,
    /// The time that commits of transactions took, in microseconds.
    pub(super) commit_micros: Counter,
    pub(super) dead_letters: Counter,
    /// Records moved to a retry topic.
    pub(super) retries: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Events {
    /// Each kind with its count.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("rebalance", self.rebalances.get()),
            ("revocation_unfinished", self.unfinished_revocations.get()),
            ("commit_refused", self.refused_commits.get()),
            ("transaction_committed", self.committed_transactions.get()),
            ("transaction_aborted", self.aborted_transactions.get()),
            ("dead_letter", self.dead_letters.get()),
            ("retry", self.retries.get()),
        ]
    }

    /// Each kind of work with its time.
    pub(super) fn times(&self) -> Vec<(&'static str, Duration)> {
        vec![("transaction_commit", Duration::from_micros(self.commit_micros.get()))]
    }
}
