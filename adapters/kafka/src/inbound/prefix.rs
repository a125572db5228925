//! The records of one partition that were received and not all settled, and the offset up to which all are.

use std::collections::VecDeque;

/// The window of a partition. Offsets may have gaps, by compaction and control records: only received records count.
#[derive(Debug)]
pub(super) struct Prefix {
    /// From the first record that is not settled, in the order of their offsets.
    records: VecDeque<Received>,
    len: usize,
    count_max: usize,
    len_max: usize,
}

#[derive(Debug)]
struct Received {
    offset: i64,
    len: usize,
    is_settled: bool,
}

impl Prefix {
    /// A window for up to `count_max` records of `len_max` bytes. One record always fits.
    pub(super) fn new(count_max: usize, len_max: usize) -> Self {
        Self { records: VecDeque::new(), len: 0, count_max, len_max }
    }

    /// A record was received. Returns `false` if it was received before.
    pub(super) fn received(&mut self, offset: i64, len: usize) -> bool {
        if self.records.back().is_some_and(|last| last.offset >= offset) {
            return false;
        }
        self.len += len;
        self.records.push_back(Received { offset, len, is_settled: false });
        true
    }

    /// A record is settled. Returns the offset to store if it advances: behind the last record up to which all are settled.
    pub(super) fn settle(&mut self, offset: i64) -> Option<i64> {
        let index = self.records.binary_search_by_key(&offset, |record| record.offset).ok()?;
        self.records[index].is_settled = true;
        let mut stored = None;
        while let Some(first) = self.records.pop_front_if(|first| first.is_settled) {
            self.len -= first.len;
            stored = Some(first.offset + 1);
        }
        stored
    }

    /// Whether another record may be received.
    pub(super) fn has_room(&self) -> bool {
        self.records.len() < self.count_max && self.len < self.len_max
    }

    /// Whether at least half of the window is free.
    pub(super) fn is_half_free(&self) -> bool {
        self.records.len() <= self.count_max / 2 && self.len <= self.len_max / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contiguous_prefix_is_stored() {
        let mut prefix = Prefix::new(10, 1000);
        // Offsets 12 and 13 do not exist.
        for offset in [10, 11, 14, 15] {
            assert!(prefix.received(offset, 1));
        }
        assert_eq!(prefix.settle(11), None);
        assert_eq!(prefix.settle(15), None);
        assert_eq!(prefix.settle(10), Some(12));
        assert_eq!(prefix.settle(10), None, "settled twice");
        assert_eq!(prefix.settle(99), None, "never received");
        assert_eq!(prefix.settle(14), Some(16));
        assert_eq!(prefix.len, 0);
    }

    #[test]
    fn the_window_is_bounded_in_count_and_bytes() {
        let mut prefix = Prefix::new(4, 100);
        for offset in 0..4 {
            assert!(prefix.has_room());
            prefix.received(offset, 1);
        }
        assert!(!prefix.has_room() && !prefix.is_half_free());
        // Records behind the first one that is not settled stay in the window.
        for offset in 1..4 {
            prefix.settle(offset);
        }
        assert!(!prefix.has_room());
        prefix.settle(0);
        assert!(prefix.has_room() && prefix.is_half_free());
        prefix.received(4, 1000);
        assert!(!prefix.has_room(), "one large record fills the window");
        assert!(!prefix.received(4, 1), "a record that comes again");
    }
}
