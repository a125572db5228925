//! Selects the endpoint of a call. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossdock_routing::Balance;

/// The load balancer of a service.
#[derive(Debug)]
pub(crate) struct Picker {
    balance: Balance,
    next: usize,
}

/// The number of outstanding calls at an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

/// An outstanding call at an endpoint; it ends when this is dropped. A streamed reply outlives its headers.
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

    /// Picks one of `count` endpoints for the next call: one with the lowest `rank`; `None` excludes an endpoint. Among endpoints of equal rank, the
    /// balance decides.
    pub(crate) fn pick<'a, R: Ord>(
        &mut self,
        count: usize,
        rank: impl Fn(usize) -> Option<R>,
        load: impl Fn(usize) -> &'a Load,
    ) -> Option<usize> {
        // The number of endpoints may have decreased.
        let first = if self.next < count { self.next } else { 0 };
        let rotation = (first..count).chain(0..first);
        let ranked = rotation.filter_map(|endpoint| Some((rank(endpoint)?, endpoint)));
        // `min_by` returns the first of equal elements, which is the next in rotation.
        let (_, endpoint) = match self.balance {
            Balance::RoundRobin => ranked.min_by(|(a, _), (b, _)| a.cmp(b))?,
            Balance::LeastOutstanding => ranked.min_by(|(a, first), (b, second)| {
                a.cmp(b).then_with(|| load(*first).calls().cmp(&load(*second).calls()))
            })?,
        };
        self.next = endpoint + 1;
        Some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picker and its endpoints.
    struct Endpoints {
        picker: Picker,
        loads: Vec<Load>,
    }

    impl Endpoints {
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
    fn round_robin_continues_when_endpoints_change() {
        let mut picked = Endpoints::new(Balance::RoundRobin, 3);
        let mut endpoints = |count: usize, calls: usize| -> Vec<usize> {
            picked.loads.resize_with(count, Load::default);
            (0..calls).map(|_| picked.next().0).collect()
        };
        assert_eq!(endpoints(3, 5), [0, 1, 2, 0, 1]);
        assert_eq!(endpoints(2, 3), [0, 1, 0]);
        assert_eq!(endpoints(4, 4), [1, 2, 3, 0]);
    }

    #[test]
    fn least_outstanding_picks_the_least_busy_and_rotates_among_equals() {
        let mut picked = Endpoints::new(Balance::LeastOutstanding, 3);
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
    fn only_endpoints_of_the_best_rank_are_picked() {
        for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
            let mut picked = Endpoints::new(balance, 3);
            let one_is_worse = |endpoint| Some(u8::from(endpoint == 1));
            let busy: Vec<_> = (0..4).filter_map(|_| picked.begin(one_is_worse)).collect();
            assert!(busy.iter().all(|(endpoint, _)| *endpoint != 1), "{balance:?}");
            let excluded = |endpoint| (endpoint == 1).then_some(0);
            assert_eq!(picked.begin(excluded).expect("one").0, 1);
            assert!(picked.begin(|_| None::<u8>).is_none());
        }
    }
}
