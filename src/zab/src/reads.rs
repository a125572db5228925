//! Linearizable reads: before a read is answered, a quorum confirms that the leader still leads.

use std::collections::VecDeque;

use crate::base::{Base, Next};
use crate::following::Following;
use crate::injected_bug::InjectedBug;
use crate::leading::{Leading, Progress};
use crate::{Action, Link, Refusal, Request, ServerId, Session, ToFollower, ToLeader, Zxid};

/// The follower, connection and session that a read came from.
type ReadOrigin = (ServerId, Link, Session);

/// A pending read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Waiting {
    /// `None` for a local client.
    origin: Option<ReadOrigin>,
    request: Request,
    /// The last transaction that the read must see.
    zxid: Zxid,
    /// The heartbeat that a quorum must answer.
    ping: u64,
}

/// Pending reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    waiting: VecDeque<Waiting>,
    /// The last heartbeat sent.
    pinged: u64,
}

impl Reads {
    pub(crate) fn next_ping(&mut self) -> u64 {
        self.pinged += 1;
        self.pinged
    }

    /// Removes all pending reads and returns those of local clients.
    pub(crate) fn drain(&mut self) -> Vec<Request> {
        self.waiting.drain(..).filter(|read| read.origin.is_none()).map(|read| read.request).collect()
    }
}

impl Leading {
    /// Starts a read. The next heartbeat confirms it; only one heartbeat for waiting reads is in flight at a time.
    pub(crate) fn read(&mut self, base: &mut Base, origin: Option<ReadOrigin>, request: Request) {
        let refusal = match self.refusal(base) {
            Some(Refusal::NoLeader) => Some(Refusal::NoLeader),
            _ if self.reads.waiting.len() >= base.config.reads_max => Some(Refusal::Busy),
            _ => None,
        };
        if let Some(refusal) = refusal {
            match origin {
                Some((peer, ..)) => self.send(base, peer, ToFollower::ReadIndexed { request, zxid: Err(refusal) }),
                None => base.refuse(request, refusal),
            }
            return;
        }
        let ping = self.reads.pinged + 1;
        let is_first = self.reads.waiting.is_empty();
        self.reads.waiting.push_back(Waiting { origin, request, zxid: self.commit, ping });
        if is_first {
            self.ping(base);
            self.read_confirmed(base);
        }
    }

    /// Answers the reads whose heartbeat a quorum has answered.
    pub(crate) fn read_confirmed(&mut self, base: &mut Base) {
        let active = |follower: &&crate::leading::Follower| follower.votes && follower.progress == Progress::Active;
        let mut pongs: Vec<u64> = self.followers.values().filter(active).map(|follower| follower.pong).collect();
        pongs.push(u64::MAX);
        if base.config.has_bug(InjectedBug::ReadFromMemory) {
            pongs = vec![u64::MAX; self.quorum];
        }
        pongs.sort_unstable_by(|a, b| b.cmp(a));
        let confirmed = pongs.get(self.quorum - 1).copied().unwrap_or(0);
        while let Some(read) = self.reads.waiting.pop_front_if(|read| read.ping <= confirmed) {
            match read.origin {
                // A follower with a new session no longer waits for its old reads.
                Some((peer, link, session)) if self.has_session(peer, link, session) => {
                    let (request, zxid) = (read.request, Ok(read.zxid));
                    self.send(base, peer, ToFollower::ReadIndexed { request, zxid });
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
    /// Asks the leader which transaction a local read must see.
    pub(crate) fn read_local(&mut self, base: &mut Base, request: Request) {
        if self.track_request(base, request) {
            self.send(base, ToLeader::ReadIndex { request });
        }
    }

    /// Handles the leader's reply to a read.
    pub(crate) fn read_indexed(&mut self, base: &mut Base, request: Request, zxid: Result<Zxid, Refusal>) -> Next {
        if !self.pending.remove(&request) {
            return Next::Impossible("reply to an unknown request");
        }
        match zxid {
            Ok(zxid) => base.out.push(Action::ReadReady { request, zxid }),
            Err(refusal) => base.refuse(request, refusal),
        }
        Next::Stay
    }
}
