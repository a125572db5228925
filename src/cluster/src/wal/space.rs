//! The space for a log: how much is free, and the next segment, created in the background. It is the reserve of a log: if it cannot be created, the current
//! segment still has room for what must be written, and the instance accepts no commands until there is space again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::segment;
use crate::platform::files::{self, File};
use crate::platform::{self, Condition, Worker};

/// How often the creation of a segment is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often the free space is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// Free segments and snapshots below which the space is low.
const LOW_SEGMENTS: u64 = 8;
const LOW_SNAPSHOTS: u64 = 2;

/// Whether a log lacks disk space or file descriptors; shared with its users.
#[derive(Debug)]
pub struct Space {
    is_lacking: AtomicBool,
    /// Free bytes on the disk; `u64::MAX` until they are known.
    free: AtomicU64,
    /// The bytes below which the space is low.
    low_mark: AtomicU64,
    is_low: AtomicBool,
    state: Mutex<State>,
    changed: Condition,
}

#[derive(Debug, Default)]
struct State {
    /// Why the next segment cannot be created.
    problem: Option<String>,
    /// Nothing waits any more.
    is_closing: bool,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            is_lacking: AtomicBool::new(false),
            free: AtomicU64::new(u64::MAX),
            low_mark: AtomicU64::new(0),
            is_low: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condition::default(),
        }
    }
}

impl Space {
    /// The free bytes on the disk, once they are known; the bytes below which they are low; and whether they are.
    #[must_use]
    pub fn free(&self) -> (Option<u64>, u64, bool) {
        let free = Some(self.free.load(Ordering::Relaxed)).filter(|free| *free < u64::MAX);
        (free, self.low_mark.load(Ordering::Relaxed), self.is_low.load(Ordering::Relaxed))
    }

    /// Sets the bytes below which the space is low.
    pub fn set_sizes(&self, segment: u64, snapshot: u64) {
        let mark = LOW_SEGMENTS.saturating_mul(segment).saturating_add(LOW_SNAPSHOTS.saturating_mul(snapshot));
        self.low_mark.store(mark, Ordering::Relaxed);
    }

    /// Measures the free space of a folder every second, on a thread of its own: a disk that hangs holds up nothing else.
    pub(super) fn watch(self: &Arc<Self>, folder: &Path) {
        let (this, folder) = (Arc::downgrade(self), folder.to_owned());
        let watching = platform::every("space", MEASURE_INTERVAL, move || {
            let Some(this) = this.upgrade().filter(|this| !this.state().is_closing) else { return false };
            this.measure(&folder);
            true
        });
        if let Err(problem) = watching {
            tracing::warn!(%problem, "free space of the cluster log is not watched");
        }
    }

    fn measure(&self, folder: &Path) {
        // Where it cannot be measured, writes tell.
        let Some(free) = files::free_space(folder) else { return };
        self.free.store(free, Ordering::Relaxed);
        let mark = self.low_mark.load(Ordering::Relaxed);
        let (is_low, path) = (free < mark, folder.display());
        match (self.is_low.swap(is_low, Ordering::Relaxed), is_low) {
            (false, true) => tracing::error!(%path, free, mark, "little space is left for the cluster log"),
            (true, false) => tracing::info!(%path, free, mark, "there is enough space for the cluster log again"),
            _ => {}
        }
    }

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
        self.changed.wait_while(&self.state, RETRY_INTERVAL, |state| !state.is_closing);
        !self.state().is_closing
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
                Err(error) => {
                    // Not for lack of space: it is tried again once the segment is needed, which takes commands.
                    self.state().problem = None;
                    self.is_lacking.store(false, Ordering::Release);
                    return Err(error);
                }
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
    thread: Option<Worker<io::Result<File>>>,
}

impl Spare {
    /// Starts to create it.
    pub(super) fn start(folder: &Path, len: u64, space: Arc<Space>) -> Self {
        let path = segment::spare_path(folder);
        let (to, shared) = (path.clone(), Arc::clone(&space));
        let thread = platform::spawn_worker("spare", move || shared.create(&to, len));
        // If there is no thread, it is created when it is needed.
        Self { path, len, space, thread: thread.ok() }
    }

    /// The file, which stays open, so that using it needs no file descriptor. Waits for it. If it could not be created, that is
    /// tried again: nothing is in it yet.
    pub(super) fn take(mut self) -> io::Result<File> {
        match self.thread.take().and_then(Worker::join) {
            Some(Ok(file)) => Ok(file),
            Some(Err(problem)) => {
                tracing::warn!(%problem, "failed to create the next segment of the cluster log ahead; trying again");
                self.space.create(&self.path, self.len)
            }
            None => self.space.create(&self.path, self.len),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_low_below_eight_segments_and_two_snapshots() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = Arc::<Space>::default();
        assert_eq!(space.free(), (None, 0, false), "it is not known yet");
        space.set_sizes(10, 100);
        space.measure(folder.path());
        let (free, mark, is_low) = space.free();
        assert!(free > Some(0) && !is_low, "{free:?}");
        assert_eq!(mark, 280);
        space.set_sizes(u64::MAX / 16, 0);
        space.measure(folder.path());
        assert!(space.free().2, "no disk has exabytes");
        space.set_sizes(10, 0);
        space.measure(folder.path());
        assert!(!space.free().2, "it ends by itself");
    }
}
