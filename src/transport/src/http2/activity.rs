//! The activity of the requests of a connection. It stays on one thread, and advances its clock only on ticks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::TICK_INTERVAL;

/// Idle timeout before the first request of a connection, if shorter than the configured one.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that a client may initially reset before they are answered. Every `ANSWERS_PER_RESET` answers add one more, up to `RESETS_MAX`.
const RESETS_INITIAL: u32 = 100;
const RESETS_MAX: u32 = 1000;
const ANSWERS_PER_RESET: u32 = 4;
/// Resets that each tick adds, up to `RESETS_INITIAL`.
const RESETS_PER_TICK: u32 = 20;

/// The work of a request. It lasts until the last reference is dropped, possibly long after the client has reset the request.
#[derive(Debug)]
pub struct Work(Arc<AtomicUsize>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The requests of one connection.
pub(super) struct Activity {
    /// The number of requests with unfinished work.
    working: Arc<AtomicUsize>,
    /// Requests that may still be reset, and answers since the last one was added.
    resets: Cell<u32>,
    answers: Cell<u32>,
    slots: RefCell<Vec<Slot>>,
    /// Slots of requests that have ended.
    free: RefCell<Vec<usize>>,
    /// The slot of the last request, until its task is known.
    starting: Cell<Option<usize>>,
    had_request: Cell<bool>,
    /// The last tick: precise enough for timeouts of seconds.
    now: Cell<Instant>,
    /// When the last request ended.
    idle_since: Cell<Instant>,
    /// Whether bytes were written since the last tick.
    written: Cell<bool>,
    /// The last tick that found written bytes.
    written_at: Cell<Instant>,
}

/// The state of one request.
#[derive(Default)]
struct Slot {
    /// Since when the client has not read the available data; `None` while there is none.
    unread_since: Option<Instant>,
    /// The task that answers the request.
    task: Option<AbortHandle>,
}

/// A request in progress. It ends when the guard is dropped: answered completely, or reset.
pub(super) struct RequestGuard {
    activity: Rc<Activity>,
    slot: usize,
    has_work: bool,
    is_answered: Cell<bool>,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            working: Arc::default(),
            resets: Cell::new(RESETS_INITIAL),
            answers: Cell::new(0),
            slots: RefCell::default(),
            free: RefCell::default(),
            starting: Cell::new(None),
            had_request: Cell::new(false),
            now: Cell::new(now),
            idle_since: Cell::new(now),
            written: Cell::new(false),
            written_at: Cell::new(now),
        }
    }

    /// Starts a request. `has_work` is false for a request that is rejected.
    pub(super) fn start_request(self: &Rc<Self>, has_work: bool) -> RequestGuard {
        self.had_request.set(true);
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.slots.borrow_mut();
            slots.push(Slot::default());
            slots.len() - 1
        });
        self.starting.set(Some(slot));
        RequestGuard { activity: Rc::clone(self), slot, has_work, is_answered: Cell::new(false) }
    }

    /// Updates the reset budget after a request with work.
    fn end_request(&self, is_answered: bool) {
        if !is_answered {
            self.resets.set(self.resets.get().saturating_sub(1));
            return;
        }
        self.answers.set(self.answers.get() + 1);
        if self.answers.get() == ANSWERS_PER_RESET {
            self.answers.set(0);
            self.resets.set((self.resets.get() + 1).min(RESETS_MAX));
        }
    }

    /// Counts the work of a request until it ends; `None` if `max` requests are working or the connection has reset too many requests.
    pub(super) fn start_work(&self, max: usize) -> Option<Arc<Work>> {
        if self.has_reset_too_much() || self.working.load(Ordering::Relaxed) >= max {
            return None;
        }
        self.working.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Work(Arc::clone(&self.working))))
    }

    /// Whether the client has used up its budget of resets.
    pub(super) fn has_reset_too_much(&self) -> bool {
        self.resets.get() == 0
    }

    /// Records the task of the request that was started last.
    pub(super) fn set_task(&self, task: AbortHandle) {
        if let Some(slot) = self.starting.take() {
            self.slots.borrow_mut()[slot].task = Some(task);
        }
    }

    pub(super) fn has_no_requests(&self) -> bool {
        self.free.borrow().len() == self.slots.borrow().len()
    }

    /// Advances the clock; to be called every [`TICK_INTERVAL`].
    pub(super) fn tick(&self, now: Instant) {
        self.now.set(now);
        if self.resets.get() < RESETS_INITIAL {
            self.resets.set((self.resets.get() + RESETS_PER_TICK).min(RESETS_INITIAL));
        }
        if self.written.take() {
            self.written_at.set(now);
        }
    }

    /// Whether more than `limit` has passed since a recorded instant, which may be up to one tick too early.
    fn is_over(&self, since: Instant, limit: Duration) -> bool {
        self.now.get().saturating_duration_since(since) > limit + TICK_INTERVAL
    }

    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        let limit = if self.had_request.get() { limit } else { limit.min(FIRST_REQUEST_TIMEOUT) };
        self.has_no_requests() && self.is_over(self.idle_since.get(), limit)
    }

    /// Records that bytes were written.
    pub(super) fn record_write(&self) {
        self.written.set(true);
    }

    /// Whether no byte was written for `limit`.
    pub(super) fn is_stalled(&self, limit: Duration) -> bool {
        self.is_over(self.written_at.get(), limit)
    }

    /// Aborts responses that the client has not read for longer than `limit`; hyper resets their streams.
    pub(super) fn abort_stalled(&self, limit: Duration) {
        let late = |since: Instant| self.is_over(since, limit);
        for slot in self.slots.borrow().iter().filter(|slot| slot.unread_since.is_some_and(late)) {
            if let Some(task) = &slot.task {
                task.abort();
            }
        }
    }
}

