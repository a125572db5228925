//! Phase 0: fast leader election (ZooKeeper's `FastLeaderElection`).
//!
//! Every looking server sends all others its vote for the best candidate it knows. A round ends once a quorum agrees
//! and no reachable voter disagrees. Election only has to find a likely leader quickly; phase 1 makes sure that the
//! leader is safe.
//!
//! Memberships may differ. A server votes for the best candidate even if it knows it as no voter, and servers that are no
//! voters, as far as they know, vote as well, but not for themselves: whose vote counts is for the others to decide. A
//! server that was added may be needed for a quorum before the others, or itself, know that it was.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Base, Next};
use crate::{Message, Notification, ServerId, ServerState, Vote};

/// The last round. Servers start at round 1 and each election adds one, so that a higher one is bogus; without a limit, it
/// would be the last one for all, and stale votes would never be cleared again.
const ROUND_MAX: u64 = 1 << 32;

/// A server that looks for a leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Election {
    vote: Vote,
    /// Votes of other looking servers in this round.
    votes: BTreeMap<ServerId, Vote>,
    /// The voters that servers without a membership want to form a cluster of.
    pub(crate) forming: BTreeMap<ServerId, BTreeSet<ServerId>>,
    /// Notifications of servers that have found a leader.
    settled: BTreeMap<ServerId, Notification>,
    /// Ticks since a quorum agreed.
    agreed_ticks: u32,
    /// Ticks since the vote was last sent to all.
    ticks_since_sent: u32,
}

impl Election {
    /// Starts a round with a vote for this server.
    pub(crate) fn start(base: &mut Base) -> (Self, Next) {
        base.round = (base.round + 1).min(ROUND_MAX);
        let own = base.history();
        base.later.retain(|_, history| *history > own);
        let vote = base.own_vote();
        let mut this = Self {
            vote,
            votes: BTreeMap::new(),
            forming: BTreeMap::new(),
            settled: BTreeMap::new(),
            agreed_ticks: 0,
            ticks_since_sent: 0,
        };
        this.send_to_all(base);
        let next = match this.form(base) {
            Next::Stay => this.decide(base),
            next => next,
        };
        (this, next)
    }

    fn notification(&self, base: &Base) -> Message {
        Message::Vote(Notification { vote: self.vote, round: base.round, state: ServerState::Looking })
    }

    fn send_to_all(&mut self, base: &mut Base) {
        self.ticks_since_sent = 0;
        let message = self.notification(base);
        base.send_to_all(&message);
        Self::announce_forming(base);
    }

    pub(crate) fn link_up(&mut self, base: &mut Base, peer: ServerId) {
        let own = base.own_vote();
        if own > self.vote {
            // The new connection gives this server a quorum, so it can be a candidate.
            self.change(own);
            self.send_to_all(base);
            return;
        }
        self.send_to(base, peer);
        Self::announce_forming(base);
    }

    fn send_to(&self, base: &mut Base, peer: ServerId) {
        if let Some(link) = base.links.get(&peer).copied() {
            let message = self.notification(base);
            base.send(link, message);
        }
    }

    pub(crate) fn link_down(&mut self, base: &mut Base, peer: ServerId) -> Next {
        self.votes.remove(&peer);
        self.settled.remove(&peer);
        self.forming.remove(&peer);
        let is_isolated = self.vote.server == base.config.id && base.own_vote() < self.vote;
        if self.vote.server == peer || is_isolated {
            // The candidate is unreachable, or is this server and has lost its quorum.
            let (fresh, next) = Self::start(base);
            *self = fresh;
            return next;
        }
        self.decide(base)
    }

    pub(crate) fn tick(&mut self, base: &mut Base) -> Next {
        self.ticks_since_sent += 1;
        if self.ticks_since_sent >= base.config.heartbeat_ticks {
            self.send_to_all(base);
        }
        if self.has_quorum(base) {
            self.agreed_ticks += 1;
        }
        self.decide(base)
    }

