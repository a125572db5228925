//! Phase 2: a quorum adopts the leader's history, and with it the epoch.

use crate::base::{Base, Next};
use crate::following::{Following, Stage as FollowerStage};
use crate::injected_bug::InjectedBug;
use crate::leading::{Leading, Progress, Stage};
use crate::{Action, Blob, Epoch, Fatal, Message, Point, ServerId, Summary, ToFollower, ToLeader, Txn, Write, Zxid};

impl Leading {
    /// Installs the epoch on this server, and sends the history to all followers that accepted the epoch.
    pub(crate) fn synchronise_all(&mut self, base: &mut Base) -> Next {
        self.stage = Stage::Synchronisation;
        let writes = [Write::SyncBegin(self.epoch), Write::EpochInstalled(self.epoch)];
        for write in writes {
            match base.write(write, Vec::new()) {
                Ok(id) => self.installing = Some(id),
                Err(problem) => return Next::Stop(Fatal::Diverged(problem)),
            }
        }
        let ready: Vec<_> = self.followers.keys().copied().collect();
        for id in ready {
            self.synchronise(base, id);
        }
        Next::Stay
    }

    /// Starts to send a follower what it lacks: DIFF or TRUNC, then SYNC; or first SNAP, if what it lacks is no longer in
    /// memory.
    pub(crate) fn synchronise(&mut self, base: &mut Base, peer: ServerId) {
        let progress = self.followers.get(&peer).map(|follower| follower.progress);
        let Some(Progress::EpochAcked { last, .. }) = progress else { return };
        let withheld_after = self.withheld_after(base, peer, last);
        let is_established = self.stage == Stage::Broadcast || base.config.has_bug(InjectedBug::WithholdInitialHistory);
        if withheld_after.is_some() && !is_established {
            // With the epoch but without its initial history, it would seem to have the later history. The history is
            // committed once the epoch is established.
            return;
        }
        let Some(follower) = self.followers.get_mut(&peer) else { return };
        follower.withheld_after = withheld_after;
        let (link, session) = (follower.link, follower.session);
        let history = base.log_state.history();
        let end = withheld_after.unwrap_or(history.last());
        let Some(point) = history.last_at_or_before(last.min(end)) else {
            let zxid = history.snapshot();
            follower.progress = Progress::Snapshot(zxid);
            follower.snapshot = history.summary_at(zxid);
            base.out.push(Action::SendSnapshot { link, session, zxid });
            return;
        };
        let message = if point.zxid == last || base.config.has_bug(InjectedBug::DiffForTrunc) {
            ToFollower::Diff(history.summary_at(point.zxid).unwrap_or_default())
        } else {
            ToFollower::Truncate(point)
        };
        self.send(base, peer, message);
        self.begin_catch_up(base, peer, point.zxid);
    }

    /// Handles ACK of NEWLEADER.
    pub(crate) fn ack_new_leader(&mut self, base: &mut Base, peer: ServerId, through: Zxid) -> Next {
        if through > base.log_state.history().last() {
            return Next::Impossible("ACK of a history that was not sent");
        }
        let Some(follower) = self.followers.get_mut(&peer) else { return Next::Stale };
        follower.progress = Progress::Active;
        follower.acked = through;
        if self.stage == Stage::Broadcast {
            self.send(base, peer, ToFollower::UpToDate { commit: self.commit });
            self.replace_lost_logs(base);
            return Next::Stay;
        }
        self.establish(base)
    }

    /// Establishes the epoch once the history is durable on a quorum, this server included. That commits the whole
    /// initial history.
    pub(crate) fn establish(&mut self, base: &mut Base) -> Next {
        let active = self.voters(|follower| follower.progress == Progress::Active);
        let own = usize::from(self.installed);
        let needed = self.quorum - usize::from(base.config.has_bug(InjectedBug::EstablishWithoutQuorum));
        if self.stage != Stage::Synchronisation || active + own < needed.max(1) {
            return Next::Stay;
        }
        self.stage = Stage::Broadcast;
        self.commit = base.log_state.history().last();
        base.deliver(self.commit);
        base.out.push(Action::Became(self.role()));
        self.send_to_all(base, &ToFollower::UpToDate { commit: self.commit }, |follower| {
            follower.progress == Progress::Active
        });
        let waiting: Vec<_> = self.followers.keys().copied().collect();
        for id in waiting {
            self.synchronise(base, id);
        }
        self.judge(base)
    }
}

