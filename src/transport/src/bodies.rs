//! Memory for bodies that are under way in the process, in both directions.
//!
//! Every body is counted as it is received, and for as long as a copy of it is held: while it waits for a service, and while a slow caller
//! takes it. Above the limit, a body is refused in its own protocol, or its source is held back. Small bodies are not counted: connections
//! bound them.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossdock_message::{Code, Fault, Retry};

/// The part of each body that is not counted.
const FREE_LEN: usize = 16 << 10;
/// What there is where the memory of the machine is not known.
const MAX_USUAL: usize = 256 << 20;
/// Of the memory that the process may use.
const SHARE: u64 = 4;

static MAX: AtomicUsize = AtomicUsize::new(MAX_USUAL);
static USED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Sets what bodies may take in all; gives it. Without a number, a quarter of what the process may use.
pub fn set_max(max: Option<u64>) -> usize {
    let max = max.or_else(|| Some(memory_of_process()? / SHARE));
    let max = max.map_or(MAX_USUAL, |max| usize::try_from(max).unwrap_or(usize::MAX));
    MAX.store(max, Ordering::Relaxed);
    max
}

/// The least of the machine's memory and of what control groups allow (cgroups(7), version 2 and 1).
fn memory_of_process() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    });
    let mut files =
        vec!["/sys/fs/cgroup/memory.max".to_owned(), "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned()];
    // The group of this process, and all above it.
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

/// What bodies take, what they may take, and how many were refused.
#[must_use]
pub fn usage() -> (usize, usize, u64) {
    (USED.load(Ordering::Relaxed), MAX.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed))
}

/// Whether another body may begin.
#[must_use]
pub fn has_room() -> bool {
    USED.load(Ordering::Relaxed) < MAX.load(Ordering::Relaxed)
}

/// There is no memory for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl From<Full> for Fault {
    fn from(_: Full) -> Self {
        let message = "the gateway has no memory for another body now";
        let fault = Self::new(Code::ResourceExhausted, "MEMORY", message);
        fault.with_retry(Retry::After(std::time::Duration::from_secs(1))).with_http_status(503)
    }
}

/// The memory of one body.
#[derive(Debug, Default)]
pub struct Held {
    len: usize,
    counted: usize,
    is_reply: bool,
}

impl Held {
    /// Of a request's body, without bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a reply's body, without bytes yet. Requests leave it a quarter of all memory: without replies, none of them would ever end.
    #[must_use]
    pub fn of_reply() -> Self {
        Self { is_reply: true, ..Self::default() }
    }

    /// Of bytes that are there already, and are counted even where there is no room for them.
    #[must_use]
    pub fn forced(len: usize) -> Self {
        let counted = len.saturating_sub(FREE_LEN);
        USED.fetch_add(counted, Ordering::Relaxed);
        Self { len, counted, is_reply: true }
    }

    /// More bytes of it were received.
    ///
    /// # Errors
    /// [`Full`], and what was counted stays counted.
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

    /// Lowers the count to `len` held bytes, after others were forwarded.
    pub fn shrink(&mut self, len: usize) {
        self.len = self.len.min(len);
        let excess = self.counted.saturating_sub(self.len.saturating_sub(FREE_LEN));
        USED.fetch_sub(excess, Ordering::Relaxed);
        self.counted -= excess;
    }

    /// What is kept with the body, and releases its memory when the last copy is dropped; nothing where nothing is counted.
    #[must_use]
    pub fn into_keeper(self) -> Option<Arc<dyn Any + Send + Sync>> {
        (self.counted > 0).then(|| Arc::new(self) as Arc<dyn Any + Send + Sync>)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        USED.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_counted_above_what_is_free_until_they_are_dropped() {
        assert_eq!(set_max(Some(120_000)), 120_000);
        let mut held = Held::new();
        assert_eq!(held.grow(FREE_LEN), Ok(()));
        assert!(Held::new().into_keeper().is_none());
        assert_eq!(usage().0, 0);
        assert_eq!(held.grow(60_000), Ok(()));
        let mut other = Held::new();
        assert_eq!(other.grow(FREE_LEN + 30_001), Err(Full));
        let mut reply = Held::of_reply();
        assert_eq!((reply.grow(FREE_LEN + 60_000), reply.grow(1)), (Ok(()), Err(Full)));
        reply.shrink(FREE_LEN + 10_000);
        assert_eq!(usage().0, 70_000);
        assert_eq!(reply.grow(20_000), Ok(()));
        reply.shrink(0);
        assert_eq!((usage().0, has_room()), (60_000, true));
        drop(reply);
        let forced = Held::forced(FREE_LEN + 60_000);
        assert!(!has_room());
        let keeper = held.into_keeper();
        let copy = keeper.clone();
        drop((keeper, forced));
        assert_eq!(usage().0, 60_000);
        drop(copy);
        assert_eq!((usage().0, usage().2), (0, 2));
        assert!(set_max(None) > 0);
    }
}
