//! Which endpoint a call goes to. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossdock_routing::Balance;

/// Picks endpoints.
#[derive(Debug)]
pub(crate) struct Picker {
    balance: Balance,
    next: usize,
}

/// Calls under way at an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

/// A call under way at an endpoint; it ends when this is dropped, wherever that is: a stream outlives its head.
#[derive(Debug)]
pub(crate) struct Outstanding(Arc<AtomicUsize>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    pub(crate) fn begin(&self) -> Outstanding {
        self.0.fetch_add(1, Ordering::Relaxed);
        Outstanding(Arc::clone(&self.0))
    }

    fn calls(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Picker {
    pub(crate) fn new(balance: Balance) -> Self {
        Self { balance, next: 0 }
    }

    /// The endpoint of the next call, of `count`: one of the best by `rank`, where a lower one is better and nothing says that the endpoint is
    /// not to be used. Among equals, the balance decides.
    pub(crate) fn pick<'a, R: Ord>(
        &mut self,
        count: usize,
        rank: impl Fn(usize) -> Option<R>,
        load: impl Fn(usize) -> &'a Load,
    ) -> Option<usize> {
        // There may be fewer endpoints than before.
        let first = if self.next < count { self.next } else { 0 };
        let in_turn = (first..count).chain(0..first);
        let ranked = in_turn.filter_map(|endpoint| Some((rank(endpoint)?, endpoint)));
        // The first of equals is the next in turn.
        let (_, endpoint) = match self.balance {
            Balance::RoundRobin => ranked.min_by(|(one, _), (other, _)| one.cmp(other))?,
            Balance::LeastOutstanding => ranked.min_by(|(one, first), (other, second)| {
                one.cmp(other).then_with(|| load(*first).calls().cmp(&load(*second).calls()))
            })?,
        };
        self.next = endpoint + 1;
        Some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picker with the loads of its endpoints.
    struct Picked {
        picker: Picker,
        loads: Vec<Load>,
    }

    impl Picked {
        fn new(balance: Balance, count: usize) -> Self {
            Self { picker: Picker::new(balance), loads: (0..count).map(|_| Load::default()).collect() }
        }

        fn begin<R: Ord>(&mut self, rank: impl Fn(usize) -> Option<R>) -> Option<(usize, Outstanding)> {
            let picked = self.picker.pick(self.loads.len(), rank, |endpoint| &self.loads[endpoint])?;
            Some((picked, self.loads[picked].begin()))
        }

        fn next(&mut self) -> (usize, Outstanding) {
            self.begin(|_| Some(())).expect("an endpoint")
        }
    }

    #[test]
    fn in_turn_also_where_endpoints_come_and_go() {
        let mut picked = Picked::new(Balance::RoundRobin, 3);
        let mut endpoints = |count: usize, calls: usize| -> Vec<usize> {
            picked.loads.resize_with(count, Load::default);
            (0..calls).map(|_| picked.next().0).collect()
        };
        assert_eq!(endpoints(3, 5), [0, 1, 2, 0, 1]);
        assert_eq!(endpoints(2, 3), [0, 1, 0]);
        assert_eq!(endpoints(4, 4), [1, 2, 3, 0]);
    }

    #[test]
    fn the_least_busy_and_in_turn_among_equals() {
        let mut picked = Picked::new(Balance::LeastOutstanding, 3);
        let [first, second, third] = [(); 3].map(|()| picked.next());
        assert_eq!([first.0, second.0, third.0], [0, 1, 2]);
        drop(second);
        let fourth = picked.next();
        assert_eq!(fourth.0, 1);
        drop((first, third));
        let fifth = picked.next();
        assert_eq!([fifth.0, picked.next().0], [2, 0]);
    }

    #[test]
    fn only_the_best_unless_all_are_as_bad() {
        for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
            let mut picked = Picked::new(balance, 3);
            let one_is_bad = |endpoint| Some(u8::from(endpoint == 1));
            let busy: Vec<_> = (0..4).filter_map(|_| picked.begin(one_is_bad)).collect();
            assert!(busy.iter().all(|(endpoint, _)| *endpoint != 1), "{balance:?}");
            let excluded = |endpoint| (endpoint == 1).then_some(0);
            assert_eq!(picked.begin(excluded).expect("one").0, 1);
            assert!(picked.begin(|_| None::<u8>).is_none());
        }
    }
}
