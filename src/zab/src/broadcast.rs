//! Phase 3: proposals, acknowledgements and commits.

use bytes::Bytes;

use crate::base::{Base, Next};
use crate::following::Following;
use crate::injected_bug::InjectedBug;
use crate::leading::{Leading, Progress, Stage};
use crate::{Epoch, MemberChange, Message, Payload, Refusal, Request, ServerId, ToFollower, ToLeader, Txn, Zxid};

impl Leading {
    /// Assigns a zxid to a command or a membership. Those that arrive together are sent and written together.
    pub(crate) fn propose(&mut self, base: &mut Base, payload: Payload, is_reserved: bool) -> Result<Zxid, Refusal> {
        if let Some(refusal) = self.refusal(base) {
            return Err(refusal);
        }
        let is_command = matches!(payload, Payload::Command(_));
        if is_command && payload.len() > base.config.payload_max {
            return Err(Refusal::TooLong);
        }
        let bytes = self.outstanding_bytes.saturating_add(payload.len());
        let config = &base.config;
        let (mut count_max, mut bytes_max) = (config.outstanding_max, config.outstanding_bytes_max);
        if is_reserved {
            count_max = count_max.saturating_add(config.reserved);
            bytes_max = bytes_max.saturating_add(config.reserved_bytes);
        }
        if self.outstanding.len() >= count_max || bytes > bytes_max || (base.is_behind && !is_reserved) {
            return Err(Refusal::Busy);
        }
        if !is_command {
            // What precedes a change of the voters may go to more servers than the change itself.
            self.flush(base);
        }
        let end = base.log_state.end();
        let before = if end.zxid.epoch == self.epoch { end.zxid.counter } else { 0 };
        let counter = before.checked_add(1).ok_or(Refusal::TransferringLeadership)?;
        let zxid = Zxid::new(self.epoch, counter);
        let size = payload.len();
        // The zxid is the next of the current epoch, so the log accepts it.
        if base.append_own(zxid, payload).is_err() {
            return Err(Refusal::NoLeader);
        }
        if !is_command {
            self.update_voters(base);
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
                let is_ready = matches!(follower.progress, Progress::Synchronising | Progress::Active);
                is_ready && follower.withheld_after.is_none()
            });
            let end = base.log_state.end().zxid;
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
        let Some(follower) = self.followers.get_mut(&peer) else { return Next::Stale };
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
        let needed = if base.config.has_bug(InjectedBug::CommitWithoutQuorum) { 1 } else { self.quorum };
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
        self.commit = point;
        while let Some((_, size)) = self.outstanding.pop_front_if(|(zxid, _)| *zxid <= point) {
            self.outstanding_bytes -= size;
        }
        self.send_withheld(base);
        self.send_to_all(base, &ToFollower::Commit(point), |follower| follower.progress == Progress::Active);
        base.deliver(point);
    }
}

impl Following {
    /// Handles PROPOSE. Proposals that arrive together are written and acknowledged together.
    pub(crate) fn proposed(&mut self, base: &mut Base, after: Zxid, txns: Vec<Txn>) -> Next {
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

    /// Handles the leader's reply to a forwarded proposal.
    pub(crate) fn forwarded(&mut self, base: &mut Base, request: Request, zxid: Result<Zxid, Refusal>) -> Next {
        if !self.pending.remove(&request) {
            return Next::Impossible("reply to an unknown request");
        }
        base.answer(request, zxid);
        Next::Stay
    }

    /// Forwards a local proposal to the leader.
    pub(crate) fn propose_local(
        &mut self,
        base: &mut Base,
        request: Request,
        (payload, in_epoch, is_reserved): (Bytes, Option<Epoch>, bool),
    ) {
        if in_epoch.is_some() {
            base.refuse(request, Refusal::OtherEpoch);
        } else if payload.len() > base.config.payload_max {
            base.refuse(request, Refusal::TooLong);
        } else if self.track_request(base, request) {
            self.send(base, ToLeader::Forward { request, payload, is_reserved });
        }
    }

    /// Forwards a change of the voters to the leader.
    pub(crate) fn change_members(&mut self, base: &mut Base, request: Request, change: MemberChange) {
        if self.track_request(base, request) {
            self.send(base, ToLeader::ChangeMembers { request, change });
        }
    }
}
