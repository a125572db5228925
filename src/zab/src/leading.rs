//! The role of a leader.

use std::collections::{BTreeMap, VecDeque};

use crate::base::{Base, Next};
use crate::injected_bug::InjectedBug;
use crate::reads::Reads;
use crate::{
    Epoch, Link, LogId, Message, Notification, Payload, Refusal, Request, Role, ServerId, ServerState, Session,
    Summary, ToFollower, ToLeader, Vote, WriteId, Zxid,
};

/// How far this leader has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// It waits for a quorum to follow.
    Gathering,
    /// The new epoch is chosen and is being made durable.
    Accepting(WriteId),
    /// It waits for ACKEPOCH of a quorum.
    Discovery,
    /// It waits for a quorum to adopt its history.
    Synchronisation,
    /// The epoch is established.
    Broadcast,
}

/// How far a follower has got, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Progress {
    /// CEPOCH arrived with this acceptedEpoch.
    Known(Epoch),
    /// NEWEPOCH was sent.
    NewEpochSent,
    /// ACKEPOCH arrived with this history.
    EpochAcked { current: Epoch, last: Zxid, is_new: bool },
    /// The snapshot of all transactions through this one is being sent.
    Snapshot(Zxid),
    /// It is being sent the history; what was sent ends at this transaction.
    CatchingUp(Zxid),
    /// The same, and what follows is being read from the log on disk.
    Reading(Zxid),
    /// NEWLEADER was sent.
    Synchronising,
    /// It has the leader's history.
    Active,
    /// Its history through this transaction is not the leader's.
    Differs(Zxid),
}

/// A follower or observer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    pub(crate) link: Link,
    pub(crate) session: Session,
    pub(crate) log: LogId,
    pub(crate) votes: bool,
    pub(crate) progress: Progress,
    /// All transactions through this one are durable there.
    pub(crate) acked: Zxid,
    /// What follows this transaction is withheld from it until a change of the voters is committed.
    pub(crate) withheld_after: Option<Zxid>,
    /// SYNC messages whose transactions are not known to be durable there.
    pub(crate) in_flight: usize,
    /// The summary of the snapshot that is being sent.
    pub(crate) snapshot: Option<Summary>,
    /// Ticks since its last message.
    silent_ticks: u32,
    /// The last heartbeat that it answered.
    pub(crate) pong: u64,
}

/// A follower's progress, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerStatus {
    /// The follower.
    pub server: ServerId,
    /// It has the leader's history and gets all new transactions.
    pub is_active: bool,
    /// The number of transactions not known to be durable there. `None` if they are no longer in memory.
    pub lag: Option<usize>,
}

/// A server that leads, or tries to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Leading {
    vote: Vote,
    pub(crate) stage: Stage,
    pub(crate) epoch: Epoch,
    /// The size of a quorum of the membership in effect.
    pub(crate) quorum: usize,
    pub(crate) followers: BTreeMap<ServerId, Follower>,
    /// The write after which this server counts as having the epoch's history.
    pub(crate) installing: Option<WriteId>,
    pub(crate) installed: bool,
    /// All transactions through this one are durable here.
    pub(crate) durable: Zxid,
    /// Pending writes of proposals, and the last transaction of each.
    pub(crate) writes: VecDeque<(WriteId, Zxid)>,
    /// All transactions through this one are committed.
    pub(crate) commit: Zxid,
    /// Uncommitted proposals and their sizes in bytes.
    pub(crate) outstanding: VecDeque<(Zxid, usize)>,
    pub(crate) outstanding_bytes: usize,
    pub(crate) reads: Reads,
    /// A leadership transfer: the requested successor, and its age in ticks. The leader refuses new proposals and steps
    /// down once all pending ones are committed.
    transfer: Option<(Option<ServerId>, u32)>,
    /// Ticks since this server began to lead, or since a transfer to a synchronising voter last advanced.
    attempt_ticks: u32,
    /// Ticks without a quorum.
    ticks_without_quorum: u32,
    ticks_since_ping: u32,
}

