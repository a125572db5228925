//! The time of transactions.

use crate::platform::{Instant, wall_clock_millis};

/// The time of transactions. It begins as the wall clock when this instance begins to lead, and goes on by the monotonic clock: a
/// wall clock that is set must not end what is timed by it. It never goes back, whatever the wall clock of the last leader was.
#[derive(Debug)]
pub(super) struct Time {
    base: u64,
    since: Instant,
}

impl Time {
    pub(super) fn new() -> Self {
        Self { base: wall_clock_millis(), since: Instant::now() }
    }

    /// Catches up with the wall clock, as this instance begins to lead.
    pub(super) fn lead(&mut self) {
        let now = Instant::now();
        self.raise(wall_clock_millis(), now);
    }

    /// The time in milliseconds since the Unix epoch, at least that of the last transaction.
    pub(super) fn now(&mut self, last: u64) -> u64 {
        let now = Instant::now();
        self.raise(last, now);
        self.at(now)
    }

    fn at(&self, now: Instant) -> u64 {
        let passed = u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.base.saturating_add(passed)
    }

    /// Goes on from this time, if it is later.
    fn raise(&mut self, time: u64, now: Instant) {
        if time > self.at(now) {
            (self.base, self.since) = (time, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_goes_on_by_the_monotonic_clock() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut time = Time { base: 1_000, since: begun };
        assert_eq!(time.at(at(50)), 1_050, "whatever the wall clock is set to");
        time.raise(5_000, at(100));
        assert_eq!(time.at(at(400)), 5_300, "the last leader was ahead");
        time.raise(200, at(500));
        assert_eq!(time.at(at(500)), 5_400, "it never goes back");
    }
}
