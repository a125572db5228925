//! Linearizability checker for a compare-and-set register (Wing, Gong, 1993; with the memoization of Lowe, 2017).
//!
//! Calls are linearized one by one: the checker tries a call that may come next because no remaining call had ended before it began, and
//! backtracks if none fits. A set of linearized calls with the same resulting value is not tried twice. The events of the remaining calls
//! form a doubly linked list, so that a call is removed and reinserted in constant time.

use std::collections::HashSet;
use std::time::Instant;

/// An operation on the register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Reads the value.
    Read,
    /// Sets the value if it equals `expected`.
    CompareAndSet {
        /// The expected value; `None` if the register must be empty.
        expected: Option<u64>,
        /// The new value.
        value: u64,
    },
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The value that was read.
    Value(Option<u64>),
    /// Whether the value was set.
    Set(bool),
    /// It is unknown whether and when the operation was executed.
    Unknown,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it began.
    pub begun: Instant,
    /// When its answer arrived; ignored if the outcome is unknown.
    pub ended: Instant,
    /// The operation.
    pub operation: Operation,
    /// Its outcome.
    pub outcome: Outcome,
}

/// The value of the register after the call.
fn after(value: Option<u64>, call: &Call) -> Option<u64> {
    match &call.operation {
        Operation::CompareAndSet { expected, value: new } if *expected == value => Some(*new),
        Operation::CompareAndSet { .. } | Operation::Read => value,
    }
}

/// Whether the call's outcome is possible if the register has this value.
fn is_possible(value: Option<u64>, call: &Call) -> bool {
    match (&call.operation, &call.outcome) {
        (Operation::Read, Outcome::Value(read)) => *read == value,
        (Operation::CompareAndSet { expected, .. }, Outcome::Set(set)) => *set == (*expected == value),
        (_, Outcome::Unknown) => true,
        (Operation::Read, Outcome::Set(_)) | (Operation::CompareAndSet { .. }, Outcome::Value(_)) => false,
    }
}

/// Begin and end events of calls ordered by time, as a doubly linked list.
struct Events {
    /// The call of each event, and whether it is the call's end.
    all: Vec<(usize, bool)>,
    /// The index of the other event of the same call; `None` if the call has no end.
    other: Vec<Option<usize>>,
    /// The successor of each event; the last entry is the list head.
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Events {
    fn new(calls: &[Call]) -> Self {
        let begins = calls.iter().enumerate().map(|(call, it)| (it.begun, false, call));
        // A call with unknown outcome may be executed at any later time, so it has no end.
        let known = calls.iter().enumerate().filter(|(_, it)| it.outcome != Outcome::Unknown);
        let mut timed: Vec<_> = begins.chain(known.map(|(call, it)| (it.ended, true, call))).collect();
        // Begins precede ends at the same instant, as such calls overlap.
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
            previous: (0..=len).map(|at| (at + len) % (len + 1)).collect(),
        }
    }

    /// The index of the list head, which precedes the first event and follows the last.
    fn head(&self) -> usize {
        self.all.len()
    }

    fn remove(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        (self.next[previous], self.previous[next]) = (next, previous);
    }

    fn reinsert(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        (self.next[previous], self.previous[next]) = (at, at);
    }
}

