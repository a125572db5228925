//! What the requests of a connection are at. All of it is on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Until the first request of a connection; a caller who never says a word goes sooner than one who pauses.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(30);

/// The requests of one connection.
pub(super) struct Activity {
    /// Since when the caller has not taken what was last there for it, by the place of the request.
    untaken: RefCell<Vec<Option<Instant>>>,
    /// Places of requests that have ended.
    free: RefCell<Vec<usize>>,
    any: Cell<bool>,
    /// When the last request ended.
    since: Cell<Instant>,
}

/// A request under way; it ends when this is dropped: answered whole, or given up.
pub(super) struct Call {
    activity: Rc<Activity>,
    place: usize,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self { untaken: RefCell::default(), free: RefCell::default(), any: Cell::new(false), since: Cell::new(now) }
    }

    pub(super) fn begin(self: &Rc<Self>) -> Call {
        self.any.set(true);
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut untaken = self.untaken.borrow_mut();
            untaken.push(None);
            untaken.len() - 1
        });
        Call { activity: Rc::clone(self), place }
    }

    pub(super) fn has_none(&self) -> bool {
        self.free.borrow().len() == self.untaken.borrow().len()
    }

    pub(super) fn is_idle(&self, now: Instant, limit: Duration) -> bool {
        let limit = if self.any.get() { limit } else { limit.min(FIRST_REQUEST_TIME) };
        self.has_none() && now.saturating_duration_since(self.since.get()) > limit
    }

    /// Whether a caller has not taken an answer for longer than `limit`.
    pub(super) fn is_stuck(&self, now: Instant, limit: Duration) -> bool {
        self.untaken.borrow().iter().flatten().any(|since| now.saturating_duration_since(*since) > limit)
    }
}

impl Call {
    /// Says since when the caller is waited for, or that it is not.
    pub(super) fn set_untaken(&self, since: Option<Instant>) {
        self.activity.untaken.borrow_mut()[self.place] = since;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.set_untaken(None);
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

    #[test]
    fn one_answer_that_nobody_takes_makes_a_connection_stuck() {
        let now = Instant::now();
        let activity = Rc::new(Activity::new(now));
        let calls: Vec<_> = (0..3).map(|_| activity.begin()).collect();
        let limit = Duration::from_secs(30);
        calls[1].set_untaken(Some(now));
        assert!(!activity.is_stuck(now + limit, limit));
        assert!(activity.is_stuck(now + limit + Duration::from_millis(1), limit));
        calls[1].set_untaken(None);
        assert!(!activity.is_stuck(now + 2 * limit, limit));
        drop(calls);
        let next = activity.begin();
        assert_eq!(activity.untaken.borrow().len(), 3, "places are used again");
        drop(next);
    }
}
