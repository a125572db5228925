//! Whether one order explains what clients saw of a register that is compared and set (Wing, Gong, 1993; with the memory of
//! Lowe, 2017).
//!
//! Calls are put in order one by one: one that may come next, because none that is left had ended when it began, is tried; where nothing
//! fits any more, the last is taken back. What was tried with the same calls and the same value is not tried again.

use std::collections::HashSet;
use std::time::Instant;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The value.
    Read,
    /// To set it, where it is what is expected.
    CompareAndSet {
        /// What it has to be.
        expected: Option<u64>,
        /// What it becomes.
        value: u64,
    },
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The value that was read.
    Value(Option<u64>),
    /// Whether it was set.
    Set(bool),
    /// Nobody knows whether, or when, it was carried out.
    Unknown,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it began.
    pub begun: Instant,
    /// When its answer was there; not looked at where it is unknown.
    pub ended: Instant,
    /// What was asked.
    pub asked: Asked,
    /// What came back.
    pub told: Told,
}

/// The value after the call.
fn after(value: Option<u64>, call: &Call) -> Option<u64> {
    match &call.asked {
        Asked::CompareAndSet { expected, value: new } if *expected == value => Some(*new),
        Asked::CompareAndSet { .. } | Asked::Read => value,
    }
}

/// Whether the call can have told what it told, with that value.
fn is_possible(value: Option<u64>, call: &Call) -> bool {
    match (&call.asked, &call.told) {
        (Asked::Read, Told::Value(read)) => *read == value,
        (Asked::CompareAndSet { expected, .. }, Told::Set(set)) => *set == (*expected == value),
        (_, Told::Unknown) => true,
        (Asked::Read, Told::Set(_)) | (Asked::CompareAndSet { .. }, Told::Value(_)) => false,
    }
}

/// Whether one order explains the calls of one register, which has no value at first.
#[must_use]
pub fn is_linearizable(calls: &[Call]) -> bool {
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|index| calls[*index].begun);
    let known = |index: &usize| calls[*index].told != Told::Unknown;
    let mut placed = vec![false; calls.len()];
    let mut seen: HashSet<(Vec<bool>, Option<u64>)> = HashSet::new();
    // What was placed, the value before it, and where in the order to go on if it is taken back.
    let mut stack: Vec<(usize, Option<u64>, usize)> = Vec::new();
    let (mut value, mut from) = (None, 0);
    loop {
        // What is unknown may never have been carried out.
        if order.iter().filter(|index| known(index)).all(|index| placed[*index]) {
            return true;
        }
        let first_end =
            order.iter().filter(|index| !placed[**index] && known(index)).map(|index| calls[*index].ended).min();
        let mut found = None;
        for (at, index) in order.iter().enumerate().skip(from) {
            if placed[*index] {
                continue;
            }
            // One that is left had ended when this one began: none behind it can come next.
            if first_end.is_some_and(|end| end < calls[*index].begun) {
                break;
            }
            if is_possible(value, &calls[*index]) {
                let next = after(value, &calls[*index]);
                placed[*index] = true;
                if seen.insert((placed.clone(), next)) {
                    found = Some((at, *index, next));
                    break;
                }
                placed[*index] = false;
            }
        }
        match found {
            Some((at, index, next)) => {
                stack.push((index, value, at + 1));
                (value, from) = (next, 0);
            }
            None => match stack.pop() {
                Some((index, before, next)) => {
                    placed[index] = false;
                    (value, from) = (before, next);
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// By trying every order.
    fn by_all_orders(calls: &[Call], placed: &mut Vec<usize>, value: Option<u64>) -> bool {
        if (0..calls.len()).all(|index| placed.contains(&index) || calls[index].told == Told::Unknown) {
            return true;
        }
        (0..calls.len()).any(|index| {
            let late = |other: &Call| other.told != Told::Unknown && other.ended < calls[index].begun;
            if placed.contains(&index) || (0..calls.len()).any(|other| !placed.contains(&other) && late(&calls[other]))
            {
                return false;
            }
            if !is_possible(value, &calls[index]) {
                return false;
            }
            placed.push(index);
            let good = by_all_orders(calls, placed, after(value, &calls[index]));
            placed.pop();
            good
        })
    }

    #[test]
    fn it_says_what_trying_every_order_says() {
        let zero = Instant::now();
        // A generator of numbers (splitmix64): the same ones in each run.
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % below
        };
        let (mut good, mut bad) = (0, 0);
        for _ in 0..3000 {
            let calls: Vec<Call> = (0..6)
                .map(|_| {
                    let begun = random(12);
                    let at = |millis: u64| zero + Duration::from_millis(millis);
                    let some = |number: u64| (number > 0).then_some(number);
                    let (asked, told) = match random(5) {
                        0 | 1 => (Asked::Read, Told::Value(some(random(3)))),
                        kind => {
                            let asked = Asked::CompareAndSet { expected: some(random(3)), value: 1 + random(2) };
                            let told = if kind == 2 { Told::Unknown } else { Told::Set(random(3) > 0) };
                            (asked, told)
                        }
                    };
                    Call { begun: at(begun), ended: at(begun + 1 + random(6)), asked, told }
                })
                .collect();
            let expected = by_all_orders(&calls, &mut Vec::new(), None);
            assert_eq!(is_linearizable(&calls), expected, "{calls:?}");
            (good, bad) = if expected { (good + 1, bad) } else { (good, bad + 1) };
        }
        assert!(good > 200 && bad > 200, "{good} good, {bad} bad");
    }
}
