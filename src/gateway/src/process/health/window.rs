//! Counts recent calls and failures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Counts calls in a window that advances by halves: it covers at least half of its length, and no call older than its length.
/// Successes are counted by the caller without a lock; the caller synchronizes everything else.
#[derive(Debug, Default)]
pub(super) struct Window {
    failed: [u32; 2],
    succeeded: u32,
    started: Option<Instant>,
}

impl Window {
    /// Advances the window to `now`, and takes the successes counted since the last time.
    pub(super) fn advance(&mut self, succeeded: &AtomicU32, now: Instant, len: Duration) {
        let elapsed = self.started.map_or(len, |started| now.duration_since(started));
        if elapsed < len / 2 {
            return;
        }
        let recent = succeeded.swap(0, Ordering::Relaxed);
        self.started = Some(now);
        if elapsed >= len {
            // Attribute to the window its share of the successes of a longer period.
            let share = if elapsed.is_zero() { 1.0 } else { (len.as_secs_f64() / elapsed.as_secs_f64()).min(1.0) };
            self.failed = [0, 0];
            self.succeeded = 0;
            // Fractions of a call are dropped.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32 is one")]
            let recent = (f64::from(recent) * share) as u32;
            self.succeeded = recent;
            return;
        }
        self.failed = [self.failed[1], 0];
        self.succeeded = recent;
    }

    pub(super) fn record_failure(&mut self) {
        self.failed[1] = self.failed[1].saturating_add(1);
    }

    /// Failed calls, and all calls.
    pub(super) fn counts(&self, succeeded: &AtomicU32) -> (u32, u32) {
        let failed = self.failed[0].saturating_add(self.failed[1]);
        let succeeded = self.succeeded.saturating_add(succeeded.load(Ordering::Relaxed));
        (failed, failed.saturating_add(succeeded))
    }

    /// Whether at least `percent` of at least `calls_min` calls failed.
    pub(super) fn exceeds(&self, succeeded: &AtomicU32, calls_min: u32, percent: u32) -> bool {
        let (failed, calls) = self.counts(succeeded);
        calls >= calls_min && u64::from(failed) * 100 >= u64::from(calls) * u64::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: Duration = Duration::from_secs(10);

    #[test]
    fn successes_before_the_first_failure_count() {
        let (mut window, succeeded, now) = (Window::default(), AtomicU32::new(600), Instant::now());
        window.advance(&succeeded, now, LEN);
        (0..20).for_each(|_| window.record_failure());
        assert!(!window.exceeds(&succeeded, 20, 50), "{window:?}");
    }

    #[test]
    fn calls_before_the_window_do_not_count() {
        let (mut window, succeeded, now) = (Window::default(), AtomicU32::new(0), Instant::now());
        window.advance(&succeeded, now, LEN);
        (0..30).for_each(|_| window.record_failure());
        assert!(window.exceeds(&succeeded, 20, 50));
        window.advance(&succeeded, now + LEN / 2, LEN);
        assert!(window.exceeds(&succeeded, 20, 50), "half a window later");
        window.advance(&succeeded, now + LEN, LEN);
        assert_eq!(window.counts(&succeeded), (0, 0));
        // Successes of a long period count in proportion.
        succeeded.store(1000, Ordering::Relaxed);
        window.advance(&succeeded, now + 11 * LEN, LEN);
        assert_eq!(window.counts(&succeeded), (0, 100));
    }
}
