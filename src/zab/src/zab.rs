//! The state machine: which phase answers what.

use crate::base::{Base, Next};
use crate::election::Election;
use crate::following::{self, Following};
use crate::leading::{self, Followed, Leading};
use crate::planted::Planted;
use crate::{
    Action, Config, Doing, Input, Ledger, Link, Message, Notification, Refusal, Request, Role, ServerId, ToLeader, Zxid,
};

/// One server of a cluster that keeps one order of transactions.
///
/// It has no clock, no network and no disk: what happens is told to it, and it tells what to do. The same inputs always give the
/// same actions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Zab {
    base: Base,
    phase: Phase,
    /// What came of earlier sessions, and what cannot have come.
    counts: Counts,
}

/// What came and was not taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Messages of earlier connections and sessions.
    pub stale: u64,
    /// Messages that cannot be.
    pub impossible: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Its role has ended; it votes once all that it began to write is durable.
    Draining,
    Election(Election),
    Following(Following),
    Leading(Box<Leading>),
    Stopped,
}

impl Zab {
    /// A server that comes up with what its log says. All through `delivered` was applied to the state that it comes up with.
    #[must_use]
    pub fn new(config: Config, mut ledger: Ledger, delivered: Zxid) -> Self {
        ledger.abandon_sync();
        Self { base: Base::new(config, ledger, delivered), phase: Phase::Draining, counts: Counts::default() }
    }

