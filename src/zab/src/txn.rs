//! Transactions, and the points between them.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Membership, Zxid};

/// A transaction: what changes, and its position in the order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Txn {
    /// The position.
    pub zxid: Zxid,
    /// The clock of the leader that proposed it, in milliseconds since the Unix epoch. It never goes back in the order,
    /// not even when the leader changes.
    pub time: u64,
    /// A hash over all transactions through this one, by which servers detect that their histories differ. It is not a
    /// cryptographic hash.
    pub hash: u64,
    /// What changes.
    pub payload: Payload,
}

impl Txn {
    /// The point after this transaction.
    #[must_use]
    pub fn point(&self) -> Point {
        Point { zxid: self.zxid, time: self.time, hash: self.hash }
    }
}

/// What a transaction changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payload {
    /// The replicated state: a command, opaque to this crate.
    Command(Bytes),
    /// The voters.
    Membership(Arc<Membership>),
}

impl Payload {
    /// Bytes of memory per voter of a membership.
    const VOTER_LEN: usize = 16;

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Command(command) => command.len(),
            Self::Membership(membership) => {
                (membership.voters.len() + membership.replacing.len() + 1) * Self::VOTER_LEN
            }
        }
    }

    /// Whether it is an empty command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn checksum(&self) -> u64 {
        match self {
            Self::Command(command) => u64::from(crc32c::crc32c(command)),
            Self::Membership(membership) => {
                let voters = membership.voters.iter().flat_map(|(server, log)| [server.0, log.0]);
                let replacing = membership.replacing.iter().map(|server| server.0);
                let separated = voters.chain([u64::MAX, membership.cluster.0]).chain(replacing);
                separated.fold(1 << 32, |sum, number| mix(sum ^ number))
            }
        }
    }
}

/// A point in the order: the position of its last transaction, and what depends on all transactions through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Point {
    /// The last transaction.
    pub zxid: Zxid,
    /// Its time.
    pub time: u64,
    /// The hash over all transactions through it.
    pub hash: u64,
}

impl Point {
    /// The transaction at `zxid` that follows this point. Its time is not before this point's.
    #[must_use]
    pub fn next(&self, zxid: Zxid, time: u64, payload: Payload) -> Txn {
        let time = time.max(self.time);
        let hash = self.hash_with(zxid, time, &payload);
        Txn { zxid, time, hash, payload }
    }

    /// Whether the time and the hash of a transaction are right after this point.
    #[must_use]
    pub fn precedes(&self, txn: &Txn) -> bool {
        txn.time >= self.time && txn.hash == self.hash_with(txn.zxid, txn.time, &txn.payload)
    }

    fn hash_with(&self, zxid: Zxid, time: u64, payload: &Payload) -> u64 {
        let parts = [zxid.to_u64(), time, payload.len() as u64, payload.checksum()];
        parts.into_iter().fold(self.hash, |hash, part| mix(hash ^ part))
    }
}

/// What must be known of the transactions through a point once they are discarded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Summary {
    /// The point.
    pub point: Point,
    /// The membership there; `None` before the cluster is formed.
    pub membership: Option<Arc<Membership>>,
}

/// A bijection that spreads bits (the finalizer of splitmix64).
pub(crate) fn mix(mut hash: u64) -> u64 {
    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
