//! Who the servers are, and how long they wait.

use std::collections::BTreeSet;

use crate::ServerId;
use crate::planted::Planted;

/// The cluster as one server sees it. Times are in ticks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// This server.
    pub id: ServerId,
    /// Those whose majority decides. A server that is not among them observes.
    pub voters: BTreeSet<ServerId>,
    /// Between two signs of life of a leader.
    pub heartbeat_ticks: u32,
    /// Without a sign of life, until a follower leaves its leader, and a leader its office.
    pub sync_ticks: u32,
    /// For a leader to be established, and for a follower to be synchronised.
    pub init_ticks: u32,
    /// For votes that may still come, once a majority agrees.
    pub vote_ticks: u32,
    /// Bytes of one command; a log has to be able to hold it.
    pub payload_max: usize,
    /// Proposals that are not committed yet.
    pub outstanding_max: usize,
    /// Bytes of them.
    pub outstanding_bytes_max: usize,
    /// Reads that wait for a majority to confirm the leader.
    pub reads_max: usize,
    /// Transactions in one message of a synchronisation.
    pub sync_batch: usize,
    /// Bytes of them; a single one may be larger.
    pub sync_batch_bytes: usize,
    /// Transactions that are kept in memory behind a snapshot, so that who comes late needs none.
    pub retained: usize,
    /// Bytes of them.
    pub retained_bytes: usize,
    /// The number of an epoch's transaction at which its leader hands over to a new epoch.
    pub counter_max: u32,
    /// A rule that is broken on purpose.
    #[cfg(feature = "planted")]
    pub planted: Option<Planted>,
    /// Elections choose anybody: that the leader is a right one, phase 1 has to see to.
    #[cfg(feature = "planted")]
    pub chaotic: bool,
}

impl Config {
    /// The usual times and limits, for ticks of 20 ms.
    #[must_use]
    pub fn new(id: ServerId, voters: BTreeSet<ServerId>) -> Self {
        Self {
            id,
            voters,
            heartbeat_ticks: 5,
            sync_ticks: 35,
            init_ticks: 250,
            vote_ticks: 5,
            payload_max: 4 << 20,
            outstanding_max: 10_000,
            outstanding_bytes_max: 64 << 20,
            reads_max: 100_000,
            sync_batch: 1_000,
            sync_batch_bytes: 1 << 20,
            retained: 10_000,
            retained_bytes: 64 << 20,
            counter_max: u32::MAX - 1_000_000,
            #[cfg(feature = "planted")]
            planted: None,
            #[cfg(feature = "planted")]
            chaotic: false,
        }
    }

    /// How many voters are a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether a rule is broken on purpose.
    #[cfg_attr(not(feature = "planted"), expect(clippy::unused_self, reason = "only tests break rules"))]
    pub(crate) fn breaks(&self, rule: Planted) -> bool {
        #[cfg(feature = "planted")]
        return self.planted == Some(rule);
        #[cfg(not(feature = "planted"))]
        {
            let _ = rule;
            false
        }
    }

    /// Whether this server is one of the voters.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.voters.contains(&self.id)
    }
}
