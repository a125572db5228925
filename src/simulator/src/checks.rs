//! The invariants, checked after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crossdock_zab::{Epoch, LogId, LogState, Membership, Payload, ServerId, Txn, Zxid};

/// The state of a server's state machine: the number of applied transactions, the last one, and a hash over all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Applied {
    pub(crate) count: usize,
    pub(crate) zxid: Zxid,
    hash: u64,
}

impl Applied {
    pub(crate) fn then(self, txn: &Txn) -> Self {
        let number = match &txn.payload {
            // Commands differ in their first eight bytes, their number.
            Payload::Command(command) => command.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)),
            Payload::Membership(membership) => {
                let voters = membership.voters.iter().map(|(server, log)| mix(server.0) ^ log.0);
                voters.fold(u64::MAX, |number, voter| mix(number ^ voter))
            }
        };
        let payload = mix(txn.zxid.to_u64() ^ mix(number ^ txn.payload.len() as u64));
        Self { count: self.count + 1, zxid: txn.zxid, hash: mix(self.hash ^ payload) }
    }
}

/// A bijection that spreads bits (the finalizer of splitmix64).
fn mix(mut hash: u64) -> u64 {
    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The observed behaviour of all servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Checks {
    /// The total order: the state after each delivered transaction.
    order: Vec<Applied>,
    leaders: BTreeMap<Epoch, ServerId>,
    /// The histories of lost logs, on which others may still count.
    lost: BTreeMap<LogId, (Epoch, Zxid)>,
    /// The last membership in the total order.
    membership: Option<Arc<Membership>>,
    /// The number of committed memberships.
    pub(crate) changes: usize,
    /// The time of the last transaction in the total order.
    time: u64,
    /// The numbers of the proposed commands, and their lengths.
    proposed: BTreeMap<u64, usize>,
    delivered: BTreeSet<u64>,
    /// The last transaction acknowledged to a client.
    pub(crate) acknowledged: Zxid,
    pub(crate) acknowledged_count: usize,
}

type Checked = Result<(), String>;

/// A log and what is durable in it.
pub(crate) type Durable<'d> = (LogId, &'d LogState);

impl Checks {
    /// The invariants of a cluster with this first membership.
    pub(crate) fn of(first: Arc<Membership>) -> Self {
        Self { membership: Some(first), ..Self::default() }
    }

    pub(crate) fn order_len(&self) -> usize {
        self.order.len()
    }

    /// Records the loss of a log.
    pub(crate) fn record_loss(&mut self, (log, had): Durable<'_>) {
        self.lost.insert(log, (had.current_epoch(), had.history().last()));
    }

