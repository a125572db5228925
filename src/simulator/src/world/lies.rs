//! Servers that send bogus numbers, as a faulty or foreign process would.
//!
//! What a server says about its own disk stays true: without Byzantine fault tolerance, quorums rest on
//! acknowledgements. Everything else may be bogus: acceptedEpoch and NEWEPOCH, votes and their rounds, and zxids that
//! no server has.

use crossdock_zab::{Epoch, Link, Message, ToFollower, ToLeader, Zxid};
use rand::Rng;

use super::World;

/// Beyond the leap that `zab` accepts.
const FAR: u32 = 1 << 20;

fn bogus_epoch(rng: &mut impl Rng, epoch: Epoch) -> Epoch {
    Epoch(match rng.random_range(0..5) {
        0 => u32::MAX - rng.random_range(0..3),
        1 => rng.random_range(epoch.0.saturating_add(FAR + 2)..=u32::MAX),
        2 => epoch.0.saturating_add(rng.random_range(1..1000)),
        3 => epoch.0.saturating_sub(rng.random_range(1..3)),
        _ => 0,
    })
}

fn bogus_zxid(rng: &mut impl Rng, zxid: Zxid) -> Zxid {
    let counter = if rng.random_bool(0.5) { 1 } else { u32::MAX };
    // Beyond every epoch of the run: a zxid that the sender could have would be a claim about its disk.
    Zxid::new(Epoch(rng.random_range(zxid.epoch.0.saturating_add(FAR)..=u32::MAX)), counter)
}

impl World {
    /// Replaces a number in the message by a bogus one, if it has one that may be bogus.
    pub(super) fn with_bogus_numbers(&mut self, server: usize, link: Link, mut message: Message) -> Message {
        let Some(connection) = self.network.of_link(server, link) else { return message };
        let it = &self.network.connections[connection];
        let peer = it.ends[1 - it.end_of(server)];
        // A new server accepts its first epoch: it cannot know the age of the cluster.
        let is_new = self.servers[peer].zab.as_ref().is_none_or(|zab| zab.log_state().accepted_epoch() == Epoch(0));
        let rng = &mut self.servers[server].rng;
        if rng.random_bool(0.3) {
            return message;
        }
        match &mut message {
            Message::Vote(notification) => match rng.random_range(0..5) {
                0 => notification.round = u64::MAX - u64::from(rng.random_bool(0.5)),
                1 => notification.round = notification.round.saturating_add(rng.random_range(1..1000)),
                2 => notification.vote.electable = !notification.vote.electable,
                3 => notification.vote.epoch = bogus_epoch(rng, notification.vote.epoch),
                _ => notification.vote.zxid = bogus_zxid(rng, notification.vote.zxid),
            },
            Message::ToLeader(_, ToLeader::FollowerInfo { accepted, .. }) => *accepted = bogus_epoch(rng, *accepted),
            Message::ToFollower(_, ToFollower::NewEpoch(epoch)) if !is_new => *epoch = bogus_epoch(rng, *epoch),
            Message::ToLeader(_, ToLeader::Ack(zxid) | ToLeader::AckNewLeader { through: zxid, .. })
            | Message::ToFollower(_, ToFollower::Commit(zxid) | ToFollower::UpToDate { commit: zxid }) => {
                *zxid = bogus_zxid(rng, *zxid);
            }
            Message::ToFollower(_, ToFollower::Sync { txns, .. } | ToFollower::Propose { txns, .. }) => {
                if let Some(txn) = txns.last_mut() {
                    txn.zxid = bogus_zxid(rng, txn.zxid);
                }
            }
            _ => return message,
        }
        self.report.lies += 1;
        message
    }
}
