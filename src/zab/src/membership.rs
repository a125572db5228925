//! The members of the cluster, as recorded in its history.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ClusterId, LogId, ServerId};

/// The voters of the cluster, each with its log. A majority of them is a quorum.
///
/// The first membership is agreed upon when the cluster is formed. Every later one is a transaction that changes a
/// single voter, and takes effect when it is appended, as in Raft (Ongaro, "Consensus: Bridging Theory and Practice",
/// 2014, chapter 4): a quorum before the change and one after it have a server in common.
///
/// A server with another log than the recorded one does not vote, whatever happened to that log: the acknowledgements
/// that others count on are in the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The voters and their logs.
    pub voters: BTreeMap<ServerId, LogId>,
    /// Servers that were voters and have lost their logs. They become voters again once they have recovered everything.
    pub replacing: BTreeSet<ServerId>,
}

/// A change of the voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberChange {
    /// A server that follows becomes a voter.
    Add(ServerId),
    /// A voter becomes an observer.
    Remove(ServerId),
}

impl Membership {
    /// The membership of a new cluster. Its id follows from the logs, whose ids are random.
    #[must_use]
    pub fn first(voters: BTreeMap<ServerId, LogId>) -> Self {
        let cluster =
            voters.iter().fold(0, |id, (server, log)| crate::txn::mix(id ^ server.0) ^ crate::txn::mix(log.0));
        Self { cluster: ClusterId(cluster.max(1)), voters, replacing: BTreeSet::new() }
    }

    /// The size of a quorum.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether the server votes with that log.
    #[must_use]
    pub fn is_voter(&self, server: ServerId, log: LogId) -> bool {
        self.voters.get(&server) == Some(&log)
    }

    /// The membership with another voter.
    #[must_use]
    pub(crate) fn with(&self, server: ServerId, log: LogId) -> Self {
        let mut changed = self.clone();
        changed.voters.insert(server, log);
        changed.replacing.remove(&server);
        changed
    }

    /// The membership without a voter.
    #[must_use]
    pub(crate) fn without(&self, server: ServerId) -> Self {
        let mut changed = self.clone();
        changed.voters.remove(&server);
        changed.replacing.remove(&server);
        changed
    }

    /// The membership without a voter that has lost its log.
    #[must_use]
    pub(crate) fn replacing(&self, server: ServerId) -> Self {
        let mut changed = self.without(server);
        changed.replacing.insert(server);
        changed
    }
}
