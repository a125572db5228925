//! The role of a follower or observer. An observer follows without voting.

use std::collections::BTreeSet;

use crate::base::{Base, Next};
use crate::injected_bug::InjectedBug;
use crate::{
    Action, Blob, Epoch, Link, Message, Notification, Refusal, Request, Role, ServerId, ServerState, Session, Summary,
    ToFollower, ToLeader, Vote,
};

/// How many times longer than for anything else a follower waits for the next part of the history.
const STALLED_DISK: u32 = 10;

/// How far this follower has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// There is no connection to the leader yet.
    Connecting,
    /// CEPOCH was sent.
    Discovery,
    /// ACKEPOCH was sent, or will be once acceptedEpoch is durable.
    EpochAcked(Epoch),
    /// The follower is adopting the leader's history.
    Synchronisation(Epoch),
    /// The follower has the leader's history; the epoch may not be established yet.
    Synchronised(Epoch),
    /// The epoch is established.
    Broadcast(Epoch),
    /// The follower's history differs from the leader's, which decides what that means.
    Differing,
}

/// A server that follows a leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Following {
    pub(crate) leader: ServerId,
    vote: Vote,
    pub(crate) link: Link,
    pub(crate) session: Session,
    pub(crate) stage: Stage,
    /// Ticks since the last message of the leader.
    silent_ticks: u32,
    /// Ticks since the follower began to synchronise.
    waited_ticks: u32,
    /// Local proposals and reads that the leader has not answered.
    pub(crate) pending: BTreeSet<Request>,
    /// A received snapshot that is not installed yet.
    pub(crate) snapshot: Option<(Summary, Blob)>,
}

