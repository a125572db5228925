//! Consecutive transactions.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{InvalidWrite, Membership, Payload, Point, Summary, Txn, Zxid};

/// Consecutive transactions. Those up to a floor have been discarded; a summary of them remains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct History {
    floor: Summary,
    snapshot: Zxid,
    txns: VecDeque<Txn>,
    /// The memberships among the transactions in memory.
    memberships: VecDeque<(Zxid, Arc<Membership>)>,
}

impl History {
    /// A history whose transactions are all discarded.
    pub(crate) fn after(floor: Summary, snapshot: Zxid) -> Self {
        Self { floor, snapshot, txns: VecDeque::new(), memberships: VecDeque::new() }
    }

    /// The last transaction.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.txns.back().map_or(self.floor.point.zxid, |txn| txn.zxid)
    }

    /// The point after the last transaction.
    #[must_use]
    pub fn end(&self) -> Point {
        self.txns.back().map_or(self.floor.point, Txn::point)
    }

    /// The membership that is in effect: the last one, committed or not. `None` if the cluster is not formed, as far as
    /// this server knows.
    #[must_use]
    pub fn membership(&self) -> Option<&Arc<Membership>> {
        self.memberships.back().map(|(_, membership)| membership).or(self.floor.membership.as_ref())
    }

    /// The transaction of the membership in effect; the floor if that is discarded.
    #[must_use]
    pub fn membership_zxid(&self) -> Zxid {
        self.memberships.back().map_or(self.floor.point.zxid, |(zxid, _)| *zxid)
    }

    /// The last discarded transaction; later ones are in memory.
    #[must_use]
    pub fn floor(&self) -> Zxid {
        self.floor.point.zxid
    }

    /// The last transaction in the latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Zxid {
        self.snapshot
    }

    /// The last point at or before `zxid`; `None` below the floor.
    #[must_use]
    pub fn last_at_or_before(&self, zxid: Zxid) -> Option<Point> {
        if zxid < self.floor() {
            return None;
        }
        match self.count_through(zxid) {
            0 => Some(self.floor.point),
            behind => Some(self.txns[behind - 1].point()),
        }
    }

    /// The point after this transaction, if that is in memory or is the floor.
    #[must_use]
    pub fn point_at(&self, zxid: Zxid) -> Option<Point> {
        self.last_at_or_before(zxid).filter(|point| point.zxid == zxid)
    }

    /// The summary of all transactions through this one, if that is in memory or is the floor.
    #[must_use]
    pub fn summary_at(&self, zxid: Zxid) -> Option<Summary> {
        let point = self.point_at(zxid)?;
        let earlier = self.memberships.iter().rev().find(|(at, _)| *at <= zxid);
        let membership = earlier.map(|(_, membership)| membership).or(self.floor.membership.as_ref());
        Some(Summary { point, membership: membership.cloned() })
    }

    /// The summary of all transactions before this one, if that is in memory.
    #[must_use]
    pub fn summary_before(&self, zxid: Zxid) -> Option<Summary> {
        let at = self.txns.binary_search_by_key(&zxid, |txn| txn.zxid).ok()?;
        self.summary_at(at.checked_sub(1).map_or(self.floor(), |before| self.txns[before].zxid))
    }

    /// Whether the transaction is in memory or is the floor.
    #[must_use]
    pub fn contains(&self, zxid: Zxid) -> bool {
        self.point_at(zxid).is_some()
    }

    /// The transactions after `after`, through `through`.
    pub fn between(&self, after: Zxid, through: Zxid) -> impl Iterator<Item = &Txn> {
        let (start, end) = (self.count_through(after), self.count_through(through));
        self.txns.range(start.min(end)..end)
    }

    /// The first transactions after `after`, through `through`: at least one, if there is one, and up to a number and a
    /// size of their payloads in bytes that a single transaction may exceed.
    #[must_use]
    pub fn batch(&self, (after, through): (Zxid, Zxid), count: usize, bytes: usize) -> Vec<Txn> {
        let mut size = 0;
        let fits = |txn: &&Txn| {
            let is_first = size == 0;
            size += txn.payload.len().max(1);
            is_first || size <= bytes
        };
        self.between(after, through).take(count).take_while(fits).cloned().collect()
    }

    /// The number of transactions after `zxid`; `None` if some are no longer in memory and belong to another epoch.
    #[must_use]
    pub fn count_after(&self, zxid: Zxid) -> Option<usize> {
        let last = self.last();
        if zxid >= self.floor() {
            Some(self.txns.len() - self.count_through(zxid))
        } else if zxid.epoch == last.epoch {
            usize::try_from(last.counter - zxid.counter).ok()
        } else {
            None
        }
    }

    /// Up to `count` points of this history, oldest first: its last ones one by one, and earlier ones ever further
    /// apart. With them, another server finds out where its own history differs.
    #[must_use]
    pub fn sample(&self, count: usize) -> Vec<Point> {
        let mut points = Vec::new();
        let mut back = 1;
        while back <= self.txns.len() && points.len() + 1 < count {
            points.push(self.txns[self.txns.len() - back].point());
            back += if points.len() < count / 2 { 1 } else { (back / 4).max(1) };
        }
        points.push(self.floor.point);
        points.reverse();
        points
    }

    /// The number of transactions in memory at or before `zxid`.
    fn count_through(&self, zxid: Zxid) -> usize {
        self.txns.partition_point(|txn| txn.zxid <= zxid)
    }

    /// Sets the first membership of an empty history.
    pub(crate) fn form(&mut self, membership: Arc<Membership>) -> Result<(), InvalidWrite> {
        if self.floor.membership.is_some() || self.last() != Zxid::ZERO {
            return Err(InvalidWrite::AlreadyFormed);
        }
        self.floor.membership = Some(membership);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, point: Point) -> Result<(), InvalidWrite> {
        let zxid = point.zxid;
        if zxid < self.floor() && self.snapshot < self.floor() {
            // During recovery, a snapshot that is read later covers what was purged.
            *self = Self::after(Summary { point, membership: None }, self.snapshot);
            return Ok(());
        }
        match self.point_at(zxid).filter(|_| zxid >= self.snapshot) {
            None => return Err(InvalidWrite::NoSuchTxn(zxid)),
            Some(own) if own != point => return Err(InvalidWrite::OtherHistory { after: zxid }),
            Some(_) => {}
        }
        self.txns.truncate(self.count_through(zxid));
        while self.memberships.pop_back_if(|(at, _)| *at > zxid).is_some() {}
        Ok(())
    }

    pub(crate) fn append(&mut self, after: Zxid, txns: &[Txn]) -> Result<(), InvalidWrite> {
        let mut end = self.end();
        if end.zxid != after {
            return Err(InvalidWrite::Gap { last: end.zxid, next: txns.first().map_or(after, |txn| txn.zxid) });
        }
        for txn in txns {
            if !txn.zxid.follows(end.zxid) {
                return Err(InvalidWrite::Gap { last: end.zxid, next: txn.zxid });
            }
            if !end.precedes(txn) {
                return Err(InvalidWrite::OtherHistory { after: end.zxid });
            }
            end = txn.point();
        }
        for txn in txns {
            self.push(txn.clone());
        }
        Ok(())
    }

    /// Appends the transaction at `zxid`, which follows the last one, and returns it.
    pub(crate) fn append_next(&mut self, zxid: Zxid, time: u64, payload: Payload) -> Result<Txn, InvalidWrite> {
        let end = self.end();
        if !zxid.follows(end.zxid) {
            return Err(InvalidWrite::Gap { last: end.zxid, next: zxid });
        }
        let txn = end.next(zxid, time, payload);
        self.push(txn.clone());
        Ok(txn)
    }

    fn push(&mut self, txn: Txn) {
        if let Payload::Membership(membership) = &txn.payload {
            self.memberships.push_back((txn.zxid, Arc::clone(membership)));
        }
        self.txns.push_back(txn);
    }

    /// Records that a snapshot is durable, and discards the transactions it covers except the last `retained`, of at
    /// most `bytes` in total.
    pub(crate) fn snapshot_taken(&mut self, zxid: Zxid, retained: usize, bytes: usize) {
        if zxid <= self.snapshot || !self.contains(zxid) {
            return;
        }
        self.snapshot = zxid;
        let mut left = bytes;
        let inside = self.txns.iter().take(self.count_through(zxid)).rev().take(retained);
        let kept = inside.take_while(|txn| {
            let fits = txn.payload.len() <= left;
            left = left.saturating_sub(txn.payload.len());
            fits
        });
        let excess = self.count_through(zxid) - kept.count();
        if let Some(txn) = excess.checked_sub(1).and_then(|last| self.txns.get(last)) {
            self.floor.point = txn.point();
            self.txns.drain(..excess);
        }
        while let Some((_, membership)) = self.memberships.pop_front_if(|(at, _)| *at <= self.floor.point.zxid) {
            self.floor.membership = Some(membership);
        }
    }

    /// Completes a history whose beginning was purged, with the summary in a snapshot that covers it. Returns false if
    /// the snapshot is of another history.
    pub(crate) fn recover(&mut self, snapshot: &Summary) -> bool {
        let zxid = snapshot.point.zxid;
        if self.point_at(zxid) != Some(snapshot.point) {
            return false;
        }
        // What is before the snapshot is never appended to or truncated to, so its membership does not matter.
        if self.floor.membership.is_none() {
            self.floor.membership.clone_from(&snapshot.membership);
        }
        self.snapshot = self.snapshot.max(zxid);
        true
    }
}