impl Leading {
    pub(crate) fn start(base: &mut Base, vote: Vote) -> (Self, Next) {
        base.preferred = false;
        let mut this = Self {
            vote,
            stage: Stage::Gathering,
            epoch: Epoch(0),
            quorum: base.quorum(),
            followers: BTreeMap::new(),
            installing: None,
            installed: false,
            durable: base.log_state.history().last(),
            writes: VecDeque::new(),
            commit: base.delivered,
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            reads: Reads::default(),
            transfer: None,
            attempt_ticks: 0,
            ticks_without_quorum: 0,
            ticks_since_ping: 0,
        };
        // Peers that already follow sent CEPOCH before this server knew that it leads.
        let vote = Message::Vote(this.notification(base));
        base.send_to_all(&vote);
        let next = this.gather(base);
        (this, next)
    }

    /// The progress of all followers.
    pub(crate) fn follower_status(&self, base: &Base) -> Vec<FollowerStatus> {
        let of = |(server, follower): (&ServerId, &Follower)| FollowerStatus {
            server: *server,
            is_active: follower.progress == Progress::Active,
            lag: base.log_state.history().count_after(follower.acked),
        };
        self.followers.iter().map(of).collect()
    }

    /// What this server tells servers that look for a leader.
    pub(crate) fn notification(&self, base: &Base) -> Notification {
        let state = if self.stage == Stage::Broadcast { ServerState::Established } else { ServerState::Leading };
        Notification { vote: self.vote, round: base.round, state }
    }

    /// Whether that is the follower's current session.
    pub(crate) fn has_session(&self, peer: ServerId, link: Link, session: Session) -> bool {
        self.followers.get(&peer).is_some_and(|follower| follower.link == link && follower.session == session)
    }

    pub(crate) fn send(&self, base: &mut Base, to: ServerId, message: ToFollower) {
        if let Some(follower) = self.followers.get(&to) {
            base.send(follower.link, Message::ToFollower(follower.session, message));
        }
    }

    pub(crate) fn send_to_all(&self, base: &mut Base, message: &ToFollower, filter: impl Fn(&Follower) -> bool) {
        for follower in self.followers.values().filter(|follower| filter(follower)) {
            base.send(follower.link, Message::ToFollower(follower.session, message.clone()));
        }
    }

    /// The number of voters, without this server, for which `has` holds.
    pub(crate) fn voters(&self, has: impl Fn(&Follower) -> bool) -> usize {
        self.followers.values().filter(|follower| follower.votes && has(follower)).count()
    }

