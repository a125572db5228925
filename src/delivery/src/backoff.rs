//! Backoff between attempts.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Exponential backoff: each delay is twice the previous one, up to a maximum.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Starts with the delay `first`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.max);
        delay
    }

    /// Waits for the next delay; returns `false` if `stop` completes first.
    pub async fn wait(&mut self, stop: impl Future<Output = ()>) -> bool {
        let delay = self.next_delay();
        tokio::select! {
            () = stop => false,
            () = tokio::time::sleep(delay) => true,
        }
    }
}

/// A random duration between half of `delay` and `delay`, so that instances do not retry at the same time.
#[must_use]
pub fn jittered(delay: Duration) -> Duration {
    let random = u16::try_from(RandomState::new().hash_one(0) & 0xffff).unwrap_or(0);
    delay.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(SECOND, SECOND * 5);
        let delays: Vec<u64> = (0..5).map(|_| backoff.next_delay().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn jitter_stays_within_half_of_the_delay() {
        let delays: Vec<Duration> = (0..100).map(|_| jittered(SECOND)).collect();
        assert!(delays.iter().all(|delay| (SECOND / 2..=SECOND).contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]), "delays are random");
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        assert!(!Backoff::new(SECOND * 3600, SECOND * 3600).wait(async {}).await);
        assert!(Backoff::new(Duration::from_millis(1), SECOND).wait(std::future::pending()).await);
    }
}
