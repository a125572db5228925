//! The state machine: dispatches inputs to the current phase.

use crate::base::{Base, Next};
use crate::election::Election;
use crate::following::{self, Following};
use crate::injected_bug::InjectedBug;
use crate::leading::{self, FollowerStatus, Leading};
use crate::{
    Action, Blob, Config, Input, Link, LogId, LogState, Message, Notification, Refusal, Request, Role, ServerId,
    ServerState, ToLeader, Zxid,
};

/// One server of the ensemble.
///
/// It has no clock, network or disk. The same inputs always produce the same actions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Zab {
    base: Base,
    phase: Phase,
    /// Counts of rejected messages.
    rejected: Rejected,
}

/// Counts of rejected messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rejected {
    /// Messages of earlier connections and sessions.
    pub stale: u64,
    /// Messages that violate the protocol.
    pub impossible: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// The role has ended; an election starts once all pending writes are durable.
    Draining,
    Election(Election),
    Following(Following),
    Leading(Box<Leading>),
    Stopped,
}

impl Zab {
    /// Starts a server with the state of its log. All transactions through `delivered` are already applied.
    #[must_use]
    pub fn new(config: Config, mut log_state: LogState, delivered: Zxid) -> Self {
        log_state.abandon_sync();
        Self { base: Base::new(config, log_state, delivered), phase: Phase::Draining, rejected: Rejected::default() }
    }

