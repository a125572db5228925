//! The clock and the threads of an instance, in one place.
//!
//! What runs for the life of an instance is a future, even where it blocks a thread of its own: the log and the state. What
//! ends is a closure.

use std::future::Future;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
pub(crate) use tokio::time::Instant;

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

/// Runs a future on a thread of its own until it ends. It may block that thread, and can use neither timers nor sockets.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn spawn_thread(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(future))?;
    Ok(())
}

/// The scheduling priority of what can wait: requests come first.
const NICENESS: i32 = 5;

/// Runs something long on a thread of its own, with a lower priority. If the thread cannot be started, it is dropped.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn run_in_background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Without it, the work only takes more from the others.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        work();
    })?;
    Ok(())
}

/// Runs something that may wait for a disk on a thread of the pool of the current runtime.
pub(crate) fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}
