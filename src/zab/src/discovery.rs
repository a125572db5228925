//! Phase 1: a quorum accepts a new epoch, and the leader's history is the latest in that quorum.

use crate::base::{Base, Next};
use crate::injected_bug::InjectedBug;
use crate::leading::{Follower, Progress, Stage};
use crate::{Epoch, Fatal, Message, Point, ServerId, ToFollower, ToLeader, Write};

impl crate::leading::Leading {
    /// Chooses the new epoch once a quorum follows. It is durable here before NEWEPOCH is sent.
    pub(crate) fn gather(&mut self, base: &mut Base) -> Next {
        if self.stage != Stage::Gathering || self.voters(|_| true) + 1 < self.quorum {
            return Next::Stay;
        }
        let known = self.followers.values().filter(|follower| follower.votes).map(|follower| match follower.progress {
            Progress::Known(accepted) => accepted,
            _ => Epoch(0),
        });
        let highest = known.fold(base.known_epoch(), Epoch::max);
        let Some(epoch) = highest.next() else { return Next::Stop(Fatal::EpochsExhausted) };
        self.epoch = epoch;
        let recipients = self.followers.values_mut().filter(|follower| matches!(follower.progress, Progress::Known(_)));
        let messages = recipients.map(|follower| {
            follower.progress = Progress::NewEpochSent;
            (follower.link, Message::ToFollower(follower.session, ToFollower::NewEpoch(epoch)))
        });
        let messages: Vec<_> = messages.collect();
        match base.write_then_send(InjectedBug::NewEpochBeforeFsync, Write::AcceptEpoch(epoch), messages) {
            Ok(id) => self.stage = Stage::Accepting(id),
            Err(problem) => return Next::Stop(Fatal::Diverged(problem)),
        }
        Next::Stay
    }

    /// Handles CEPOCH.
    pub(crate) fn follower_info(&mut self, base: &mut Base, peer: ServerId, accepted: Epoch) -> Next {
        match self.stage {
            Stage::Gathering => self.gather(base),
            // NEWEPOCH is sent once the epoch is durable.
            Stage::Accepting(_) => Next::Stay,
            // The follower or observer cannot follow this leader: its acceptedEpoch is higher, so it waits for a later
            // epoch. At most one step down results from each epoch that a quorum ever began to accept.
            _ if accepted > self.epoch && !base.config.has_bug(InjectedBug::FollowSmallerEpoch) => Next::StepDown,
            _ => {
                self.send_new_epoch(base, peer);
                Next::Stay
            }
        }
    }

    fn send_new_epoch(&mut self, base: &mut Base, peer: ServerId) {
        if let Some(follower) = self.followers.get_mut(&peer) {
            follower.progress = Progress::NewEpochSent;
        }
        self.send(base, peer, ToFollower::NewEpoch(self.epoch));
    }

    /// Called once the epoch is durable here.
    pub(crate) fn accepted(&mut self, base: &mut Base) -> Next {
        self.stage = Stage::Discovery;
        let late = self.followers.iter().filter_map(|(id, follower)| match follower.progress {
            Progress::Known(accepted) => Some((*id, accepted)),
            _ => None,
        });
        let late: Vec<_> = late.collect();
        let is_outdated = late.iter().any(|(_, accepted)| *accepted > self.epoch);
        if is_outdated && !base.config.has_bug(InjectedBug::FollowSmallerEpoch) {
            return Next::StepDown;
        }
        for (id, _) in late {
            self.send_new_epoch(base, id);
        }
        self.discover(base)
    }

    /// Handles ACKEPOCH.
    pub(crate) fn ack_epoch(&mut self, base: &mut Base, peer: ServerId, history: (Epoch, Point), is_new: bool) -> Next {
        match self.followers.get_mut(&peer) {
            Some(follower) if Self::differs(base, history.1) => {
                follower.progress = Progress::Differs(history.1.zxid);
                return self.judge(base);
            }
            Some(follower) => {
                let (current, last) = (history.0, history.1.zxid);
                if follower.votes && (current, last) > base.history() {
                    base.later.insert(peer, (current, last));
                }
                follower.progress = Progress::EpochAcked { current, last, is_new };
            }
            None => return Next::Stale,
        }
        match self.stage {
            Stage::Gathering | Stage::Accepting(_) => Next::Stay,
            Stage::Discovery => self.discover(base),
            Stage::Synchronisation | Stage::Broadcast => {
                self.synchronise(base, peer);
                Next::Stay
            }
        }
    }

    /// Starts the next phase once a quorum has newly accepted the epoch, none of which has a later history than this
    /// server.
    ///
    /// A follower with a later history is not counted rather than given way to: what it has more is not committed if a
    /// quorum lacks it, and it may be unable to lead, as it reaches too few servers. Only if no such quorum can be
    /// found among the connected servers, another server must lead.
    pub(crate) fn discover(&mut self, base: &mut Base) -> Next {
        let own = base.history();
        let ignores = base.config.has_bug(InjectedBug::IgnoreBetterHistory);
        // An ACKEPOCH may arrive before the leader's own write of the epoch is durable.
        let has_later_history = |follower: &Follower| match follower.progress {
            Progress::EpochAcked { current, last, is_new } => is_new.then_some((current, last) > own && !ignores),
            _ => None,
        };
        let counted = self.voters(|follower| has_later_history(follower) == Some(false));
        if self.stage == Stage::Discovery && counted + 1 >= self.quorum {
            return self.synchronise_all(base);
        }
        let is_refused = self.voters(|follower| has_later_history(follower) == Some(true)) > 0;
        if is_refused && counted + self.unanswered(base) + 1 < self.quorum {
            return Next::StepDown;
        }
        Next::Stay
    }

    /// The number of connected voters that may still accept the epoch.
    fn unanswered(&self, base: &Base) -> usize {
        let may_accept = |peer: &&ServerId| match self.followers.get(*peer) {
            Some(follower) => {
                follower.votes && !matches!(follower.progress, Progress::EpochAcked { .. } | Progress::Differs(_))
            }
            // It has not asked to follow yet.
            None => base.is_voter(**peer),
        };
        base.links.keys().filter(may_accept).count()
    }
}

impl crate::following::Following {
    /// Handles NEWEPOCH.
    pub(crate) fn new_epoch(&mut self, base: &mut Base, epoch: Epoch) -> Next {
        let accepted = base.log_state.accepted_epoch();
        if epoch < accepted && !base.config.has_bug(InjectedBug::FollowSmallerEpoch) {
            return Next::StepDown;
        }
        if !base.accept_new_epoch(epoch) {
            return Next::Impossible("NEWEPOCH exceeds what elections can have reached");
        }
        debug_assert!(base.is_drained(), "ACKEPOCH reports a durable history");
        let (current, last) = (base.log_state.current_epoch(), base.log_state.history().end());
        let again =
            base.config.has_bug(InjectedBug::CountEqualEpoch) || base.config.has_bug(InjectedBug::FollowSmallerEpoch);
        let answer = ToLeader::AckEpoch { epoch, current, last, is_new: epoch > accepted || again };
        self.stage = crate::following::Stage::EpochAcked(epoch);
        if epoch <= accepted {
            self.send(base, answer);
            return Next::Stay;
        }
        let unlocked = vec![(self.link, Message::ToLeader(self.session, answer))];
        match base.write_then_send(InjectedBug::AckEpochBeforeFsync, Write::AcceptEpoch(epoch), unlocked) {
            Ok(_) => Next::Stay,
            Err(problem) => Next::Stop(Fatal::Diverged(problem)),
        }
    }
}