    /// Handles inputs in order and appends the resulting actions in order. Proposals handled in one call share writes
    /// and messages.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, actions: &mut Vec<Action>) {
        for input in inputs {
            if !can_batch(&input) {
                self.flush();
            }
            let received = received_snapshot(&input);
            let next = self.input(input);
            self.transition(next);
            if let Some(blob) = received.filter(|blob| !self.keeps(*blob)) {
                self.base.out.push(Action::DiscardSnapshot(blob));
            }
        }
        self.flush();
        actions.append(&mut self.base.out);
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.base.config
    }

    /// The log state, including pending writes.
    #[must_use]
    pub fn log_state(&self) -> &LogState {
        &self.base.log_state
    }

    /// The last transaction that was delivered.
    #[must_use]
    pub fn delivered(&self) -> Zxid {
        self.base.delivered
    }

    /// The current role.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.phase {
            Phase::Following(following) => following.role(&self.base),
            Phase::Leading(leading) => leading.role(),
            Phase::Draining | Phase::Election(_) | Phase::Stopped => Role::Looking,
        }
    }

    /// The progress of all followers; empty if this server does not lead.
    #[must_use]
    pub fn followers(&self) -> Vec<FollowerStatus> {
        match &self.phase {
            Phase::Leading(leading) => leading.follower_status(&self.base),
            _ => Vec::new(),
        }
    }

    /// The transaction after which followers that catch up need the log on disk; `None` if there are none.
    #[must_use]
    pub fn needed_after(&self) -> Option<Zxid> {
        match &self.phase {
            Phase::Leading(leading) => leading.needed_after(),
            _ => None,
        }
    }

    /// The number of uncommitted proposals, and their bytes; zero unless this server leads.
    #[must_use]
    pub fn outstanding(&self) -> (usize, usize) {
        match &self.phase {
            Phase::Leading(leading) => (leading.outstanding.len(), leading.outstanding_bytes),
            _ => (0, 0),
        }
    }

    /// Counts of rejected messages.
    #[must_use]
    pub fn rejected(&self) -> Rejected {
        self.rejected
    }

    /// The name of the current phase, for tests and metrics.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match &self.phase {
            Phase::Draining => "draining",
            Phase::Election(_) if self.base.membership().is_none() => "new",
            Phase::Election(_) => "election",
            Phase::Following(following) => match following.stage {
                following::Stage::Connecting => "following: connecting",
                following::Stage::Discovery => "following: discovery",
                following::Stage::EpochAcked(_) => "following: promised",
                following::Stage::Synchronisation(_) => "following: synchronisation",
                following::Stage::Synchronised(_) => "following: synchronised",
                following::Stage::Broadcast(_) => "following: broadcast",
                following::Stage::Differing => "following: differing",
            },
            Phase::Leading(leading) => match leading.stage {
                leading::Stage::Gathering => "leading: gathering",
                leading::Stage::Accepting(_) => "leading: accepting",
                leading::Stage::Discovery => "leading: discovery",
                leading::Stage::Synchronisation => "leading: synchronisation",
                leading::Stage::Broadcast => "leading: broadcast",
            },
            Phase::Stopped => "stopped",
        }
    }

    /// Returns to regular elections.
    #[cfg(feature = "injected-bugs")]
    pub fn end_random_elections(&mut self) {
        self.base.config.random_elections = false;
    }

    /// Whether the server has stopped for good.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// Whether a received snapshot is kept to be installed.
    fn keeps(&self, blob: Blob) -> bool {
        matches!(&self.phase, Phase::Following(following) if following.keeps(blob))
    }

    fn flush(&mut self) {
        match &mut self.phase {
            Phase::Leading(leading) => leading.flush(&mut self.base),
            _ => {
                self.base.write_appended();
            }
        }
    }

    fn input(&mut self, input: Input) -> Next {
        match input {
            _ if self.is_stopped() => Next::Stay,
            Input::Tick => self.tick(),
            Input::Now(time) => {
                self.base.now = time;
                Next::Stay
            }
            Input::LinkUp { peer, link, log } => self.link_up(peer, link, log),
            Input::LinkDown { peer, link } => {
                if self.base.links.get(&peer) != Some(&link) {
                    return Next::Stay;
                }
                self.base.links.remove(&peer);
                self.base.logs.remove(&peer);
                self.link_down(peer, link)
            }
            Input::Received { peer, link, message } => {
                if self.base.links.get(&peer) != Some(&link) {
                    return self.count_rejected(Next::Stale, (peer, link));
                }
                self.base.heard(peer);
                let next = self.message(peer, link, message);
                self.count_rejected(next, (peer, link))
            }
            Input::Progress { peer, link } => {
                match &mut self.phase {
                    Phase::Following(following) => following.progress(&mut self.base, peer, link),
                    Phase::Leading(leading) => leading.progress(peer, link),
                    Phase::Draining | Phase::Election(_) | Phase::Stopped => {}
                }
                Next::Stay
            }
            Input::Written(id) => {
                self.base.note_written(id);
                match &mut self.phase {
                    Phase::Leading(leading) => leading.written(&mut self.base, id),
                    Phase::Draining => self.begin_election(),
                    _ => Next::Stay,
                }
            }
            Input::Behind(is_behind) => {
                self.base.is_behind = is_behind;
                Next::Stay
            }
            Input::Propose { request, payload, in_epoch, is_reserved } => {
                let proposal = (payload, in_epoch, is_reserved);
                match &mut self.phase {
                    Phase::Leading(leading) => leading.propose_local(&mut self.base, request, proposal),
                    Phase::Following(following) => following.propose_local(&mut self.base, request, proposal),
                    _ => self.base.refuse(request, Refusal::NoLeader),
                }
                Next::Stay
            }
            Input::ChangeMembers { request, change } => {
                match &mut self.phase {
                    Phase::Leading(leading) => {
                        let proposed = leading.change_members(&mut self.base, change);
                        self.base.answer(request, proposed);
                    }
                    Phase::Following(following) => following.change_members(&mut self.base, request, change),
                    _ => self.base.refuse(request, Refusal::NoLeader),
                }
                Next::Stay
            }
            Input::Read { request } => {
                self.read(request);
                Next::Stay
            }
            Input::SnapshotTaken(zxid) => {
                let (retained, bytes) = (self.base.config.retained, self.base.config.retained_bytes);
                self.base.log_state.snapshot_taken(zxid, retained, bytes);
                Next::Stay
            }
            Input::LogRead { link, session, txns } => {
                if let Phase::Leading(leading) = &mut self.phase {
                    leading.log_read(&mut self.base, (link, session), txns);
                }
                Next::Stay
            }
            Input::TransferLeadership(to) => match &mut self.phase {
                Phase::Leading(leading) => leading.transfer_leadership(&mut self.base, to),
                _ => Next::Stay,
            },
        }
    }

    fn read(&mut self, request: Request) {
        match &mut self.phase {
            Phase::Leading(leading) => leading.read(&mut self.base, None, request),
            Phase::Following(following) => following.read_local(&mut self.base, request),
            _ => self.base.refuse(request, Refusal::NoLeader),
        }
    }

    fn tick(&mut self) -> Next {
        self.base.refill_leaps();
        self.base.count_silence();
        match &mut self.phase {
            Phase::Draining => self.begin_election(),
            Phase::Election(election) => election.tick(&mut self.base),
            Phase::Following(following) => following.tick(&mut self.base),
            Phase::Leading(leading) => leading.tick(&mut self.base),
            Phase::Stopped => Next::Stay,
        }
    }

    fn link_up(&mut self, peer: ServerId, link: Link, log: LogId) -> Next {
        if let Some(old) = self.base.links.insert(peer, link) {
            // The end of the earlier connection was not reported.
            let next = self.link_down(peer, old);
            self.transition(next);
        }
        self.base.logs.insert(peer, log);
        match &mut self.phase {
            Phase::Election(election) => election.link_up(&mut self.base, peer),
            Phase::Following(following) => following.link_up(&mut self.base, peer),
            Phase::Draining | Phase::Leading(_) | Phase::Stopped => {}
        }
        Next::Stay
    }

    fn link_down(&mut self, peer: ServerId, link: Link) -> Next {
        self.base.later.remove(&peer);
        match &mut self.phase {
            Phase::Election(election) => election.link_down(&mut self.base, peer),
            Phase::Following(following) => following.link_down(peer, link),
            Phase::Leading(leading) => {
                leading.link_down(peer, link);
                Next::Stay
            }
            Phase::Draining | Phase::Stopped => Next::Stay,
        }
    }

    fn message(&mut self, peer: ServerId, link: Link, message: Message) -> Next {
        match (&mut self.phase, message) {
            (_, Message::Forming(_)) if self.base.membership().is_some() => {
                self.base.answer_forming(peer);
                Next::Stay
            }
            (Phase::Election(election), Message::Forming(founders)) => election.forming(&mut self.base, peer, founders),
            (Phase::Election(_), Message::Formed(membership)) => Election::formed(&mut self.base, membership),
            // It asks again.
            (_, Message::Forming(_) | Message::Formed(_)) => Next::Stale,
            (Phase::Election(election), Message::Vote(received)) => election.vote(&mut self.base, peer, received),
            (phase, Message::Vote(received)) => {
                if let Phase::Following(following) = phase {
                    following.leader_state(&mut self.base, peer, received.state);
                }
                if received.state == ServerState::Looking
                    && let Some(notification) = phase.notification(&self.base)
                {
                    self.base.send(link, Message::Vote(notification));
                }
                Next::Stay
            }
            (Phase::Leading(leading), Message::ToLeader(session, message)) => {
                leading.message(&mut self.base, (peer, link), session, message)
            }
            (Phase::Following(following), Message::ToFollower(session, message)) if following.leader == peer => {
                following.message(&mut self.base, link, session, message)
            }
            // The sender does not know yet that this server no longer leads.
            (Phase::Following(_), Message::ToLeader(session, ToLeader::FollowerInfo { .. })) => {
                let message = crate::ToFollower::Resigned { successor: None };
                self.base.send(link, Message::ToFollower(session, message));
                Next::Stale
            }
            (_, Message::ToLeader(..) | Message::ToFollower(..)) => Next::Stale,
        }
    }

    /// Counts rejected messages. An impossible message drops the link at once: messages already queued behind it may
    /// depend on the rejected one.
    fn count_rejected(&mut self, next: Next, (peer, link): (ServerId, Link)) -> Next {
        match next {
            Next::Stale => {
                self.rejected.stale += 1;
                Next::Stay
            }
            Next::Impossible(problem) => {
                self.rejected.impossible += 1;
                self.base.out.push(Action::Close { link, problem });
                self.base.links.remove(&peer);
                self.base.logs.remove(&peer);
                self.link_down(peer, link)
            }
            next => next,
        }
    }

    /// Performs transitions until a phase stays.
    fn transition(&mut self, mut next: Next) {
        loop {
            next = match next {
                Next::Stay | Next::Stale | Next::Impossible(_) => return,
                Next::StepDown => self.step_down(),
                Next::Lead(vote) => {
                    let (leading, next) = Leading::start(&mut self.base, vote);
                    self.phase = Phase::Leading(Box::new(leading));
                    next
                }
                Next::Follow(vote) => {
                    self.phase = Phase::Following(Following::start(&mut self.base, vote));
                    Next::Stay
                }
                Next::Stop(fatal) => {
                    self.phase = Phase::Stopped;
                    self.base.out.push(Action::Stop(fatal));
                    return;
                }
            }
        }
    }

    fn step_down(&mut self) -> Next {
        self.flush();
        let had_role = self.role() != Role::Looking;
        match &mut self.phase {
            Phase::Following(following) => following.leave(&mut self.base),
            Phase::Leading(leading) => leading.step_down(&mut self.base),
            Phase::Draining | Phase::Election(_) | Phase::Stopped => {}
        }
        self.phase = Phase::Draining;
        if had_role {
            self.base.out.push(Action::Became(Role::Looking));
        }
        self.begin_election()
    }

    /// Starts an election once all writes are durable, so that votes describe the disk.
    fn begin_election(&mut self) -> Next {
        if !self.base.is_drained() && !self.base.config.has_bug(InjectedBug::VoteFromMemory) {
            return Next::Stay;
        }
        if self.base.config.has_bug(InjectedBug::KeepHalfSync) {
            self.base.log_state.keep_sync();
        }
        self.base.log_state.abandon_sync();
        let (election, next) = Election::start(&mut self.base);
        self.phase = Phase::Election(election);
        next
    }
}

impl Phase {
    fn notification(&self, base: &Base) -> Option<Notification> {
        match self {
            Self::Following(following) => Some(following.notification(base)),
            Self::Leading(leading) => Some(leading.notification(base)),
            Self::Draining | Self::Election(_) | Self::Stopped => None,
        }
    }
}

/// The snapshot in a message of a leader.
fn received_snapshot(input: &Input) -> Option<Blob> {
    match input {
        Input::Received { message: Message::ToFollower(_, crate::ToFollower::Snapshot { blob, .. }), .. } => {
            Some(*blob)
        }
        _ => None,
    }
}

/// Whether proposals before this input may share writes and messages with those after it.
fn can_batch(input: &Input) -> bool {
    match input {
        Input::Propose { .. } | Input::Read { .. } | Input::Now(_) | Input::Behind(_) => true,
        Input::Received { message: Message::ToLeader(_, message), .. } => {
            matches!(
                message,
                ToLeader::Forward { .. } | ToLeader::Ack(_) | ToLeader::Pong { .. } | ToLeader::ReadIndex { .. }
            )
        }
        Input::Received { message: Message::ToFollower(_, crate::ToFollower::Propose { .. }), .. } => true,
        _ => false,
    }
}
