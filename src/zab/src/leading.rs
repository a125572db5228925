//! The role of a leader.

use std::collections::{BTreeMap, VecDeque};

use crate::base::{Base, Next};
use crate::planted::Planted;
use crate::reads::Reads;
use crate::{
    Doing, Epoch, Io, Link, Message, Notification, Refusal, Request, Role, ServerId, Session, ToFollower, ToLeader,
    Vote, Zxid,
};

/// How far a leader has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// It waits for a majority to follow.
    Gathering,
    /// The new epoch is chosen, and becomes durable.
    Accepting(Io),
    /// It waits for a majority's promises.
    Discovery,
    /// It waits for a majority to have its history.
    Synchronisation,
    /// The epoch is established.
    Broadcast,
}

/// How far a follower has got, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Progress {
    /// It said which epoch it has promised.
    Known(Epoch),
    /// NEWEPOCH was sent.
    Invited,
    /// It has promised; this is its history.
    Promised { current: Epoch, last: Zxid, counts: bool },
    /// NEWLEADER was sent.
    Synchronising,
    /// It has the leader's history.
    Active,
}

/// A follower or observer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    pub(crate) link: Link,
    pub(crate) session: Session,
    pub(crate) votes: bool,
    pub(crate) progress: Progress,
    /// All through here is durable there.
    pub(crate) acked: Zxid,
    /// Ticks since it said something.
    silent: u32,
    /// The last sign of life that it answered.
    pub(crate) pong: u64,
    /// The number of its log, where that has the place of one that was lost.
    pub(crate) returning: Option<u64>,
}

/// How far another server has got, as the one that leads knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// The other server.
    pub server: ServerId,
    /// It has the leader's history, and gets all that is new.
    pub is_active: bool,
    /// How many transactions are not known to be durable there; nothing where that is not known: one that does not vote does not say, and
    /// what is far behind may not be in memory any more.
    pub lag: Option<usize>,
}

/// A server that leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Leading {
    vote: Vote,
    pub(crate) stage: Stage,
    pub(crate) epoch: Epoch,
    pub(crate) followers: BTreeMap<ServerId, Follower>,
    /// The write after which this server counts itself as one that has the epoch's history.
    pub(crate) installing: Option<Io>,
    pub(crate) installed: bool,
    /// All through here is durable here.
    pub(crate) durable: Zxid,
    /// Writes of proposals that are under way, and where each ends.
    pub(crate) writes: VecDeque<(Io, Zxid)>,
    /// All through here is committed.
    pub(crate) commit: Zxid,
    /// Proposals that are not committed, with their sizes.
    pub(crate) outstanding: VecDeque<(Zxid, usize)>,
    pub(crate) outstanding_bytes: usize,
    pub(crate) reads: Reads,
    /// Servers that were known to have lost their logs before anybody was invited to the epoch.
    pub(crate) lost_before: BTreeMap<ServerId, u64>,
    /// It takes no proposals any more, and leaves once those that it took are committed; to whom, and for how many ticks.
    handing_over: Option<(Option<ServerId>, u32)>,
    /// Ticks since the office began.
    age: u32,
    /// Ticks without a majority.
    lonely: u32,
    since_ping: u32,
}

impl Leading {
    pub(crate) fn begin(base: &mut Base, vote: Vote) -> (Self, Next) {
        base.preferred = false;
        let mut this = Self {
            vote,
            stage: Stage::Gathering,
            epoch: Epoch(0),
            followers: BTreeMap::new(),
            installing: None,
            installed: false,
            durable: base.ledger.history().last(),
            writes: VecDeque::new(),
            commit: base.delivered,
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            reads: Reads::default(),
            lost_before: BTreeMap::new(),
            handing_over: None,
            age: 0,
            lonely: 0,
            since_ping: 0,
        };
        // Those who follow already asked before this server knew that it leads.
        let told = Message::Vote(this.notification(base));
        base.tell_voters(&told);
        let next = this.gather(base);
        (this, next)
    }

    /// All who follow.
    pub(crate) fn followed(&self, base: &Base) -> Vec<Followed> {
        let of = |(server, follower): (&ServerId, &Follower)| Followed {
            server: *server,
            is_active: follower.progress == Progress::Active,
            lag: follower.votes.then(|| base.ledger.history().count_after(follower.acked)).flatten(),
        };
        self.followers.iter().map(of).collect()
    }

