//! Which endpoint a call goes to. Pure.

use crossdock_routing::Balance;

/// Picks endpoints and knows how many calls each has under way.
#[derive(Debug)]
pub(crate) struct Picker {
    balance: Balance,
    outstanding: Vec<usize>,
    next: usize,
}

impl Picker {
    /// For that many endpoints, at least one.
    pub(crate) fn new(balance: Balance, endpoints: usize) -> Self {
        debug_assert!(endpoints > 0, "a service has at least one endpoint");
        Self { balance, outstanding: vec![0; endpoints], next: 0 }
    }

    /// The endpoint of the next call, which is under way from now on.
    pub(crate) fn begin(&mut self) -> usize {
        let count = self.outstanding.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let picked = match self.balance {
            Balance::RoundRobin => self.next,
            Balance::LeastOutstanding => {
                in_turn.min_by_key(|endpoint| self.outstanding[*endpoint]).unwrap_or(self.next)
            }
        };
        self.next = (picked + 1) % count;
        self.outstanding[picked] += 1;
        picked
    }

    /// A call has ended.
    pub(crate) fn end(&mut self, endpoint: usize) {
        debug_assert!(self.outstanding[endpoint] > 0, "a call ends once");
        self.outstanding[endpoint] = self.outstanding[endpoint].saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_turn() {
        let mut picker = Picker::new(Balance::RoundRobin, 3);
        let picked: Vec<usize> = (0..6).map(|_| picker.begin()).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_least_busy_and_in_turn_among_equals() {
        let mut picker = Picker::new(Balance::LeastOutstanding, 3);
        assert_eq!([picker.begin(), picker.begin(), picker.begin()], [0, 1, 2]);
        picker.end(1);
        assert_eq!(picker.begin(), 1);
        picker.end(0);
        picker.end(2);
        assert_eq!([picker.begin(), picker.begin()], [2, 0]);
    }
}
