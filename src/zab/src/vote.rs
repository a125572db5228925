//! Votes and their order.

use crate::{Epoch, ServerId, Zxid};

/// A vote. A candidate that can lead, as far as it knows, is better than one that cannot. Then the later history is
/// better: the higher currentEpoch, then the higher zxid. Ties go to the preferred successor of the last leader, then to
/// the higher id. The order is total, so servers that know the same votes choose the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// The candidate reaches a quorum of which it knows no later history than its own, so it can lead.
    pub electable: bool,
    /// The candidate's currentEpoch.
    pub epoch: Epoch,
    /// The end of the candidate's durable history.
    pub zxid: Zxid,
    /// The last leader named the candidate as its successor.
    pub preferred: bool,
    /// The candidate.
    pub server: ServerId,
}

/// The state of a server, as announced with its vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// It looks for a leader.
    Looking,
    /// It follows the candidate of its vote.
    Following,
    /// It leads, but is not established yet.
    Leading,
    /// It leads an established epoch.
    Established,
}

/// A server's vote and state, sent to all voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The vote.
    pub vote: Vote,
    /// The election round. Rounds increase.
    pub round: u64,
    /// The state of the sender.
    pub state: ServerState,
}
