//! Phase 0: fast leader election. It finds a likely leader soon; that the leader is a right one, the next phase sees to.
//!
//! All who look tell all others for whom they vote, each for the best of which it knows (ZooKeeper's `FastLeaderElection`). A round ends once
//! a majority agrees, and nobody who could be heard says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Base, Next};
use crate::{Doing, Message, Notification, ServerId, Vote};

/// A server that looks for a leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Election {
    vote: Vote,
    /// What others who look say in this round.
    votes: BTreeMap<ServerId, Vote>,
    /// Those who ask and do not vote: nobody waits for their votes.
    asking: BTreeSet<ServerId>,
    /// What others say who have found a leader.
    settled: BTreeMap<ServerId, Notification>,
    /// Ticks since a majority agreed.
    agreed: u32,
    /// Ticks since all were told.
    told: u32,
}

impl Election {
    /// Begins a round with a vote for oneself.
    pub(crate) fn begin(base: &mut Base) -> (Self, Next) {
        base.round = base.round.saturating_add(1);
        let vote = base.own_vote();
        let mut this = Self {
            vote,
            votes: BTreeMap::new(),
            asking: BTreeSet::new(),
            settled: BTreeMap::new(),
            agreed: 0,
            told: 0,
        };
        this.tell_all(base);
        let next = this.decide(base);
        (this, next)
    }

    fn notification(&self, base: &Base) -> Message {
        let doing = if base.votes() { Doing::Looking } else { Doing::Asking };
        Message::Vote(Notification { vote: self.vote, round: base.round, doing })
    }

    fn tell_all(&mut self, base: &mut Base) {
        self.told = 0;
        let message = self.notification(base);
        base.tell_voters(&message);
    }

    pub(crate) fn link_up(&mut self, base: &mut Base, peer: ServerId) {
        let own = base.own_vote();
        if base.votes() && own > self.vote {
            // With this one it reaches a majority.
            self.change(own);
            self.tell_all(base);
            return;
        }
        self.tell_one(base, peer);
    }

    fn tell_one(&self, base: &mut Base, peer: ServerId) {
        if base.config.voters.contains(&peer)
            && let Some(link) = base.links.get(&peer).copied()
        {
            let message = self.notification(base);
            base.send(link, message);
        }
    }

    pub(crate) fn link_down(&mut self, base: &mut Base, peer: ServerId) -> Next {
        self.votes.remove(&peer);
        self.settled.remove(&peer);
        if self.vote.server == peer {
            // Whom all wanted is gone.
            let (fresh, next) = Self::begin(base);
            *self = fresh;
            return next;
        }
        self.decide(base)
    }

    pub(crate) fn tick(&mut self, base: &mut Base) -> Next {
        self.told += 1;
        if self.told >= base.config.heartbeat_ticks {
            self.tell_all(base);
        }
        if self.has_majority(base) {
            self.agreed += 1;
        }
        self.decide(base)
    }

    pub(crate) fn vote(&mut self, base: &mut Base, peer: ServerId, heard: Notification) -> Next {
        let is_voter = base.config.voters.contains(&peer);
        if !is_voter || heard.doing == Doing::Asking {
            // It asks who leads, which is not known here.
            self.votes.remove(&peer);
            self.asking.insert(peer);
            return self.decide(base);
        }
        self.asking.remove(&peer);
        if heard.doing != Doing::Looking {
            self.settled.insert(peer, heard);
            self.votes.remove(&peer);
            return match self.join(base) {
                Next::Stay => self.decide(base),
                next => next,
            };
        }
        self.settled.remove(&peer);
        if !base.votes() {
            return Next::Stay;
        }
        if heard.round > base.round {
            base.round = heard.round;
            self.votes.clear();
            self.change(base.own_vote().max(heard.vote));
            self.tell_all(base);
        } else if heard.round < base.round {
            // It is told of this round.
            self.tell_one(base, peer);
            return Next::Stay;
        } else if heard.vote > self.vote {
            self.change(heard.vote);
            self.tell_all(base);
        } else if heard.vote < self.vote && !self.votes.contains_key(&peer) {
            self.tell_one(base, peer);
        }
        self.votes.insert(peer, heard.vote);
        self.decide(base)
    }

    fn change(&mut self, vote: Vote) {
        self.vote = vote;
        self.agreed = 0;
    }

    fn has_majority(&self, base: &Base) -> bool {
        let others = base.config.voters.iter().filter(|voter| self.agrees(base, **voter)).count();
        others + 1 >= base.config.majority()
    }

    /// Whether another voter wants the same leader, or follows this server already and waits for it.
    fn agrees(&self, base: &Base, voter: ServerId) -> bool {
        let own = base.config.id;
        let waits = |heard: &Notification| heard.vote.server == own && self.vote.server == own;
        self.votes.get(&voter) == Some(&self.vote) || self.settled.get(&voter).is_some_and(waits)
    }

    /// The leader, where this round has found it.
    fn decide(&mut self, base: &mut Base) -> Next {
        if !base.votes() || !self.has_majority(base) {
            return Next::Stay;
        }
        let voters = |peer: &&ServerId| base.config.voters.contains(peer) && !self.asking.contains(peer);
        let mut can_be_heard = base.links.keys().filter(voters);
        let all_agree = can_be_heard.all(|peer| self.agrees(base, *peer));
        if !all_agree && self.agreed < base.config.vote_ticks {
            return Next::Stay;
        }
        if self.vote.server == base.config.id { Next::Lead(self.vote) } else { Next::Follow(self.vote) }
    }

    /// Joins those who have found a leader: where it is one that a majority follows, the one that this server wants, or they are a
    /// majority and it is among them. Who reaches few others can follow it as well.
    fn join(&mut self, base: &mut Base) -> Next {
        let leads = |doing: Doing| matches!(doing, Doing::Leading | Doing::Established);
        let leaders = self.settled.iter().filter(|(_, heard)| leads(heard.doing));
        #[cfg(feature = "planted")]
        if base.config.chaotic {
            let leaders: Vec<_> = leaders.collect();
            let chosen = usize::try_from(base.round).unwrap_or(0) % leaders.len().max(1);
            return leaders.get(chosen).map_or(Next::Stay, |(_, heard)| Next::Follow(heard.vote));
        }
        for (leader, heard) in leaders {
            let support = self.settled.values().filter(|other| other.vote.server == *leader).count();
            let is_wanted = base.votes() && self.vote.server == *leader;
            if heard.doing == Doing::Established || is_wanted || support >= base.config.majority() {
                base.round = heard.round;
                return Next::Follow(heard.vote);
            }
        }
        Next::Stay
    }
}
