//! Limits inbound connections to a share of the file descriptors of the process.
//!
//! A process without a free descriptor cannot answer anybody, not even its health checks. So inbound connections get three quarters of the
//! limit of the system; the rest is for connections to services, the admin listener, files, and accepting connections only to refuse them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Minimum number of descriptors kept for other purposes.
const RESERVE_MIN: usize = 64;
/// Limit assumed if the system has none.
const UNLIMITED: u64 = 1 << 20;

/// Connections that may wait for a free slot at the same time. They use reserved descriptors: if accepting fails for want of one, actix-server
/// pauses for half a second.
const WAITING_MAX: usize = RESERVE_MIN / 4;
/// Poll interval and number of polls of a waiting connection. Together they exceed the interval between two sweeps of all HTTP/1 connections.
const WAIT_STEP: Duration = Duration::from_millis(10);
const WAIT_STEPS: u32 = 30;

/// Time after which closed connections have released their slots.
const SHED_INTERVAL: Duration = Duration::from_millis(10);

/// The last interval in which connections were closed, and their number.
static SHEDDING: Mutex<(u32, usize)> = Mutex::new((0, 0));
static STARTED: OnceLock<Instant> = OnceLock::new();
static WAITING: AtomicUsize = AtomicUsize::new(0);
static CALLERS_MAX: OnceLock<usize> = OnceLock::new();
static OPEN: AtomicUsize = AtomicUsize::new(0);
static SHED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Limits of the process on open files (getrlimit(2), RLIMIT_NOFILE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// The soft limit at the start of the process.
    pub before: u64,
    /// The soft limit in force.
    pub now: u64,
}

/// Raises the soft limit on open files to the hard limit, which needs no privilege. If that fails, the soft limit stays in force.
pub fn raise_open_files() -> OpenFiles {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(UNLIMITED);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(UNLIMITED),
        Err(_) => before,
    };
    OpenFiles { before, now }
}

/// The maximum number of open inbound connections of the process.
#[must_use]
pub fn callers_max() -> usize {
    *CALLERS_MAX.get_or_init(|| share(getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)))
}

fn share(open_files: u64) -> usize {
    let all = usize::try_from(open_files.min(UNLIMITED)).unwrap_or(usize::MAX);
    all.saturating_sub((all / 4).max(RESERVE_MIN)).max(1)
}

/// The number of open inbound connections.
#[must_use]
pub fn callers() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// The number of inbound connections that were refused because a limit of the process or of their listener was reached.
#[must_use]
pub fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// The number of idle connections that were closed to make room.
#[must_use]
pub fn shed() -> usize {
    SHED.load(Ordering::Relaxed)
}

pub(crate) fn count_refused() -> u64 {
    REFUSED.fetch_add(1, Ordering::Relaxed) + 1
}

/// How many idle connections to close now. From nine tenths of the limit, connections are closed down to seven tenths, which leaves room for a
/// burst until the next sweep.
fn to_shed() -> usize {
    let (open, max) = (callers(), callers_max());
    if open * 10 < max * 9 { 0 } else { open.saturating_sub(max / 10 * 7) }
}

/// Whether idle connections should be closed to make room.
#[must_use]
pub fn is_crowded() -> bool {
    to_shed() > 0
}

/// How many of `len` idle connections to close now. Grants within 10 ms do not exceed the excess in total; after that, closed connections have
/// released their slots.
#[must_use]
pub fn claim_to_shed(len: usize) -> usize {
    let needed = to_shed();
    if needed == 0 || len == 0 {
        return 0;
    }
    let started = *STARTED.get_or_init(Instant::now);
    let slot = u32::try_from(started.elapsed().as_millis() / SHED_INTERVAL.as_millis()).unwrap_or(u32::MAX);
    let mut shedding = SHEDDING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = if shedding.0 == slot { shedding.1 } else { 0 };
    let granted = needed.saturating_sub(before).min(len);
    *shedding = (slot, before + granted);
    granted
}

/// Counts an idle connection that was closed to make room.
pub fn count_shed() {
    SHED.fetch_add(1, Ordering::Relaxed);
}

/// The descriptor of an inbound connection; released on drop.
pub(crate) struct Descriptor(());

impl Descriptor {
    pub(crate) fn acquire() -> Option<Self> {
        let open = OPEN.fetch_add(1, Ordering::Relaxed);
        let acquired = Self(());
        (open < callers_max()).then_some(acquired)
    }

    /// Waits briefly for a released descriptor, unless too many connections already wait.
    pub(crate) async fn wait() -> Option<Self> {
        let waiting = Waiting(WAITING.fetch_add(1, Ordering::Relaxed));
        if waiting.0 >= WAITING_MAX {
            return None;
        }
        for _ in 0..WAIT_STEPS {
            tokio::time::sleep(WAIT_STEP).await;
            let acquired = Self::acquire();
            if acquired.is_some() {
                return acquired;
            }
        }
        None
    }
}

/// A waiting connection, with the number of those that waited before it.
struct Waiting(usize);

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_three_quarters_and_at_least_one() {
        assert_eq!([share(256), share(1024), share(65_536), share(u64::MAX)], [192, 768, 49_152, 786_432]);
        assert_eq!((share(64), share(0)), (1, 1));
    }
}