    pub(crate) fn message(
        &mut self,
        base: &mut Base,
        (peer, link): (ServerId, Link),
        session: Session,
        message: ToLeader,
    ) -> Next {
        if let ToLeader::FollowerInfo { accepted } = message {
            if self.has_session(peer, link, session) {
                // A repeated CEPOCH.
                return Next::Stay;
            }
            if !base.accept_claim(accepted) {
                self.followers.remove(&peer);
                return Next::Impossible("acceptedEpoch exceeds what elections can have reached");
            }
            let Some(log) = base.logs.get(&peer).copied() else { return Next::Stale };
            let follower = Follower {
                link,
                session,
                log,
                votes: base.is_voter(peer) || base.config.has_bug(InjectedBug::CountObservers),
                progress: Progress::Known(accepted),
                acked: Zxid::ZERO,
                withheld_after: None,
                in_flight: 0,
                snapshot: None,
                silent_ticks: 0,
                pong: 0,
            };
            self.followers.insert(peer, follower);
            return self.follower_info(base, peer, accepted);
        }
        let Some(follower) = self.followers.get_mut(&peer) else { return Next::Stale };
        let stale = follower.link != link || follower.session != session;
        if stale && !base.config.has_bug(InjectedBug::StaleSessions) {
            return Next::Stale;
        }
        follower.silent_ticks = 0;
        match (follower.progress, message) {
            // DIVERGED is sent only once a quorum follows; until then the connection must stay.
            (Progress::Differs(_), ToLeader::Pong { .. } | ToLeader::AckEpoch { .. }) => Next::Stay,
            (Progress::Active, ToLeader::Pong { delivered, .. }) if Self::differs(base, delivered) => {
                Next::Impossible("what was delivered there is not in this leader's history")
            }
            (_, ToLeader::Pong { delivered, .. }) if Self::differs(base, delivered) => {
                self.follower_differs(base, peer, delivered.zxid)
            }
            (_, ToLeader::Pong { number, .. }) => {
                follower.pong = follower.pong.max(number);
                self.read_confirmed(base);
                Next::Stay
            }
            (_, ToLeader::Left) => {
                self.followers.remove(&peer);
                Next::Stay
            }
            // It answers an earlier epoch of this leader.
            (_, ToLeader::AckEpoch { epoch, .. } | ToLeader::AckNewLeader { epoch, .. }) if epoch != self.epoch => {
                Next::Stale
            }
            (Progress::NewEpochSent, ToLeader::AckEpoch { current, last, is_new, .. }) => {
                self.ack_epoch(base, peer, (current, last), is_new)
            }
            (Progress::Snapshot(_) | Progress::CatchingUp(_) | Progress::Reading(_), ToLeader::Received(zxid)) => {
                self.received(base, peer, zxid)
            }
            // The last piece was sent with NEWLEADER.
            (Progress::Synchronising | Progress::Active, ToLeader::Received(_)) => Next::Stay,
            (Progress::Synchronising, ToLeader::AckNewLeader { through, .. }) => {
                self.ack_new_leader(base, peer, through)
            }
            (Progress::Active, ToLeader::Ack(zxid)) => self.acked(base, peer, zxid),
            (Progress::Active, ToLeader::Forward { request, payload, is_reserved }) => {
                let zxid = self.propose(base, Payload::Command(payload), is_reserved);
                self.send(base, peer, ToFollower::Forwarded { request, zxid });
                Next::Stay
            }
            (Progress::Active, ToLeader::ChangeMembers { request, change }) => {
                let zxid = self.change_members(base, change);
                self.send(base, peer, ToFollower::Forwarded { request, zxid });
                Next::Stay
            }
            (Progress::CatchingUp(_) | Progress::Reading(_) | Progress::Synchronising, ToLeader::Differs(zxid)) => {
                self.follower_differs(base, peer, zxid)
            }
            (Progress::Active, ToLeader::ReadIndex { request }) => {
                self.read(base, Some((peer, link, session)), request);
                Next::Stay
            }
            _ => Next::Impossible("message not valid in this phase of a leader"),
        }
    }

    /// Records that a voter comes closer to having the history.
    pub(crate) fn note_attempt(&mut self) {
        self.attempt_ticks = 0;
    }

    /// Transfer progress of a follower counts as a heartbeat.
    pub(crate) fn progress(&mut self, peer: ServerId, link: Link) {
        if let Some(follower) = self.followers.get_mut(&peer).filter(|follower| follower.link == link) {
            follower.silent_ticks = 0;
            if self.stage == Stage::Synchronisation && follower.votes {
                self.attempt_ticks = 0;
            }
        }
    }

    pub(crate) fn link_down(&mut self, peer: ServerId, link: Link) {
        if self.followers.get(&peer).is_some_and(|follower| follower.link == link) {
            self.followers.remove(&peer);
        }
    }

    pub(crate) fn tick(&mut self, base: &mut Base) -> Next {
        self.attempt_ticks = self.attempt_ticks.saturating_add(1);
        self.drop_silent(base);
        self.ticks_since_ping += 1;
        if self.ticks_since_ping >= base.config.heartbeat_ticks {
            self.ping(base);
        }
        let limit = match self.stage {
            Stage::Gathering | Stage::Accepting(_) | Stage::Discovery => base.config.sync_ticks,
            Stage::Synchronisation => base.config.init_ticks,
            Stage::Broadcast => u32::MAX,
        };
        let active = self.voters(|follower| follower.progress == Progress::Active);
        let has_quorum = self.stage != Stage::Broadcast || active + 1 >= self.quorum;
        self.ticks_without_quorum = if has_quorum { 0 } else { self.ticks_without_quorum + 1 };
        if self.attempt_ticks > limit || self.ticks_without_quorum > base.config.sync_ticks {
            return Next::StepDown;
        }
        if self.stage == Stage::Discovery {
            // Servers that could have accepted the epoch may have disconnected.
            return self.discover(base);
        }
        match self.transfer {
            Some(_) => self.continue_transfer(base),
            None => {
                self.replace_lost_logs(base);
                Next::Stay
            }
        }
    }