/// The hash of one call; the XOR of the hashes of its calls identifies a set. At 128 bits, collisions are negligible.
fn hash_of(call: usize) -> u128 {
    let half = |salt: u64| {
        let mixed = (call as u64 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    u128::from(half(0x51_7c_c1_b7_27_22_0a_95)) << 64 | u128::from(half(0x2545_f491_4f6c_dd1d))
}

/// Whether the calls on one register, initially empty, are linearizable.
#[must_use]
pub fn is_linearizable(calls: &[Call]) -> bool {
    let mut events = Events::new(calls);
    let mut ends_left = calls.iter().filter(|call| call.outcome != Outcome::Unknown).count();
    let mut seen: HashSet<(u128, Option<u64>)> = HashSet::new();
    // The begin event of each linearized call, and the value before it.
    let mut linearized: Vec<(usize, Option<u64>)> = Vec::new();
    let (mut value, mut set) = (None, 0_u128);
    let mut at = events.next[events.head()];
    // Calls with unknown outcome may never have been executed, so they need not be linearized.
    while ends_left > 0 {
        let candidate =
            (at != events.head()).then(|| events.all[at]).filter(|(_, is_end)| !is_end).map(|(call, _)| call);
        match candidate {
            Some(call) if is_possible(value, &calls[call]) => {
                let next = after(value, &calls[call]);
                if !seen.insert((set ^ hash_of(call), next)) {
                    at = events.next[at];
                    continue;
                }
                linearized.push((at, value));
                (value, set) = (next, set ^ hash_of(call));
                events.remove(at);
                if let Some(end) = events.other[at] {
                    events.remove(end);
                    ends_left -= 1;
                }
                at = events.next[events.head()];
            }
            Some(_) => at = events.next[at],
            // The end of a remaining call, or of the list: no later call can come next.
            None => {
                let Some((begin, before)) = linearized.pop() else { return false };
                let (call, _) = events.all[begin];
                (value, set) = (before, set ^ hash_of(call));
                if let Some(end) = events.other[begin] {
                    events.reinsert(end);
                    ends_left += 1;
                }
                events.reinsert(begin);
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

    /// The register as stateright's sequential specification.
    #[derive(Clone)]
    struct RegisterSpec(Option<u64>);

    impl SequentialSpec for RegisterSpec {
        type Op = Operation;
        type Ret = Outcome;

        fn invoke(&mut self, operation: &Operation) -> Outcome {
            match operation {
                Operation::Read => Outcome::Value(self.0),
                Operation::CompareAndSet { expected, value } if *expected == self.0 => {
                    self.0 = Some(*value);
                    Outcome::Set(true)
                }
                Operation::CompareAndSet { .. } => Outcome::Set(false),
            }
        }
    }

    /// The verdict of stateright's tester.
    fn by_stateright(calls: &[Call]) -> bool {
        let mut tester = LinearizabilityTester::new(RegisterSpec(None));
        let events = Events::new(calls);
        for (call, is_end) in events.all {
            // Each call is a separate thread, as calls with unknown outcome never end.
            let result = if is_end {
                tester.on_return(call, calls[call].outcome.clone())
            } else {
                tester.on_invoke(call, calls[call].operation.clone())
            };
            result.expect("a history");
        }
        tester.is_consistent()
    }

    /// The verdict of trying every order.
    fn by_all_orders(calls: &[Call], placed: &mut Vec<usize>, value: Option<u64>) -> bool {
        if (0..calls.len()).all(|index| placed.contains(&index) || calls[index].outcome == Outcome::Unknown) {
            return true;
        }
        (0..calls.len()).any(|index| {
            let must_precede = |other: &Call| other.outcome != Outcome::Unknown && other.ended < calls[index].begun;
            if placed.contains(&index)
                || (0..calls.len()).any(|other| !placed.contains(&other) && must_precede(&calls[other]))
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
    fn it_agrees_with_exhaustive_search_and_stateright() {
        let zero = Instant::now();
        // A deterministic random number generator (splitmix64).
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
                    let (operation, outcome) = match random(5) {
                        0 | 1 => (Operation::Read, Outcome::Value(some(random(3)))),
                        kind => {
                            let operation =
                                Operation::CompareAndSet { expected: some(random(3)), value: 1 + random(2) };
                            let outcome = if kind == 2 { Outcome::Unknown } else { Outcome::Set(random(3) > 0) };
                            (operation, outcome)
                        }
                    };
                    Call { begun: at(begun), ended: at(begun + 1 + random(6)), operation, outcome }
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
    fn a_long_history_is_checked_quickly() {
        // About five overlapping calls at any time: reads, and writes based on the last value.
        let zero = Instant::now();
        let at = |micros: u64| zero + Duration::from_micros(micros);
        let mut calls = Vec::new();
        let mut value = None;
        for number in 0..100_000_u64 {
            let begun = number * 10;
            let call =
                |begun, ended, operation, outcome| Call { begun: at(begun), ended: at(ended), operation, outcome };
            if number % 2 == 0 {
                calls.push(call(begun, begun + 45, Operation::Read, Outcome::Value(value)));
            } else {
                let operation = Operation::CompareAndSet { expected: value, value: number };
                calls.push(call(begun, begun + 45, operation, Outcome::Set(true)));
                value = Some(number);
            }
        }
        assert!(is_linearizable(&calls));
        // One read of a value that was overwritten long before.
        calls[99_998].outcome = Outcome::Value(Some(7));
        assert!(!is_linearizable(&calls));
    }
}
