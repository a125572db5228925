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

    /// The endpoint of the next call, which is under way from now on.
    pub(crate) fn begin(&mut self) -> Outstanding {
        let count = self.outstanding.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let endpoint = match self.balance {
            Balance::RoundRobin => self.next,
            Balance::LeastOutstanding => {
                in_turn.min_by_key(|endpoint| self.outstanding[*endpoint].load(Ordering::Relaxed)).unwrap_or(self.next)
            }
        };
        self.next = (endpoint + 1) % count;
        let count = Arc::clone(&self.outstanding[endpoint]);
        count.fetch_add(1, Ordering::Relaxed);
        Outstanding { endpoint, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_turn() {
        let mut picker = Picker::new(Balance::RoundRobin, 3);
        let picked: Vec<usize> = (0..6).map(|_| picker.begin().endpoint).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_least_busy_and_in_turn_among_equals() {
        let mut picker = Picker::new(Balance::LeastOutstanding, 3);
        let [first, second, third] = [(); 3].map(|()| picker.begin());
        assert_eq!([first.endpoint, second.endpoint, third.endpoint], [0, 1, 2]);
        drop(second);
        let fourth = picker.begin();
        assert_eq!(fourth.endpoint, 1);
        drop((first, third));
        let fifth = picker.begin();
        assert_eq!([fifth.endpoint, picker.begin().endpoint], [2, 0]);
    }
}
