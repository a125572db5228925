//! `breaker`: calls fail at once while too many of them fail.

use std::time::Duration as StdDuration;

use crossdock_settings::{Duration, Reader, Spanned, settings};

use super::bounds::{bounded_count, bounded_time};

settings! {
    /// a circuit breaker
    pub(crate) struct BreakerSettings {
        /// Failed calls per hundred at which it opens; 50 by default.
        pub(crate) failures_percent: Option<Spanned<u32>>,
        /// Calls within the window below which it does not open; 20 by default.
        pub(crate) calls: Option<Spanned<u32>>,
        /// The window over which calls are counted; 10s by default.
        pub(crate) window: Option<Spanned<Duration>>,
        /// How long calls fail at once before some are let through to probe the service; 5s by default.
        pub(crate) open: Option<Spanned<Duration>>,
        /// Concurrent probing calls, all of which must succeed before it closes; 1 by default.
        pub(crate) probes: Option<Spanned<u32>>,
    }
}

/// When calls to a service fail at once, without being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerPlan {
    /// Failed calls per hundred at which it opens.
    pub failures_percent: u32,
    /// Calls within the window below which it does not open.
    pub calls_min: u32,
    /// The window over which calls are counted.
    pub window: StdDuration,
    /// How long it is open before calls are let through to probe the service.
    pub open: StdDuration,
    /// Concurrent probing calls, all of which must succeed before it closes.
    pub probes: u32,
}

impl BreakerSettings {
    /// Checks them; `None` if an error was reported.
    pub(super) fn check(&self, reader: &mut Reader<'_>) -> Option<BreakerPlan> {
        let min = StdDuration::from_millis(100);
        Some(BreakerPlan {
            failures_percent: bounded_count(self.failures_percent.as_ref(), "failures_percent", 50, 100, reader)?,
            calls_min: bounded_count(self.calls.as_ref(), "calls", 20, 1_000_000, reader)?,
            window: bounded_time(self.window.as_ref(), "window", StdDuration::from_secs(10), min, reader)?,
            open: bounded_time(self.open.as_ref(), "open", StdDuration::from_secs(5), min, reader)?,
            probes: bounded_count(self.probes.as_ref(), "probes", 1, 1000, reader)?,
        })
    }
}
