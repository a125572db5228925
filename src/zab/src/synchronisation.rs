//! Phase 2: a majority gets the leader's history, and with it the epoch.

use crate::base::{Base, Next};
use crate::following::{Following, Stage as FollowerStage};
use crate::leading::{Leading, Progress, Stage};
use crate::planted::Planted;
use crate::{Action, Blob, Epoch, Fatal, Message, ServerId, ToFollower, ToLeader, Txn, Write, Zxid};

impl Leading {
    /// Makes the epoch this server's own, and sends its history to all who have promised.
    pub(crate) fn synchronise_all(&mut self, base: &mut Base) -> Next {
        self.stage = Stage::Synchronisation;
        let writes = [Write::SyncBegin(self.epoch), Write::EpochInstalled(self.epoch)];
        for write in writes {
            match base.write(write, Vec::new()) {
                Ok(io) => self.installing = Some(io),
                Err(problem) => return Next::Stop(Fatal::Diverged(problem)),
            }
        }
        let ready: Vec<_> = self.followers.keys().copied().collect();
        for id in ready {
            self.synchronise(base, id);
        }
        Next::Stay
    }

    /// Sends a follower what it lacks: DIFF, TRUNC or SNAP, what follows, NEWLEADER. From then on it gets proposals. An observer
    /// gets only what is committed, and waits until something is.
    pub(crate) fn synchronise(&mut self, base: &mut Base, peer: ServerId) {
        let Some(follower) = self.followers.get_mut(&peer) else { return };
        let Progress::Promised { last, .. } = follower.progress else { return };
        if !follower.votes && self.stage != Stage::Broadcast {
            return;
        }
        follower.progress = Progress::Synchronising;
        let (link, session) = (follower.link, follower.session);
        let history = base.ledger.history();
        let end = if follower.votes { history.last() } else { self.commit };
        let send = |message| Action::Send { link, message: Message::ToFollower(session, message) };
        let mut after = match history.point_before(last.min(end)) {
            Some(point) => {
                base.out.push(send(if point == last || base.config.breaks(Planted::DiffForTrunc) {
                    ToFollower::Diff
                } else {
                    ToFollower::Truncate(point)
                }));
                point
            }
            None => {
                let zxid = history.snapshot();
                base.out.push(Action::SendSnapshot { link, session, zxid });
                zxid
            }
        };
        let mut batch: Vec<Txn> = Vec::new();
        let mut bytes = 0;
        for txn in history.between(after, end) {
            bytes += txn.payload.len();
            batch.push(txn.clone());
            if batch.len() >= base.config.sync_batch || bytes >= base.config.sync_batch_bytes {
                base.out.push(send(ToFollower::Sync { after, txns: std::mem::take(&mut batch) }));
                (after, bytes) = (txn.zxid, 0);
            }
        }
        if !batch.is_empty() {
            base.out.push(send(ToFollower::Sync { after, txns: batch }));
        }
        base.out.push(send(ToFollower::NewLeader(self.epoch)));
    }

    /// ACK of NEWLEADER came.
    pub(crate) fn has_history(&mut self, base: &mut Base, peer: ServerId, through: Zxid) -> Next {
        if through > base.ledger.history().last() {
            return Next::Impossible("a follower has a history that was not sent to it");
        }
        let Some(follower) = self.followers.get_mut(&peer) else { return Next::Stale };
        follower.progress = Progress::Active;
        follower.acked = through;
        if self.stage == Stage::Broadcast {
            self.tell(base, peer, ToFollower::UpToDate { commit: self.commit });
            return self.let_return(base);
        }
        self.establish(base)
    }

    /// Lets a server vote that had lost its log and has all again.
    ///
    /// It may where all that is promised in this epoch was promised after its loss was known. Whoever still counts on what it had promised
    /// before needs another besides it that is of this epoch's majority, and that one either follows nobody of an earlier epoch, or shows that it
    /// has more. Otherwise there has to be another epoch first.
    pub(crate) fn let_return(&mut self, base: &mut Base) -> Next {
        let has_all = |(id, follower): (&ServerId, &crate::leading::Follower)| {
            let number = follower.returning.filter(|_| follower.progress == Progress::Active)?;
            Some((*id, number))
        };
        let Some((peer, number)) = self.followers.iter().find_map(has_all) else { return Next::Stay };
        if self.stage != Stage::Broadcast {
            return Next::Stay;
        }
        let counted = base.config.voters.contains(&peer) && self.lost_before.get(&peer) != Some(&number);
        if counted && !base.config.breaks(Planted::ReturnInOldEpoch) {
            return self.hand_over(base, Some(base.config.id));
        }
        if let Some(follower) = self.followers.get_mut(&peer) {
            follower.returning = None;
        }
        base.returning.remove(&peer);
        self.tell(base, peer, ToFollower::Returned);
        Next::Stay
    }

