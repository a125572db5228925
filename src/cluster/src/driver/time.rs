//! The time of transactions.

use crate::platform::{Instant, wall_clock_millis};

/// The wall clock, except that it neither goes back nor stands still. If the wall clock is behind – that of the last leader was
/// ahead, or it was set – time goes on from the last transaction by the monotonic clock, until the wall clock has caught up.
#[derive(Debug)]
pub(super) struct Time {
    base: u64,
    since: Instant,
}

impl Time {
    pub(super) fn new() -> Self {
        Self { base: 0, since: Instant::now() }
    }

    /// The time in milliseconds since the Unix epoch, at least that of the last transaction.
    pub(super) fn now(&mut self, last: u64) -> u64 {
        self.at(wall_clock_millis(), Instant::now(), last)
    }

    fn at(&mut self, wall: u64, now: Instant, last: u64) -> u64 {
        let passed = u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        let steady = self.base.saturating_add(passed);
        let ahead = wall.max(last);
        if ahead > steady {
            (self.base, self.since) = (ahead, now);
        }
        steady.max(ahead)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_goes_on_while_the_wall_clock_is_behind() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut time = Time { base: 0, since: begun };
        assert_eq!(time.at(1_000, at(0), 0), 1_000);
        assert_eq!(time.at(1_050, at(50), 0), 1_050, "it follows the wall clock");
        assert_eq!(time.at(1_100, at(100), 5_000), 5_000, "the last leader was ahead");
        assert_eq!(time.at(1_400, at(400), 5_000), 5_300);
        assert_eq!(time.at(200, at(500), 5_300), 5_400, "the wall clock was set back");
        assert_eq!(time.at(9_000, at(600), 5_400), 9_000, "it was set forward");
    }
}
