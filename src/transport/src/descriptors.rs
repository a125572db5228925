//! File descriptors of the process: how many callers' connections there may be beside all else that needs one.
//!
//! A process without a free descriptor answers nobody, its own health endpoint included. So callers get three quarters of what the
//! system allows; the rest is for connections to services, the admin listener, files, and accepting those who are turned away.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept free whatever the limit is.
const RESERVE_MIN: usize = 64;
/// What is assumed where the system has no limit.
const UNLIMITED: u64 = 1 << 20;

/// Callers that may wait for a place at once; they use reserved descriptors. More of them would leave none for accepting connections, which
/// actix-server answers with a pause of half a second.
const WAITING_MAX: usize = RESERVE_MIN / 4;
/// Polling interval and count of waiting callers: longer than one sweep of all HTTP/1 connections.
const WAIT_STEP: Duration = Duration::from_millis(10);
const WAIT_STEPS: u32 = 30;

/// Time after which closed connections have released their places.
const SHED_TIME: Duration = Duration::from_millis(10);

/// The latest interval in which connections were closed, and their number.
static SHEDDING: Mutex<(u32, usize)> = Mutex::new((0, 0));
static BEGAN: OnceLock<Instant> = OnceLock::new();
static WAITING: AtomicUsize = AtomicUsize::new(0);
static CALLERS_MAX: OnceLock<usize> = OnceLock::new();
static OPEN: AtomicUsize = AtomicUsize::new(0);
static SHED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Limits of the process on open files (getrlimit(2), RLIMIT_NOFILE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// What it was started with.
    pub before: u64,
    /// What is in force.
    pub now: u64,
}

/// Raises the soft limit on open files to the hard one, which needs no privilege. Where that fails, the soft one stays in force.
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

/// Callers' connections that there may be at once in the process.
#[must_use]
pub fn callers_max() -> usize {
    *CALLERS_MAX.get_or_init(|| share(getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)))
}

fn share(open_files: u64) -> usize {
    let all = usize::try_from(open_files.min(UNLIMITED)).unwrap_or(usize::MAX);
    all.saturating_sub((all / 4).max(RESERVE_MIN)).max(1)
}

/// Callers' connections that there are.
#[must_use]
pub fn callers() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// Callers' connections that were closed at once, for want of a place here or at their listener.
#[must_use]
pub fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Idle connections that were closed to make room.
#[must_use]
pub fn shed() -> usize {
    SHED.load(Ordering::Relaxed)
}

pub(crate) fn count_refused() -> u64 {
    REFUSED.fetch_add(1, Ordering::Relaxed) + 1
}

/// How many idle connections are to be closed now, the longest idle first: from nine tenths of the places on, down to seven, so that there is
/// room for a burst until the next look.
fn to_shed() -> usize {
    let (open, max) = (callers(), callers_max());
    if open * 10 < max * 9 { 0 } else { open.saturating_sub(max / 10 * 7) }
}

/// Whether idle connections are to be closed to make room.
#[must_use]
pub fn is_crowded() -> bool {
    to_shed() > 0
}

/// How many of its `len` idle connections the caller should close now. Grants within 10 ms add up to no more than the excess: closed connections
/// have released their places by then.
#[must_use]
pub fn claim_to_shed(len: usize) -> usize {
    let needed = to_shed();
    if needed == 0 || len == 0 {
        return 0;
    }
    let began = *BEGAN.get_or_init(Instant::now);
    let slot = u32::try_from(began.elapsed().as_millis() / SHED_TIME.as_millis()).unwrap_or(u32::MAX);
    let mut shedding = SHEDDING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = if shedding.0 == slot { shedding.1 } else { 0 };
    let granted = needed.saturating_sub(before).min(len);
    *shedding = (slot, before + granted);
    granted
}

/// An idle connection was closed to make room.
pub fn count_shed() {
    SHED.fetch_add(1, Ordering::Relaxed);
}

/// The descriptor of a caller's connection; given back when it is dropped.
pub(crate) struct Descriptor(());

impl Descriptor {
    pub(crate) fn take() -> Option<Self> {
        let open = OPEN.fetch_add(1, Ordering::Relaxed);
        let taken = Self(());
        (open < callers_max()).then_some(taken)
    }

    /// Waits briefly for one to be released, unless too many callers wait already: they use reserved descriptors.
    pub(crate) async fn wait() -> Option<Self> {
        let waiting = Waiting(WAITING.fetch_add(1, Ordering::Relaxed));
        if waiting.0 >= WAITING_MAX {
            return None;
        }
        for _ in 0..WAIT_STEPS {
            tokio::time::sleep(WAIT_STEP).await;
            let free = Self::take();
            if free.is_some() {
                return free;
            }
        }
        None
    }
}

/// A waiting caller, with the number of those who already waited.
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
    fn callers_get_a_share_and_something_is_always_left() {
        assert_eq!([share(256), share(1024), share(65_536), share(u64::MAX)], [192, 768, 49_152, 786_432]);
        assert_eq!((share(64), share(0)), (1, 1));
    }
}
