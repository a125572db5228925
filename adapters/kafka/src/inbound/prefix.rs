//! The records of one partition that were received and not all settled, and the offset up to which all are.

use std::collections::VecDeque;

/// The memory of a record besides its key, value and headers.
const RECORD_OVERHEAD: usize = 256;

/// The window of a partition. Offsets may have gaps, by compaction and control records: only received records count.
#[derive(Debug)]
pub(super) struct Prefix {
    /// From the first record that is not settled, in the order of their offsets.
    records: VecDeque<Received>,
    /// How many of them were admitted, from the front.
    admitted: usize,
    unsettled: usize,
    len: usize,
    /// The offset of the last record that was received, even if all are settled.
    last: Option<i64>,
    count_max: usize,
    len_max: usize,
}

/// What the offset of a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// It follows the last one.
    Next,
    /// It is the last one again.
    Again,
    /// It lies before the last one: the log was truncated, or the topic was created again.
    Back,
}

#[derive(Debug)]
struct Received {
    offset: i64,
    len: usize,
    is_settled: bool,
}

impl Prefix {
    /// Admits up to `count_max` records, and has room for `len_max` bytes. One record always fits.
    pub(super) fn new(count_max: usize, len_max: usize) -> Self {
        Self { records: VecDeque::new(), admitted: 0, unsettled: 0, len: 0, last: None, count_max, len_max }
    }

    /// Changes the limits. Records that exceed the new ones stay.
    pub(super) fn set_limits(&mut self, count_max: usize, len_max: usize) {
        (self.count_max, self.len_max) = (count_max, len_max);
    }

    /// The position of a record.
    pub(super) fn position(&self, offset: i64) -> Position {
        match self.last {
            Some(last) if offset == last => Position::Again,
            Some(last) if offset < last => Position::Back,
            _ => Position::Next,
        }
    }

    /// A record was received whose position is [`Position::Next`].
    pub(super) fn received(&mut self, offset: i64, len: usize) {
        let len = len.saturating_add(RECORD_OVERHEAD);
        self.len += len;
        self.unsettled += 1;
        self.last = Some(offset);
        self.records.push_back(Received { offset, len, is_settled: false });
    }

    /// Admits the next record for processing, unless the first record that is not settled is too far behind it.
    pub(super) fn admit(&mut self) -> bool {
        let is_admitted = self.admitted < self.count_max.min(self.records.len());
        self.admitted += usize::from(is_admitted);
        is_admitted
    }

    /// The offset up to which all records are settled, if one was received.
    pub(super) fn settled_up_to(&self) -> Option<i64> {
        self.records.front().map(|first| first.offset).or(self.last.map(|last| last + 1))
    }

    /// The number of records that are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// The memory of its records, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// An admitted record is settled. Returns the offset to store if it advances: behind the last record up to which all are settled.
    pub(super) fn settle(&mut self, offset: i64) -> Option<i64> {
        let index = self.records.binary_search_by_key(&offset, |record| record.offset).ok()?;
        self.unsettled -= usize::from(!self.records[index].is_settled);
        self.records[index].is_settled = true;
        let mut stored = None;
        while let Some(first) = self.records.pop_front_if(|first| first.is_settled) {
            self.len -= first.len;
            self.admitted -= 1;
            stored = Some(first.offset + 1);
        }
        stored
    }

    /// Whether another record may be received.
    pub(super) fn has_room(&self) -> bool {
        self.len < self.len_max
    }

    /// Whether at least half of the room is free.
    pub(super) fn is_half_free(&self) -> bool {
        self.len <= self.len_max / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives and admits records of one byte.
    fn receive(prefix: &mut Prefix, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            prefix.received(offset, 1);
            assert!(prefix.admit(), "{offset}");
        }
    }

    #[test]
    fn only_the_contiguous_prefix_is_stored() {
        let mut prefix = Prefix::new(10, 1000);
        // Offsets 12 and 13 do not exist.
        receive(&mut prefix, [10, 11, 14, 15]);
        assert_eq!(prefix.settle(11), None);
        assert_eq!(prefix.settle(15), None);
        assert_eq!(prefix.settle(10), Some(12));
        assert_eq!(prefix.settle(10), None, "settled twice");
        assert_eq!(prefix.settle(99), None, "never received");
        assert_eq!(prefix.settle(14), Some(16));
        assert_eq!(prefix.len, 0);
    }

    #[test]
    fn admitted_records_are_bounded_in_count_and_received_ones_in_bytes() {
        let mut prefix = Prefix::new(4, 6 * (1 + RECORD_OVERHEAD));
        for offset in 0..6 {
            assert!(prefix.has_room());
            prefix.received(offset, 1);
        }
        assert!(!prefix.has_room() && !prefix.is_half_free());
        assert_eq!((0..5).map(|_| prefix.admit()).collect::<Vec<_>>(), [true, true, true, true, false]);
        // Records behind the first one that is not settled stay in the window.
        for offset in 1..4 {
            prefix.settle(offset);
        }
        assert!(!prefix.has_room() && !prefix.admit());
        prefix.settle(0);
        assert!(prefix.has_room() && prefix.is_half_free());
        assert_eq!([prefix.admit(), prefix.admit(), prefix.admit()], [true, true, false], "all are admitted");
        prefix.received(6, 10_000);
        assert!(!prefix.has_room(), "one large record uses all room");
        assert!(prefix.admit());
    }

    #[test]
    fn offsets_that_go_back_are_noticed_even_if_all_records_are_settled() {
        let mut prefix = Prefix::new(4, 1000);
        receive(&mut prefix, [7]);
        prefix.settle(7);
        assert_eq!([6, 7, 8].map(|offset| prefix.position(offset)), [Position::Back, Position::Again, Position::Next]);
    }
}