    /// Takes what happened, in order; adds what has to be done, in order. What is taken together is written and sent together.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, actions: &mut Vec<Action>) {
        for input in inputs {
            if !joins_others(&input) {
                self.flush();
            }
            let next = self.input(input);
            self.go_on(next);
        }
        self.flush();
        actions.append(&mut self.base.out);
    }

    /// Who it is, and among whom.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.base.config
    }

    /// What the log says, with the writes that are under way.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.base.ledger
    }

    /// The last transaction that was delivered.
    #[must_use]
    pub fn delivered(&self) -> Zxid {
        self.base.delivered
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.phase {
            Phase::Following(following) => following.role(&self.base),
            Phase::Leading(leading) => leading.role(),
            Phase::Draining | Phase::Election(_) | Phase::Stopped => Role::Looking,
        }
    }

    /// Those who follow; nobody where this server does not lead.
    #[must_use]
    pub fn followed(&self) -> Vec<Followed> {
        match &self.phase {
            Phase::Leading(leading) => leading.followed(&self.base),
            _ => Vec::new(),
        }
    }

    /// What came and was not taken.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The name of the phase that it is in, for tests and metrics.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match &self.phase {
            Phase::Draining => "draining",
            Phase::Election(_) => "election",
            Phase::Following(following) => match following.stage {
                following::Stage::Connecting => "following: connecting",
                following::Stage::Discovery => "following: discovery",
                following::Stage::Promised(_) => "following: promised",
                following::Stage::Synchronisation(_) => "following: synchronisation",
                following::Stage::Synchronised(_) => "following: synchronised",
                following::Stage::Broadcast(_) => "following: broadcast",
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

    /// Ends the chaos in elections.
    #[cfg(feature = "planted")]
    pub fn calm(&mut self) {
        self.base.config.chaotic = false;
    }

    /// Whether it has stopped for good.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
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
            Input::LinkUp { peer, link } => self.link_up(peer, link),
            Input::LinkDown { peer, link } => {
                if self.base.links.get(&peer) != Some(&link) {
                    return Next::Stay;
                }
                self.base.links.remove(&peer);
                self.link_down(peer, link)
            }
            Input::Received { peer, link, message } => {
                if self.base.links.get(&peer) != Some(&link) {
                    return self.judged(Next::Stale, (peer, link));
                }
                let next = self.message(peer, link, message);
                self.judged(next, (peer, link))
            }
            Input::Progress { peer, link } => {
                match &mut self.phase {
                    Phase::Following(following) => following.progress(peer, link),
                    Phase::Leading(leading) => leading.progress(peer, link),
                    Phase::Draining | Phase::Election(_) | Phase::Stopped => {}
                }
                Next::Stay
            }
            Input::Written(io) => {
                self.base.note_written(io);
                match &mut self.phase {
                    Phase::Leading(leading) => leading.written(&mut self.base, io),
                    Phase::Draining => self.look(),
                    _ => Next::Stay,
                }
            }
            Input::Propose { request, payload } => {
                match &mut self.phase {
                    Phase::Leading(leading) => leading.propose_here(&mut self.base, request, payload),
                    Phase::Following(following) => following.propose_here(&mut self.base, request, payload),
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
                self.base.ledger.snapshot_taken(zxid, retained, bytes);
                Next::Stay
            }
            Input::HandOver(to) => match &mut self.phase {
                Phase::Leading(leading) => leading.hand_over(&mut self.base, to),
                _ => Next::Stay,
            },
        }
    }

    fn read(&mut self, request: Request) {
        match &mut self.phase {
            Phase::Leading(leading) => leading.read(&mut self.base, None, request),
            Phase::Following(following) => following.read_here(&mut self.base, request),
            _ => self.base.refuse(request, Refusal::NoLeader),
        }
    }

    fn tick(&mut self) -> Next {
        self.base.give_back_leaps();
        match &mut self.phase {
            Phase::Draining => self.look(),
            Phase::Election(election) => election.tick(&mut self.base),
            Phase::Following(following) => following.tick(&mut self.base),
            Phase::Leading(leading) => leading.tick(&mut self.base),
            Phase::Stopped => Next::Stay,
        }
    }

    fn link_up(&mut self, peer: ServerId, link: Link) -> Next {
        if let Some(old) = self.base.links.insert(peer, link) {
            // An end of the earlier one that nobody told.
            let next = self.link_down(peer, old);
            self.go_on(next);
        }
        match &mut self.phase {
            Phase::Election(election) => election.link_up(&mut self.base, peer),
            Phase::Following(following) => following.link_up(&mut self.base, peer),
            Phase::Draining | Phase::Leading(_) | Phase::Stopped => {}
        }
        Next::Stay
    }

    fn link_down(&mut self, peer: ServerId, link: Link) -> Next {
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
            (Phase::Election(election), Message::Vote(heard)) => election.vote(&mut self.base, peer, heard),
            (phase, Message::Vote(heard)) => {
                if let Phase::Following(following) = phase {
                    following.heard(&mut self.base, peer, heard.doing);
                }
                if matches!(heard.doing, Doing::Looking | Doing::Asking)
                    && let Some(told) = phase.notification(&self.base)
                {
                    self.base.send(link, Message::Vote(told));
                }
                Next::Stay
            }
            (Phase::Leading(leading), Message::ToLeader(session, message)) => {
                leading.message(&mut self.base, (peer, link), session, message)
            }
            (Phase::Following(following), Message::ToFollower(session, message)) if following.leader == peer => {
                following.message(&mut self.base, link, session, message)
            }
            // Whoever sent it has not heard yet that the role has changed.
            (Phase::Following(_), Message::ToLeader(session, ToLeader::FollowerInfo { .. })) => {
                let message = crate::ToFollower::Resigned { successor: None };
                self.base.send(link, Message::ToFollower(session, message));
                Next::Stale
            }
            (_, Message::ToLeader(..) | Message::ToFollower(..)) => Next::Stale,
        }
    }

    /// Counts rejected messages. An impossible message drops the link at once: messages already queued behind it may depend on the rejected one.
    fn judged(&mut self, next: Next, (peer, link): (ServerId, Link)) -> Next {
        match next {
            Next::Stale => {
                self.counts.stale += 1;
                Next::Stay
            }
            Next::Impossible(problem) => {
                self.counts.impossible += 1;
                self.base.out.push(Action::Close { link, problem });
                self.base.links.remove(&peer);
                self.link_down(peer, link)
            }
            next => next,
        }
    }

    /// Does what a phase decided, until it stays in one.
    fn go_on(&mut self, mut next: Next) {
        loop {
            next = match next {
                Next::Stay | Next::Stale | Next::Impossible(_) => return,
                Next::Leave => self.leave(),
                Next::Lead(vote) => {
                    let (leading, next) = Leading::begin(&mut self.base, vote);
                    self.phase = Phase::Leading(Box::new(leading));
                    next
                }
                Next::Follow(vote) => {
                    self.phase = Phase::Following(Following::begin(&mut self.base, vote));
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

    fn leave(&mut self) -> Next {
        self.flush();
        let had_role = self.role() != Role::Looking;
        match &mut self.phase {
            Phase::Following(following) => following.leave(&mut self.base),
            Phase::Leading(leading) => leading.leave(&mut self.base),
            Phase::Draining | Phase::Election(_) | Phase::Stopped => {}
        }
        self.phase = Phase::Draining;
        if had_role {
            self.base.out.push(Action::Became(Role::Looking));
        }
        self.look()
    }

    /// Looks for a leader, once all writes are durable: what a vote says of the history is so.
    fn look(&mut self) -> Next {
        if !self.base.is_drained() && !self.base.config.breaks(Planted::VoteFromMemory) {
            return Next::Stay;
        }
        if self.base.config.breaks(Planted::KeepHalfSync) {
            self.base.ledger.keep_sync();
        }
        self.base.ledger.abandon_sync();
        let (election, next) = Election::begin(&mut self.base);
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

/// Whether proposals before it may be sent and written with those behind it.
fn joins_others(input: &Input) -> bool {
    match input {
        Input::Propose { .. } | Input::Read { .. } => true,
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