    /// What others who look for a leader are told.
    pub(crate) fn notification(&self, base: &Base) -> Notification {
        let doing = if self.stage == Stage::Broadcast { Doing::Established } else { Doing::Leading };
        Notification { vote: self.vote, round: base.round, doing }
    }

    /// Whether that is the follower's session now.
    pub(crate) fn is_of(&self, peer: ServerId, link: Link, session: Session) -> bool {
        self.followers.get(&peer).is_some_and(|follower| follower.link == link && follower.session == session)
    }

    pub(crate) fn tell(&self, base: &mut Base, to: ServerId, message: ToFollower) {
        if let Some(follower) = self.followers.get(&to) {
            base.send(follower.link, Message::ToFollower(follower.session, message));
        }
    }

    pub(crate) fn tell_all(&self, base: &mut Base, message: &ToFollower, whom: impl Fn(&Follower) -> bool) {
        for follower in self.followers.values().filter(|follower| whom(follower)) {
            base.send(follower.link, Message::ToFollower(follower.session, message.clone()));
        }
    }

    /// Voters that have got so far, this server not among them.
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
        if let ToLeader::FollowerInfo { accepted, returning } = message {
            if self.is_of(peer, link, session) {
                // It asked again before it heard from here.
                return Next::Stay;
            }
            if !base.believes_claim(accepted) {
                self.followers.remove(&peer);
                return Next::Impossible("acceptedEpoch exceeds what elections can have reached");
            }
            let is_voter = base.config.voters.contains(&peer) && returning.is_none();
            let votes = is_voter || base.config.breaks(Planted::CountObservers);
            // One that does not vote never counted.
            if let Some(number) = returning.filter(|_| base.config.voters.contains(&peer)) {
                base.returning.insert(peer, number);
            }
            let follower = Follower {
                link,
                session,
                votes,
                progress: Progress::Known(accepted),
                acked: Zxid::ZERO,
                silent: 0,
                pong: 0,
                returning,
            };
            self.followers.insert(peer, follower);
            return self.follower_known(base, peer, accepted);
        }
        let Some(follower) = self.followers.get_mut(&peer) else { return Next::Stale };
        let stale = follower.link != link || follower.session != session;
        if stale && !base.config.breaks(Planted::StaleSessions) {
            return Next::Stale;
        }
        follower.silent = 0;
        match (follower.progress, message) {
            (_, ToLeader::Pong { number }) => {
                follower.pong = follower.pong.max(number);
                self.read_confirmed(base);
                Next::Stay
            }
            (_, ToLeader::Left) => {
                self.followers.remove(&peer);
                Next::Stay
            }
            // Of an earlier time of this server as a leader.
            (_, ToLeader::AckEpoch { epoch, .. } | ToLeader::AckNewLeader { epoch, .. }) if epoch != self.epoch => {
                Next::Stale
            }
            (Progress::Invited, ToLeader::AckEpoch { current, last, counts, .. }) => {
                self.promised(base, peer, (current, last), counts)
            }
            (Progress::Synchronising, ToLeader::AckNewLeader { through, .. }) => self.has_history(base, peer, through),
            (Progress::Active, ToLeader::Ack(zxid)) => self.acked(base, peer, zxid),
            (Progress::Active, ToLeader::Forward { request, payload }) => {
                let zxid = self.propose(base, payload).ok();
                self.tell(base, peer, ToFollower::Forwarded { request, zxid });
                Next::Stay
            }
            (Progress::Active, ToLeader::ReadIndex { request }) => {
                self.read(base, Some((peer, link, session)), request);
                Next::Stay
            }
            _ => Next::Impossible("a message of a follower that does not belong to its phase"),
        }
    }

    /// What is on its way to a follower gets on.
    pub(crate) fn progress(&mut self, peer: ServerId, link: Link) {
        if let Some(follower) = self.followers.get_mut(&peer).filter(|follower| follower.link == link) {
            follower.silent = 0;
            if self.stage == Stage::Synchronisation && follower.votes {
                self.age = 0;
            }
        }
    }

    pub(crate) fn link_down(&mut self, peer: ServerId, link: Link) {
        if self.followers.get(&peer).is_some_and(|follower| follower.link == link) {
            self.followers.remove(&peer);
        }
    }

    pub(crate) fn tick(&mut self, base: &mut Base) -> Next {
        self.age = self.age.saturating_add(1);
        self.drop_silent(base);
        self.since_ping += 1;
        if self.since_ping >= base.config.heartbeat_ticks {
            self.ping(base);
        }
        let limit = match self.stage {
            Stage::Gathering | Stage::Accepting(_) | Stage::Discovery => base.config.sync_ticks,
            Stage::Synchronisation => base.config.init_ticks,
            Stage::Broadcast => u32::MAX,
        };
        let active = self.voters(|follower| follower.progress == Progress::Active);
        let has_majority = self.stage != Stage::Broadcast || active + 1 >= base.config.majority();
        self.lonely = if has_majority { 0 } else { self.lonely + 1 };
        if self.age > limit || self.lonely > base.config.sync_ticks {
            return Next::Leave;
        }
        match self.handing_over {
            Some(_) => self.handing_on(base),
            None => self.let_return(base),
        }
    }

    fn drop_silent(&mut self, base: &mut Base) {
        let limit = base.config.sync_ticks;
        self.followers.retain(|_, follower| {
            follower.silent += 1;
            let lives = follower.silent <= limit;
            if !lives {
                base.out.push(crate::Action::Close { link: follower.link, problem: "a follower is silent" });
            }
            lives
        });
    }

    pub(crate) fn ping(&mut self, base: &mut Base) {
        self.since_ping = 0;
        let number = self.reads.next_ping();
        self.tell_all(base, &ToFollower::Ping { number }, |_| true);
    }

    /// Takes note that writes are durable.
    pub(crate) fn written(&mut self, base: &mut Base, io: Io) -> Next {
        while let Some((_, zxid)) = self.writes.pop_front_if(|(of, _)| *of <= io) {
            self.durable = zxid;
        }
        if let Stage::Accepting(accepting) = self.stage
            && accepting <= io
        {
            return self.accepted(base);
        }
        if self.installing.is_some_and(|installing| installing <= io) {
            self.installing = None;
            self.installed = true;
            return self.establish(base);
        }
        Next::Stay
    }

    /// Begins to leave the office to somebody.
    pub(crate) fn hand_over(&mut self, base: &mut Base, to: Option<ServerId>) -> Next {
        if self.handing_over.is_none() {
            self.handing_over = Some((to, 0));
        }
        self.handing_on(base)
    }

    pub(crate) fn refusal(&self, base: &Base) -> Option<Refusal> {
        match (self.stage, &self.handing_over) {
            (Stage::Synchronisation, None) if base.config.breaks(Planted::ProposeBeforeEstablished) => None,
            (Stage::Broadcast, None) => None,
            (Stage::Broadcast, Some(_)) => Some(Refusal::HandingOver),
            _ => Some(Refusal::NoLeader),
        }
    }

    /// Leaves once all is committed and the successor has it.
    fn handing_on(&mut self, base: &mut Base) -> Next {
        let Some((to, ticks)) = &mut self.handing_over else { return Next::Stay };
        *ticks += 1;
        let last = base.ledger.history().last();
        let ready = |id: &ServerId, follower: &Follower| {
            to.is_none_or(|to| to == *id) && follower.votes && follower.acked == last
        };
        let found = self.followers.iter().find(|(id, follower)| ready(id, follower)).map(|(id, _)| *id);
        let alone = base.config.voters.len() == 1;
        if self.stage == Stage::Broadcast && self.commit == last && *to == Some(base.config.id) {
            // Another epoch, which this server would lead as well.
            base.preferred = true;
            self.resign(base, None);
            self.followers.clear();
            return Next::Leave;
        }
        if self.stage == Stage::Broadcast && self.commit == last && (found.is_some() || alone) {
            self.resign(base, found);
            self.followers.clear();
            return Next::Leave;
        }
        if *ticks > base.config.init_ticks {
            self.handing_over = None;
        }
        Next::Stay
    }

    fn resign(&self, base: &mut Base, successor: Option<ServerId>) {
        self.tell_all(base, &ToFollower::Resigned { successor }, |_| true);
    }

    /// The role as others see it.
    pub(crate) fn role(&self) -> Role {
        if self.stage == Stage::Broadcast { Role::Leading(self.epoch) } else { Role::Looking }
    }

    pub(crate) fn leave(&mut self, base: &mut Base) {
        self.resign(base, None);
        for request in self.reads.drain() {
            base.refuse(request, Refusal::NoLeader);
        }
    }

    /// Refuses, or answers as the leader that it is, a proposal of somebody here.
    pub(crate) fn propose_here(&mut self, base: &mut Base, request: Request, payload: bytes::Bytes) {
        match self.propose(base, payload) {
            Ok(zxid) => base.out.push(crate::Action::Proposed { request, zxid }),
            Err(refusal) => base.refuse(request, refusal),
        }
    }
}
