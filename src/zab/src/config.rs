//! The identity, timeouts and limits of a server.

use std::collections::BTreeSet;

use crate::injected_bug::InjectedBug;
use crate::{LogId, ServerId};

/// The cluster as one server sees it. Times are in ticks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// This server.
    pub id: ServerId,
    /// Its log.
    pub log: LogId,
    /// The voters, this server among them, with which a server whose log is new may form a cluster. They must all be
    /// connected for that, have new logs, and want the same. Without effect once the log belongs to a cluster.
    pub founders: BTreeSet<ServerId>,
    /// Interval between heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// Timeout without a heartbeat: a follower leaves its leader, a leader drops a follower or steps down without a
    /// quorum.
    pub sync_ticks: u32,
    /// The least timeout of a follower whose leader sends its heartbeats on time. Without effect if it is not below
    /// `sync_ticks`.
    pub quick_ticks: u32,
    /// The unit in which a follower remembers how long its leader was silent.
    pub window_ticks: u32,
    /// Timeout for a leader to become established, and for a follower to synchronise.
    pub init_ticks: u32,
    /// Time to wait for better votes once a quorum agrees.
    pub vote_ticks: u32,
    /// Maximum length of a command in bytes. The log must be able to hold it.
    pub payload_max: usize,
    /// Maximum number of uncommitted proposals.
    pub outstanding_max: usize,
    /// Maximum total bytes of uncommitted proposals.
    pub outstanding_bytes_max: usize,
    /// Number of uncommitted proposals beyond the maximum that is reserved for what must not fail under load.
    pub reserved: usize,
    /// Their bytes.
    pub reserved_bytes: usize,
    /// Maximum number of reads that wait for a quorum to confirm the leader.
    pub reads_max: usize,
    /// Maximum number of transactions in one SYNC message.
    pub sync_batch: usize,
    /// Maximum bytes of transactions in one SYNC message; a single transaction may exceed it. A follower that is catching
    /// up has up to four such messages in flight.
    pub sync_batch_bytes: usize,
    /// Maximum number of transactions covered by a snapshot that stay in memory, so that a late follower needs no
    /// snapshot.
    pub retained: usize,
    /// Maximum bytes of those transactions.
    pub retained_bytes: usize,
    /// Counter at which the leader starts a new epoch.
    pub counter_max: u32,
    /// The injected bug.
    #[cfg(feature = "injected-bugs")]
    pub injected_bug: Option<InjectedBug>,
    /// Elections choose an arbitrary leader, so that phase 1 alone has to keep the cluster safe.
    #[cfg(feature = "injected-bugs")]
    pub random_elections: bool,
}

impl Config {
    /// The default timeouts and limits, for ticks of 20 ms.
    #[must_use]
    pub fn new(id: ServerId, log: LogId) -> Self {
        Self {
            id,
            log,
            founders: BTreeSet::new(),
            heartbeat_ticks: 3,
            sync_ticks: 35,
            quick_ticks: 15,
            window_ticks: 500,
            init_ticks: 250,
            vote_ticks: 5,
            payload_max: 4 << 20,
            outstanding_max: 10_000,
            outstanding_bytes_max: 64 << 20,
            reserved: 1_000,
            reserved_bytes: 8 << 20,
            reads_max: 100_000,
            sync_batch: 1_000,
            sync_batch_bytes: 1 << 20,
            retained: 10_000,
            retained_bytes: 64 << 20,
            counter_max: u32::MAX - 1_000_000,
            #[cfg(feature = "injected-bugs")]
            injected_bug: None,
            #[cfg(feature = "injected-bugs")]
            random_elections: false,
        }
    }

    /// Whether that bug is injected.
    #[cfg_attr(not(feature = "injected-bugs"), expect(clippy::unused_self, reason = "only tests inject bugs"))]
    pub(crate) fn has_bug(&self, bug: InjectedBug) -> bool {
        #[cfg(feature = "injected-bugs")]
        return self.injected_bug == Some(bug);
        #[cfg(not(feature = "injected-bugs"))]
        {
            let _ = bug;
            false
        }
    }
}
