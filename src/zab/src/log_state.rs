//! The result of a log's writes: epochs and history.
//!
//! [`LogState::apply`] is the only function that applies a write. Recovery feeds it the writes on disk, a running
//! server the writes it is about to persist, so both arrive at the same state.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{Blob, Epoch, Zxid};

/// A transaction: a command and its position in the order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Txn {
    /// The position.
    pub zxid: Zxid,
    /// The command, opaque to this crate.
    pub payload: Bytes,
}

/// A write to a log. A synchronisation is atomic: everything after `SyncBegin` takes effect with its `EpochInstalled`,
/// and is discarded without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Write {
    /// Sets acceptedEpoch: the server follows no leader of an earlier epoch.
    AcceptEpoch(Epoch),
    /// Starts to adopt the history of this epoch's leader.
    SyncBegin(Epoch),
    /// Removes all transactions after this one, which exists.
    Truncate(Zxid),
    /// Replaces the whole history by a snapshot.
    Install {
        /// The last transaction in the snapshot.
        zxid: Zxid,
        /// The snapshot.
        blob: Blob,
    },
    /// Appends transactions.
    Append {
        /// The zxid before them.
        after: Zxid,
        /// The transactions.
        txns: Vec<Txn>,
    },
    /// Completes the synchronisation and sets currentEpoch.
    EpochInstalled(Epoch),
    /// Everything that was acknowledged before the log was lost is recovered ([`LogState::for_returning`]).
    Returned,
}

/// Why a write is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidWrite {
    /// The epoch is not higher than acceptedEpoch.
    #[error("epoch {0} is not higher than acceptedEpoch")]
    EpochNotNew(Epoch),
    /// The epoch is not the accepted one, or not the one being synchronised.
    #[error("epoch {0} was not accepted")]
    EpochNotAccepted(Epoch),
    /// The write is only valid within a synchronisation.
    #[error("no synchronisation is open")]
    NoSync,
    /// No log was lost.
    #[error("no log was lost")]
    NotReturning,
    /// The transaction to truncate to does not exist.
    #[error("transaction {0} does not exist")]
    NoSuchTxn(Zxid),
    /// A transaction does not follow the last one.
    #[error("transaction {next} cannot follow {last}")]
    Gap {
        /// The end of the history.
        last: Zxid,
        /// The transaction that was to follow it.
        next: Zxid,
    },
}

/// Consecutive transactions. Those up to a floor have been discarded.
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

    /// The last discarded transaction; later ones are in memory.
    #[must_use]
    pub fn floor(&self) -> Zxid {
        self.floor
    }

    /// The last transaction in the latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Zxid {
        self.snapshot
    }

    /// The last transaction (or the floor) at or before `zxid`; `None` below the floor.
    #[must_use]
    pub fn last_at_or_before(&self, zxid: Zxid) -> Option<Zxid> {
        if zxid < self.floor {
            return None;
        }
        match self.count_through(zxid) {
            0 => Some(self.floor),
            behind => Some(self.txns[behind - 1].zxid),
        }
    }

    /// Whether the transaction is in memory or is the floor.
    #[must_use]
    pub fn contains(&self, zxid: Zxid) -> bool {
        self.last_at_or_before(zxid) == Some(zxid)
    }

    /// The transactions after `after`, through `through`.
    pub fn between(&self, after: Zxid, through: Zxid) -> impl Iterator<Item = &Txn> {
        let (start, end) = (self.count_through(after), self.count_through(through));
        self.txns.range(start.min(end)..end)
    }

    /// The number of transactions after `zxid`; `None` if some are no longer in memory and belong to another epoch.
    #[must_use]
    pub fn count_after(&self, zxid: Zxid) -> Option<usize> {
        let last = self.last();
        if zxid >= self.floor {
            Some(self.txns.len() - self.count_through(zxid))
        } else if zxid.epoch == last.epoch {
            usize::try_from(last.counter - zxid.counter).ok()
        } else {
            None
        }
    }

    /// The number of transactions in memory at or before `zxid`.
    fn count_through(&self, zxid: Zxid) -> usize {
        self.txns.partition_point(|txn| txn.zxid <= zxid)
    }

    fn truncate(&mut self, zxid: Zxid) -> Result<(), InvalidWrite> {
        if zxid < self.floor && self.snapshot < self.floor {
            // During recovery, a snapshot that is read later covers what was purged.
            self.floor = zxid;
            self.txns.clear();
            return Ok(());
        }
        if !self.contains(zxid) || zxid < self.snapshot {
            return Err(InvalidWrite::NoSuchTxn(zxid));
        }
        self.txns.truncate(self.count_through(zxid));
        Ok(())
    }

    fn append(&mut self, after: Zxid, txns: &[Txn]) -> Result<(), InvalidWrite> {
        let mut last = self.last();
        if last != after {
            return Err(InvalidWrite::Gap { last, next: txns.first().map_or(after, |txn| txn.zxid) });
        }
        for txn in txns {
            if !txn.zxid.follows(last) {
                return Err(InvalidWrite::Gap { last, next: txn.zxid });
            }
            last = txn.zxid;
        }
        self.txns.extend(txns.iter().cloned());
        Ok(())
    }
}

