//! Backoff between attempts.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const DELAY_MIN: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Exponential backoff: each delay is twice the previous one.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(DELAY_MIN)
    }

    /// Waits for the next delay; returns `false` if stopped.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(self.0) => {}
        }
        self.0 = (self.0 * 2).min(DELAY_MAX);
        true
    }
}
