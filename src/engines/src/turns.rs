//! Turns of the requests of one instance for a key, for engines that tell instances apart but not their requests, or whose waiters ask again and again: one
//! request of the instance at a time may ask for a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::backend::Ticket;

/// Keys whose entries are kept although nobody uses them.
const KEPT: usize = 1_000;

/// A request whose turn it is for a key.
#[derive(Debug)]
struct Turn<S> {
    key: String,
    session: S,
    /// What the engine said when it granted the key; `None` as long as that is not known.
    granted: Option<u64>,
    _guard: OwnedMutexGuard<()>,
}

/// The turns of one instance.
#[derive(Debug)]
pub(crate) struct Turns<S>(Mutex<State<S>>);

#[derive(Debug)]
struct State<S> {
    by_key: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    /// By the ids of their tickets.
    turns: HashMap<String, Vec<Turn<S>>>,
}

impl<S> Default for Turns<S> {
    fn default() -> Self {
        Self(Mutex::new(State { by_key: HashMap::new(), turns: HashMap::new() }))
    }
}

impl<S: Clone + PartialEq> Turns<S> {
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of a ticket, which it keeps if it has it already; `false` if another request has it, and this does not wait. Cancel safe.
    pub(crate) async fn enter(&self, session: &S, key: &str, ticket: &Ticket, waits: bool) -> bool {
        let own = {
            let mut state = self.state();
            if state.turns.get(&ticket.id).is_some_and(|turns| turns.iter().any(|turn| turn.key == key)) {
                return true;
            }
            if state.by_key.len() >= KEPT {
                state.by_key.retain(|_, mutex| Arc::strong_count(mutex) > 1);
            }
            Arc::clone(state.by_key.entry(key.to_owned()).or_default())
        };
        let guard = if waits { Some(own.lock_owned().await) } else { own.try_lock_owned().ok() };
        let Some(guard) = guard else { return false };
        let turn = Turn { key: key.to_owned(), session: session.clone(), granted: None, _guard: guard };
        self.state().turns.entry(ticket.id.clone()).or_default().push(turn);
        true
    }

    /// Notes what the engine said when it granted a key.
    pub(crate) fn grant(&self, key: &str, ticket: &Ticket, granted: u64) {
        if let Some(turns) = self.state().turns.get_mut(&ticket.id) {
            turns.iter_mut().filter(|turn| turn.key == key).for_each(|turn| turn.granted = Some(granted));
        }
    }

    /// A key of a ticket that is not given back yet, and what the engine said about it.
    pub(crate) fn last(&self, ticket: &Ticket) -> Option<(String, Option<u64>)> {
        let state = self.state();
        let turn = state.turns.get(&ticket.id)?.last()?;
        Some((turn.key.clone(), turn.granted))
    }

    /// The key of a ticket was given back: it is the turn of the next request.
    pub(crate) fn leave(&self, key: &str, ticket: &Ticket) {
        let mut state = self.state();
        if let Some(turns) = state.turns.get_mut(&ticket.id) {
            turns.retain(|turn| turn.key != key);
            if turns.is_empty() {
                state.turns.remove(&ticket.id);
            }
        }
    }

    /// The keys that a session was granted, each with the id of its ticket and what the engine said.
    pub(crate) fn granted(&self, session: &S) -> Vec<(String, String, u64)> {
        let state = self.state();
        let of_session = state.turns.iter().flat_map(|(id, turns)| turns.iter().map(move |turn| (id, turn)));
        of_session
            .filter(|(_, turn)| turn.session == *session)
            .filter_map(|(id, turn)| Some((turn.key.clone(), id.clone(), turn.granted?)))
            .collect()
    }

    /// Ends the turns of a session, which has ended: requests in another one exclude it by other means.
    pub(crate) fn end(&self, session: &S) {
        self.state().turns.retain(|_, turns| {
            turns.retain(|turn| turn.session != *session);
            !turns.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use crossdock_ports::LockMode;

    use super::*;

    fn ticket() -> Ticket {
        Ticket::new(vec!["a".into()], LockMode::Exclusive, String::new())
    }

    #[tokio::test]
    async fn one_request_at_a_time_has_its_turn() {
        let (turns, first, second) = (Turns::<u32>::default(), ticket(), ticket());
        assert!(turns.enter(&1, "a", &first, false).await);
        assert!(turns.enter(&1, "a", &first, false).await, "it keeps its turn");
        assert!(!turns.enter(&1, "a", &second, false).await);
        assert!(turns.enter(&1, "b", &second, false).await);
        turns.leave("a", &first);
        assert!(turns.enter(&1, "a", &second, false).await);
    }

    #[tokio::test]
    async fn the_end_of_a_session_leaves_those_of_the_next_one() {
        let (turns, first, second) = (Turns::<u32>::default(), ticket(), ticket());
        assert!(turns.enter(&1, "a", &first, false).await);
        assert!(turns.enter(&2, "b", &second, false).await);
        turns.grant("b", &second, 7);
        turns.end(&1);
        assert_eq!(turns.last(&first), None);
        assert_eq!(turns.last(&second), Some(("b".to_owned(), Some(7))));
        assert_eq!(turns.granted(&2), [("b".to_owned(), second.id.clone(), 7)]);
        assert!(turns.granted(&1).is_empty());
    }
}
