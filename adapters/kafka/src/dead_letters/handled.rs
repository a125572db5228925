//! Which records of a partition are handled: all before an offset, and some behind it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The maximum length of metadata that the brokers accept by default (`offset.metadata.max.bytes`).
const METADATA_LEN_MAX: usize = 4096;

/// The handled records of a partition, as committed or about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handled {
    /// All records before it are handled.
    next: i64,
    /// Handled records behind it.
    others: BTreeSet<i64>,
    /// The first record of this visit that is not handled.
    first_kept: Option<i64>,
}

impl Handled {
    /// No record from `next` on is handled.
    pub(super) fn none(next: i64) -> Self {
        Self { next, others: BTreeSet::new(), first_kept: None }
    }

    /// Reads a committed offset and its metadata: distances from the offset, such as `2,5-7`. Others are ignored.
    pub(super) fn read(next: i64, metadata: &str) -> Self {
        let mut handled = Self::none(next);
        for range in metadata.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
                && last.saturating_sub(first) <= 1 << 20
            {
                handled.others.extend((first..=last).map(|distance| next + i64::from(distance)));
            }
        }
        handled
    }

    /// The log starts at this offset now.
    pub(super) fn starting_at(mut self, start: i64) -> Self {
        self.next = self.next.max(start);
        self.others = self.others.split_off(&self.next);
        self
    }

    /// All records before it are handled.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Whether a record that was read is to be visited. Records are read in their order.
    pub(super) fn visit(&mut self, offset: i64) -> bool {
        let is_new = offset >= self.next && !self.others.contains(&offset);
        if !is_new && self.first_kept.is_none() {
            self.advance(offset);
        }
        is_new
    }

    /// A visited record is not handled.
    pub(super) fn keep(&mut self, offset: i64) {
        if self.first_kept.is_none() {
            self.first_kept = Some(offset);
            // Offsets between the last handled record and this one do not exist.
            self.next = self.next.max(offset);
            self.others = self.others.split_off(&self.next);
        }
    }

    /// A visited record is handled.
    pub(super) fn mark(&mut self, offset: i64) {
        match self.first_kept {
            None => self.advance(offset),
            Some(_) => {
                self.others.insert(offset);
            }
        }
    }

    /// Whether the metadata has room for another handled record.
    pub(super) fn fits(&self, offset: i64) -> bool {
        let mut with_it = self.clone();
        with_it.mark(offset);
        with_it.metadata().len() <= METADATA_LEN_MAX
    }

    /// The metadata to commit with [`Handled::next`].
    pub(super) fn metadata(&self) -> String {
        let mut text = String::new();
        let mut others = self.others.iter().map(|offset| offset - self.next).peekable();
        while let Some(first) = others.next() {
            let mut last = first;
            while let Some(next) = others.next_if_eq(&(last + 1)) {
                last = next;
            }
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = if last == first {
                write!(text, "{separator}{first}")
            } else {
                write!(text, "{separator}{first}-{last}")
            };
        }
        text
    }

    fn advance(&mut self, offset: i64) {
        self.next = self.next.max(offset + 1);
        self.others = self.others.split_off(&self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handled_records_survive_a_commit() {
        let mut handled = Handled::none(10);
        for offset in [10, 11] {
            assert!(handled.visit(offset));
            handled.mark(offset);
        }
        // 12 does not exist.
        assert!(handled.visit(13));
        handled.keep(13);
        for offset in [14, 15, 16, 18] {
            assert!(handled.visit(offset));
            handled.mark(offset);
        }
        assert_eq!((handled.next(), &*handled.metadata()), (13, "1-3,5"));
        let mut again = Handled::read(13, "1-3,5");
        let visited: Vec<_> = (13..=19).filter(|offset| again.visit(*offset)).collect();
        assert_eq!(visited, [13, 17, 19]);
    }

    #[test]
    fn the_offset_advances_over_what_was_handled_before() {
        let mut handled = Handled::read(13, "1-3,5");
        assert!(handled.visit(13));
        handled.mark(13);
        assert!(!handled.visit(14) && !handled.visit(15) && !handled.visit(16));
        assert!(handled.visit(17));
        handled.keep(17);
        assert_eq!((handled.next(), &*handled.metadata()), (17, "1"));
        assert_eq!(Handled::read(13, "1-3,5").starting_at(15), Handled::read(15, "0-1,3"));
        assert_eq!(Handled::read(13, "").starting_at(5), Handled::none(13));
    }

    #[test]
    fn foreign_metadata_is_ignored_and_long_metadata_refused() {
        assert_eq!(Handled::read(1, "by hand,-,5-,x-3,0-4294967295"), Handled::none(1));
        let mut handled = Handled::none(0);
        handled.keep(0);
        let mut offset = 2;
        while handled.fits(offset) {
            handled.mark(offset);
            offset += 2;
        }
        assert!(offset > 1000 && handled.metadata().len() <= METADATA_LEN_MAX, "{offset}");
    }
}
