//! The role of a follower, or of an observer, which follows without a vote.

use std::collections::BTreeSet;

use crate::base::{Base, Next};
use crate::planted::Planted;
use crate::{
    Doing, Epoch, Link, Message, Notification, Refusal, Request, Role, ServerId, Session, ToFollower, ToLeader, Vote,
    Write,
};

/// How far a follower has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// There is no connection with the leader yet.
    Connecting,
    /// CEPOCH was sent.
    Discovery,
    /// ACKEPOCH was sent, or is once the promise is durable.
    Promised(Epoch),
    /// The history becomes the leader's.
    Synchronisation(Epoch),
    /// The history is the leader's; whether the epoch is established is not known.
    Synchronised(Epoch),
    /// The epoch is established.
    Broadcast(Epoch),
}

/// A server that follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Following {
    pub(crate) leader: ServerId,
    vote: Vote,
    pub(crate) link: Link,
    pub(crate) session: Session,
    pub(crate) stage: Stage,
    /// Ticks since the leader said something.
    silent: u32,
    /// Ticks since the follower began to get ready.
    waited: u32,
    /// Proposals and reads of this server that the leader has not answered.
    pub(crate) asked: BTreeSet<Request>,
}

impl Following {
    pub(crate) fn begin(base: &mut Base, vote: Vote) -> Self {
        let mut this = Self {
            leader: vote.server,
            vote,
            link: Link(0),
            session: base.next_session(),
            stage: Stage::Connecting,
            silent: 0,
            waited: 0,
            asked: BTreeSet::new(),
        };
        this.link_up(base, vote.server);
        this
    }

    pub(crate) fn link_up(&mut self, base: &mut Base, peer: ServerId) {
        if peer == self.leader
            && self.stage == Stage::Connecting
            && let Some(link) = base.links.get(&peer).copied()
        {
            self.link = link;
            self.stage = Stage::Discovery;
            self.ask_to_follow(base);
        }
    }

    fn ask_to_follow(&self, base: &mut Base) {
        let accepted = base.ledger.accepted();
        let returning = base.ledger.returning().filter(|_| !base.votes());
        self.tell(base, ToLeader::FollowerInfo { accepted, returning });
    }

    /// What a server says of whom it follows, or that it leads: if it is the leader, it may not have known so when it was asked.
    pub(crate) fn heard(&self, base: &mut Base, peer: ServerId, doing: Doing) {
        if peer == self.leader && self.stage == Stage::Discovery && matches!(doing, Doing::Leading | Doing::Established)
        {
            self.ask_to_follow(base);
        }
    }

    pub(crate) fn link_down(&self, peer: ServerId, link: Link) -> Next {
        if peer == self.leader && link == self.link { Next::Leave } else { Next::Stay }
    }

    pub(crate) fn tell(&self, base: &mut Base, message: ToLeader) {
        base.send(self.link, Message::ToLeader(self.session, message));
    }

    /// What others who look for a leader are told.
    pub(crate) fn notification(&self, base: &Base) -> Notification {
        Notification { vote: self.vote, round: base.round, doing: Doing::Following }
    }

    pub(crate) fn tick(&mut self, base: &mut Base) -> Next {
        self.silent += 1;
        if self.stage == Stage::Discovery && self.silent.is_multiple_of(base.config.heartbeat_ticks) {
            // The leader may not have known yet that it leads.
            self.ask_to_follow(base);
        }
        let ready = matches!(self.stage, Stage::Broadcast(_));
        self.waited = if ready { 0 } else { self.waited + 1 };
        if self.silent > base.config.sync_ticks || self.waited > base.config.init_ticks {
            return Next::Leave;
        }
        Next::Stay
    }

    /// What is on its way from the leader gets on.
    pub(crate) fn progress(&mut self, peer: ServerId, link: Link) {
        if peer == self.leader && link == self.link {
            (self.silent, self.waited) = (0, 0);
        }
    }

    pub(crate) fn message(&mut self, base: &mut Base, link: Link, session: Session, message: ToFollower) -> Next {
        let stale = link != self.link || session != self.session;
        if (stale && !base.config.breaks(Planted::StaleSessions)) || self.stage == Stage::Connecting {
            return Next::Stale;
        }
        self.silent = 0;
        if matches!(message, ToFollower::Sync { .. }) {
            self.waited = 0;
        }
        match (self.stage, message) {
            (_, ToFollower::Ping { number }) => {
                self.tell(base, ToLeader::Pong { number });
                Next::Stay
            }
            (_, ToFollower::Resigned { successor }) => {
                base.preferred = successor == Some(base.config.id);
                Next::Leave
            }
            (Stage::Discovery, ToFollower::NewEpoch(epoch)) => self.new_epoch(base, epoch),
            (Stage::Promised(epoch), ToFollower::Diff) => self.sync_begin(base, epoch, &[]),
            (Stage::Promised(epoch), ToFollower::Truncate(to)) => self.truncate(base, epoch, to),
            (Stage::Promised(epoch), ToFollower::Snapshot { zxid, blob }) => self.install(base, epoch, zxid, blob),
            (Stage::Synchronisation(_), ToFollower::Sync { after, txns }) => Self::sync(base, after, txns),
            (Stage::Synchronisation(epoch), ToFollower::NewLeader(named)) => self.new_leader(base, epoch, named),
            (Stage::Synchronised(epoch), ToFollower::UpToDate { commit }) => self.up_to_date(base, epoch, commit),
            (Stage::Synchronised(_) | Stage::Broadcast(_), ToFollower::Propose { after, txns }) => {
                self.proposed(base, after, txns)
            }
            (Stage::Broadcast(_), ToFollower::Commit(zxid)) => Self::committed(base, zxid),
            (Stage::Synchronised(_) | Stage::Broadcast(_), ToFollower::Inform { after, txns }) => {
                self.informed(base, after, txns)
            }
            (Stage::Broadcast(_), ToFollower::Returned) => Self::returned(base),
            (Stage::Broadcast(_), ToFollower::Forwarded { request, zxid }) => self.forwarded(base, request, zxid),
            (Stage::Broadcast(_), ToFollower::ReadIndexed { request, zxid }) => self.read_indexed(base, request, zxid),
            _ => Next::Impossible("a message of a leader that does not belong to this phase"),
        }
    }

    /// RETURNED came: it follows anew, as one that votes, once that is durable.
    fn returned(base: &mut Base) -> Next {
        match base.write(Write::Returned, Vec::new()) {
            Ok(_) => Next::Leave,
            Err(_) => Next::Impossible("it has lost no log"),
        }
    }

    /// Whether this server can ask its leader for something; refused where it cannot.
    pub(crate) fn may_ask(&mut self, base: &mut Base, request: Request) -> bool {
        let refusal = match self.stage {
            Stage::Broadcast(_) if self.asked.len() >= base.config.reads_max => Refusal::Busy,
            Stage::Broadcast(_) => {
                self.asked.insert(request);
                return true;
            }
            _ => Refusal::NoLeader,
        };
        base.refuse(request, refusal);
        false
    }

    /// The role as others see it.
    pub(crate) fn role(&self, base: &Base) -> Role {
        match self.stage {
            Stage::Broadcast(epoch) if base.votes() => Role::Following(self.leader, epoch),
            Stage::Broadcast(epoch) => Role::Observing(self.leader, epoch),
            _ => Role::Looking,
        }
    }

    pub(crate) fn leave(&self, base: &mut Base) {
        if self.stage != Stage::Connecting {
            self.tell(base, ToLeader::Left);
        }
    }
}