    /// Begins the broadcast once a majority has the history, this server counted once it has it durably. With that, all of the initial
    /// history is committed.
    pub(crate) fn establish(&mut self, base: &mut Base) -> Next {
        let active = self.voters(|follower| follower.progress == Progress::Active);
        let own = usize::from(self.installed);
        let needed = base.config.majority() - usize::from(base.config.breaks(Planted::EstablishWithoutQuorum));
        if self.stage != Stage::Synchronisation || active + own < needed.max(1) {
            return Next::Stay;
        }
        self.stage = Stage::Broadcast;
        self.commit = base.ledger.history().last();
        base.deliver(self.commit);
        base.out.push(Action::Became(self.role()));
        self.tell_all(base, &ToFollower::UpToDate { commit: self.commit }, |follower| {
            follower.progress == Progress::Active
        });
        let waiting: Vec<_> = self.followers.keys().copied().collect();
        for id in waiting {
            self.synchronise(base, id);
        }
        Next::Stay
    }
}

impl Following {
    /// Begins to make the history the leader's.
    pub(crate) fn sync_begin(&mut self, base: &mut Base, epoch: Epoch, then: &[Write]) -> Next {
        for write in std::iter::once(&Write::SyncBegin(epoch)).chain(then) {
            if let Err(problem) = base.write(write.clone(), Vec::new()) {
                return Next::Stop(Fatal::Diverged(problem));
            }
        }
        self.stage = FollowerStage::Synchronisation(epoch);
        Next::Stay
    }

    /// TRUNC came.
    pub(crate) fn truncate(&mut self, base: &mut Base, epoch: Epoch, to: Zxid) -> Next {
        if to < base.delivered {
            return Next::Stop(Fatal::CommittedLost { to, delivered: base.delivered });
        }
        self.sync_begin(base, epoch, &[Write::Truncate(to)])
    }

    /// SNAP came.
    pub(crate) fn install(&mut self, base: &mut Base, epoch: Epoch, zxid: Zxid, blob: Blob) -> Next {
        if zxid.epoch > epoch {
            return Next::Impossible("a snapshot has a later epoch than its leader");
        }
        if zxid < base.delivered {
            return Next::Stop(Fatal::CommittedLost { to: zxid, delivered: base.delivered });
        }
        self.sync_begin(base, epoch, &[Write::Install { zxid, blob }])
    }

    /// Transactions of the synchronisation came.
    pub(crate) fn sync(base: &mut Base, after: Zxid, txns: Vec<Txn>) -> Next {
        match base.write(Write::Append { after, txns }, Vec::new()) {
            Ok(_) => Next::Stay,
            Err(_) => Next::Impossible("a synchronisation has a gap"),
        }
    }

    /// NEWLEADER came: first the history is durable, then the epoch, then the leader hears of it.
    pub(crate) fn new_leader(&mut self, base: &mut Base, epoch: Epoch, named: Epoch) -> Next {
        if named != epoch {
            return Next::Impossible("NEWLEADER is of another epoch");
        }
        let answer = ToLeader::AckNewLeader { epoch, through: base.ledger.end() };
        let unlocked = vec![(self.link, Message::ToLeader(self.session, answer))];
        match base.write_unless(Planted::AckNewLeaderBeforeFsync, Write::EpochInstalled(epoch), unlocked) {
            Ok(_) => {
                self.stage = FollowerStage::Synchronised(epoch);
                Next::Stay
            }
            Err(problem) => Next::Stop(Fatal::Diverged(problem)),
        }
    }

    /// UPTODATE came.
    pub(crate) fn up_to_date(&mut self, base: &mut Base, epoch: Epoch, commit: Zxid) -> Next {
        if commit > base.ledger.history().last() {
            return Next::Impossible("what is committed was never sent");
        }
        self.stage = FollowerStage::Broadcast(epoch);
        base.deliver(commit);
        base.out.push(Action::Became(self.role(base)));
        Next::Stay
    }
}
