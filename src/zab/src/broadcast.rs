//! Phase 3: proposals, acknowledgements and commits.

use bytes::Bytes;

use crate::base::{Base, Next};
use crate::following::{Following, Stage as FollowerStage};
use crate::injected_bug::InjectedBug;
use crate::leading::{Leading, Progress, Stage};
use crate::{Message, Refusal, Request, ServerId, ToFollower, ToLeader, Txn, Zxid};

impl Leading {
    /// Assigns a zxid to a command. Commands that arrive together are sent and written together.
    pub(crate) fn propose(&mut self, base: &mut Base, payload: Bytes) -> Result<Zxid, Refusal> {
        if let Some(refusal) = self.refusal(base) {
            return Err(refusal);
        }
        if payload.len() > base.config.payload_max {
            return Err(Refusal::TooLong);
        }
        let bytes = self.outstanding_bytes.saturating_add(payload.len());
        if self.outstanding.len() >= base.config.outstanding_max || bytes > base.config.outstanding_bytes_max {
            return Err(Refusal::Busy);
        }
        let last = base.log_state.end();
        let before = if last.epoch == self.epoch { last.counter } else { 0 };
        let counter = before.checked_add(1).ok_or(Refusal::TransferringLeadership)?;
        let zxid = Zxid::new(self.epoch, counter);
        let size = payload.len();
        // The zxid is the next of the current epoch, so the log accepts it.
        if base.append(last, vec![Txn { zxid, payload }], None).is_err() {
            return Err(Refusal::NoLeader);
        }
        self.outstanding.push_back((zxid, size));
        self.outstanding_bytes += size;
        if counter >= base.config.counter_max {
            // Start a new epoch, whose counter begins at 1, before this one overflows.
            let _ = self.transfer_leadership(base, None);
        }
        Ok(zxid)
    }

    /// Sends and writes the new proposals, and commits what a quorum has acknowledged.
    pub(crate) fn flush(&mut self, base: &mut Base) {
        let (after, txns) = base.appended();
        if !txns.is_empty() {
            let message = ToFollower::Propose { after, txns: txns.to_vec() };
            self.send_to_all(base, &message, |follower| {
                follower.votes && matches!(follower.progress, Progress::Synchronising | Progress::Active)
            });
            let end = base.log_state.end();
            if base.config.has_bug(InjectedBug::LeaderCountsBeforeFsync) {
                self.durable = end;
            }
            if let Some(id) = base.write_appended() {
                self.writes.push_back((id, end));
            }
        }
        self.commit(base);
    }

    /// Handles ACK.
    pub(crate) fn acked(&mut self, base: &Base, peer: ServerId, zxid: Zxid) -> Next {
        let Some(follower) = self.followers.get_mut(&peer).filter(|follower| follower.votes) else {
            return Next::Impossible("ACK from an observer");
        };
        if zxid > base.log_state.history().last() {
            return Next::Impossible("ACK of a transaction that was not proposed");
        }
        follower.acked = follower.acked.max(zxid);
        Next::Stay
    }

    /// The last transaction that is durable on a quorum.
    fn quorum_point(&self, base: &Base) -> Zxid {
        let active = |follower: &&crate::leading::Follower| follower.votes && follower.progress == Progress::Active;
        let mut points: Vec<Zxid> = self.followers.values().filter(active).map(|follower| follower.acked).collect();
        points.push(self.durable);
        points.sort_unstable_by(|a, b| b.cmp(a));
        let needed = if base.config.has_bug(InjectedBug::CommitWithoutQuorum) { 1 } else { base.config.quorum() };
        points.get(needed - 1).copied().unwrap_or_default()
    }

    fn commit(&mut self, base: &mut Base) {
        if self.stage != Stage::Broadcast {
            return;
        }
        let point = self.quorum_point(base);
        if point <= self.commit {
            return;
        }
        let before = std::mem::replace(&mut self.commit, point);
        while let Some((_, size)) = self.outstanding.pop_front_if(|(zxid, _)| *zxid <= point) {
            self.outstanding_bytes -= size;
        }
        let active = |follower: &crate::leading::Follower| follower.progress == Progress::Active;
        self.send_to_all(base, &ToFollower::Commit(point), |follower| follower.votes && active(follower));
        let sent = |follower: &crate::leading::Follower| {
            matches!(follower.progress, Progress::Synchronising | Progress::Active)
        };
        if self.followers.values().any(|follower| !follower.votes && sent(follower)) {
            let txns = base.log_state.history().between(before, point).cloned().collect();
            let message = ToFollower::Inform { after: before, txns };
            self.send_to_all(base, &message, |follower| !follower.votes && sent(follower));
        }
        base.deliver(point);
    }
}

impl Following {
    /// Handles PROPOSE. Proposals that arrive together are written and acknowledged together.
    pub(crate) fn proposed(&mut self, base: &mut Base, after: Zxid, txns: Vec<Txn>) -> Next {
        if !base.votes() {
            return Next::Impossible("PROPOSE to an observer");
        }
        let Some(last) = txns.last().map(|txn| txn.zxid) else {
            return Next::Impossible("PROPOSE without transactions");
        };
        let unlocked = (self.link, Message::ToLeader(self.session, ToLeader::Ack(last)));
        let unlocked = if base.config.has_bug(InjectedBug::AckBeforeFsync) {
            base.send(unlocked.0, unlocked.1);
            None
        } else {
            Some(unlocked)
        };
        match base.append(after, txns, unlocked) {
            Ok(()) => Next::Stay,
            Err(_) => Next::Impossible("PROPOSE does not follow the last transaction"),
        }
    }

    /// Handles COMMIT.
    pub(crate) fn committed(base: &mut Base, zxid: Zxid) -> Next {
        if zxid > base.log_state.history().last() {
            return Next::Impossible("COMMIT of a transaction that was not proposed");
        }
        base.deliver(zxid);
        Next::Stay
    }

    /// Handles INFORM.
    pub(crate) fn informed(&self, base: &mut Base, after: Zxid, txns: Vec<Txn>) -> Next {
        if base.votes() {
            return Next::Impossible("INFORM to a voter");
        }
        let Some(last) = txns.last().map(|txn| txn.zxid) else {
            return Next::Impossible("INFORM without transactions");
        };
        if base.append(after, txns, None).is_err() {
            return Next::Impossible("INFORM does not follow the last transaction");
        }
        // Before the broadcast phase, UPTODATE announces the commit point.
        if matches!(self.stage, FollowerStage::Broadcast(_)) {
            base.deliver(last);
        }
        Next::Stay
    }

    /// Handles the leader's reply to a forwarded proposal.
    pub(crate) fn forwarded(&mut self, base: &mut Base, request: Request, zxid: Option<Zxid>) -> Next {
        if !self.pending.remove(&request) {
            return Next::Impossible("reply to an unknown request");
        }
        match zxid {
            Some(zxid) => base.out.push(crate::Action::Proposed { request, zxid }),
            None => base.refuse(request, Refusal::Busy),
        }
        Next::Stay
    }

    /// Forwards a local proposal to the leader.
    pub(crate) fn propose_local(&mut self, base: &mut Base, request: Request, payload: Bytes) {
        if payload.len() > base.config.payload_max {
            base.refuse(request, Refusal::TooLong);
        } else if self.track_request(base, request) {
            self.send(base, ToLeader::Forward { request, payload });
        }
    }
}
