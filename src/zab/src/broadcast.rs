//! Phase 3: proposals, their acknowledgements, and their commits.

use bytes::Bytes;

use crate::base::{Base, Next};
use crate::following::{Following, Stage as FollowerStage};
use crate::leading::{Leading, Progress, Stage};
use crate::planted::Planted;
use crate::{Message, Refusal, Request, ServerId, ToFollower, ToLeader, Txn, Zxid};

impl Leading {
    /// Gives a command its place. It is sent and written with all that come at the same time.
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
        let last = base.ledger.end();
        let before = if last.epoch == self.epoch { last.counter } else { 0 };
        let counter = before.checked_add(1).ok_or(Refusal::HandingOver)?;
        let zxid = Zxid::new(self.epoch, counter);
        let size = payload.len();
        // No gap and no foreign epoch: the ledger can take it.
        if base.append(last, vec![Txn { zxid, payload }], None).is_err() {
            return Err(Refusal::NoLeader);
        }
        self.outstanding.push_back((zxid, size));
        self.outstanding_bytes += size;
        if counter >= base.config.counter_max {
            // A new epoch begins to count anew, in good time.
            let _ = self.hand_over(base, None);
        }
        Ok(zxid)
    }

    /// Sends and writes what was proposed, and commits what a majority has.
    pub(crate) fn flush(&mut self, base: &mut Base) {
        let (after, txns) = base.appended();
        if !txns.is_empty() {
            let message = ToFollower::Propose { after, txns: txns.to_vec() };
            self.tell_all(base, &message, |follower| {
                follower.votes && matches!(follower.progress, Progress::Synchronising | Progress::Active)
            });
            let end = base.ledger.end();
            if base.config.breaks(Planted::LeaderCountsBeforeFsync) {
                self.durable = end;
            }
            if let Some(io) = base.write_appended() {
                self.writes.push_back((io, end));
            }
        }
        self.commit(base);
    }

    /// ACK came.
    pub(crate) fn acked(&mut self, base: &Base, peer: ServerId, zxid: Zxid) -> Next {
        let Some(follower) = self.followers.get_mut(&peer).filter(|follower| follower.votes) else {
            return Next::Impossible("an observer acknowledges");
        };
        if zxid > base.ledger.history().last() {
            return Next::Impossible("a follower acknowledges what was not proposed");
        }
        follower.acked = follower.acked.max(zxid);
        Next::Stay
    }

    /// The last transaction that a majority has durably.
    fn quorum_point(&self, base: &Base) -> Zxid {
        let active = |follower: &&crate::leading::Follower| follower.votes && follower.progress == Progress::Active;
        let mut points: Vec<Zxid> = self.followers.values().filter(active).map(|follower| follower.acked).collect();
        points.push(self.durable);
        points.sort_unstable_by(|a, b| b.cmp(a));
        let needed = if base.config.breaks(Planted::CommitWithoutQuorum) { 1 } else { base.config.majority() };
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
        self.tell_all(base, &ToFollower::Commit(point), |follower| follower.votes && active(follower));
        let sent = |follower: &crate::leading::Follower| {
            matches!(follower.progress, Progress::Synchronising | Progress::Active)
        };
        if self.followers.values().any(|follower| !follower.votes && sent(follower)) {
            let txns = base.ledger.history().between(before, point).cloned().collect();
            let message = ToFollower::Inform { after: before, txns };
            self.tell_all(base, &message, |follower| !follower.votes && sent(follower));
        }
        base.deliver(point);
    }
}

impl Following {
    /// PROPOSE came. All that come at the same time are written, and acknowledged, as one.
    pub(crate) fn proposed(&mut self, base: &mut Base, after: Zxid, txns: Vec<Txn>) -> Next {
        if !base.votes() {
            return Next::Impossible("a proposal for an observer");
        }
        let Some(last) = txns.last().map(|txn| txn.zxid) else { return Next::Impossible("an empty proposal") };
        let unlocked = (self.link, Message::ToLeader(self.session, ToLeader::Ack(last)));
        let unlocked = if base.config.breaks(Planted::AckBeforeFsync) {
            base.send(unlocked.0, unlocked.1);
            None
        } else {
            Some(unlocked)
        };
        match base.append(after, txns, unlocked) {
            Ok(()) => Next::Stay,
            Err(_) => Next::Impossible("a proposal does not stand behind the last one"),
        }
    }

    /// COMMIT came.
    pub(crate) fn committed(base: &mut Base, zxid: Zxid) -> Next {
        if zxid > base.ledger.history().last() {
            return Next::Impossible("what is committed was never proposed");
        }
        base.deliver(zxid);
        Next::Stay
    }

    /// INFORM came.
    pub(crate) fn informed(&self, base: &mut Base, after: Zxid, txns: Vec<Txn>) -> Next {
        if base.votes() {
            return Next::Impossible("INFORM for a voter");
        }
        let Some(last) = txns.last().map(|txn| txn.zxid) else { return Next::Impossible("an empty INFORM") };
        if base.append(after, txns, None).is_err() {
            return Next::Impossible("INFORM does not stand behind the last one");
        }
        // Before that, UPTODATE will say how far all is committed.
        if matches!(self.stage, FollowerStage::Broadcast(_)) {
            base.deliver(last);
        }
        Next::Stay
    }

    /// What became of a forwarded proposal.
    pub(crate) fn forwarded(&mut self, base: &mut Base, request: Request, zxid: Option<Zxid>) -> Next {
        if !self.asked.remove(&request) {
            return Next::Impossible("an answer to what was not asked");
        }
        match zxid {
            Some(zxid) => base.out.push(crate::Action::Proposed { request, zxid }),
            None => base.refuse(request, Refusal::Busy),
        }
        Next::Stay
    }

    /// Hands a proposal of somebody here to the leader.
    pub(crate) fn propose_here(&mut self, base: &mut Base, request: Request, payload: Bytes) {
        if payload.len() > base.config.payload_max {
            base.refuse(request, Refusal::TooLong);
        } else if self.may_ask(base, request) {
            self.tell(base, ToLeader::Forward { request, payload });
        }
    }
}