impl RequestGuard {
    /// Records whether there is response data that the client has yet to read.
    pub(super) fn set_unread(&self, is_unread: bool) {
        let since = is_unread.then(|| self.activity.now.get());
        self.activity.slots.borrow_mut()[self.slot].unread_since = since;
    }

    /// Records that hyper has taken the whole response.
    pub(super) fn set_answered(&self) {
        self.is_answered.set(true);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.has_work {
            self.activity.end_request(self.is_answered.get());
        }
        self.activity.slots.borrow_mut()[self.slot] = Slot::default();
        self.activity.free.borrow_mut().push(self.slot);
        self.activity.idle_since.set(self.activity.now.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_without_requests_is_idle_and_times_out_earlier_before_the_first() {
        let start = Instant::now();
        let activity = Rc::new(Activity::new(start));
        let is_idle_after = |seconds: u32| {
            activity.tick(start + seconds * SECOND);
            activity.is_idle(60 * SECOND)
        };
        assert!(!is_idle_after(31) && is_idle_after(32), "never early, and at most one tick late");
        let call = activity.start_request(true);
        assert!(!is_idle_after(1000));
        drop(call);
        assert!(activity.has_no_requests() && !is_idle_after(1061) && is_idle_after(1062));
    }

    #[test]
    fn a_connection_is_stalled_while_nothing_is_written() {
        let start = Instant::now();
        let activity = Activity::new(start);
        activity.tick(start + 4 * SECOND);
        assert!(!activity.is_stalled(3 * SECOND));
        activity.record_write();
        activity.tick(start + 5 * SECOND);
        activity.tick(start + 9 * SECOND);
        assert!(!activity.is_stalled(3 * SECOND));
        activity.tick(start + 10 * SECOND);
        assert!(activity.is_stalled(3 * SECOND));
    }

    #[test]
    fn answers_and_time_refill_the_reset_budget() {
        let start = Instant::now();
        let activity = Rc::new(Activity::new(start));
        let reset = || drop(activity.start_request(true));
        let answer = || activity.start_request(true).set_answered();
        (1..RESETS_INITIAL).for_each(|_| reset());
        assert!(activity.start_work(10).is_some());
        reset();
        assert!(activity.start_work(10).is_none());
        // Rejected requests do not change the budget.
        (0..100).for_each(|_| activity.start_request(false).set_answered());
        assert!(activity.has_reset_too_much());
        (0..ANSWERS_PER_RESET).for_each(|_| answer());
        assert!(!activity.has_reset_too_much());
        reset();
        assert!(activity.has_reset_too_much());
        activity.tick(start + SECOND);
        assert!(!activity.has_reset_too_much());
    }

    #[test]
    fn work_counts_until_its_last_reference_is_dropped() {
        let activity = Rc::new(Activity::new(Instant::now()));
        let work: Vec<_> = (0..3).map(|_| activity.start_work(3).expect("room")).collect();
        let copy = Arc::clone(&work[0]);
        assert!(activity.start_work(3).is_none());
        drop(work);
        assert!(activity.start_work(1).is_none(), "a reference is held");
        drop(copy);
        assert!(activity.start_work(1).is_some());
    }

    #[tokio::test]
    async fn only_stalled_responses_are_aborted() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let start = Instant::now();
                let activity = Rc::new(Activity::new(start));
                let abort_stalled_at = |seconds: u32| {
                    activity.tick(start + seconds * SECOND);
                    activity.abort_stalled(30 * SECOND);
                };
                let start_request = || {
                    let call = activity.start_request(true);
                    let task = tokio::task::spawn_local(std::future::pending::<()>());
                    activity.set_task(task.abort_handle());
                    (call, task)
                };
                let ((stalled, aborted), (read, runs), (_waits, too)) =
                    (start_request(), start_request(), start_request());
                stalled.set_unread(true);
                read.set_unread(true);
                activity.tick(start + SECOND);
                read.set_unread(false);
                read.set_unread(true);
                abort_stalled_at(31);
                tokio::task::yield_now().await;
                assert!(!aborted.is_finished());
                abort_stalled_at(32);
                assert!(aborted.await.is_err_and(|error| error.is_cancelled()));
                assert!(!runs.is_finished() && !too.is_finished());
                drop(stalled);
                let _next = activity.start_request(true);
                assert_eq!(activity.slots.borrow().len(), 3, "slots are reused");
            })
            .await;
    }
}
