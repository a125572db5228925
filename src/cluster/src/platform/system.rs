//! The system that the process runs on.

pub(crate) mod files;
pub(crate) mod network;
mod threads;

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use self::threads::{
    Condition, Thread, Worker, every, in_instance, pause, run_blocking, run_in_background, spawn, spawn_runtime,
    spawn_thread, spawn_worker, yield_thread,
};

/// The time of the system's clock, in milliseconds since the Unix epoch.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "leaders stamp transactions, and operators compare the clocks of machines"
)]
pub fn wall_clock_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An unpredictable number.
pub(crate) fn random() -> u64 {
    // The standard library seeds its maps from the system's random numbers.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
