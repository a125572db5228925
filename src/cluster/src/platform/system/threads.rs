//! Threads and tasks.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// The scheduling priority of what can wait: requests come first.
const NICENESS: i32 = 5;

/// A thread that runs a future.
pub(crate) struct Thread {
    handle: std::thread::JoinHandle<()>,
    /// Disconnects when the future is dropped.
    ended: Mutex<Receiver<()>>,
}

/// A runtime that does not wait for blocking tasks when it is dropped: a disk may hang, and the caller may be a task itself.
struct Detached(Option<Runtime>);

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Thread {
    fn start(name: &str, runtime: Runtime, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let (ends, ended) = sync_channel(1);
        let runtime = Detached(Some(runtime));
        let run = move || {
            let future = async move {
                let _ends = ends;
                future.await;
            };
            if let Some(runtime) = &runtime.0 {
                runtime.block_on(future);
            }
        };
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { handle, ended: Mutex::new(ended) })
    }

    /// Waits until the future has ended; false if that takes longer.
    pub(crate) fn has_ended_within(&self, timeout: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }

    /// Waits for the end of the thread.
    pub(crate) fn join(self) {
        // A panic has been reported where it occurred.
        let _ = self.handle.join();
    }
}

/// Runs a future on a thread of its own until it ends. It may block that thread, and can use neither timers nor sockets.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn spawn_thread(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Thread> {
    Thread::start(name, Builder::new_current_thread().build()?, future)
}

/// Runs a future on a thread of its own until it ends, with timers, sockets and other [tasks](spawn).
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn spawn_runtime(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Thread> {
    // A runtime asks the system for events before it polls the future that it blocks on; tasks that its own thread wakes are
    // polled without that.
    let task = async {
        // A panic has been reported where it occurred.
        let _ = tokio::spawn(future).await;
    };
    Thread::start(name, Builder::new_current_thread().enable_all().build()?, task)
}

/// Runs a future beside others in the current runtime.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(future)
}

/// Lets a task of a `JoinSet` belong to the instance that spawns it.
pub(crate) fn in_instance<F: Future>(future: F) -> F {
    future
}

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

/// A thread with a result.
#[derive(Debug)]
pub(crate) struct Worker<T>(std::thread::JoinHandle<T>);

impl<T> Worker<T> {
    /// Waits for the result; `None` if the thread has panicked.
    pub(crate) fn join(self) -> Option<T> {
        self.0.join().ok()
    }
}

/// Runs something on a thread of its own.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn spawn_worker<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Worker<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(Worker)
}

/// Runs something at this interval, on a thread of its own, until it returns false.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn every(name: &str, interval: Duration, mut work: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        while work() {
            pause(interval);
        }
    })?;
    Ok(())
}

/// Where threads wait for a change of what a mutex guards.
#[derive(Debug, Default)]
pub(crate) struct Condition(Condvar);

impl Condition {
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Blocks the current thread as long as a condition holds, for a limited time.
    pub(crate) fn wait_while<T>(&self, guarded: &Mutex<T>, timeout: Duration, holds: impl Fn(&T) -> bool) {
        let guard = guarded.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.wait_timeout_while(guard, timeout, |guarded| holds(guarded)));
    }
}

/// Lets other threads run.
pub(crate) fn yield_thread() {
    std::thread::yield_now();
}

/// Blocks the current thread for about this time.
pub(crate) fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
