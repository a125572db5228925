//! What a log says: epochs and history, as its writes, one after another, make them.
//!
//! There is one function that applies a write, [`Ledger::apply`]. A recovery feeds it what a disk holds, a running server what it
//! is about to write, so that both come to the same.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{Blob, Epoch, Zxid};

/// A transaction: a command, and its place in the order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Txn {
    /// Its name and place.
    pub zxid: Zxid,
    /// What it says; nobody here looks inside.
    pub payload: Bytes,
}

/// One write to a log. A synchronisation is a transaction of the log: what stands behind a `SyncBegin` counts once its
/// `EpochInstalled` is there, and never did where that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Write {
    /// The server follows no leader of an earlier epoch any more (acceptedEpoch).
    AcceptEpoch(Epoch),
    /// The history becomes that of this epoch's leader.
    SyncBegin(Epoch),
    /// Nothing stands behind this transaction, which is there.
    Truncate(Zxid),
    /// A snapshot takes the place of all history.
    Install {
        /// The last transaction that is in it.
        zxid: Zxid,
        /// The snapshot.
        blob: Blob,
    },
    /// Transactions behind the last one.
    Append {
        /// The last one before them.
        after: Zxid,
        /// They.
        txns: Vec<Txn>,
    },
    /// The synchronisation is whole: the history is that of this epoch (currentEpoch).
    EpochInstalled(Epoch),
    /// All that was acknowledged before the log was lost is here again ([`Ledger::in_place_of_lost`]).
    Returned,
}

/// A write that cannot stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Inconsistent {
    /// An epoch is not later than the one that was accepted.
    #[error("epoch {0} was accepted before")]
    EpochNotNew(Epoch),
    /// A synchronisation or its end is of another epoch than the one that was accepted or begun.
    #[error("epoch {0} was not accepted")]
    EpochNotAccepted(Epoch),
    /// A truncation or its like stands outside of a synchronisation.
    #[error("no synchronisation was begun")]
    NoSync,
    /// No log was lost.
    #[error("no log was lost")]
    NotReturning,
    /// There is no such transaction to truncate behind.
    #[error("there is no transaction {0}")]
    NoSuchTxn(Zxid),
    /// A transaction does not stand right behind the last one.
    #[error("transaction {next} cannot stand behind {last}")]
    Gap {
        /// The end of the history.
        last: Zxid,
        /// What was to stand behind it.
        next: Zxid,
    },
}

/// Transactions in order, behind a point before which they are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct History {
    floor: Zxid,
    snapshot: Zxid,
    txns: VecDeque<Txn>,
}

impl History {
    /// The last transaction.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.txns.back().map_or(self.floor, |txn| txn.zxid)
    }

    /// The point behind which transactions are here.
    #[must_use]
    pub fn floor(&self) -> Zxid {
        self.floor
    }

    /// The last transaction that is in the latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Zxid {
        self.snapshot
    }

    /// The last point at or before `zxid`; nothing where that is before the floor.
    #[must_use]
    pub fn point_before(&self, zxid: Zxid) -> Option<Zxid> {
        if zxid < self.floor {
            return None;
        }
        match self.behind(zxid) {
            0 => Some(self.floor),
            behind => Some(self.txns[behind - 1].zxid),
        }
    }

    /// Whether the transaction, or the floor, is here.
    #[must_use]
    pub fn has(&self, zxid: Zxid) -> bool {
        self.point_before(zxid) == Some(zxid)
    }

    /// The transactions behind a point, up to another and with it.
    pub fn between(&self, after: Zxid, through: Zxid) -> impl Iterator<Item = &Txn> {
        let (start, end) = (self.behind(after), self.behind(through));
        self.txns.range(start.min(end)..end)
    }

    /// How many transactions stand behind the point; nothing where not all of them are here, and they are not of one epoch.
    #[must_use]
    pub fn count_after(&self, zxid: Zxid) -> Option<usize> {
        let last = self.last();
        if zxid >= self.floor {
            Some(self.txns.len() - self.behind(zxid))
        } else if zxid.epoch == last.epoch {
            usize::try_from(last.counter - zxid.counter).ok()
        } else {
            None
        }
    }

    /// How many transactions are at or before the point.
    fn behind(&self, zxid: Zxid) -> usize {
        self.txns.partition_point(|txn| txn.zxid <= zxid)
    }

    fn truncate(&mut self, zxid: Zxid) -> Result<(), Inconsistent> {
        if zxid < self.floor && self.snapshot < self.floor {
            // What a later snapshot has, and is not there.
            self.floor = zxid;
            self.txns.clear();
            return Ok(());
        }
        if !self.has(zxid) || zxid < self.snapshot {
            return Err(Inconsistent::NoSuchTxn(zxid));
        }
        self.txns.truncate(self.behind(zxid));
        Ok(())
    }

    fn append(&mut self, after: Zxid, txns: &[Txn]) -> Result<(), Inconsistent> {
        let mut last = self.last();
        if last != after {
            return Err(Inconsistent::Gap { last, next: txns.first().map_or(after, |txn| txn.zxid) });
        }
        for txn in txns {
            if !txn.zxid.follows(last) {
                return Err(Inconsistent::Gap { last, next: txn.zxid });
            }
            last = txn.zxid;
        }
        self.txns.extend(txns.iter().cloned());
        Ok(())
    }
}

