//! The result of a log's writes: epochs and history.
//!
//! [`LogState::apply`] is the only function that applies a write. Recovery feeds it the writes on disk, a running
//! server the writes it is about to persist, so both arrive at the same state.

use std::sync::Arc;

use crate::{Blob, Epoch, History, Membership, Payload, Point, Summary, Txn, Zxid};

/// A write to a log. A synchronisation is atomic: everything after `SyncBegin` takes effect with its `EpochInstalled`,
/// and is discarded without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Write {
    /// Sets the first membership, of a log without one and without transactions. Discards an open synchronisation.
    Form(Arc<Membership>),
    /// Sets acceptedEpoch: the server follows no leader of an earlier epoch.
    AcceptEpoch(Epoch),
    /// Starts to adopt the history of this epoch's leader.
    SyncBegin(Epoch),
    /// Removes all transactions after this point, which exists.
    Truncate(Point),
    /// Replaces the whole history by a snapshot.
    Install {
        /// The transactions in the snapshot.
        summary: Summary,
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
    /// There is a membership, or there are transactions.
    #[error("the log already belongs to a cluster")]
    AlreadyFormed,
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
    /// The history through this transaction differs from the one that the write belongs to.
    #[error("the history through {after} is another one")]
    OtherHistory {
        /// The last transaction that both have.
        after: Zxid,
    },
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
}

