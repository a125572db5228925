//! What has to hold after every step.

use std::collections::{BTreeMap, BTreeSet};

use crossdock_zab::{Epoch, LogState, ServerId, Txn, Zxid};

/// The state of a server's machine: how many transactions it has applied, the last of them, and a hash over all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Applied {
    pub(crate) count: usize,
    pub(crate) zxid: Zxid,
    hash: u64,
}

impl Applied {
    pub(crate) fn then(self, txn: &Txn) -> Self {
        // Commands differ in their first bytes: their number.
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

/// What all servers together have done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Checks {
    /// The one order: the state after each transaction that anybody delivered.
    order: Vec<Applied>,
    leaders: BTreeMap<Epoch, ServerId>,
    /// What servers had that have lost it, and whom nobody counts before they have it again.
    lost: BTreeMap<ServerId, (Epoch, Zxid)>,
    /// The numbers of the commands that clients proposed, and their lengths.
    proposed: BTreeMap<u64, usize>,
    delivered: BTreeSet<u64>,
    /// The last transaction that a client was told is done.
    pub(crate) acknowledged: Zxid,
    pub(crate) acknowledged_count: usize,
}

type Checked = Result<(), String>;

impl Checks {
    pub(crate) fn order_len(&self) -> usize {
        self.order.len()
    }

    /// A server has lost what it had. What it had before an earlier loss somebody may still count, until it has all again.
    pub(crate) fn loses(&mut self, server: ServerId, had: &LogState) {
        if had.returning().is_none() {
            self.lost.insert(server, (had.current_epoch(), had.history().last()));
        }
    }

    pub(crate) fn proposes(&mut self, number: u64, len: usize) {
        self.proposed.insert(number, len);
    }

    /// Agreement, total order, primary order, integrity, and a majority behind each commit.
    pub(crate) fn delivers(
        &mut self,
        after: Applied,
        txn: &Txn,
        durable: &[&LogState],
        majority: usize,
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
            return Err(format!("prefix: {} is delivered behind another history than that of others", txn.zxid));
        }
        if txn.zxid <= after.zxid {
            return Err(format!("total order: {} is delivered behind {}", txn.zxid, after.zxid));
        }
        let holders = durable.iter().zip(1..).filter(|(log_state, server)| {
            let history = log_state.history();
            let has = history.contains(txn.zxid) || (history.floor() > txn.zxid && history.snapshot() >= txn.zxid);
            let had = self.lost.get(&ServerId(*server)).is_some_and(|(_, last)| *last >= txn.zxid);
            has || (log_state.returning().is_some() && had)
        });
        let holders = holders.count();
        if holders < majority {
            return Err(format!("quorum: {} is delivered, and {holders} of {majority} have it durably", txn.zxid));
        }
        let number = u64::from_le_bytes(txn.payload[..8].try_into().map_err(|_| "integrity: no payload")?);
        if self.proposed.get(&number) != Some(&txn.payload.len()) || !self.delivered.insert(number) {
            return Err(format!("integrity: {} was never proposed so, or is delivered twice", txn.zxid));
        }
        self.order.push(now);
        Ok(now)
    }

    /// A state that came by a snapshot is one that the order has.
    pub(crate) fn restores(&self, state: Applied) -> Checked {
        let known = state.count.checked_sub(1).map_or(Some(Applied::default()), |at| self.order.get(at).copied());
        if known == Some(state) || state == Applied::default() {
            Ok(())
        } else {
            Err(format!("snapshot: {} is not a state of the order", state.zxid))
        }
    }

    /// One established leader an epoch, whose history a majority has.
    pub(crate) fn establishes(
        &mut self,
        server: ServerId,
        epoch: Epoch,
        durable: &[&LogState],
        majority: usize,
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
        if with < majority {
            return Err(format!("epoch: {epoch} is established, and {with} of {majority} have it durably"));
        }
        Ok(())
    }

    /// A client is told that its command is done, which is in the order then: that it stays there, all others see to.
    pub(crate) fn acknowledges(&mut self, zxid: Zxid) {
        self.acknowledged = self.acknowledged.max(zxid);
        self.acknowledged_count += 1;
    }

    /// A read sees all that was done before it began.
    pub(crate) fn reads(began_at: Zxid, sees: Zxid) -> Checked {
        if sees < began_at {
            return Err(format!("read: it sees all through {sees}, and {began_at} was done before it began"));
        }
        Ok(())
    }

    /// What is told of a history before a vote is what the disk has.
    pub(crate) fn votes_from_disk(running: &LogState, disk: &LogState) -> Checked {
        let of =
            |log_state: &LogState| (log_state.accepted_epoch(), log_state.current_epoch(), log_state.history().last());
        if of(running) != of(disk) {
            return Err(format!("durability: a server votes by {:?}, and its disk has {:?}", of(running), of(disk)));
        }
        Ok(())
    }
}
