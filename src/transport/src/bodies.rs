//! The memory limit for bodies that the process holds, in both directions.
//!
//! A body counts from the moment it is received until its last copy is dropped: while it waits for a service, and while a slow client reads it.
//! Above the limit, a body is rejected in its own protocol, or its source is held back. Small bodies do not count: the number of connections
//! limits them.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossdock_message::{Code, Fault, Retry};

/// Bytes of each body that do not count.
const FREE_LEN: usize = 16 << 10;
/// The limit if the memory of the machine is unknown.
const MAX_DEFAULT: usize = 256 << 20;
/// The default limit is this fraction of the memory of the process.
const DEFAULT_DIVISOR: u64 = 4;

static MAX: AtomicUsize = AtomicUsize::new(MAX_DEFAULT);
static USED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Sets the limit in bytes and returns it. The default is a quarter of the memory that the process may use.
pub fn set_max(max: Option<u64>) -> usize {
    let max = max.or_else(|| Some(process_memory()? / DEFAULT_DIVISOR));
    let max = max.map_or(MAX_DEFAULT, |max| usize::try_from(max).unwrap_or(usize::MAX));
    MAX.store(max, Ordering::Relaxed);
    max
}

/// The memory of the machine or the lowest control group limit (cgroups(7), versions 1 and 2), whichever is less.
fn process_memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    });
    let mut files =
        vec!["/sys/fs/cgroup/memory.max".to_owned(), "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned()];
    // The group of this process and its ancestors.
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) {
        let mut path = group;
        while !path.is_empty() {
            files.push(format!("/sys/fs/cgroup/{path}/memory.max"));
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    let groups = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    groups.chain(machine).min()
}

/// The bytes that bodies hold, the limit, and the number of rejected bodies.
#[must_use]
pub fn usage() -> (usize, usize, u64) {
    (USED.load(Ordering::Relaxed), MAX.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed))
}

/// Whether the limit leaves room for another body.
#[must_use]
pub fn has_room() -> bool {
    USED.load(Ordering::Relaxed) < MAX.load(Ordering::Relaxed)
}

/// The limit leaves no room for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl From<Full> for Fault {
    fn from(_: Full) -> Self {
        let message = "the gateway has no memory for another body";
        let fault = Self::new(Code::ResourceExhausted, "MEMORY", message);
        fault.with_retry(Retry::After(std::time::Duration::from_secs(1))).with_http_status(503)
    }
}

/// The memory reserved for one body; released on drop.
#[derive(Debug, Default)]
pub struct Reservation {
    len: usize,
    counted: usize,
    /// Whether it may use all of the limit. Requests leave a quarter to replies: without replies, no request would ever end.
    is_reply: bool,
}

impl Reservation {
    /// An empty reservation for the body of a request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty reservation for the body of a reply.
    #[must_use]
    pub fn for_reply() -> Self {
        Self { is_reply: true, ..Self::default() }
    }

    /// A reservation for bytes that are already in memory. It may exceed the limit.
    #[must_use]
    pub fn forced(len: usize) -> Self {
        let counted = len.saturating_sub(FREE_LEN);
        USED.fetch_add(counted, Ordering::Relaxed);
        Self { len, counted, is_reply: true }
    }

    /// Reserves `len` more bytes.
    ///
    /// # Errors
    /// [`Full`] if the limit leaves no room. The bytes reserved before stay reserved.
    pub fn grow(&mut self, len: usize) -> Result<(), Full> {
        self.len += len;
        let more = self.len.saturating_sub(FREE_LEN) - self.counted;
        if more == 0 {
            return Ok(());
        }
        let before = USED.fetch_add(more, Ordering::Relaxed);
        let max = MAX.load(Ordering::Relaxed);
        if before + more > if self.is_reply { max } else { max / 4 * 3 } {
            USED.fetch_sub(more, Ordering::Relaxed);
            REFUSED.fetch_add(1, Ordering::Relaxed);
            return Err(Full);
        }
        self.counted += more;
        Ok(())
    }

    /// Lowers the reservation to `len` bytes, after the others were forwarded.
    pub fn shrink(&mut self, len: usize) {
        self.len = self.len.min(len);
        let excess = self.counted.saturating_sub(self.len.saturating_sub(FREE_LEN));
        USED.fetch_sub(excess, Ordering::Relaxed);
        self.counted -= excess;
    }

    /// A guard to store with the body, which releases the memory when its last copy is dropped; `None` if nothing is counted.
    #[must_use]
    pub fn into_guard(self) -> Option<Arc<dyn Any + Send + Sync>> {
        (self.counted > 0).then(|| Arc::new(self) as Arc<dyn Any + Send + Sync>)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        USED.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_count_above_the_free_length_until_dropped() {
        assert_eq!(set_max(Some(120_000)), 120_000);
        let mut request = Reservation::new();
        assert_eq!(request.grow(FREE_LEN), Ok(()));
        assert!(Reservation::new().into_guard().is_none());
        assert_eq!(usage().0, 0);
        assert_eq!(request.grow(60_000), Ok(()));
        let mut other = Reservation::new();
        assert_eq!(other.grow(FREE_LEN + 30_001), Err(Full));
        let mut reply = Reservation::for_reply();
        assert_eq!((reply.grow(FREE_LEN + 60_000), reply.grow(1)), (Ok(()), Err(Full)));
        reply.shrink(FREE_LEN + 10_000);
        assert_eq!(usage().0, 70_000);
        assert_eq!(reply.grow(20_000), Ok(()));
        reply.shrink(0);
        assert_eq!((usage().0, has_room()), (60_000, true));
        drop(reply);
        let forced = Reservation::forced(FREE_LEN + 60_000);
        assert!(!has_room());
        let guard = request.into_guard();
        let copy = guard.clone();
        drop((guard, forced));
        assert_eq!(usage().0, 60_000);
        drop(copy);
        assert_eq!((usage().0, usage().2), (0, 2));
        assert!(set_max(None) > 0);
    }
}
