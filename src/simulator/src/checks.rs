//! The invariants, checked after every step.

use std::collections::{BTreeMap, BTreeSet};

use crossdock_zab::{Epoch, LogState, ServerId, Txn, Zxid};

/// The state of a server's state machine: the number of applied transactions, the last one, and a hash over all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Applied {
    pub(crate) count: usize,
    pub(crate) zxid: Zxid,
    hash: u64,
}

impl Applied {
    pub(crate) fn then(self, txn: &Txn) -> Self {
        // Commands differ in their first eight bytes, their number.
        let number = txn.payload.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
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
    /// The history of servers that lost their logs. Others may still count on it until the server has recovered it.
    lost: BTreeMap<ServerId, (Epoch, Zxid)>,
    /// The numbers of the proposed commands, and their lengths.
    proposed: BTreeMap<u64, usize>,
    delivered: BTreeSet<u64>,
    /// The last transaction acknowledged to a client.
    pub(crate) acknowledged: Zxid,
    pub(crate) acknowledged_count: usize,
}

type Checked = Result<(), String>;

impl Checks {
    pub(crate) fn order_len(&self) -> usize {
        self.order.len()
    }

    /// Records the loss of a log. After repeated losses, others may still count on the history before the first one,
    /// until the server has recovered.
    pub(crate) fn record_loss(&mut self, server: ServerId, had: &LogState) {
        if had.returning().is_none() {
            self.lost.insert(server, (had.current_epoch(), had.history().last()));
        }
    }

    pub(crate) fn record_proposal(&mut self, number: u64, len: usize) {
        self.proposed.insert(number, len);
    }

    /// Checks agreement, total order, integrity, and that a quorum has each commit.
    pub(crate) fn check_delivery(
        &mut self,
        after: Applied,
        txn: &Txn,
        durable: &[&LogState],
        quorum: usize,
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
        let holders = durable.iter().zip(1..).filter(|(log_state, server)| {
            let history = log_state.history();
            let has = history.contains(txn.zxid) || (history.floor() > txn.zxid && history.snapshot() >= txn.zxid);
            let had = self.lost.get(&ServerId(*server)).is_some_and(|(_, last)| *last >= txn.zxid);
            has || (log_state.returning().is_some() && had)
        });
        let holders = holders.count();
        if holders < quorum {
            return Err(format!("quorum: {} is delivered, but {holders} of {quorum} have it durably", txn.zxid));
        }
        let number = u64::from_le_bytes(txn.payload[..8].try_into().map_err(|_| "integrity: no payload")?);
        if self.proposed.get(&number) != Some(&txn.payload.len()) || !self.delivered.insert(number) {
            return Err(format!("integrity: {} was not proposed in this form, or is delivered twice", txn.zxid));
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
        durable: &[&LogState],
        quorum: usize,
    ) -> Checked {
        if let Some(other) = self.leaders.insert(epoch, server)
            && other != server
        {
            return Err(format!("leaders: {server} and {other} are established in epoch {epoch}"));
        }
        let had = |server: u64| self.lost.get(&ServerId(server)).is_some_and(|(had, _)| *had >= epoch);
        let with = durable.iter().zip(1..).filter(|(log_state, server)| {
            log_state.current_epoch() >= epoch || (log_state.returning().is_some() && had(*server))
        });
        let with = with.count();
        if with < quorum {
            return Err(format!("epoch: {epoch} is established, but {with} of {quorum} have it durably"));
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
