//! The first membership of a cluster.
//!
//! Servers with new logs announce which voters they want to form a cluster with. The one with the lowest id decides,
//! once all of them are connected and want the same: it makes the membership durable, with the log of each, and sends it
//! to the others. Only a log without a membership adopts one, so a log belongs to a single cluster, and two clusters
//! cannot both have a majority of their voters. One that misses the membership asks again, or follows the leader.
//!
//! A majority would not be enough. A server that is absent may have a log with acknowledged transactions, of a cluster
//! that is to grow or whose other logs are lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::{Base, Next};
use crate::election::Election;
use crate::injected_bug::InjectedBug;
use crate::{Fatal, Membership, Message, ServerId, Write, Zxid};

impl Election {
    /// Announces the wanted voters, if this server has a new log.
    pub(crate) fn announce_forming(base: &mut Base) {
        if base.membership().is_none() && !base.config.founders.is_empty() {
            base.send_to_all(&Message::Forming(base.config.founders.clone()));
        }
    }

    /// Handles FORMING of another server without a membership.
    pub(crate) fn forming(&mut self, base: &mut Base, peer: ServerId, founders: BTreeSet<ServerId>) -> Next {
        self.forming.insert(peer, founders);
        self.form(base)
    }

    /// Forms the cluster if this server decides and all others are ready.
    pub(crate) fn form(&mut self, base: &mut Base) -> Next {
        let (own, founders) = (base.config.id, &base.config.founders);
        if base.membership().is_some() || !founders.contains(&own) {
            return Next::Stay;
        }
        let is_ready = |server: &ServerId| {
            *server == own || (self.forming.get(server) == Some(founders) && base.links.contains_key(server))
        };
        let is_complete = founders.iter().all(is_ready) || base.config.has_bug(InjectedBug::FormWithoutAll);
        let ready: Vec<ServerId> = founders.iter().copied().filter(is_ready).collect();
        if !is_complete || ready.first() != Some(&own) {
            return Next::Stay;
        }
        let log =
            |server: &ServerId| if *server == own { Some(base.config.log) } else { base.logs.get(server).copied() };
        let voters = ready.iter().filter_map(|server| Some((*server, log(server)?)));
        let membership = Arc::new(Membership::first(voters.collect()));
        let message = Message::Formed(Arc::clone(&membership));
        let others = ready.iter().filter_map(|server| Some((*base.links.get(server)?, message.clone())));
        let others = others.collect();
        adopt(base, membership, others)
    }

    /// Handles FORMED.
    pub(crate) fn formed(base: &mut Base, membership: Arc<Membership>) -> Next {
        if base.membership().is_some() || !membership.is_voter(base.config.id, base.config.log) {
            return Next::Stale;
        }
        adopt(base, membership, Vec::new())
    }
}

/// Writes the first membership, then starts an election.
fn adopt(base: &mut Base, membership: Arc<Membership>, then: Vec<(crate::Link, Message)>) -> Next {
    match base.write(Write::Form(membership), then) {
        Ok(_) => Next::StepDown,
        Err(problem) => Next::Stop(Fatal::Diverged(problem)),
    }
}

impl Base {
    /// Answers FORMING of a server that has missed the first membership.
    pub(crate) fn answer_forming(&mut self, peer: ServerId) {
        let first = self.log_state.history().summary_at(Zxid::ZERO).and_then(|summary| summary.membership);
        let Some(first) = first.filter(|first| self.logs.get(&peer).is_some_and(|log| first.is_voter(peer, *log)))
        else {
            // It learns the membership from the leader.
            return;
        };
        if let Some(link) = self.links.get(&peer).copied() {
            self.send(link, Message::Formed(first));
        }
    }
}