/// A history under synchronisation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sync {
    epoch: Epoch,
    history: History,
}

/// The result of a log's writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LogState {
    accepted: Epoch,
    current: Epoch,
    history: History,
    sync: Option<Sync>,
    returning: Option<u64>,
}

impl LogState {
    /// The state of a log whose beginning was purged. It is complete once a snapshot covers the purged part
    /// ([`LogState::snapshot_taken`]).
    #[must_use]
    pub fn starting_after(accepted: Epoch, current: Epoch, last: Zxid, returning: Option<u64>) -> Self {
        let history = History { floor: last, snapshot: Zxid::ZERO, txns: VecDeque::new() };
        Self { accepted, current, history, sync: None, returning }
    }

    /// The state of a new log that replaces a lost one. What the server accepted and acknowledged before is unknown.
    /// `number` identifies the log; each replacement has its own.
    #[must_use]
    pub fn for_returning(number: u64) -> Self {
        Self { returning: Some(number), ..Self::default() }
    }

    /// acceptedEpoch: the highest accepted epoch.
    #[must_use]
    pub fn accepted_epoch(&self) -> Epoch {
        self.accepted
    }

    /// currentEpoch: the epoch of the history.
    #[must_use]
    pub fn current_epoch(&self) -> Epoch {
        self.current
    }

    /// The history, without the effects of an open synchronisation.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The end of the history that is appended to; of the open synchronisation, if any.
    #[must_use]
    pub fn end(&self) -> Zxid {
        self.sync.as_ref().map_or(self.history.last(), |sync| sync.history.last())
    }

    /// Whether a synchronisation is open.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }

    /// The id of the log if it replaces a lost one and the server has not yet recovered everything it may have
    /// acknowledged. The server must not vote then.
    #[must_use]
    pub fn returning(&self) -> Option<u64> {
        self.returning
    }

    /// Applies a write.
    ///
    /// # Errors
    /// The reason why the write is invalid; the state is unchanged.
    pub fn apply(&mut self, write: &Write) -> Result<(), InvalidWrite> {
        match write {
            Write::AcceptEpoch(epoch) if *epoch <= self.accepted => return Err(InvalidWrite::EpochNotNew(*epoch)),
            Write::AcceptEpoch(epoch) => {
                self.sync = None;
                self.accepted = *epoch;
            }
            Write::SyncBegin(epoch) if *epoch != self.accepted => return Err(InvalidWrite::EpochNotAccepted(*epoch)),
            Write::SyncBegin(epoch) => self.sync = Some(Sync { epoch: *epoch, history: self.history.clone() }),
            Write::Truncate(zxid) => self.open()?.history.truncate(*zxid)?,
            Write::Install { zxid, .. } if zxid.epoch > self.open()?.epoch => {
                return Err(InvalidWrite::EpochNotAccepted(zxid.epoch));
            }
            Write::Install { zxid, .. } => {
                self.open()?.history = History { floor: *zxid, snapshot: *zxid, txns: VecDeque::new() };
            }
            Write::Append { after, txns } => match &mut self.sync {
                Some(sync) => {
                    // Transactions of a later epoch would outrank the history of every later leader.
                    if let Some(later) = txns.iter().find(|txn| txn.zxid.epoch > sync.epoch) {
                        return Err(InvalidWrite::EpochNotAccepted(later.zxid.epoch));
                    }
                    sync.history.append(*after, txns)?;
                }
                None => {
                    // Outside of a synchronisation, only proposals of the current epoch arrive.
                    if let Some(foreign) = txns.iter().find(|txn| txn.zxid.epoch != self.current) {
                        return Err(InvalidWrite::Gap { last: self.history.last(), next: foreign.zxid });
                    }
                    self.history.append(*after, txns)?;
                }
            },
            Write::EpochInstalled(epoch) => {
                if self.open()?.epoch != *epoch {
                    return Err(InvalidWrite::EpochNotAccepted(*epoch));
                }
                if let Some(sync) = self.sync.take() {
                    self.history = sync.history;
                    self.current = *epoch;
                }
            }
            Write::Returned if self.returning.is_none() => return Err(InvalidWrite::NotReturning),
            Write::Returned => self.returning = None,
        }
        Ok(())
    }

