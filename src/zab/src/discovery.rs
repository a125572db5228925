//! Phase 1: a new epoch that a majority promises, and a leader that has all that any of them has.

use crate::base::{Base, Next};
use crate::leading::{Follower, Progress, Stage};
use crate::planted::Planted;
use crate::{Epoch, Fatal, Message, ServerId, ToFollower, ToLeader, Write, Zxid};

impl crate::leading::Leading {
    /// Chooses the new epoch once a majority follows. It is durable here before anybody hears of it.
    pub(crate) fn gather(&mut self, base: &mut Base) -> Next {
        if self.stage != Stage::Gathering || self.voters(|_| true) + 1 < base.config.majority() {
            return Next::Stay;
        }
        let known = self.followers.values().filter(|follower| follower.votes).map(|follower| match follower.progress {
            Progress::Known(accepted) => accepted,
            _ => Epoch(0),
        });
        let highest = known.fold(base.known(), Epoch::max);
        let Some(epoch) = highest.next() else { return Next::Stop(Fatal::EpochsUsedUp) };
        self.epoch = epoch;
        self.lost_before = base.returning.clone();
        let invited = self.followers.values_mut().filter(|follower| matches!(follower.progress, Progress::Known(_)));
        let invitations = invited.map(|follower| {
            follower.progress = Progress::Invited;
            (follower.link, Message::ToFollower(follower.session, ToFollower::NewEpoch(epoch)))
        });
        let invitations: Vec<_> = invitations.collect();
        match base.write_unless(Planted::NewEpochBeforeFsync, Write::AcceptEpoch(epoch), invitations) {
            Ok(io) => self.stage = Stage::Accepting(io),
            Err(problem) => return Next::Stop(Fatal::Diverged(problem)),
        }
        Next::Stay
    }

    /// CEPOCH came.
    pub(crate) fn follower_known(&mut self, base: &mut Base, peer: ServerId, accepted: Epoch) -> Next {
        match self.stage {
            Stage::Gathering => self.gather(base),
            // It is invited once the epoch is durable.
            Stage::Accepting(_) => Next::Stay,
            // It has promised not to follow this leader, and waits for a later epoch; so does one that does not vote. There are as many of
            // these as epochs that a majority once began to promise.
            _ if accepted > self.epoch && !base.config.breaks(Planted::FollowSmallerEpoch) => Next::Leave,
            _ => {
                self.invite(base, peer);
                Next::Stay
            }
        }
    }

    fn invite(&mut self, base: &mut Base, peer: ServerId) {
        if let Some(follower) = self.followers.get_mut(&peer) {
            follower.progress = Progress::Invited;
        }
        self.tell(base, peer, ToFollower::NewEpoch(self.epoch));
    }

    /// The epoch is durable here.
    pub(crate) fn accepted(&mut self, base: &mut Base) -> Next {
        self.stage = Stage::Discovery;
        let late = self.followers.iter().filter_map(|(id, follower)| match follower.progress {
            Progress::Known(accepted) => Some((*id, accepted)),
            _ => None,
        });
        let late: Vec<_> = late.collect();
        let is_outdated = late.iter().any(|(_, accepted)| *accepted > self.epoch);
        if is_outdated && !base.config.breaks(Planted::FollowSmallerEpoch) {
            return Next::Leave;
        }
        for (id, _) in late {
            self.invite(base, id);
        }
        self.discover(base)
    }

    /// ACKEPOCH came.
    pub(crate) fn promised(&mut self, base: &mut Base, peer: ServerId, history: (Epoch, Zxid), counts: bool) -> Next {
        match self.followers.get_mut(&peer) {
            Some(follower) => {
                follower.progress = Progress::Promised { current: history.0, last: history.1, counts };
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

    /// Goes on to the next phase once a majority has promised. A promise counts once.
    fn discover(&mut self, base: &mut Base) -> Next {
        let own = (base.ledger.current(), base.ledger.history().last());
        // A promise may have come before it was known that the epoch is durable here.
        let has_more = |follower: &Follower| match follower.progress {
            Progress::Promised { current, last, counts } => counts && (current, last) > own,
            _ => false,
        };
        if self.voters(has_more) > 0 && !base.config.breaks(Planted::IgnoreBetterHistory) {
            // Whoever has more shall lead.
            return Next::Leave;
        }
        let counted = self.voters(|follower| matches!(follower.progress, Progress::Promised { counts: true, .. }));
        if self.stage != Stage::Discovery || counted + 1 < base.config.majority() {
            return Next::Stay;
        }
        self.synchronise_all(base)
    }
}

impl crate::following::Following {
    /// NEWEPOCH came.
    pub(crate) fn new_epoch(&mut self, base: &mut Base, epoch: Epoch) -> Next {
        let accepted = base.ledger.accepted();
        if epoch < accepted && !base.config.breaks(Planted::FollowSmallerEpoch) {
            return Next::Leave;
        }
        if !base.believes_invitation(epoch) {
            return Next::Impossible("NEWEPOCH exceeds what elections can have reached");
        }
        debug_assert!(base.is_drained(), "what is told of the history is durable");
        let (current, last) = (base.ledger.current(), base.ledger.history().last());
        let again = base.config.breaks(Planted::CountEqualEpoch) || base.config.breaks(Planted::FollowSmallerEpoch);
        let answer = ToLeader::AckEpoch { epoch, current, last, counts: epoch > accepted || again };
        self.stage = crate::following::Stage::Promised(epoch);
        if epoch <= accepted {
            self.tell(base, answer);
            return Next::Stay;
        }
        let unlocked = vec![(self.link, Message::ToLeader(self.session, answer))];
        match base.write_unless(Planted::PromiseBeforeFsync, Write::AcceptEpoch(epoch), unlocked) {
            Ok(_) => Next::Stay,
            Err(problem) => Next::Stop(Fatal::Diverged(problem)),
        }
    }
}