    fn drop_silent(&mut self, base: &mut Base) {
        let limit = base.config.sync_ticks;
        self.followers.retain(|_, follower| {
            follower.silent_ticks += 1;
            let lives = follower.silent_ticks <= limit;
            if !lives {
                base.out.push(crate::Action::Close { link: follower.link, problem: "no heartbeat from the follower" });
            }
            lives
        });
    }

    pub(crate) fn ping(&mut self, base: &mut Base) {
        self.ticks_since_ping = 0;
        let number = self.reads.next_ping();
        self.send_to_all(base, &ToFollower::Ping { number }, |_| true);
    }

    /// Handles durable writes.
    pub(crate) fn written(&mut self, base: &mut Base, id: WriteId) -> Next {
        while let Some((_, zxid)) = self.writes.pop_front_if(|(of, _)| *of <= id) {
            self.durable = zxid;
        }
        if let Stage::Accepting(accepting) = self.stage
            && accepting <= id
        {
            return self.accepted(base);
        }
        if self.installing.is_some_and(|installing| installing <= id) {
            self.installing = None;
            self.installed = true;
            return self.establish(base);
        }
        Next::Stay
    }

    /// Starts to transfer leadership.
    pub(crate) fn transfer_leadership(&mut self, base: &mut Base, to: Option<ServerId>) -> Next {
        if self.transfer.is_none() {
            self.transfer = Some((to, 0));
        }
        self.continue_transfer(base)
    }

    pub(crate) fn refusal(&self, base: &Base) -> Option<Refusal> {
        match (self.stage, &self.transfer) {
            (Stage::Synchronisation, None) if base.config.has_bug(InjectedBug::ProposeBeforeEstablished) => None,
            (Stage::Broadcast, None) => None,
            (Stage::Broadcast, Some(_)) => Some(Refusal::TransferringLeadership),
            _ => Some(Refusal::NoLeader),
        }
    }

    /// Steps down once everything is committed and the successor has it.
    fn continue_transfer(&mut self, base: &mut Base) -> Next {
        let Some((to, ticks)) = &mut self.transfer else { return Next::Stay };
        *ticks += 1;
        let last = base.log_state.history().last();
        let ready = |id: &ServerId, follower: &Follower| {
            to.is_none_or(|to| to == *id) && follower.votes && follower.acked == last
        };
        let found = self.followers.iter().find(|(id, follower)| ready(id, follower)).map(|(id, _)| *id);
        let alone = self.quorum == 1;
        if self.stage == Stage::Broadcast && self.commit == last && (found.is_some() || alone) {
            self.send_resigned(base, found);
            self.followers.clear();
            return Next::StepDown;
        }
        if *ticks > base.config.init_ticks {
            self.transfer = None;
        }
        Next::Stay
    }

    fn send_resigned(&self, base: &mut Base, successor: Option<ServerId>) {
        self.send_to_all(base, &ToFollower::Resigned { successor }, |_| true);
    }

    /// The role as seen from outside.
    pub(crate) fn role(&self) -> Role {
        if self.stage == Stage::Broadcast { Role::Leading(self.epoch) } else { Role::Looking }
    }

    pub(crate) fn step_down(&mut self, base: &mut Base) {
        self.send_resigned(base, None);
        for request in self.reads.drain() {
            base.refuse(request, Refusal::NoLeader);
        }
    }

    /// Proposes a command of a local client.
    pub(crate) fn propose_local(
        &mut self,
        base: &mut Base,
        request: Request,
        (payload, in_epoch, is_reserved): (bytes::Bytes, Option<Epoch>, bool),
    ) {
        let proposed = match in_epoch.filter(|epoch| *epoch != self.epoch) {
            Some(_) => Err(Refusal::OtherEpoch),
            None => self.propose(base, Payload::Command(payload), is_reserved),
        };
        base.answer(request, proposed);
    }
}
