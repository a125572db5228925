//! Which endpoint a call goes to. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossdock_routing::Balance;

/// Picks endpoints and knows how many calls each has under way.
#[derive(Debug)]
pub(crate) struct Picker {
    balance: Balance,
    outstanding: Vec<Arc<AtomicUsize>>,
    next: usize,
}

/// A call under way at an endpoint; it ends when this is dropped, wherever that is: a stream outlives its head.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub(crate) endpoint: usize,
    count: Arc<AtomicUsize>,
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Picker {
    /// For that many endpoints, at least one.
    pub(crate) fn new(balance: Balance, endpoints: usize) -> Self {
        debug_assert!(endpoints > 0, "a service has at least one endpoint");
        Self { balance, outstanding: (0..endpoints).map(|_| Arc::default()).collect(), next: 0 }
    }

    /// The endpoint of the next call, which is under way from now on: one of the best by `rank`, where a lower one is better and
    /// nothing says that the endpoint is not to be used. Among equals, the balance decides.
    pub(crate) fn begin<R: Ord>(&mut self, rank: impl Fn(usize) -> Option<R>) -> Option<Outstanding> {
        let count = self.outstanding.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let ranked = in_turn.filter_map(|endpoint| Some((rank(endpoint)?, endpoint)));
        // The first of equals is the next in turn.
        let (_, endpoint) = match self.balance {
            Balance::RoundRobin => ranked.min_by(|(one, _), (other, _)| one.cmp(other))?,
            Balance::LeastOutstanding => {
                let busy = |endpoint: usize| self.outstanding[endpoint].load(Ordering::Relaxed);
                ranked.min_by(|(one, first), (other, second)| {
                    one.cmp(other).then_with(|| busy(*first).cmp(&busy(*second)))
                })?
            }
        };
        self.next = (endpoint + 1) % count;
        let count = Arc::clone(&self.outstanding[endpoint]);
        count.fetch_add(1, Ordering::Relaxed);
        Some(Outstanding { endpoint, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(picker: &mut Picker) -> Outstanding {
        picker.begin(|_| Some(())).expect("an endpoint")
    }

    #[test]
    fn in_turn() {
        let mut picker = Picker::new(Balance::RoundRobin, 3);
        let endpoints: Vec<usize> = (0..6).map(|_| picked(&mut picker).endpoint).collect();
        assert_eq!(endpoints, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_least_busy_and_in_turn_among_equals() {
        let mut picker = Picker::new(Balance::LeastOutstanding, 3);
        let [first, second, third] = [(); 3].map(|()| picked(&mut picker));
        assert_eq!([first.endpoint, second.endpoint, third.endpoint], [0, 1, 2]);
        drop(second);
        let fourth = picked(&mut picker);
        assert_eq!(fourth.endpoint, 1);
        drop((first, third));
        let fifth = picked(&mut picker);
        assert_eq!([fifth.endpoint, picked(&mut picker).endpoint], [2, 0]);
    }

    #[test]
    fn only_the_best_unless_all_are_as_bad() {
        for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
            let mut picker = Picker::new(balance, 3);
            let one_is_bad = |endpoint| Some(u8::from(endpoint == 1));
            let busy: Vec<Outstanding> = (0..4).filter_map(|_| picker.begin(one_is_bad)).collect();
            assert!(busy.iter().all(|call| call.endpoint != 1), "{balance:?}");
            let excluded = |endpoint| (endpoint == 1).then_some(0);
            assert_eq!(picker.begin(excluded).expect("one").endpoint, 1);
            assert!(picker.begin(|_| None::<u8>).is_none());
        }
    }
}
