//! How long things took: counts by powers of two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Limits of the counts: 2^0 … 2^24 microseconds, about 17 seconds; one more for what took longer.
const LIMITS: usize = 25;

/// Counts of how long something took. Written by one thread, read by others.
#[derive(Debug, Default)]
pub struct Latency {
    counts: [AtomicU64; LIMITS + 1],
    sum_us: AtomicU64,
}

impl Latency {
    pub(crate) fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = (0..LIMITS).find(|power| micros <= 1 << power).unwrap_or(LIMITS);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Each limit with how many took no longer, and how many there were.
    pub fn counts(&self) -> (impl Iterator<Item = (Duration, u64)>, u64) {
        let mut sum = 0;
        let mut below = Vec::with_capacity(LIMITS);
        for (power, count) in self.counts[..LIMITS].iter().enumerate() {
            sum += count.load(Ordering::Relaxed);
            below.push((Duration::from_micros(1 << power), sum));
        }
        let all = sum + self.counts[LIMITS].load(Ordering::Relaxed);
        (below.into_iter(), all)
    }

    /// All together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }
}

/// What is measured of an instance.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Writing to the log and syncing it.
    pub log: Latency,
    /// From a proposal of somebody here until it is applied here.
    pub commit: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_longer_is_counted_further_on() {
        let latency = Latency::default();
        for micros in [0, 1, 2, 3, 1000, 1 << 30] {
            latency.note(Duration::from_micros(micros));
        }
        let (below, all) = latency.counts();
        let below: Vec<_> = below.map(|(_, count)| count).collect();
        assert_eq!((below[0], below[1], below[2], below[9], below[10], all), (2, 3, 4, 4, 5, 6));
    }
}
