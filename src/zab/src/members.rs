//! Changes of the voters, one at a time.
//!
//! A change takes effect when it is appended, and the next one is refused until it is committed. Quorums of consecutive
//! memberships then have a server in common, and the established epoch is durable on a quorum of the membership before
//! the change, so no server with an earlier history can be elected by either.
//!
//! A voter that is removed gets the change, and what follows it, only once it is committed. Otherwise it could be the
//! only one left that has the change: it would not vote, as it is removed, while the others need its vote but cannot
//! lead it, as their histories are earlier.

use crate::base::Base;
use crate::injected_bug::InjectedBug;
use crate::leading::{Leading, Progress, Stage};
use crate::{MemberChange, Membership, Message, Payload, Refusal, ServerId, ToFollower, Zxid};

impl Leading {
    /// Proposes a change of the voters.
    pub(crate) fn change_members(&mut self, base: &mut Base, change: MemberChange) -> Result<Zxid, Refusal> {
        if let Some(refusal) = self.refusal(base) {
            return Err(refusal);
        }
        let Some(current) = base.membership().cloned() else { return Err(Refusal::NoLeader) };
        if self.is_changing(base) {
            return Err(Refusal::ChangeInProgress);
        }
        let changed = match change {
            MemberChange::Add(server) if current.voters.contains_key(&server) => return Err(Refusal::AlreadyVotes),
            MemberChange::Add(server) => {
                let is_active = self.followers.get(&server).is_some_and(|it| it.progress == Progress::Active);
                let log = base.logs.get(&server).filter(|_| is_active).ok_or(Refusal::NotFollowing)?;
                current.with(server, *log)
            }
            MemberChange::Remove(server) if server == base.config.id => return Err(Refusal::Leads),
            MemberChange::Remove(server) => {
                if !current.voters.contains_key(&server) && !current.replacing.contains(&server) {
                    return Err(Refusal::NoVoter);
                }
                let changed = current.without(server);
                if !self.has_quorum_of(base, &changed) {
                    return Err(Refusal::NoQuorum);
                }
                changed
            }
        };
        self.propose(base, Payload::Membership(changed.into()), true)
    }

    /// Whether the last change of the voters is not committed yet.
    fn is_changing(&self, base: &Base) -> bool {
        let is_pending = base.log_state.history().membership_zxid() > self.commit;
        is_pending && !base.config.has_bug(InjectedBug::TwoChangesAtOnce)
    }

    /// Whether a quorum of that membership has this leader's history.
    fn has_quorum_of(&self, base: &Base, membership: &Membership) -> bool {
        let is_active = |server: &ServerId| {
            *server == base.config.id || self.followers.get(server).is_some_and(|it| it.progress == Progress::Active)
        };
        let with_log = |server: &ServerId| {
            let log = if *server == base.config.id { Some(&base.config.log) } else { base.logs.get(server) };
            log.is_some_and(|log| membership.is_voter(*server, *log))
        };
        let active = membership.voters.keys().filter(|server| is_active(server) && with_log(server)).count();
        active >= membership.quorum()
    }

    /// Replaces the logs of voters that have lost theirs, once they have recovered everything: removes the voter with
    /// the old log, then adds it with the new one. Nothing depends on whether the old log is really lost.
    pub(crate) fn replace_lost_logs(&mut self, base: &mut Base) {
        if self.stage != Stage::Broadcast || self.refusal(base).is_some() || self.is_changing(base) {
            return;
        }
        let Some(current) = base.membership().cloned() else { return };
        let changed = self.followers.iter().filter(|(_, follower)| follower.progress == Progress::Active).find_map(
            |(server, follower)| {
                let is_stranger = current.voters.get(server).is_some_and(|log| *log != follower.log);
                if is_stranger && base.config.has_bug(InjectedBug::ReplaceInOneStep) {
                    Some(current.with(*server, follower.log))
                } else if is_stranger {
                    Some(current.replacing(*server)).filter(|changed| self.has_quorum_of(base, changed))
                } else if current.replacing.contains(server) {
                    Some(current.with(*server, follower.log))
                } else {
                    None
                }
            },
        );
        if let Some(changed) = changed {
            // Refused if too much is outstanding; then the next tick tries again.
            let _ = self.propose(base, Payload::Membership(changed.into()), true);
        }
    }

    /// The position before a change of the voters that is not committed and removes the follower; `None` if there is none
    /// or the follower, whose history ends at `last`, has it already.
    pub(crate) fn withheld_after(&self, base: &Base, peer: ServerId, last: Zxid) -> Option<Zxid> {
        let history = base.log_state.history();
        let zxid = history.membership_zxid();
        if zxid <= self.commit || last >= zxid || base.config.has_bug(InjectedBug::SendRemovalToRemoved) {
            return None;
        }
        let before = history.summary_before(zxid)?;
        let log = self.followers.get(&peer)?.log;
        let did_vote = before.membership.is_some_and(|membership| membership.is_voter(peer, log));
        let votes = history.membership().is_some_and(|membership| membership.is_voter(peer, log));
        (did_vote && !votes).then_some(before.point.zxid)
    }

    /// Withholds a change of the voters from the follower that it removes.
    fn withhold(&mut self, base: &Base) {
        let servers: Vec<_> = self.followers.keys().copied().collect();
        for server in servers {
            let withheld = self.withheld_after(base, server, Zxid::ZERO);
            if let Some(follower) = self.followers.get_mut(&server)
                && follower.withheld_after.is_none()
                && !matches!(
                    follower.progress,
                    Progress::Known(_) | Progress::NewEpochSent | Progress::EpochAcked { .. }
                )
            {
                follower.withheld_after = withheld;
            }
        }
    }

    /// Sends what was withheld, once it is committed.
    pub(crate) fn send_withheld(&mut self, base: &mut Base) {
        if base.log_state.history().membership_zxid() > self.commit {
            return;
        }
        // Proposals that are not sent yet are sent to all together.
        let (sent, appended) = base.appended();
        let end = if appended.is_empty() { base.log_state.end().zxid } else { sent };
        for follower in self.followers.values_mut() {
            let Some(after) = follower.withheld_after.take() else { continue };
            if !matches!(follower.progress, Progress::Synchronising | Progress::Active) {
                // It is being sent everything.
                continue;
            }
            let txns = base.log_state.history().between(after, end).cloned().collect();
            let message = Message::ToFollower(follower.session, ToFollower::Propose { after, txns });
            base.send(follower.link, message);
        }
    }

    /// Counts the followers that vote according to the membership in effect.
    pub(crate) fn update_voters(&mut self, base: &Base) {
        if base.config.has_bug(InjectedBug::IgnoreNewMembers) {
            return;
        }
        for (server, follower) in &mut self.followers {
            follower.votes = base.is_voter(*server);
        }
        self.quorum = base.quorum();
        self.withhold(base);
    }
}
