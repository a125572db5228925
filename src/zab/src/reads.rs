//! Reads that see all that was committed before them: a majority confirms that the leader still leads.

use std::collections::VecDeque;

use crate::base::{Base, Next};
use crate::following::Following;
use crate::leading::{Leading, Progress};
use crate::planted::Planted;
use crate::{Action, Link, Refusal, Request, ServerId, Session, ToFollower, ToLeader, Zxid};

/// A follower, in one of its sessions.
type Asker = (ServerId, Link, Session);

/// A read that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Waiting {
    /// The follower that asks; nothing for somebody here.
    of: Option<Asker>,
    request: Request,
    /// All that it has to see.
    zxid: Zxid,
    /// The sign of life that a majority has to answer.
    ping: u64,
}

/// Reads that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    waiting: VecDeque<Waiting>,
    /// The last sign of life that was sent.
    pinged: u64,
}

impl Reads {
    pub(crate) fn next_ping(&mut self) -> u64 {
        self.pinged += 1;
        self.pinged
    }

    /// Reads of somebody here that are not answered.
    pub(crate) fn drain(&mut self) -> Vec<Request> {
        self.waiting.drain(..).filter(|read| read.of.is_none()).map(|read| read.request).collect()
    }
}

impl Leading {
    /// Takes a read. It is confirmed by the next sign of life; one is under way at a time for those that wait.
    pub(crate) fn read(&mut self, base: &mut Base, of: Option<Asker>, request: Request) {
        let refusal = match self.refusal(base) {
            Some(Refusal::NoLeader) => Some(Refusal::NoLeader),
            _ if self.reads.waiting.len() >= base.config.reads_max => Some(Refusal::Busy),
            _ => None,
        };
        if let Some(refusal) = refusal {
            match of {
                Some((peer, ..)) => self.tell(base, peer, ToFollower::ReadIndexed { request, zxid: None }),
                None => base.refuse(request, refusal),
            }
            return;
        }
        let ping = self.reads.pinged + 1;
        let is_first = self.reads.waiting.is_empty();
        self.reads.waiting.push_back(Waiting { of, request, zxid: self.commit, ping });
        if is_first {
            self.ping(base);
            self.read_confirmed(base);
        }
    }

    /// Answers reads whose sign of life a majority has answered.
    pub(crate) fn read_confirmed(&mut self, base: &mut Base) {
        let active = |follower: &&crate::leading::Follower| follower.votes && follower.progress == Progress::Active;
        let mut pongs: Vec<u64> = self.followers.values().filter(active).map(|follower| follower.pong).collect();
        pongs.push(u64::MAX);
        if base.config.breaks(Planted::ReadFromMemory) {
            pongs = vec![u64::MAX; base.config.majority()];
        }
        pongs.sort_unstable_by(|a, b| b.cmp(a));
        let confirmed = pongs.get(base.config.majority() - 1).copied().unwrap_or(0);
        while let Some(read) = self.reads.waiting.pop_front_if(|read| read.ping <= confirmed) {
            match read.of {
                // Who has come anew does not wait for it any more.
                Some((peer, link, session)) if self.is_of(peer, link, session) => {
                    let (request, zxid) = (read.request, Some(read.zxid));
                    self.tell(base, peer, ToFollower::ReadIndexed { request, zxid });
                }
                Some(_) => {}
                None => base.out.push(Action::ReadReady { request: read.request, zxid: read.zxid }),
            }
        }
        if self.reads.waiting.front().is_some_and(|read| read.ping > self.reads.pinged) {
            self.ping(base);
            self.read_confirmed(base);
        }
    }
}

impl Following {
    /// Asks the leader where a read of somebody here has to stand.
    pub(crate) fn read_here(&mut self, base: &mut Base, request: Request) {
        if self.may_ask(base, request) {
            self.tell(base, ToLeader::ReadIndex { request });
        }
    }

    /// The leader's answer.
    pub(crate) fn read_indexed(&mut self, base: &mut Base, request: Request, zxid: Option<Zxid>) -> Next {
        if !self.asked.remove(&request) {
            return Next::Impossible("an answer to what was not asked");
        }
        match zxid {
            Some(zxid) => base.out.push(Action::ReadReady { request, zxid }),
            None => base.refuse(request, Refusal::Busy),
        }
        Next::Stay
    }
}
