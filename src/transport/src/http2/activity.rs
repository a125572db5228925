//! What the requests of a connection are at. All of it is on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

/// Until the first request of a connection; a caller who never says a word goes sooner than one who pauses.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(30);

/// The requests of one connection.
pub(super) struct Activity {
    places: RefCell<Vec<Place>>,
    /// Places of requests that have ended.
    free: RefCell<Vec<usize>>,
    /// The request that was begun last, until its task is known.
    begun: Cell<Option<usize>>,
    any: Cell<bool>,
    /// When the last request ended.
    since: Cell<Instant>,
    /// When bytes were written last.
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
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            places: RefCell::default(),
            free: RefCell::default(),
            begun: Cell::new(None),
            any: Cell::new(false),
            since: Cell::new(now),
            moved: Cell::new(now),
        }
    }

    pub(super) fn begin(self: &Rc<Self>) -> Call {
        self.any.set(true);
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut places = self.places.borrow_mut();
            places.push(Place::default());
            places.len() - 1
        });
        self.begun.set(Some(place));
        Call { activity: Rc::clone(self), place }
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

    pub(super) fn is_idle(&self, now: Instant, limit: Duration) -> bool {
        let limit = if self.any.get() { limit } else { limit.min(FIRST_REQUEST_TIME) };
        self.has_none() && now.saturating_duration_since(self.since.get()) > limit
    }

    /// Bytes were written.
    pub(super) fn wrote(&self, now: Instant) {
        self.moved.set(now);
    }

    /// Whether no byte was written for that long.
    pub(super) fn is_still(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.moved.get()) > limit
    }

    /// Ends the answers that their callers have not taken for longer than `limit`; HTTP/2 resets their streams.
    pub(super) fn end_untaken(&self, now: Instant, limit: Duration) {
        let late = |since: Instant| now.saturating_duration_since(since) > limit;
        for place in self.places.borrow().iter().filter(|place| place.untaken.is_some_and(late)) {
            if let Some(task) = &place.task {
                task.abort();
            }
        }
    }
}

impl Call {
    /// Says since when the caller is waited for, or that it is not.
    pub(super) fn set_untaken(&self, since: Option<Instant>) {
        self.activity.places.borrow_mut()[self.place].untaken = since;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.activity.places.borrow_mut()[self.place] = Place::default();
        self.activity.free.borrow_mut().push(self.place);
        self.activity.since.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_without_requests_and_sooner_before_the_first() {
        let begun = Instant::now();
        let activity = Rc::new(Activity::new(begun));
        let limit = Duration::from_secs(60);
        assert!(!activity.is_idle(begun + Duration::from_secs(29), limit));
        assert!(activity.is_idle(begun + Duration::from_secs(31), limit));
        let call = activity.begin();
        assert!(!activity.is_idle(begun + Duration::from_secs(1000), limit));
        drop(call);
        assert!(activity.has_none() && !activity.is_idle(begun + Duration::from_secs(31), limit));
        assert!(activity.is_idle(begun + Duration::from_secs(62), limit));
    }

    #[tokio::test]
    async fn only_what_nobody_takes_is_ended() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let now = Instant::now();
                let activity = Rc::new(Activity::new(now));
                let limit = Duration::from_secs(30);
                let begin = || {
                    let call = activity.begin();
                    let task = tokio::task::spawn_local(std::future::pending::<()>());
                    activity.set_task(task.abort_handle());
                    (call, task)
                };
                let ((stuck, ended), (taken, runs), (_waits, too)) = (begin(), begin(), begin());
                stuck.set_untaken(Some(now));
                taken.set_untaken(Some(now + Duration::from_secs(1)));
                activity.end_untaken(now + limit, limit);
                tokio::task::yield_now().await;
                assert!(!ended.is_finished());
                activity.end_untaken(now + limit + Duration::from_millis(1), limit);
                assert!(ended.await.is_err_and(|error| error.is_cancelled()));
                assert!(!runs.is_finished() && !too.is_finished());
                drop(stuck);
                let _next = activity.begin();
                assert_eq!(activity.places.borrow().len(), 3, "places are used again");
            })
            .await;
    }
}
