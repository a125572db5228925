//! Calls of the last while, and how many of them failed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Counts calls over a window that moves in halves, so that what is counted is never older than the window and never less than its half.
/// Successes are counted without a lock; everything else is the caller's to guard.
#[derive(Debug, Default)]
pub(super) struct Window {
    failed: [u32; 2],
    succeeded: u32,
    began: Option<Instant>,
}

impl Window {
    /// Moves the window to `now`, and takes the successes that were counted since.
    pub(super) fn move_to(&mut self, succeeded: &AtomicU32, now: Instant, len: Duration) {
        let elapsed = self.began.map_or(len, |began| now.duration_since(began));
        if elapsed < len / 2 {
            return;
        }
        let lately = succeeded.swap(0, Ordering::Relaxed);
        self.began = Some(now);
        if elapsed >= len {
            // Of what was counted over a longer time, the window has its share.
            let share = if elapsed.is_zero() { 1.0 } else { (len.as_secs_f64() / elapsed.as_secs_f64()).min(1.0) };
            self.failed = [0, 0];
            self.succeeded = 0;
            // Rates are of calls in the window: a fraction of a call is none.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32 is one")]
            let lately = (f64::from(lately) * share) as u32;
            self.succeeded = lately;
            return;
        }
        self.failed = [self.failed[1], 0];
        self.succeeded = lately;
    }

    pub(super) fn failed(&mut self) {
        self.failed[1] = self.failed[1].saturating_add(1);
    }

    /// Failed calls, and all calls.
    pub(super) fn counts(&self, succeeded: &AtomicU32) -> (u32, u32) {
        let failed = self.failed[0].saturating_add(self.failed[1]);
        let succeeded = self.succeeded.saturating_add(succeeded.load(Ordering::Relaxed));
        (failed, failed.saturating_add(succeeded))
    }

    /// Whether at least `percent` of at least `calls_min` calls failed.
    pub(super) fn fails(&self, succeeded: &AtomicU32, calls_min: u32, percent: u32) -> bool {
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
        window.move_to(&succeeded, now, LEN);
        (0..20).for_each(|_| window.failed());
        assert!(!window.fails(&succeeded, 20, 50), "{window:?}");
    }

    #[test]
    fn what_is_old_does_not_count() {
        let (mut window, succeeded, now) = (Window::default(), AtomicU32::new(0), Instant::now());
        window.move_to(&succeeded, now, LEN);
        (0..30).for_each(|_| window.failed());
        assert!(window.fails(&succeeded, 20, 50));
        window.move_to(&succeeded, now + LEN / 2, LEN);
        assert!(window.fails(&succeeded, 20, 50), "half a window later");
        window.move_to(&succeeded, now + LEN, LEN);
        assert_eq!(window.counts(&succeeded), (0, 0));
        // Successes of a long time count by their share.
        succeeded.store(1000, Ordering::Relaxed);
        window.move_to(&succeeded, now + 11 * LEN, LEN);
        assert_eq!(window.counts(&succeeded), (0, 100));
    }
}
