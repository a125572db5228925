//! How long a follower waits for a silent leader: as long as its silences so far suggest.
//!
//! Where heartbeats come on time, a leader that is lost is noticed soon. Where they do not, as on a machine with too much to
//! do, a short silence means nothing. Like the accrual failure detector (Hayashibara et al., SRDS 2004), the limit follows
//! what was observed; it uses the longest silence instead of a distribution, as silences come in bursts.

use crate::Config;

/// Windows that are remembered.
const WINDOWS: usize = 12;
/// The limit is so many times the longest silence.
const FACTOR: u32 = 4;
/// A part of the first window after which it means something.
const FIRST_PART: u32 = 5;

/// The silences of the leader. All are in ticks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Patience {
    /// The longest silence in each of the last windows; the oldest one is replaced next.
    windows: [u32; WINDOWS],
    /// The number of windows so far.
    count: usize,
    /// The age of the current window, and the longest silence in it.
    ticks: u32,
    longest: u32,
}

impl Patience {
    fn is_fixed(config: &Config) -> bool {
        config.quick_ticks >= config.sync_ticks
    }

    /// Records a silence that has ended.
    pub(crate) fn observe(&mut self, silence: u32, config: &Config) {
        if !Self::is_fixed(config) {
            self.longest = self.longest.max(silence);
        }
    }

    /// Records a tick of an established epoch.
    pub(crate) fn tick(&mut self, config: &Config) {
        if Self::is_fixed(config) {
            return;
        }
        self.ticks += 1;
        if self.ticks >= config.window_ticks {
            self.windows[self.count % WINDOWS] = self.longest;
            self.count += 1;
            (self.ticks, self.longest) = (0, 0);
        }
    }

    /// The silence after which the leader is considered lost.
    pub(crate) fn limit(&self, config: &Config) -> u32 {
        let is_new = self.count == 0 && self.ticks < config.window_ticks / FIRST_PART;
        if is_new || Self::is_fixed(config) {
            return config.sync_ticks;
        }
        let longest = self.windows.iter().copied().fold(self.longest, u32::max);
        longest.saturating_mul(FACTOR).clamp(config.quick_ticks, config.sync_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogId, ServerId};

    /// Lets silences of this length follow one another for some ticks.
    fn pass(patience: &mut Patience, config: &Config, ticks: u32, silence: u32) {
        for tick in 1..=ticks {
            patience.tick(config);
            if tick.is_multiple_of(silence) {
                patience.observe(silence, config);
            }
        }
    }

    #[test]
    fn the_limit_follows_the_longest_silence_of_the_last_two_minutes() {
        let config = Config::new(ServerId(1), LogId(1));
        let mut patience = Patience::default();
        let window = config.window_ticks;
        pass(&mut patience, &config, 90, 3);
        assert_eq!(patience.limit(&config), config.sync_ticks, "too little is known yet");
        pass(&mut patience, &config, window - 90, 3);
        assert_eq!(patience.limit(&config), config.quick_ticks);
        patience.observe(6, &config);
        assert_eq!(patience.limit(&config), 24, "at once");
        pass(&mut patience, &config, 11 * window, 3);
        assert_eq!(patience.limit(&config), 24);
        pass(&mut patience, &config, 2 * window, 3);
        assert_eq!(patience.limit(&config), config.quick_ticks, "forgotten");
        patience.observe(1_000, &config);
        assert_eq!(patience.limit(&config), config.sync_ticks, "not beyond the maximum");
    }

    #[test]
    fn it_can_be_fixed() {
        let mut config = Config::new(ServerId(1), LogId(1));
        config.quick_ticks = config.sync_ticks;
        let mut patience = Patience::default();
        pass(&mut patience, &config, 3 * config.window_ticks, 3);
        assert_eq!((patience.limit(&config), patience), (config.sync_ticks, Patience::default()));
    }
}