impl Following {
    /// Handles DIFF.
    pub(crate) fn diff(&mut self, base: &mut Base, epoch: Epoch, summary: Summary) -> Next {
        if let Some((snapshot, blob)) = self.snapshot.take_if(|(snapshot, _)| snapshot.point.zxid == summary.point.zxid)
        {
            if snapshot.point != summary.point {
                base.out.push(Action::DiscardSnapshot(blob));
                return Next::Impossible("DIFF for another history than the snapshot's");
            }
            return self.sync_begin(base, epoch, Some(Write::Install { summary: snapshot, blob }));
        }
        let own = base.log_state.history().end();
        if own.zxid != summary.point.zxid && !base.config.has_bug(InjectedBug::DiffForTrunc) {
            return Next::Impossible("DIFF for another history");
        }
        if own != summary.point && own.zxid == summary.point.zxid {
            return self.report_difference(base, summary.point);
        }
        if let Some(first) = summary.membership.filter(|_| base.membership().is_none())
            && let Err(problem) = base.write(Write::Form(first), Vec::new())
        {
            return Next::Stop(Fatal::Diverged(problem));
        }
        self.sync_begin(base, epoch, None)
    }

    /// Starts to adopt the leader's history.
    fn sync_begin(&mut self, base: &mut Base, epoch: Epoch, then: Option<Write>) -> Next {
        for write in std::iter::once(Write::SyncBegin(epoch)).chain(then) {
            if let Err(problem) = base.write(write, Vec::new()) {
                return Next::Stop(Fatal::Diverged(problem));
            }
        }
        self.stage = FollowerStage::Synchronisation(epoch);
        Next::Stay
    }

    /// Handles TRUNC.
    pub(crate) fn truncate(&mut self, base: &mut Base, epoch: Epoch, to: Point) -> Next {
        if base.log_state.history().point_at(to.zxid).is_some_and(|own| own != to) {
            return self.report_difference(base, to);
        }
        if to.zxid < base.delivered {
            return Next::Stop(Fatal::CommittedLost { to: to.zxid, delivered: base.delivered });
        }
        self.sync_begin(base, epoch, Some(Write::Truncate(to)))
    }

    /// Handles SNAP.
    pub(crate) fn snapshot(&mut self, base: &mut Base, epoch: Epoch, summary: Summary, blob: Blob) -> Next {
        let zxid = summary.point.zxid;
        if let Some((_, other)) = self.snapshot.replace((summary, blob)) {
            base.out.push(Action::DiscardSnapshot(other));
        }
        if zxid.epoch > epoch {
            return Next::Impossible("SNAP of a later epoch than the leader's");
        }
        if zxid < base.delivered {
            return Next::Stop(Fatal::CommittedLost { to: zxid, delivered: base.delivered });
        }
        self.send(base, ToLeader::Received(zxid));
        Next::Stay
    }

    /// Handles SYNC.
    pub(crate) fn sync(&mut self, base: &mut Base, after: Zxid, txns: Vec<Txn>) -> Next {
        let Some(last) = txns.last().map(|txn| txn.zxid) else {
            return Next::Impossible("SYNC without transactions");
        };
        let unlocked = vec![(self.link, Message::ToLeader(self.session, ToLeader::Received(last)))];
        match base.write(Write::Append { after, txns }, unlocked) {
            Ok(_) => Next::Stay,
            Err(_) => Next::Impossible("SYNC does not follow the last transaction"),
        }
    }

    /// Handles NEWLEADER: the history becomes durable, then the epoch, then the leader gets the ACK.
    pub(crate) fn new_leader(&mut self, base: &mut Base, epoch: Epoch, named: Epoch) -> Next {
        if named != epoch {
            return Next::Impossible("NEWLEADER of another epoch");
        }
        let answer = ToLeader::AckNewLeader { epoch, through: base.log_state.end().zxid };
        let unlocked = vec![(self.link, Message::ToLeader(self.session, answer))];
        match base.write_then_send(InjectedBug::AckNewLeaderBeforeFsync, Write::EpochInstalled(epoch), unlocked) {
            Ok(_) => {
                self.stage = FollowerStage::Synchronised(epoch);
                Next::Stay
            }
            Err(problem) => Next::Stop(Fatal::Diverged(problem)),
        }
    }

    /// Handles UPTODATE.
    pub(crate) fn up_to_date(&mut self, base: &mut Base, epoch: Epoch, commit: Zxid) -> Next {
        if commit > base.log_state.history().last() {
            return Next::Impossible("UPTODATE beyond the history that was sent");
        }
        self.stage = FollowerStage::Broadcast(epoch);
        base.deliver(commit);
        base.out.push(Action::Became(self.role(base)));
        Next::Stay
    }
}
