//! An instance, which applies the log.

use crossdock_coordination::{Answer, Coordination, Event, InjectedBug, Outcome};
use crossdock_zab::Zxid;

use super::client::Sent;

/// A command in the log.
pub(super) struct Entry {
    pub(super) zxid: Zxid,
    pub(super) time: u64,
    pub(super) payload: bytes::Bytes,
    /// The client that gets the answer.
    pub(super) from: Option<(usize, Sent)>,
}

pub(super) struct Replica {
    pub(super) state: Coordination,
    /// How many entries it has applied.
    pub(super) applied: usize,
}

impl Replica {
    pub(super) fn new(bug: Option<InjectedBug>) -> Self {
        let mut state = Coordination::default();
        if let Some(bug) = bug {
            state.inject(bug);
        }
        state.observe(true);
        Self { state, applied: 0 }
    }

    /// Becomes a copy of another one, from a snapshot of it.
    pub(super) fn restore(&mut self, from: &Self) -> Result<(), String> {
        self.state.reset();
        for part in from.state.view().save() {
            self.state.restore(part).map_err(|problem| problem.to_string())?;
        }
        self.applied = from.applied;
        Ok(())
    }

    pub(super) fn apply(&mut self, entry: &Entry) -> (Outcome, Vec<Event>) {
        let Answer { outcome } = self.state.apply(entry.zxid, entry.time, entry.payload.clone());
        self.applied += 1;
        (outcome.unwrap_or(Outcome::Holders(u64::MAX)), self.state.take_events())
    }

    /// Whether it has the state of another one.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.state.view().save().eq(other.state.view().save())
    }
}
