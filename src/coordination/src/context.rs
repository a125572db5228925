//! What commands change besides the state.

use crate::event::Event;
use crate::ids::{RequestId, SessionId};
use crate::injected_bug::InjectedBug;
use crate::wheel::Wheel;

/// What a timer is for. Timers of the same deadline expire in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// A session expires.
    Session(SessionId),
    /// A request has held its locks for its maximum time.
    Hold(RequestId),
    /// A request has waited for its maximum time.
    Wait(RequestId),
    /// A lock is not closed any more.
    Reopen(std::sync::Arc<str>),
    /// Something of a queue is due: a delayed message, a retry, or the end of a window.
    Queue(std::sync::Arc<str>),
    /// The time to prepare a generation of the routes is over.
    Proposal,
    /// A budget is full.
    Budget(std::sync::Arc<str>),
    /// A result of a group is forgotten.
    Results(std::sync::Arc<str>),
}

/// The timers, and what is to be told.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) timers: Wheel<Timer>,
    pub(crate) events: Vec<Event>,
    /// Somebody listens to events.
    pub(crate) is_observed: bool,
    #[cfg(feature = "injected-bugs")]
    pub(crate) injected_bug: Option<InjectedBug>,
}

/// A command being applied.
pub(crate) struct Context<'a> {
    /// The zxid of the command.
    pub(crate) zxid: u64,
    /// The time of the state's clock.
    pub(crate) now: u64,
    pub(crate) effects: &'a mut Effects,
}

impl Context<'_> {
    pub(crate) fn tell(&mut self, event: Event) {
        if self.effects.is_observed {
            self.effects.events.push(event);
        }
    }

    pub(crate) fn set_timer(&mut self, timer: Timer, deadline: u64) {
        self.effects.timers.set(timer, deadline);
    }

    pub(crate) fn cancel_timer(&mut self, timer: &Timer) {
        self.effects.timers.cancel(timer);
    }

    pub(crate) fn has_bug(&self, bug: InjectedBug) -> bool {
        self.effects.has_bug(bug)
    }
}

impl Effects {
    #[cfg(feature = "injected-bugs")]
    pub(crate) fn has_bug(&self, bug: InjectedBug) -> bool {
        self.injected_bug == Some(bug)
    }

    #[cfg(not(feature = "injected-bugs"))]
    #[expect(clippy::unused_self, reason = "bugs are injected by tests only")]
    pub(crate) fn has_bug(&self, _: InjectedBug) -> bool {
        false
    }
}
