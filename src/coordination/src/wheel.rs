//! Timers, one per key, in a hierarchical timing wheel (scheme 7 of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels",
//! SOSP 1987).
//!
//! Timers are set and cancelled in constant time. Those that are due come out in the order of their deadlines and keys, whatever
//! was set or cancelled before, so that all instances let the same timers expire with the same command.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// A slot of level `n` covers `64^n` milliseconds.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Together, the levels cover all 64 bits.
const LEVELS: usize = 11;

#[derive(Debug)]
struct Level<K> {
    /// One bit per slot that has timers.
    occupied: u64,
    slots: Vec<Vec<(u64, K)>>,
}

/// Where the timer of a key is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Slot {
        level: usize,
        slot: usize,
        index: usize,
    },
    /// It is due; its deadline.
    Due(u64),
}

/// Timers by key.
#[derive(Debug)]
pub(crate) struct Wheel<K> {
    /// Timers up to this time are due.
    elapsed: u64,
    levels: Vec<Level<K>>,
    places: HashMap<K, Place>,
    due: BTreeSet<(u64, K)>,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        let level = || Level { occupied: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect() };
        let levels = (0..LEVELS).map(|_| level()).collect();
        Self { elapsed: 0, levels, places: HashMap::new(), due: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Ord + Hash> Wheel<K> {
    /// Sets the timer of a key, and replaces the one that it has.
    pub(crate) fn set(&mut self, key: K, deadline: u64) {
        self.cancel(&key);
        self.place(key, deadline);
    }

    /// Removes the timer of a key, if it has one.
    pub(crate) fn cancel(&mut self, key: &K) {
        match self.places.remove(key) {
            None => {}
            Some(Place::Due(deadline)) => {
                self.due.remove(&(deadline, key.clone()));
            }
            Some(Place::Slot { level, slot, index }) => {
                let Level { occupied, slots } = &mut self.levels[level];
                let timers = &mut slots[slot];
                timers.swap_remove(index);
                if let Some((_, moved)) = timers.get(index) {
                    self.places.insert(moved.clone(), Place::Slot { level, slot, index });
                }
                if timers.is_empty() {
                    *occupied &= !(1 << slot);
                }
            }
        }
    }

    /// Makes the timers up to this time due.
    pub(crate) fn advance(&mut self, to: u64) {
        while let Some((level, slot, start)) = self.next_slot().filter(|(.., start)| *start <= to) {
            self.elapsed = start;
            self.levels[level].occupied &= !(1 << slot);
            for (deadline, key) in std::mem::take(&mut self.levels[level].slots[slot]) {
                self.place(key, deadline);
            }
        }
        self.elapsed = self.elapsed.max(to);
    }

    /// Removes the first timer that is due.
    pub(crate) fn pop_due(&mut self) -> Option<K> {
        let (_, key) = self.due.pop_first()?;
        self.places.remove(&key);
        Some(key)
    }

    /// A time before which no timer is due: that of the next one, or somewhat earlier.
    pub(crate) fn next(&self) -> Option<u64> {
        match self.due.first() {
            Some((deadline, _)) => Some(*deadline),
            None => self.next_slot().map(|(.., start)| start),
        }
    }

    fn place(&mut self, key: K, deadline: u64) {
        let place = if deadline <= self.elapsed {
            self.due.insert((deadline, key.clone()));
            Place::Due(deadline)
        } else {
            // The highest group of bits in which it differs from the current time.
            let level = ((self.elapsed ^ deadline).ilog2() / SLOT_BITS) as usize;
            let slot = slot_of(deadline, level);
            let Level { occupied, slots } = &mut self.levels[level];
            *occupied |= 1 << slot;
            slots[slot].push((deadline, key.clone()));
            Place::Slot { level, slot, index: slots[slot].len() - 1 }
        };
        self.places.insert(key, place);
    }

    /// The next slot that has timers: its level, its number and its start. Slots of lower levels come first, and the occupied
    /// ones are all after the current time.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let (level, found) = self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        let slot = found.occupied.trailing_zeros() as usize;
        let (shift, next) = (SLOT_BITS * bits(level), SLOT_BITS * bits(level + 1));
        let above = if next < u64::BITS { self.elapsed >> next << next } else { 0 };
        Some((level, slot, above | (slot as u64) << shift))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "levels are few")]
fn bits(level: usize) -> u32 {
    level as u32
}

#[expect(clippy::cast_possible_truncation, reason = "six bits are meant")]
fn slot_of(deadline: u64, level: usize) -> usize {
    (deadline >> (SLOT_BITS * bits(level))) as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u8, u64),
        Cancel(u8),
        Advance(u64),
        Pop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let far = prop_oneof![0..200_u64, 0..100_000_u64, any::<u64>()];
        prop_oneof![
            4 => (any::<u8>(), far).prop_map(|(key, after)| Step::Set(key, after)),
            1 => any::<u8>().prop_map(Step::Cancel),
            3 => prop_oneof![0..100_u64, 0..50_000_u64].prop_map(Step::Advance),
            2 => (0..5_usize).prop_map(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_sorted_map(steps in prop::collection::vec(step(), 1..200)) {
            let (mut wheel, mut now) = (Wheel::default(), 0_u64);
            let mut model: BTreeMap<u8, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(key, after) => {
                        let deadline = now.saturating_add(after);
                        wheel.set(key, deadline);
                        model.insert(key, deadline);
                    }
                    Step::Cancel(key) => {
                        wheel.cancel(&key);
                        model.remove(&key);
                    }
                    Step::Advance(by) => {
                        now += by;
                        wheel.advance(now);
                    }
                    Step::Pop(count) => {
                        for _ in 0..count {
                            let due = model.iter().map(|(key, deadline)| (*deadline, *key)).min();
                            let expected = due.filter(|(deadline, _)| *deadline <= now).map(|(_, key)| key);
                            prop_assert_eq!(wheel.pop_due(), expected);
                            expected.map(|key| model.remove(&key));
                        }
                    }
                }
                let first = model.values().min();
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                prop_assert!(wheel.next() <= first.copied(), "{:?} is after {first:?}", wheel.next());
            }
        }
    }

    #[test]
    fn waiting_for_the_next_time_ends() {
        let mut wheel = Wheel::default();
        wheel.set("one", (1 << 42) + 12_345);
        let mut steps = 0;
        while wheel.pop_due().is_none() {
            let next = wheel.next().expect("a timer");
            wheel.advance(next);
            steps += 1;
        }
        assert!(steps <= LEVELS, "{steps} steps");
    }
}