    /// Whether a quorum of the voters has something, or had it in a log that is lost. `durable` are the logs of all
    /// servers.
    fn has_quorum(
        &self,
        membership: &Membership,
        durable: &[Durable<'_>],
        has: impl Fn(&LogState) -> bool,
        had: impl Fn((Epoch, Zxid)) -> bool,
    ) -> bool {
        let holds = |(server, log): &(&ServerId, &LogId)| {
            let index = usize::try_from(server.0 - 1).expect("a server");
            match durable.get(index).filter(|(current, _)| current == *log) {
                Some((_, log_state)) => has(log_state),
                None => self.lost.get(log).copied().is_some_and(&had),
            }
        };
        membership.voters.iter().filter(holds).count() >= membership.quorum()
    }

    pub(crate) fn record_proposal(&mut self, number: u64, len: usize) {
        self.proposed.insert(number, len);
    }

    /// Checks agreement, total order, integrity, and that a quorum has each commit. `membership` is the one in effect at
    /// the server; it may not be committed yet.
    pub(crate) fn check_delivery(
        &mut self,
        after: Applied,
        txn: &Txn,
        membership: &Membership,
        durable: &[Durable<'_>],
    ) -> Result<Applied, String> {
        let now = after.then(txn);
        if let Some(first) = self.order.get(after.count) {
            return if *first == now {
                Ok(now)
            } else {
                Err(format!("agreement: {} is delivered where others delivered {}", txn.zxid, first.zxid))
            };
        }
        if self.order.last().copied().unwrap_or_default() != after {
            return Err(format!("prefix: {} is delivered after a history that differs from the others'", txn.zxid));
        }
        if txn.zxid <= after.zxid {
            return Err(format!("total order: {} is delivered after {}", txn.zxid, after.zxid));
        }
        let has = |log_state: &LogState| {
            let history = log_state.history();
            history.contains(txn.zxid) || (history.floor() > txn.zxid && history.snapshot() >= txn.zxid)
        };
        // The next membership may have been appended in the same step as the commit.
        let before = self.membership.as_deref().unwrap_or(membership);
        let own = match &txn.payload {
            Payload::Membership(membership) => membership,
            Payload::Command(_) => before,
        };
        if ![own, before, membership].iter().any(|it| self.has_quorum(it, durable, has, |(_, last)| last >= txn.zxid)) {
            return Err(format!("quorum: {} is delivered, but no quorum has it durably", txn.zxid));
        }
        if txn.time < self.time {
            return Err(format!("time: {} is of {}, but the last one of {}", txn.zxid, txn.time, self.time));
        }
        self.time = txn.time;
        match &txn.payload {
            Payload::Command(command) => {
                let number = command.get(..8).and_then(|number| number.try_into().ok()).map(u64::from_le_bytes);
                let number = number.ok_or("integrity: no payload")?;
                if self.proposed.get(&number) != Some(&command.len()) || !self.delivered.insert(number) {
                    return Err(format!(
                        "integrity: {} was not proposed in this form, or is delivered twice",
                        txn.zxid
                    ));
                }
            }
            Payload::Membership(membership) => {
                self.membership = Some(Arc::clone(membership));
                self.changes += 1;
            }
        }
        self.order.push(now);
        Ok(now)
    }

    /// Checks that a restored state is part of the total order.
    pub(crate) fn check_snapshot(&self, state: Applied) -> Checked {
        let known = state.count.checked_sub(1).map_or(Some(Applied::default()), |at| self.order.get(at).copied());
        if known == Some(state) || state == Applied::default() {
            Ok(())
        } else {
            Err(format!("snapshot: {} is not part of the total order", state.zxid))
        }
    }

    /// Checks that an epoch has one established leader, and that a quorum has the epoch durably.
    pub(crate) fn check_leader(
        &mut self,
        server: ServerId,
        epoch: Epoch,
        membership: &Membership,
        durable: &[Durable<'_>],
    ) -> Checked {
        if let Some(other) = self.leaders.insert(epoch, server)
            && other != server
        {
            return Err(format!("leaders: {server} and {other} are established in epoch {epoch}"));
        }
        let has = |log_state: &LogState| log_state.current_epoch() >= epoch;
        if !self.has_quorum(membership, durable, has, |(had, _)| had >= epoch) {
            return Err(format!("epoch: {epoch} is established, but no quorum has it durably"));
        }
        Ok(())
    }

    /// Records that a client's command is acknowledged. It is delivered, and the other checks keep it in the order.
    pub(crate) fn record_acknowledgement(&mut self, zxid: Zxid) {
        self.acknowledged = self.acknowledged.max(zxid);
        self.acknowledged_count += 1;
    }

    /// Checks that a read sees everything acknowledged before it began.
    pub(crate) fn check_read(began_at: Zxid, sees: Zxid) -> Checked {
        if sees < began_at {
            return Err(format!(
                "read: sees transactions through {sees}, but {began_at} was acknowledged before it began"
            ));
        }
        Ok(())
    }

    /// Checks that the history a server votes with is on its disk.
    pub(crate) fn check_vote(running: &LogState, disk: &LogState) -> Checked {
        let of =
            |log_state: &LogState| (log_state.accepted_epoch(), log_state.current_epoch(), log_state.history().last());
        if of(running) != of(disk) {
            return Err(format!("durability: a server votes with {:?}, but its disk has {:?}", of(running), of(disk)));
        }
        Ok(())
    }
}
