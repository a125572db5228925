//! Until when a session is known to live.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Until when a session is known to live.
#[derive(Debug)]
pub(crate) struct Life {
    opened: Instant,
    /// Milliseconds since then; 0 if it has ended.
    until: AtomicU64,
}

impl Life {
    pub(crate) fn new(opened: Instant, until: Instant) -> Self {
        let life = Self { opened, until: AtomicU64::new(1) };
        life.extend(until);
        life
    }

    /// It lives until this time, unless it has ended.
    pub(crate) fn extend(&self, until: Instant) {
        let millis = u64::try_from((until - self.opened).as_millis()).unwrap_or(u64::MAX);
        let _ = self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, |known| (known > 0).then_some(millis));
    }

    pub(crate) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    pub(crate) fn until(&self) -> Instant {
        self.opened + Duration::from_millis(self.until.load(Ordering::Acquire))
    }
}
