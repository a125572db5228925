//! Whom a server would have for its leader.

use crate::{Epoch, ServerId, Zxid};

/// A vote. Votes are ordered: who has the history of the later epoch, then the longer one, then whom the last leader named, then
/// the higher id. The order is strict, so that all who know of the same votes choose the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// The epoch whose history the server has (currentEpoch).
    pub epoch: Epoch,
    /// The end of its durable history.
    pub zxid: Zxid,
    /// The last leader handed over to it.
    pub preferred: bool,
    /// The server.
    pub server: ServerId,
}

/// What a server is doing, as its votes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    /// It looks for a leader.
    Looking,
    /// It looks for a leader, and does not vote.
    Asking,
    /// It follows the one it voted for.
    Following,
    /// It leads, or tries to.
    Leading,
    /// It leads, and a majority follows.
    Established,
}

/// A server's vote, for all to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Whom it votes for.
    pub vote: Vote,
    /// The round of elections that it is in; rounds rise.
    pub round: u64,
    /// What it is doing.
    pub doing: Doing,
}
