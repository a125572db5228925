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

    /// The upper bound of each bucket, `None` for the last one, and the number of durations in it.
    pub fn counts(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = (0..BUCKETS).map(|power| Some(Duration::from_micros(1 << power))).chain([None]);
        bounds.zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
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
        let counts: Vec<_> = latency.counts().map(|(_, count)| count).collect();
        assert_eq!((&counts[..4], &counts[9..12], counts[BUCKETS]), (&[2, 1, 1, 0][..], &[0, 1, 0][..], 1));
    }
}