impl Following {
    pub(crate) fn start(base: &mut Base, vote: Vote) -> Self {
        let mut this = Self {
            leader: vote.server,
            vote,
            link: Link(0),
            session: base.next_session(),
            stage: Stage::Connecting,
            silent_ticks: 0,
            waited_ticks: 0,
            pending: BTreeSet::new(),
            snapshot: None,
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
        let accepted = base.log_state.accepted_epoch();
        self.send(base, ToLeader::FollowerInfo { accepted });
    }

    /// Handles a peer's state. If the leader now leads, it may have missed the earlier CEPOCH.
    pub(crate) fn leader_state(&self, base: &mut Base, peer: ServerId, state: ServerState) {
        if peer == self.leader
            && self.stage == Stage::Discovery
            && matches!(state, ServerState::Leading | ServerState::Established)
        {
            self.ask_to_follow(base);
        }
    }

    pub(crate) fn link_down(&self, peer: ServerId, link: Link) -> Next {
        if peer == self.leader && link == self.link { Next::StepDown } else { Next::Stay }
    }

    pub(crate) fn send(&self, base: &mut Base, message: ToLeader) {
        base.send(self.link, Message::ToLeader(self.session, message));
    }

    /// What this server tells servers that look for a leader.
    pub(crate) fn notification(&self, base: &Base) -> Notification {
        Notification { vote: self.vote, round: base.round, state: ServerState::Following }
    }

    pub(crate) fn tick(&mut self, base: &mut Base) -> Next {
        self.silent_ticks += 1;
        if self.stage == Stage::Discovery && self.silent_ticks.is_multiple_of(base.config.heartbeat_ticks) {
            // The leader may have missed the first CEPOCH because it did not lead yet.
            self.ask_to_follow(base);
        }
        let ready = matches!(self.stage, Stage::Broadcast(_));
        self.waited_ticks = if ready { 0 } else { self.waited_ticks + 1 };
        let limit = if ready {
            base.patience.tick(&base.config);
            base.patience.limit(&base.config)
        } else {
            base.config.sync_ticks
        };
        if self.silent_ticks > limit {
            base.silent_leader = ready.then_some((self.leader, self.silent_ticks));
            return Next::StepDown;
        }
        // A leader that is heard may be reading what this server lacks from a disk that stalls, as may this server's own.
        let patience =
            if matches!(self.stage, Stage::Synchronisation(_) | Stage::Synchronised(_)) { STALLED_DISK } else { 1 };
        if self.waited_ticks > patience * base.config.init_ticks {
            return Next::StepDown;
        }
        Next::Stay
    }

    /// The leader was heard.
    fn heard(&mut self, base: &mut Base) {
        let silence = std::mem::take(&mut self.silent_ticks);
        if matches!(self.stage, Stage::Broadcast(_)) {
            base.patience.observe(silence, &base.config);
        }
    }

    /// Transfer progress of the leader counts as a heartbeat.
    pub(crate) fn progress(&mut self, base: &mut Base, peer: ServerId, link: Link) {
        if peer == self.leader && link == self.link {
            self.heard(base);
            self.waited_ticks = 0;
        }
    }

    pub(crate) fn message(&mut self, base: &mut Base, link: Link, session: Session, message: ToFollower) -> Next {
        let stale = link != self.link || session != self.session;
        if (stale && !base.config.has_bug(InjectedBug::StaleSessions)) || self.stage == Stage::Connecting {
            return Next::Stale;
        }
        self.heard(base);
        if matches!(message, ToFollower::Sync { .. }) {
            self.waited_ticks = 0;
        }
        match (self.stage, message) {
            (_, ToFollower::Ping { number }) => {
                let delivered = base.log_state.history().point_at(base.delivered).unwrap_or_default();
                self.send(base, ToLeader::Pong { number, delivered });
                Next::Stay
            }
            (_, ToFollower::Differs(points)) => Self::diverged(base, &points),
            // The leader has sent its history before it learned of the difference.
            (Stage::Differing, _) => Next::Stay,
            (_, ToFollower::Resigned { successor }) => {
                base.preferred = successor == Some(base.config.id);
                Next::StepDown
            }
            (Stage::Discovery, ToFollower::NewEpoch(epoch)) => self.new_epoch(base, epoch),
            (Stage::EpochAcked(epoch), ToFollower::Diff(summary)) => self.diff(base, epoch, summary),
            (Stage::EpochAcked(epoch), ToFollower::Truncate(to)) => self.truncate(base, epoch, to),
            (Stage::EpochAcked(epoch), ToFollower::Snapshot { summary, blob }) => {
                self.snapshot(base, epoch, summary, blob)
            }
            (Stage::Synchronisation(_), ToFollower::Sync { after, txns }) => self.sync(base, after, txns),
            (Stage::Synchronisation(epoch), ToFollower::NewLeader(named)) => self.new_leader(base, epoch, named),
            (Stage::Synchronised(epoch), ToFollower::UpToDate { commit }) => self.up_to_date(base, epoch, commit),
            (Stage::Synchronised(_) | Stage::Broadcast(_), ToFollower::Propose { after, txns }) => {
                self.proposed(base, after, txns)
            }
            (Stage::Broadcast(_), ToFollower::Commit(zxid)) => Self::committed(base, zxid),
            (Stage::Broadcast(_), ToFollower::Forwarded { request, zxid }) => self.forwarded(base, request, zxid),
            (Stage::Broadcast(_), ToFollower::ReadIndexed { request, zxid }) => self.read_indexed(base, request, zxid),
            _ => Next::Impossible("message not valid in this phase of a follower"),
        }
    }

    /// Records a request that is sent to the leader. Returns false, and refuses the request, if it cannot be sent.
    pub(crate) fn track_request(&mut self, base: &mut Base, request: Request) -> bool {
        let refusal = match self.stage {
            Stage::Broadcast(_) if self.pending.len() >= base.config.reads_max => Refusal::Busy,
            Stage::Broadcast(_) => {
                self.pending.insert(request);
                return true;
            }
            _ => Refusal::NoLeader,
        };
        base.refuse(request, refusal);
        false
    }

    /// The role as seen from outside.
    pub(crate) fn role(&self, base: &Base) -> Role {
        match self.stage {
            Stage::Broadcast(epoch) if base.votes() => Role::Following(self.leader, epoch),
            Stage::Broadcast(epoch) => Role::Observing(self.leader, epoch),
            _ => Role::Looking,
        }
    }

    /// Whether it keeps a received snapshot to install it.
    pub(crate) fn keeps(&self, blob: Blob) -> bool {
        self.snapshot.as_ref().is_some_and(|(_, kept)| *kept == blob)
    }

    /// Stops following.
    pub(crate) fn leave(&mut self, base: &mut Base) {
        if let Some((_, blob)) = self.snapshot.take() {
            base.out.push(Action::DiscardSnapshot(blob));
        }
        if self.stage != Stage::Connecting {
            self.send(base, ToLeader::Left);
        }
    }
}
