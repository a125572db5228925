//! The numbers of finished requests of a session.

use rpds::RedBlackTreeMapSync;

use crate::limits::FINISHED_RANGES_MAX;

/// A set of numbers, as ranges from their first to their last number. A session uses its numbers in rising order, so there are
/// about as many ranges as open requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Finished {
    ranges: RedBlackTreeMapSync<u64, u64>,
}

impl Finished {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.before(number).is_some_and(|(_, last)| number <= last)
    }

    /// The range that begins at a number or before it.
    fn before(&self, number: u64) -> Option<(u64, u64)> {
        self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last))
    }

    pub(crate) fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some((start, _)) = self.before(number).filter(|(_, end)| end + 1 == number) {
            first = start;
        }
        if let Some(end) = number.checked_add(1).and_then(|next| self.ranges.get(&next).copied()) {
            self.ranges.remove_mut(&(number + 1));
            last = end;
        }
        self.ranges.insert_mut(first, last);
        self.shrink_to(FINISHED_RANGES_MAX);
    }

    /// The number of its ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges.size()
    }

    /// Joins the lowest ranges, and the numbers between them, until there are at most so many.
    pub(crate) fn shrink_to(&mut self, max: usize) {
        while self.ranges.size() > max.max(1) {
            self.join_lowest();
        }
    }

    fn join_lowest(&mut self) {
        let lowest: Vec<_> = self.ranges.iter().take(2).map(|(first, last)| (*first, *last)).collect();
        if let [(first, _), (second, last)] = lowest[..] {
            self.ranges.remove_mut(&second);
            self.ranges.insert_mut(first, last);
        }
    }

    /// The first and last numbers of its ranges.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    pub(crate) fn from_ranges(ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        Self { ranges: ranges.collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in prop::collection::vec(1..60_u64, 1..80)) {
            let (mut finished, mut model) = (Finished::default(), BTreeSet::new());
            for number in numbers {
                finished.insert(number);
                model.insert(number);
                for other in 0..=61 {
                    prop_assert_eq!(finished.contains(other), model.contains(&other), "{}", other);
                }
            }
            let runs = model.iter().filter(|number| !model.contains(&(*number - 1))).count();
            prop_assert_eq!(finished.ranges().count(), runs);
            let again = Finished::from_ranges(finished.ranges());
            prop_assert!(again.ranges().eq(finished.ranges()));
        }
    }

    #[test]
    fn it_is_bounded_and_forgets_nothing() {
        let mut finished = Finished::default();
        for number in (1..).step_by(2).take(15_000) {
            finished.insert(number);
        }
        finished.insert(u64::MAX);
        finished.insert(u64::MAX);
        assert_eq!(finished.ranges().count(), FINISHED_RANGES_MAX);
        assert!((1..).step_by(2).take(15_000).all(|number| finished.contains(number)));
        assert!(finished.contains(2) && !finished.contains(29_998), "only low numbers are given up");
    }
}