    pub(crate) fn vote(&mut self, base: &mut Base, peer: ServerId, received: Notification) -> Next {
        if received.round > ROUND_MAX {
            return Next::Stale;
        }
        if received.state != ServerState::Looking {
            // Not only voters know the leader: the membership may have changed.
            self.settled.insert(peer, received);
            self.votes.remove(&peer);
            return match self.join(base) {
                Next::Stay => self.decide(base),
                next => next,
            };
        }
        self.settled.remove(&peer);
        let is_credible = Self::is_credible(base, peer, received.vote);
        if received.round < base.round {
            // The sender is in an earlier round and learns of this one.
            self.send_to(base, peer);
            return Next::Stay;
        }
        if received.round > base.round {
            base.round = received.round;
            self.votes.clear();
            let own = base.own_vote();
            self.change(if is_credible { own.max(received.vote) } else { own });
            self.send_to_all(base);
        } else if !is_credible {
            self.votes.remove(&peer);
            return self.decide(base);
        } else if received.vote > self.vote {
            self.change(received.vote);
            self.send_to_all(base);
        } else if received.vote < self.vote && peer == self.vote.server {
            // The candidate does not stand for that vote, or no longer.
            let (fresh, next) = Self::start(base);
            *self = fresh;
            return next;
        } else if received.vote < self.vote && !self.votes.contains_key(&peer) {
            self.send_to(base, peer);
        }
        self.votes.insert(peer, received.vote);
        self.decide(base)
    }

    /// Whether to believe a vote. Only the candidate itself knows its history, and whether it can lead; others may have
    /// it from an earlier time. Known voters are believed all the same: they find out when they lead.
    fn is_credible(base: &Base, sender: ServerId, vote: Vote) -> bool {
        let is_own = vote.server == base.config.id;
        let is_voter = || base.membership().is_some_and(|membership| membership.voters.contains_key(&vote.server));
        vote.server == sender || if is_own { base.votes() } else { is_voter() }
    }

    fn change(&mut self, vote: Vote) {
        self.vote = vote;
        self.agreed_ticks = 0;
    }

    fn has_quorum(&self, base: &Base) -> bool {
        let voters = base.links.keys().filter(|peer| base.is_voter(**peer));
        voters.filter(|voter| self.agrees(base, **voter)).count() + 1 >= base.quorum()
    }

    /// Whether the voter votes for the same candidate, or already follows this server and waits for it.
    fn agrees(&self, base: &Base, voter: ServerId) -> bool {
        let own = base.config.id;
        let waits = |received: &Notification| received.vote.server == own && self.vote.server == own;
        self.votes.get(&voter) == Some(&self.vote) || self.settled.get(&voter).is_some_and(waits)
    }

    /// Ends the round if it has found a leader.
    fn decide(&mut self, base: &mut Base) -> Next {
        if !base.votes() || !self.has_quorum(base) {
            return Next::Stay;
        }
        let mut reachable = base.links.keys().filter(|peer| base.is_voter(**peer) && !base.is_silent(**peer));
        let all_agree = reachable.all(|peer| self.agrees(base, *peer));
        if !all_agree && self.agreed_ticks < base.config.vote_ticks {
            return Next::Stay;
        }
        if self.vote.server == base.config.id { Next::Lead(self.vote) } else { Next::Follow(self.vote) }
    }

    /// Joins a leader that is established, that this server voted for, or that a quorum follows. Phase 1 keeps this
    /// safe, so a follower need not reach a quorum.
    fn join(&mut self, base: &mut Base) -> Next {
        let leads = |state: ServerState| matches!(state, ServerState::Leading | ServerState::Established);
        let leaders = self.settled.iter().filter(|(_, received)| leads(received.state));
        #[cfg(feature = "injected-bugs")]
        if base.config.random_elections {
            let leaders: Vec<_> = leaders.collect();
            let chosen = usize::try_from(base.round).unwrap_or(0) % leaders.len().max(1);
            return leaders.get(chosen).map_or(Next::Stay, |(_, received)| Next::Follow(received.vote));
        }
        for (leader, received) in leaders {
            let supports =
                |(peer, other): &(&ServerId, &Notification)| other.vote.server == *leader && base.is_voter(**peer);
            let support = self.settled.iter().filter(supports).count();
            let is_wanted = self.vote.server == *leader;
            if received.state == ServerState::Established || is_wanted || support >= base.quorum() {
                base.round = received.round;
                return Next::Follow(received.vote);
            }
        }
        Next::Stay
    }
}
