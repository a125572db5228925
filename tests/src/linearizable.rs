//! Whether one order explains what clients saw of a register that is compared and set (Wing, Gong, 1993; with the memory of
//! Lowe, 2017).
//!
//! Calls are put in order one by one: one that may come next, because none that is left had ended when it began, is tried; where nothing
//! fits any more, the last is taken back. What was tried with the same calls and the same value is not tried again. Those that are left
//! stand in a list from which one is taken, and into which it comes back, without a look at the others.

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

/// Beginnings and ends of calls in the order of their times, as a list of which parts can be taken out.
struct Events {
    /// Of each event its call, and whether it is the call's end.
    all: Vec<(usize, bool)>,
    /// Where the other end of an event's call stands; nothing where it has no end.
    other: Vec<Option<usize>>,
    /// The one after each; the first is that of the place behind all events.
    next: Vec<usize>,
    before: Vec<usize>,
}

impl Events {
    fn new(calls: &[Call]) -> Self {
        let begins = calls.iter().enumerate().map(|(call, it)| (it.begun, false, call));
        // What is unknown may be carried out at any later time: it has no end.
        let known = calls.iter().enumerate().filter(|(_, it)| it.told != Told::Unknown);
        let mut timed: Vec<_> = begins.chain(known.map(|(call, it)| (it.ended, true, call))).collect();
        // At one time beginnings stand before ends: such calls overlap.
        timed.sort_unstable();
        let mut of_call = vec![[None; 2]; calls.len()];
        for (at, (_, is_end, call)) in timed.iter().enumerate() {
            of_call[*call][usize::from(*is_end)] = Some(at);
        }
        let len = timed.len();
        let other = timed.iter().map(|(_, is_end, call)| of_call[*call][usize::from(!*is_end)]).collect();
        Self {
            all: timed.into_iter().map(|(_, is_end, call)| (call, is_end)).collect(),
            other,
            next: (0..=len).map(|at| (at + 1) % (len + 1)).collect(),
            before: (0..=len).map(|at| (at + len) % (len + 1)).collect(),
        }
    }

    /// The place behind all of them, which is the one before the first.
    fn end(&self) -> usize {
        self.all.len()
    }

    fn take_out(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        (self.next[before], self.before[next]) = (next, before);
    }

    fn put_back(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        (self.next[before], self.before[next]) = (at, at);
    }
}

/// A number of a set of calls: that of each call in it, put together. Two sets have the same by a chance that nobody lives to see.
fn number_of(call: usize) -> u128 {
    let half = |salt: u64| {
        let mixed = (call as u64 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    u128::from(half(0x51_7c_c1_b7_27_22_0a_95)) << 64 | u128::from(half(0x2545_f491_4f6c_dd1d))
}

/// Whether one order explains the calls of one register, which has no value at first.
#[must_use]
pub fn is_linearizable(calls: &[Call]) -> bool {
    let mut events = Events::new(calls);
    let mut ends_left = calls.iter().filter(|call| call.told != Told::Unknown).count();
    let mut seen: HashSet<(u128, Option<u64>)> = HashSet::new();
    // Where each call that was placed begins, and the value before it.
    let mut placed: Vec<(usize, Option<u64>)> = Vec::new();
    let (mut value, mut set) = (None, 0_u128);
    let mut at = events.next[events.end()];
    // What is unknown may never have been carried out.
    while ends_left > 0 {
        let fits = (at != events.end()).then(|| events.all[at]).filter(|(_, is_end)| !is_end).map(|(call, _)| call);
        match fits {
            Some(call) if is_possible(value, &calls[call]) => {
                let next = after(value, &calls[call]);
                if !seen.insert((set ^ number_of(call), next)) {
                    at = events.next[at];
                    continue;
                }
                placed.push((at, value));
                (value, set) = (next, set ^ number_of(call));
                events.take_out(at);
                if let Some(end) = events.other[at] {
                    events.take_out(end);
                    ends_left -= 1;
                }
                at = events.next[events.end()];
            }
            Some(_) => at = events.next[at],
            // A call that is left has ended here, or there are no more: none behind it can come next.
            None => {
                let Some((begin, before)) = placed.pop() else { return false };
                let (call, _) = events.all[begin];
                (value, set) = (before, set ^ number_of(call));
                if let Some(end) = events.other[begin] {
                    events.put_back(end);
                    ends_left += 1;
                }
                events.put_back(begin);
                at = events.next[begin];
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

    use super::*;

    /// The register as stateright knows one.
    #[derive(Clone)]
    struct Known(Option<u64>);

    impl SequentialSpec for Known {
        type Op = Asked;
        type Ret = Told;

        fn invoke(&mut self, asked: &Asked) -> Told {
            match asked {
                Asked::Read => Told::Value(self.0),
                Asked::CompareAndSet { expected, value } if *expected == self.0 => {
                    self.0 = Some(*value);
                    Told::Set(true)
                }
                Asked::CompareAndSet { .. } => Told::Set(false),
            }
        }
    }

    /// What stateright's tester says.
    fn by_stateright(calls: &[Call]) -> bool {
        let mut tester = LinearizabilityTester::new(Known(None));
        let events = Events::new(calls);
        for (call, is_end) in events.all {
            // Each call is a thread of its own: those that are unknown never end.
            let told = if is_end {
                tester.on_return(call, calls[call].told.clone())
            } else {
                tester.on_invoke(call, calls[call].asked.clone())
            };
            told.expect("a history");
        }
        tester.is_consistent()
    }

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
    fn it_says_what_trying_every_order_says_and_what_stateright_says() {
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
            assert_eq!(by_stateright(&calls), expected, "{calls:?}");
            (good, bad) = if expected { (good + 1, bad) } else { (good, bad + 1) };
        }
        assert!(good > 200 && bad > 200, "{good} good, {bad} bad");
    }

    #[test]
    fn a_long_history_takes_moments() {
        // Five clients; each sets the register to what comes after what it had read, and is told whether it did.
        let zero = Instant::now();
        let at = |micros: u64| zero + Duration::from_micros(micros);
        let mut calls = Vec::new();
        let mut value = None;
        for number in 0..100_000_u64 {
            let begun = number * 10;
            let call = |begun, ended, asked, told| Call { begun: at(begun), ended: at(ended), asked, told };
            if number % 2 == 0 {
                calls.push(call(begun, begun + 45, Asked::Read, Told::Value(value)));
            } else {
                let asked = Asked::CompareAndSet { expected: value, value: number };
                calls.push(call(begun, begun + 45, asked, Told::Set(true)));
                value = Some(number);
            }
        }
        assert!(is_linearizable(&calls));
        // One read of a value that was gone long before.
        calls[99_998].told = Told::Value(Some(7));
        assert!(!is_linearizable(&calls));
    }
}
