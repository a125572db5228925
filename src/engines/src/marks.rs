//! Marks of requests that were withdrawn before they were answered. Each is kept for longer than a request can be under way, and deleted then.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longer than any server keeps a request that its client has given up.
const KEPT: Duration = Duration::from_secs(120);
/// Marks that are deleted by one transaction: engines permit 64 operations.
const BATCH_LEN: usize = 64;
/// The most marks that are remembered; further ones go with the session.
const MARKS_MAX: usize = 100_000;

/// The keys of the marks of one instance, in the order of their age.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<VecDeque<(Instant, String)>>);

impl Marks {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, key: String) {
        let mut marks = self.lock();
        if marks.len() < MARKS_MAX {
            marks.push_back((Instant::now(), key));
        }
    }

    /// Marks that can be deleted, up to a batch.
    pub(crate) fn due(&self) -> Vec<String> {
        let mut marks = self.lock();
        let count = marks.iter().take(BATCH_LEN).take_while(|(added, _)| added.elapsed() > KEPT).count();
        marks.drain(..count).map(|(_, key)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mark_is_due_after_its_time() {
        let marks = Marks::default();
        marks.add("a".to_owned());
        tokio::time::advance(KEPT / 2).await;
        marks.add("b".to_owned());
        assert!(marks.due().is_empty());
        tokio::time::advance(KEPT / 2 + Duration::from_millis(1)).await;
        assert_eq!(marks.due(), ["a"]);
        assert!(marks.due().is_empty());
        for number in 0..BATCH_LEN {
            marks.add(number.to_string());
        }
        tokio::time::advance(KEPT * 2).await;
        assert_eq!(marks.due().len(), BATCH_LEN);
        assert_eq!(marks.due().len(), 1);
    }
}