/// A history that a synchronisation is making.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sync {
    epoch: Epoch,
    history: History,
}

/// What the writes of a log come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    accepted: Epoch,
    current: Epoch,
    history: History,
    sync: Option<Sync>,
    returning: Option<u64>,
}

impl Ledger {
    /// A ledger that begins behind transactions that are not there, as a log does whose beginning was thrown away. It is whole once a
    /// snapshot has what is missing ([`Ledger::snapshot_taken`]).
    #[must_use]
    pub fn of_rest(accepted: Epoch, current: Epoch, last: Zxid, returning: Option<u64>) -> Self {
        let history = History { floor: last, snapshot: Zxid::ZERO, txns: VecDeque::new() };
        Self { accepted, current, history, sync: None, returning }
    }

    /// A ledger in the place of one that was lost: what was promised and acknowledged before is not known. Each such one has a number that no
    /// other of the server has.
    #[must_use]
    pub fn in_place_of_lost(number: u64) -> Self {
        Self { returning: Some(number), ..Self::default() }
    }

    /// The highest epoch that was promised.
    #[must_use]
    pub fn accepted(&self) -> Epoch {
        self.accepted
    }

    /// The epoch whose history this is.
    #[must_use]
    pub fn current(&self) -> Epoch {
        self.current
    }

    /// The history, without what a synchronisation that is not whole would make of it.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The end of the history that writes go to: of a synchronisation, where one is open.
    #[must_use]
    pub fn end(&self) -> Zxid {
        self.sync.as_ref().map_or(self.history.last(), |sync| sync.history.last())
    }

    /// Whether a synchronisation is open.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }

    /// The number of the log, where it has the place of one that was lost, and not all that was acknowledged is here again: the server must not
    /// vote then.
    #[must_use]
    pub fn returning(&self) -> Option<u64> {
        self.returning
    }

    /// Does what a write says.
    ///
    /// # Errors
    /// What makes the write impossible here; nothing is changed then.
    pub fn apply(&mut self, write: &Write) -> Result<(), Inconsistent> {
        match write {
            Write::AcceptEpoch(epoch) if *epoch <= self.accepted => return Err(Inconsistent::EpochNotNew(*epoch)),
            Write::AcceptEpoch(epoch) => {
                self.sync = None;
                self.accepted = *epoch;
            }
            Write::SyncBegin(epoch) if *epoch != self.accepted => return Err(Inconsistent::EpochNotAccepted(*epoch)),
            Write::SyncBegin(epoch) => self.sync = Some(Sync { epoch: *epoch, history: self.history.clone() }),
            Write::Truncate(zxid) => self.open()?.history.truncate(*zxid)?,
            Write::Install { zxid, .. } if zxid.epoch > self.open()?.epoch => {
                return Err(Inconsistent::EpochNotAccepted(zxid.epoch));
            }
            Write::Install { zxid, .. } => {
                self.open()?.history = History { floor: *zxid, snapshot: *zxid, txns: VecDeque::new() };
            }
            Write::Append { after, txns } => match &mut self.sync {
                Some(sync) => {
                    // Transactions of a later epoch would outrank every later leader's history.
                    if let Some(later) = txns.iter().find(|txn| txn.zxid.epoch > sync.epoch) {
                        return Err(Inconsistent::EpochNotAccepted(later.zxid.epoch));
                    }
                    sync.history.append(*after, txns)?;
                }
                None => {
                    // Outside of a synchronisation there are only proposals of the epoch.
                    if let Some(foreign) = txns.iter().find(|txn| txn.zxid.epoch != self.current) {
                        return Err(Inconsistent::Gap { last: self.history.last(), next: foreign.zxid });
                    }
                    self.history.append(*after, txns)?;
                }
            },
            Write::EpochInstalled(epoch) => {
                if self.open()?.epoch != *epoch {
                    return Err(Inconsistent::EpochNotAccepted(*epoch));
                }
                if let Some(sync) = self.sync.take() {
                    self.history = sync.history;
                    self.current = *epoch;
                }
            }
            Write::Returned if self.returning.is_none() => return Err(Inconsistent::NotReturning),
            Write::Returned => self.returning = None,
        }
        Ok(())
    }

    fn open(&mut self) -> Result<&mut Sync, Inconsistent> {
        self.sync.as_mut().ok_or(Inconsistent::NoSync)
    }

