//! Threads of an instance.

use std::future::Future;
use std::io;

/// Runs a future on a thread of its own until it ends. It may block that thread, and can use neither timers nor sockets.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn spawn(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(future))?;
    Ok(())
}
