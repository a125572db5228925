//! Servers that send false numbers, as a faulty or foreign program would.
//!
//! What a server says of its own disk stays true: that an acknowledgement means what it says is what a majority rests on, in Zab as in every
//! protocol that does not count on treason. All else may be false: which epoch it has promised or invites to, whom it votes for and in which round,
//! and numbers of transactions that nobody has.

use crossdock_zab::{Epoch, Link, Message, ToFollower, ToLeader, Zxid};
use rand::Rng;

use super::World;

/// Above the leap that is believed.
const FAR: u32 = 1 << 20;

fn false_epoch(rng: &mut impl Rng, epoch: Epoch) -> Epoch {
    Epoch(match rng.random_range(0..5) {
        0 => u32::MAX - rng.random_range(0..3),
        1 => rng.random_range(epoch.0.saturating_add(FAR + 2)..=u32::MAX),
        2 => epoch.0.saturating_add(rng.random_range(1..1000)),
        3 => epoch.0.saturating_sub(rng.random_range(1..3)),
        _ => 0,
    })
}

fn false_zxid(rng: &mut impl Rng, zxid: Zxid) -> Zxid {
    let counter = if rng.random_bool(0.5) { 1 } else { u32::MAX };
    // Later than the sender's epoch: a transaction that it could have is one that it has, for all who hear of it.
    Zxid::new(Epoch(rng.random_range(zxid.epoch.0.saturating_add(FAR)..=u32::MAX)), counter)
}

impl World {
    /// The message with a false number, where there is one that it can have.
    pub(super) fn with_false_numbers(&mut self, server: usize, link: Link, mut message: Message) -> Message {
        let Some(connection) = self.network.of_link(server, link) else { return message };
        let it = &self.network.connections[connection];
        let peer = it.ends[1 - it.end_of(server)];
        // What a new server is told first, it has to believe: nothing tells it how old the cluster is.
        let is_new = self.servers[peer].zab.as_ref().is_none_or(|zab| zab.ledger().accepted() == Epoch(0));
        let rng = &mut self.servers[server].rng;
        if rng.random_bool(0.3) {
            return message;
        }
        match &mut message {
            Message::Vote(told) => match rng.random_range(0..4) {
                0 => told.round = u64::MAX - u64::from(rng.random_bool(0.5)),
                1 => told.round = told.round.saturating_add(rng.random_range(1..1000)),
                2 => told.vote.epoch = false_epoch(rng, told.vote.epoch),
                _ => told.vote.zxid = false_zxid(rng, told.vote.zxid),
            },
            Message::ToLeader(_, ToLeader::FollowerInfo { accepted, .. }) => *accepted = false_epoch(rng, *accepted),
            Message::ToFollower(_, ToFollower::NewEpoch(epoch)) if !is_new => *epoch = false_epoch(rng, *epoch),
            Message::ToLeader(_, ToLeader::Ack(zxid) | ToLeader::AckNewLeader { through: zxid, .. })
            | Message::ToFollower(_, ToFollower::Commit(zxid) | ToFollower::UpToDate { commit: zxid }) => {
                *zxid = false_zxid(rng, *zxid);
            }
            Message::ToFollower(_, ToFollower::Sync { txns, .. } | ToFollower::Propose { txns, .. }) => {
                if let Some(txn) = txns.last_mut() {
                    txn.zxid = false_zxid(rng, txn.zxid);
                }
            }
            _ => return message,
        }
        self.report.lies += 1;
        message
    }
}
