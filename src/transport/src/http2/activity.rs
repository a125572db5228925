//! What the requests of a connection are at. All of it is on one thread, and reads the clock only when it is looked at.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::LOOK_INTERVAL;

/// Until the first request of a connection; a caller who never says a word goes sooner than one who pauses.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(30);

/// Requests that a caller may reset before they are answered, at first; so many that are answered earn another, up to the second.
const RESETS_FIRST: u32 = 100;
const RESETS_MAX: u32 = 1000;
const ANSWERS_PER_RESET: u32 = 4;
/// What a second earns, up to the first number.
const RESETS_PER_LOOK: u32 = 20;

/// Work that a request has begun. It goes on until the last copy is dropped, which may be long after the caller has reset it.
#[derive(Debug)]
pub struct Work(Arc<AtomicUsize>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The requests of one connection.
pub(super) struct Activity {
    /// Requests whose work goes on.
    working: Arc<AtomicUsize>,
    /// Requests that may still be reset, and answers since one was earned.
    resets: Cell<u32>,
    answers: Cell<u32>,
    places: RefCell<Vec<Place>>,
    /// Places of requests that have ended.
    free: RefCell<Vec<usize>>,
    /// The request that was begun last, until its task is known.
    begun: Cell<Option<usize>>,
    any: Cell<bool>,
    /// When it was looked at last: exact enough for limits of seconds.
    now: Cell<Instant>,
    /// When the last request ended.
    since: Cell<Instant>,
    /// Bytes were written since it was looked at last.
    written: Cell<bool>,
    /// When it was last seen that bytes had been written.
    moved: Cell<Instant>,
}

/// What is known of one request.
#[derive(Default)]
struct Place {
    /// Since when the caller has not taken what was last there for it; nothing while it is not the caller who is waited for.
    untaken: Option<Instant>,
    /// The task that answers it.
    task: Option<AbortHandle>,
}

/// A request under way; it ends when this is dropped: answered whole, or given up.
pub(super) struct Call {
    activity: Rc<Activity>,
    place: usize,
    has_work: bool,
    is_answered: Cell<bool>,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            working: Arc::default(),
            resets: Cell::new(RESETS_FIRST),
            answers: Cell::new(0),
            places: RefCell::default(),
            free: RefCell::default(),
            begun: Cell::new(None),
            any: Cell::new(false),
            now: Cell::new(now),
            since: Cell::new(now),
            written: Cell::new(false),
            moved: Cell::new(now),
        }
    }

    /// A request begins, and its work where it is not refused.
    pub(super) fn begin(self: &Rc<Self>, has_work: bool) -> Call {
        self.any.set(true);
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut places = self.places.borrow_mut();
            places.push(Place::default());
            places.len() - 1
        });
        self.begun.set(Some(place));
        Call { activity: Rc::clone(self), place, has_work, is_answered: Cell::new(false) }
    }

    /// A request with work has ended.
    fn ended(&self, is_answered: bool) {
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

    /// Counts the work of a request until it ends; nothing where the connection has begun more than it may, or reset too much of it.
    pub(super) fn begin_work(&self, max: usize) -> Option<Arc<Work>> {
        if self.resets_too_much() || self.working.load(Ordering::Relaxed) >= max {
            return None;
        }
        self.working.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Work(Arc::clone(&self.working))))
    }

    /// Whether the caller has reset more requests than answers and time have earned it.
    pub(super) fn resets_too_much(&self) -> bool {
        self.resets.get() == 0
    }

    /// The task of the request that was begun just now.
    pub(super) fn set_task(&self, task: AbortHandle) {
        if let Some(place) = self.begun.take() {
            self.places.borrow_mut()[place].task = Some(task);
        }
    }

    pub(super) fn has_none(&self) -> bool {
        self.free.borrow().len() == self.places.borrow().len()
    }

    /// Notes what time it is, every [`LOOK_INTERVAL`].
    pub(super) fn look(&self, now: Instant) {
        self.now.set(now);
        if self.resets.get() < RESETS_FIRST {
            self.resets.set((self.resets.get() + RESETS_PER_LOOK).min(RESETS_FIRST));
        }
        if self.written.take() {
            self.moved.set(now);
        }
    }

    /// Whether more than `limit` has passed since an instant that was noted: a note may be as old as the look before it.
    fn is_over(&self, since: Instant, limit: Duration) -> bool {
        self.now.get().saturating_duration_since(since) > limit + LOOK_INTERVAL
    }

    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        let limit = if self.any.get() { limit } else { limit.min(FIRST_REQUEST_TIME) };
        self.has_none() && self.is_over(self.since.get(), limit)
    }

    /// Bytes were written.
    pub(super) fn wrote(&self) {
        self.written.set(true);
    }

    /// Whether no byte was written for that long.
    pub(super) fn is_still(&self, limit: Duration) -> bool {
        self.is_over(self.moved.get(), limit)
    }

    /// Ends the answers that their callers have not taken for longer than `limit`; HTTP/2 resets their streams.
    pub(super) fn end_untaken(&self, limit: Duration) {
        let late = |since: Instant| self.is_over(since, limit);
        for place in self.places.borrow().iter().filter(|place| place.untaken.is_some_and(late)) {
            if let Some(task) = &place.task {
                task.abort();
            }
        }
    }
}