impl LogState {
    /// The state of a log whose beginning was purged, through this point. It is complete once a snapshot covers the
    /// purged part ([`LogState::snapshot_recovered`]).
    #[must_use]
    pub fn starting_after(accepted: Epoch, current: Epoch, last: Point) -> Self {
        let history = History::after(Summary { point: last, membership: None }, Zxid::ZERO);
        Self { accepted, current, history, sync: None }
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
    pub fn end(&self) -> Point {
        self.sync.as_ref().map_or(self.history.end(), |sync| sync.history.end())
    }

    /// Whether a synchronisation is open.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }

    /// The membership that is in effect, without the effects of an open synchronisation.
    #[must_use]
    pub fn membership(&self) -> Option<&Arc<Membership>> {
        self.history.membership()
    }

    /// Applies a write.
    ///
    /// # Errors
    /// The reason why the write is invalid; the state is unchanged.
    pub fn apply(&mut self, write: &Write) -> Result<(), InvalidWrite> {
        match write {
            Write::Form(membership) => {
                self.history.form(Arc::clone(membership))?;
                self.sync = None;
            }
            Write::AcceptEpoch(epoch) if *epoch <= self.accepted => return Err(InvalidWrite::EpochNotNew(*epoch)),
            Write::AcceptEpoch(epoch) => {
                self.sync = None;
                self.accepted = *epoch;
            }
            Write::SyncBegin(epoch) if *epoch != self.accepted => return Err(InvalidWrite::EpochNotAccepted(*epoch)),
            Write::SyncBegin(epoch) => self.sync = Some(Sync { epoch: *epoch, history: self.history.clone() }),
            Write::Truncate(point) => self.open()?.history.truncate(*point)?,
            Write::Install { summary, .. } if summary.point.zxid.epoch > self.open()?.epoch => {
                return Err(InvalidWrite::EpochNotAccepted(summary.point.zxid.epoch));
            }
            Write::Install { summary, .. } => {
                self.open()?.history = History::after(summary.clone(), summary.point.zxid);
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
        }
        Ok(())
    }

    /// Appends a transaction of the current epoch, outside of a synchronisation, and returns it. It is what
    /// [`Write::Append`] does, without the check of a hash that was just computed.
    pub(crate) fn append_next(&mut self, zxid: Zxid, time: u64, payload: Payload) -> Result<Txn, InvalidWrite> {
        if self.sync.is_some() || zxid.epoch != self.current {
            return Err(InvalidWrite::Gap { last: self.end().zxid, next: zxid });
        }
        self.history.append_next(zxid, time, payload)
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
        self.history.snapshot_taken(zxid, retained, bytes);
    }

    /// Records a snapshot that was found on disk, which completes a log whose beginning was purged. Returns false if the
    /// snapshot is not of this history.
    #[must_use]
    pub fn snapshot_recovered(&mut self, summary: &Summary) -> bool {
        self.history.recover(summary)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{LogId, ServerId};

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    /// Transactions that follow a point, at these positions.
    fn txns(mut after: Point, names: &[(u32, u32)]) -> Vec<Txn> {
        let mut made = Vec::new();
        for (epoch, counter) in names {
            made.push(after.next(zxid(*epoch, *counter), 5, Payload::Command(Bytes::from_static(b"x"))));
            after = made[made.len() - 1].point();
        }
        made
    }

    /// The state after epoch 1 and three transactions.
    fn log_state() -> LogState {
        let mut log_state = LogState::default();
        let append = Write::Append { after: Zxid::ZERO, txns: txns(Point::default(), &[(1, 1), (1, 2), (1, 3)]) };
        for write in [Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1)), append]
        {
            log_state.apply(&write).expect("a valid write");
        }
        log_state
    }

    fn point(log_state: &LogState, epoch: u32, counter: u32) -> Point {
        log_state.history().point_at(zxid(epoch, counter)).expect("it exists")
    }

    #[test]
    fn a_synchronisation_takes_effect_once_it_is_complete() {
        let mut log_state = log_state();
        let before = log_state.clone();
        let to = point(&log_state, 1, 2);
        let writes = [
            Write::AcceptEpoch(Epoch(3)),
            Write::SyncBegin(Epoch(3)),
            Write::Truncate(to),
            Write::Append { after: zxid(1, 2), txns: txns(to, &[(2, 1)]) },
        ];
        for write in &writes {
            log_state.apply(write).expect("a valid write");
        }
        assert_eq!((log_state.history(), log_state.current_epoch()), (before.history(), Epoch(1)));
        assert_eq!(log_state.end().zxid, zxid(2, 1));
        log_state.apply(&Write::EpochInstalled(Epoch(3))).expect("a complete synchronisation");
        assert_eq!((log_state.history().last(), log_state.current_epoch()), (zxid(2, 1), Epoch(3)));
        assert!(!log_state.history().contains(zxid(1, 3)));
    }

    #[test]
    fn gaps_unknown_truncation_points_and_old_epochs_are_rejected() {
        let gap = |last, next| Err(InvalidWrite::Gap { last, next });
        let end = point(&log_state(), 1, 3);
        let other = Point { hash: end.hash ^ 1, ..end };
        let cases = [
            (Write::Append { after: zxid(1, 3), txns: txns(end, &[(1, 5)]) }, gap(zxid(1, 3), zxid(1, 5))),
            (Write::Append { after: zxid(1, 2), txns: txns(end, &[(1, 4)]) }, gap(zxid(1, 3), zxid(1, 4))),
            (Write::Append { after: zxid(1, 3), txns: txns(end, &[(2, 1)]) }, gap(zxid(1, 3), zxid(2, 1))),
            (
                Write::Append { after: zxid(1, 3), txns: txns(other, &[(1, 4)]) },
                Err(InvalidWrite::OtherHistory { after: zxid(1, 3) }),
            ),
            (Write::AcceptEpoch(Epoch(1)), Err(InvalidWrite::EpochNotNew(Epoch(1)))),
            (Write::SyncBegin(Epoch(2)), Err(InvalidWrite::EpochNotAccepted(Epoch(2)))),
            (Write::Truncate(end), Err(InvalidWrite::NoSync)),
            (Write::EpochInstalled(Epoch(1)), Err(InvalidWrite::NoSync)),
        ];
        for (write, expected) in cases {
            let mut changed = log_state();
            assert_eq!(changed.apply(&write), expected, "{write:?}");
            assert_eq!(changed, log_state(), "{write:?} changed something");
        }
        let mut syncing = log_state();
        syncing.apply(&Write::SyncBegin(Epoch(1))).expect("the same epoch again");
        let unknown = Point { zxid: zxid(1, 9), ..end };
        assert_eq!(syncing.apply(&Write::Truncate(unknown)), Err(InvalidWrite::NoSuchTxn(zxid(1, 9))));
        let other = Write::Truncate(Point { hash: 1, ..point(&log_state(), 1, 2) });
        assert_eq!(syncing.apply(&other), Err(InvalidWrite::OtherHistory { after: zxid(1, 2) }));
    }

    #[test]
    fn a_snapshot_keeps_the_last_transactions_in_memory() {
        let mut log_state = log_state();
        log_state.snapshot_taken(zxid(1, 2), 1, 1);
        let history = log_state.history();
        assert_eq!((history.floor(), history.snapshot(), history.last()), (zxid(1, 1), zxid(1, 2), zxid(1, 3)));
        assert_eq!(history.last_at_or_before(zxid(1, 9)).map(|point| point.zxid), Some(zxid(1, 3)));
        assert_eq!(history.last_at_or_before(zxid(0, 9)), None);
        assert_eq!(history.between(zxid(1, 1), zxid(1, 2)).count(), 1);
    }

    #[test]
    fn the_membership_is_that_of_the_last_transaction() {
        let first = Arc::new(Membership::first([(ServerId(1), LogId(7))].into()));
        let second = Arc::new(first.with(ServerId(2), LogId(8)));
        let mut log_state = LogState::default();
        log_state.apply(&Write::Form(Arc::clone(&first))).expect("a new log");
        assert_eq!(log_state.apply(&Write::Form(Arc::clone(&second))), Err(InvalidWrite::AlreadyFormed));
        let changed = Point::default().next(zxid(1, 1), 0, Payload::Membership(Arc::clone(&second)));
        let next = changed.point().next(zxid(1, 2), 0, Payload::Command(Bytes::new()));
        let writes = [
            Write::AcceptEpoch(Epoch(1)),
            Write::SyncBegin(Epoch(1)),
            Write::EpochInstalled(Epoch(1)),
            Write::Append { after: Zxid::ZERO, txns: vec![changed.clone(), next] },
        ];
        for write in &writes {
            log_state.apply(write).expect("a valid write");
        }
        assert_eq!((log_state.membership(), log_state.history().membership_zxid()), (Some(&second), zxid(1, 1)));
        let membership_at =
            |log_state: &LogState, zxid| log_state.history().summary_at(zxid).expect("known").membership;
        assert_eq!(membership_at(&log_state, Zxid::ZERO), Some(Arc::clone(&first)));
        // A truncation takes the membership back; a snapshot keeps it.
        let mut truncated = log_state.clone();
        for write in [Write::SyncBegin(Epoch(1)), Write::Truncate(Point::default()), Write::EpochInstalled(Epoch(1))] {
            truncated.apply(&write).expect("a valid write");
        }
        assert_eq!(truncated.membership(), Some(&first));
        log_state.snapshot_taken(zxid(1, 2), 0, 0);
        assert_eq!((log_state.membership(), log_state.history().floor()), (Some(&second), zxid(1, 2)));
    }

    #[test]
    fn a_sample_finds_the_first_difference() {
        let history = log_state().history().clone();
        let zxids: Vec<_> = history.sample(8).into_iter().map(|point| point.zxid).collect();
        assert_eq!(zxids, [Zxid::ZERO, zxid(1, 1), zxid(1, 2), zxid(1, 3)]);
        assert_eq!(history.sample(2).len(), 2);
    }
}
