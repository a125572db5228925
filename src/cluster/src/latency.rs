//! Latency histograms with buckets at powers of two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bounds are 2^0 … 2^24 microseconds, about 17 seconds; one more bucket counts longer durations.
const BUCKETS: usize = 25;

/// A latency histogram. Written by one thread, read by others.
#[derive(Debug, Default)]
pub struct Latency {
    counts: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

impl Latency {
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = (0..BUCKETS).find(|power| micros <= 1 << power).unwrap_or(BUCKETS);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Each bound with the number of durations up to it, and the total number.
    pub fn counts(&self) -> (impl Iterator<Item = (Duration, u64)>, u64) {
        let mut sum = 0;
        let mut below = Vec::with_capacity(BUCKETS);
        for (power, count) in self.counts[..BUCKETS].iter().enumerate() {
            sum += count.load(Ordering::Relaxed);
            below.push((Duration::from_micros(1 << power), sum));
        }
        let all = sum + self.counts[BUCKETS].load(Ordering::Relaxed);
        (below.into_iter(), all)
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }
}

/// The latencies of an instance.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Time to write to the log and sync it.
    pub log: Latency,
    /// Time from a local proposal until it is applied here.
    pub commit: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_longer_is_counted_further_on() {
        let latency = Latency::default();
        for micros in [0, 1, 2, 3, 1000, 1 << 30] {
            latency.record(Duration::from_micros(micros));
        }
        let (below, all) = latency.counts();
        let below: Vec<_> = below.map(|(_, count)| count).collect();
        assert_eq!((below[0], below[1], below[2], below[9], below[10], all), (2, 3, 4, 4, 5, 6));
    }
}