impl Call {
    /// Says that the caller is waited for from now on, or that it is not.
    pub(super) fn set_untaken(&self, is_untaken: bool) {
        let since = is_untaken.then(|| self.activity.now.get());
        self.activity.places.borrow_mut()[self.place].untaken = since;
    }
}

impl Call {
    /// All of the answer was handed over.
    pub(super) fn answered(&self) {
        self.is_answered.set(true);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.has_work {
            self.activity.ended(self.is_answered.get());
        }
        self.activity.places.borrow_mut()[self.place] = Place::default();
        self.activity.free.borrow_mut().push(self.place);
        self.activity.since.set(self.activity.now.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_is_idle_without_requests_and_sooner_before_the_first() {
        let begun = Instant::now();
        let activity = Rc::new(Activity::new(begun));
        let is_idle_after = |seconds: u32| {
            activity.look(begun + seconds * SECOND);
            activity.is_idle(60 * SECOND)
        };
        assert!(!is_idle_after(31) && is_idle_after(32), "never sooner, and one look later");
        let call = activity.begin(true);
        assert!(!is_idle_after(1000));
        drop(call);
        assert!(activity.has_none() && !is_idle_after(1061) && is_idle_after(1062));
    }

    #[test]
    fn a_connection_is_still_while_nothing_is_written() {
        let begun = Instant::now();
        let activity = Activity::new(begun);
        activity.look(begun + 4 * SECOND);
        assert!(!activity.is_still(3 * SECOND));
        activity.wrote();
        activity.look(begun + 5 * SECOND);
        activity.look(begun + 9 * SECOND);
        assert!(!activity.is_still(3 * SECOND));
        activity.look(begun + 10 * SECOND);
        assert!(activity.is_still(3 * SECOND));
    }

    #[test]
    fn resets_are_earned_by_answers_and_time() {
        let begun = Instant::now();
        let activity = Rc::new(Activity::new(begun));
        let reset = || drop(activity.begin(true));
        let answer = || activity.begin(true).answered();
        (1..RESETS_FIRST).for_each(|_| reset());
        assert!(activity.begin_work(10).is_some());
        reset();
        assert!(activity.begin_work(10).is_none());
        // What is refused earns nothing and costs nothing.
        (0..100).for_each(|_| activity.begin(false).answered());
        assert!(activity.resets_too_much());
        (0..ANSWERS_PER_RESET).for_each(|_| answer());
        assert!(!activity.resets_too_much());
        reset();
        assert!(activity.resets_too_much());
        activity.look(begun + SECOND);
        assert!(!activity.resets_too_much());
    }

    #[test]
    fn work_goes_on_without_its_request() {
        let activity = Rc::new(Activity::new(Instant::now()));
        let work: Vec<_> = (0..3).map(|_| activity.begin_work(3).expect("room")).collect();
        let copy = Arc::clone(&work[0]);
        assert!(activity.begin_work(3).is_none());
        drop(work);
        assert!(activity.begin_work(1).is_none(), "a copy of it is held");
        drop(copy);
        assert!(activity.begin_work(1).is_some());
    }

    #[tokio::test]
    async fn only_what_nobody_takes_is_ended() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let begun = Instant::now();
                let activity = Rc::new(Activity::new(begun));
                let end_untaken_at = |seconds: u32| {
                    activity.look(begun + seconds * SECOND);
                    activity.end_untaken(30 * SECOND);
                };
                let begin = || {
                    let call = activity.begin(true);
                    let task = tokio::task::spawn_local(std::future::pending::<()>());
                    activity.set_task(task.abort_handle());
                    (call, task)
                };
                let ((stuck, ended), (taken, runs), (_waits, too)) = (begin(), begin(), begin());
                stuck.set_untaken(true);
                taken.set_untaken(true);
                activity.look(begun + SECOND);
                taken.set_untaken(false);
                taken.set_untaken(true);
                end_untaken_at(31);
                tokio::task::yield_now().await;
                assert!(!ended.is_finished());
                end_untaken_at(32);
                assert!(ended.await.is_err_and(|error| error.is_cancelled()));
                assert!(!runs.is_finished() && !too.is_finished());
                drop(stuck);
                let _next = activity.begin(true);
                assert_eq!(activity.places.borrow().len(), 3, "places are used again");
            })
            .await;
    }
}
