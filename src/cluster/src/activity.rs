//! What an instance has done and is doing, in numbers.

use std::time::Duration;

/// Counts and sizes since the start of an instance, and those of the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Elections that began.
    pub elections: u64,
    /// Commands and reads of local clients that are not answered yet.
    pub requests: usize,
    /// Proposals that are not committed; 0 unless it leads.
    pub outstanding: usize,
    /// Their bytes.
    pub outstanding_bytes: usize,
    /// Bytes of committed transactions that the state machines have not applied yet.
    pub backlog_bytes: usize,
    /// Ended connections to other instances.
    pub links: LinksEnded,
    /// Messages of other instances that belong to an earlier connection or session, and were ignored.
    pub stale_messages: u64,
    /// The snapshots.
    pub snapshots: Snapshots,
    /// Segments of the log on disk.
    pub segments: u64,
}

/// Ended connections to other instances, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinksEnded {
    /// The connection broke, or the other instance closed it.
    pub broken: u64,
    /// The other instance took messages too slowly.
    pub queue_full: u64,
    /// The other instance violated the protocol, or was silent.
    pub closed: u64,
}

/// Saved snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// The number of saved ones.
    pub saved: u64,
    /// The number of those that could not be saved.
    pub failed: u64,
    /// The size of the last one in bytes.
    pub last_bytes: u64,
    /// How long saving it took.
    pub last_took: Duration,
    /// Transactions since then.
    pub since: u64,
}
