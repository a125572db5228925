//! The next segment, created in the background. It is the reserve of a log: if it cannot be created, the current
//! segment still has room for what must be written, and the instance accepts no commands until there is space again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::segment;

/// How often the creation of a segment is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a log lacks disk space or file descriptors; shared with its users.
#[derive(Debug, Default)]
pub struct Space {
    is_lacking: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Why the next segment cannot be created.
    problem: Option<String>,
    /// Nothing waits any more.
    is_closing: bool,
}

impl Space {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the next segment cannot be created; `None` if it can. Takes no lock in that case.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.is_lacking.load(Ordering::Acquire).then(|| self.state().problem.clone()).flatten()
    }

    /// Whether the next segment cannot be created.
    #[must_use]
    pub fn is_lacking(&self) -> bool {
        self.is_lacking.load(Ordering::Acquire)
    }

    /// Ends all waiting: writes that need another segment fail.
    pub fn close(&self) {
        self.state().is_closing = true;
        self.changed.notify_all();
    }

    fn set(&self, problem: Option<String>, path: &Path) {
        let before = std::mem::replace(&mut self.state().problem, problem.clone());
        self.is_lacking.store(problem.is_some(), Ordering::Release);
        match (before, problem) {
            (None, Some(problem)) => {
                let path = path.display();
                tracing::error!(%problem, %path, "cannot create the next segment of the cluster log; no commands are accepted");
            }
            (Some(_), None) => {
                tracing::info!(path = %path.display(), "next segment of the cluster log created; commands are accepted again");
            }
            _ => {}
        }
    }

    /// Waits for the next attempt; `false` if the log closes.
    fn wait(&self) -> bool {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, RETRY_INTERVAL, |state| !state.is_closing);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_closing
    }

    /// Creates the spare file, as soon as there is space for it.
    ///
    /// # Errors
    /// Anything but a lack of space; a lack of space once the log closes.
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        loop {
            match segment::fill(path, len) {
                Ok(file) => {
                    self.set(None, path);
                    return Ok(file);
                }
                Err(error) if segment::is_shortage(&error) => {
                    self.set(Some(error.to_string()), path);
                    if !self.wait() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The next segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    len: u64,
    space: Arc<Space>,
    thread: Option<JoinHandle<io::Result<File>>>,
}

impl Spare {
    /// Starts to create it.
    pub(super) fn start(folder: &Path, len: u64, space: Arc<Space>) -> Self {
        let path = segment::spare_path(folder);
        let (to, shared) = (path.clone(), Arc::clone(&space));
        let thread = std::thread::Builder::new().name("spare".to_owned()).spawn(move || shared.create(&to, len));
        // If there is no thread, it is created when it is needed.
        Self { path, len, space, thread: thread.ok() }
    }

    /// The file, which stays open, so that using it needs no file descriptor. Waits for it.
    pub(super) fn take(mut self) -> io::Result<File> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(created)) => created,
            Some(Err(_)) | None => self.space.create(&self.path, self.len),
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.space.close();
            let _ = thread.join();
        }
    }
}
