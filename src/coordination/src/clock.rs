//! The clock of the state.

use crossdock_zab::{Epoch, Zxid};

use crate::limits::CLOCK_STEP_MS_MAX;

/// A clock in milliseconds that advances with the commands of each leader, and only while it works.
///
/// The time between commands of different leaders does not count, because nobody could keep a session alive meanwhile and their
/// wall clocks differ. Nor does most of a long gap between two commands of one leader, which was paused. The times of one leader
/// follow its monotonic clock. So this clock may run slow, but ahead of the holders' own clocks only by what they differ in rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// The epoch of the last command.
    pub(crate) epoch: Epoch,
    /// The leader's time of the last command.
    pub(crate) leader_time: u64,
    /// The time of this clock.
    pub(crate) now: u64,
}

impl Clock {
    /// The time in milliseconds since the first command.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The wall clock of the leader at the last command, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn leader_time(&self) -> u64 {
        self.leader_time
    }

    /// Whether the command of this zxid may have been applied: one of its epoch or a later one was.
    #[must_use]
    pub fn has_passed(&self, zxid: u64) -> bool {
        self.epoch >= Zxid::from_u64(zxid).epoch
    }

    /// Advances to a command; whether it is the first one of an epoch.
    pub(crate) fn advance(&mut self, zxid: Zxid, leader_time: u64) -> bool {
        let is_new = zxid.epoch != self.epoch;
        if is_new {
            self.epoch = zxid.epoch;
        } else {
            self.now += leader_time.saturating_sub(self.leader_time).min(CLOCK_STEP_MS_MAX);
        }
        self.leader_time = leader_time;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_advances_with_a_leader_and_not_between_leaders() {
        let mut clock = Clock::default();
        let zxid = |epoch, counter| Zxid::new(Epoch(epoch), counter);
        assert!(clock.advance(zxid(1, 1), 1_000_000));
        assert_eq!(clock.now(), 0);
        assert!(!clock.advance(zxid(1, 2), 1_000_300));
        assert_eq!(clock.now(), 300);
        assert!(!clock.advance(zxid(1, 3), 9_000_000), "the leader was paused");
        assert_eq!(clock.now(), 300 + CLOCK_STEP_MS_MAX);
        assert!(clock.advance(zxid(2, 1), 50_000_000), "an hour without a leader");
        assert_eq!(clock.now(), 2_300);
        assert!(!clock.advance(zxid(2, 2), 49_000_000), "time never goes back");
        assert_eq!(clock.now(), 2_300);
    }
}