    fn open(&mut self) -> Result<&mut Sync, InvalidWrite> {
        self.sync.as_mut().ok_or(InvalidWrite::NoSync)
    }

    /// Discards an incomplete synchronisation.
    pub fn abandon_sync(&mut self) {
        self.sync = None;
    }

    /// An injected bug: keeps a partial synchronisation as the history.
    pub(crate) fn keep_sync(&mut self) {
        if let Some(sync) = self.sync.take() {
            self.history = sync.history;
        }
    }

    /// Records that a snapshot is durable, and discards the transactions it covers except the last `retained`, of at
    /// most `bytes` in total.
    pub fn snapshot_taken(&mut self, zxid: Zxid, retained: usize, bytes: usize) {
        if zxid <= self.history.snapshot || !self.history.contains(zxid) {
            return;
        }
        self.history.snapshot = zxid;
        let mut left = bytes;
        let inside = self.history.txns.iter().take(self.history.count_through(zxid)).rev().take(retained);
        let kept = inside.take_while(|txn| {
            let fits = txn.payload.len() <= left;
            left = left.saturating_sub(txn.payload.len());
            fits
        });
        let excess = self.history.count_through(zxid) - kept.count();
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

    /// The state after epoch 1 and three transactions.
    fn log_state() -> LogState {
        let mut log_state = LogState::default();
        let append = Write::Append { after: Zxid::ZERO, txns: txns(&[(1, 1), (1, 2), (1, 3)]) };
        for write in [Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1)), append]
        {
            log_state.apply(&write).expect("a valid write");
        }
        log_state
    }

    #[test]
    fn a_synchronisation_takes_effect_once_it_is_complete() {
        let mut log_state = log_state();
        let before = log_state.clone();
        let writes = [
            Write::AcceptEpoch(Epoch(3)),
            Write::SyncBegin(Epoch(3)),
            Write::Truncate(zxid(1, 2)),
            Write::Append { after: zxid(1, 2), txns: txns(&[(2, 1)]) },
        ];
        for write in &writes {
            log_state.apply(write).expect("a valid write");
        }
        assert_eq!((log_state.history(), log_state.current_epoch()), (before.history(), Epoch(1)));
        assert_eq!(log_state.end(), zxid(2, 1));
        log_state.apply(&Write::EpochInstalled(Epoch(3))).expect("a complete synchronisation");
        assert_eq!((log_state.history().last(), log_state.current_epoch()), (zxid(2, 1), Epoch(3)));
        assert!(!log_state.history().contains(zxid(1, 3)));
    }

    #[test]
    fn gaps_unknown_truncation_points_and_old_epochs_are_rejected() {
        let gap = |last, next| Err(InvalidWrite::Gap { last, next });
        let cases = [
            (Write::Append { after: zxid(1, 3), txns: txns(&[(1, 5)]) }, gap(zxid(1, 3), zxid(1, 5))),
            (Write::Append { after: zxid(1, 2), txns: txns(&[(1, 4)]) }, gap(zxid(1, 3), zxid(1, 4))),
            (Write::Append { after: zxid(1, 3), txns: txns(&[(2, 1)]) }, gap(zxid(1, 3), zxid(2, 1))),
            (Write::AcceptEpoch(Epoch(1)), Err(InvalidWrite::EpochNotNew(Epoch(1)))),
            (Write::SyncBegin(Epoch(2)), Err(InvalidWrite::EpochNotAccepted(Epoch(2)))),
            (Write::Truncate(zxid(1, 1)), Err(InvalidWrite::NoSync)),
            (Write::EpochInstalled(Epoch(1)), Err(InvalidWrite::NoSync)),
        ];
        for (write, expected) in cases {
            let mut changed = log_state();
            assert_eq!(changed.apply(&write), expected, "{write:?}");
            assert_eq!(changed, log_state(), "{write:?} changed something");
        }
        let mut syncing = log_state();
        syncing.apply(&Write::SyncBegin(Epoch(1))).expect("the same epoch again");
        assert_eq!(syncing.apply(&Write::Truncate(zxid(1, 9))), Err(InvalidWrite::NoSuchTxn(zxid(1, 9))));
    }

    #[test]
    fn a_snapshot_keeps_the_last_transactions_in_memory() {
        let mut log_state = log_state();
        log_state.snapshot_taken(zxid(1, 2), 1, 0);
        let history = log_state.history();
        assert_eq!((history.floor(), history.snapshot(), history.last()), (zxid(1, 1), zxid(1, 2), zxid(1, 3)));
        assert_eq!(history.last_at_or_before(zxid(1, 9)), Some(zxid(1, 3)));
        assert_eq!(history.last_at_or_before(zxid(0, 9)), None);
        assert_eq!(history.between(zxid(1, 1), zxid(1, 2)).count(), 1);
    }
}