    /// Forgets a synchronisation that will not become whole.
    pub fn abandon_sync(&mut self) {
        self.sync = None;
    }

    /// What must not be: half a synchronisation in the place of the history.
    pub(crate) fn keep_sync(&mut self) {
        if let Some(sync) = self.sync.take() {
            self.history = sync.history;
        }
    }

    /// Notes that a snapshot is durable, and forgets transactions that are in it but for the last `retained` of them, of no more than
    /// `bytes` together.
    pub fn snapshot_taken(&mut self, zxid: Zxid, retained: usize, bytes: usize) {
        if zxid <= self.history.snapshot || !self.history.has(zxid) {
            return;
        }
        self.history.snapshot = zxid;
        let mut left = bytes;
        let inside = self.history.txns.iter().take(self.history.behind(zxid)).rev().take(retained);
        let kept = inside.take_while(|txn| {
            let fits = txn.payload.len() <= left;
            left = left.saturating_sub(txn.payload.len());
            fits
        });
        let excess = self.history.behind(zxid) - kept.count();
        for txn in self.history.txns.drain(..excess) {
            self.history.floor = txn.zxid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn txns(names: &[(u32, u32)]) -> Vec<Txn> {
        names.iter().map(|(epoch, counter)| Txn { zxid: zxid(*epoch, *counter), payload: Bytes::new() }).collect()
    }

    /// A ledger of epoch 1 with three transactions.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let append = Write::Append { after: Zxid::ZERO, txns: txns(&[(1, 1), (1, 2), (1, 3)]) };
        for write in [Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1)), append]
        {
            ledger.apply(&write).expect("it stands where it may");
        }
        ledger
    }

    #[test]
    fn a_synchronisation_counts_once_it_is_whole() {
        let mut ledger = ledger();
        let before = ledger.clone();
        let writes = [
            Write::AcceptEpoch(Epoch(3)),
            Write::SyncBegin(Epoch(3)),
            Write::Truncate(zxid(1, 2)),
            Write::Append { after: zxid(1, 2), txns: txns(&[(2, 1)]) },
        ];
        for write in &writes {
            ledger.apply(write).expect("it stands where it may");
        }
        assert_eq!((ledger.history(), ledger.current()), (before.history(), Epoch(1)));
        assert_eq!(ledger.end(), zxid(2, 1));
        ledger.apply(&Write::EpochInstalled(Epoch(3))).expect("whole");
        assert_eq!((ledger.history().last(), ledger.current()), (zxid(2, 1), Epoch(3)));
        assert!(!ledger.history().has(zxid(1, 3)));
    }

    #[test]
    fn a_gap_a_foreign_point_and_an_old_epoch_are_refused() {
        let gap = |last, next| Err(Inconsistent::Gap { last, next });
        let cases = [
            (Write::Append { after: zxid(1, 3), txns: txns(&[(1, 5)]) }, gap(zxid(1, 3), zxid(1, 5))),
            (Write::Append { after: zxid(1, 2), txns: txns(&[(1, 4)]) }, gap(zxid(1, 3), zxid(1, 4))),
            (Write::Append { after: zxid(1, 3), txns: txns(&[(2, 1)]) }, gap(zxid(1, 3), zxid(2, 1))),
            (Write::AcceptEpoch(Epoch(1)), Err(Inconsistent::EpochNotNew(Epoch(1)))),
            (Write::SyncBegin(Epoch(2)), Err(Inconsistent::EpochNotAccepted(Epoch(2)))),
            (Write::Truncate(zxid(1, 1)), Err(Inconsistent::NoSync)),
            (Write::EpochInstalled(Epoch(1)), Err(Inconsistent::NoSync)),
        ];
        for (write, expected) in cases {
            let mut changed = ledger();
            assert_eq!(changed.apply(&write), expected, "{write:?}");
            assert_eq!(changed, ledger(), "{write:?} changed something");
        }
        let mut syncing = ledger();
        syncing.apply(&Write::SyncBegin(Epoch(1))).expect("the same epoch again");
        assert_eq!(syncing.apply(&Write::Truncate(zxid(1, 9))), Err(Inconsistent::NoSuchTxn(zxid(1, 9))));
    }

    #[test]
    fn a_snapshot_leaves_the_last_transactions_in_memory() {
        let mut ledger = ledger();
        ledger.snapshot_taken(zxid(1, 2), 1, 0);
        let history = ledger.history();
        assert_eq!((history.floor(), history.snapshot(), history.last()), (zxid(1, 1), zxid(1, 2), zxid(1, 3)));
        assert_eq!(history.point_before(zxid(1, 9)), Some(zxid(1, 3)));
        assert_eq!(history.point_before(zxid(0, 9)), None);
        assert_eq!(history.between(zxid(1, 1), zxid(1, 2)).count(), 1);
    }
}
