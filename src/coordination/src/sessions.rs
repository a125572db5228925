//! Sessions. Locks are held through a session, and are lost when it expires.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::answer::{Outcome, Refusal, Unknown};
use crate::command::{KeepAlive, OpenSession};
use crate::context::{Context, Timer};
use crate::ids::SessionId;
use crate::injected_bug::InjectedBug;
use crate::limits::{NAME_BYTES_MAX, SESSIONS_MAX, TTL_MS};

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// It expires this many milliseconds after it was last kept alive.
    pub ttl_ms: u64,
    /// When it was last kept alive, by the state's clock.
    pub renewed: u64,
    /// Who it belongs to.
    pub label: Arc<str>,
}

/// All sessions.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    sessions: RedBlackTreeMapSync<SessionId, Session>,
}

impl Sessions {
    /// A session, if it exists.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// All of them, in the order in which they were opened.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// Their number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.size()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(crate) fn open(&mut self, command: &OpenSession, context: &mut Context<'_>) -> Outcome {
        if !TTL_MS.contains(&command.ttl_ms) || command.label.len() > NAME_BYTES_MAX {
            return Refusal::Invalid.into();
        }
        if self.sessions.size() >= SESSIONS_MAX {
            return Refusal::TooMany.into();
        }
        let session = Session { ttl_ms: command.ttl_ms, renewed: context.now, label: command.label.as_str().into() };
        self.put(SessionId(context.zxid), session, context);
        Outcome::DONE
    }

    /// Adds a session, and sets its timer.
    pub(crate) fn put(&mut self, id: SessionId, session: Session, context: &mut Context<'_>) {
        context.set_timer(Timer::Session(id), session.renewed.saturating_add(session.ttl_ms));
        self.sessions.insert_mut(id, session);
    }

    pub(crate) fn keep_alive(&mut self, command: &KeepAlive, context: &mut Context<'_>) -> Outcome {
        let mut unknown = Unknown::default();
        for id in &command.sessions {
            let Some(session) = self.sessions.get_mut(&SessionId(*id)) else {
                unknown.sessions.push(*id);
                continue;
            };
            session.renewed = context.now;
            let deadline = context.now.saturating_add(session.ttl_ms);
            if !context.has_bug(InjectedBug::IgnoreKeepAlive) {
                context.set_timer(Timer::Session(SessionId(*id)), deadline);
            }
        }
        Outcome::Unknown(unknown)
    }

    /// Gives all sessions their full time, at the first command of an epoch: they could not be kept alive without a leader.
    pub(crate) fn restart(&mut self, context: &mut Context<'_>) {
        if context.has_bug(InjectedBug::NoGraceUnderNewLeader) {
            return;
        }
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.renewed = context.now;
                let deadline = session.renewed.saturating_add(session.ttl_ms);
                context.set_timer(Timer::Session(id), deadline);
            }
        }
    }

    /// Removes a session; whether it existed.
    pub(crate) fn remove(&mut self, id: SessionId, context: &mut Context<'_>) -> bool {
        context.cancel_timer(&Timer::Session(id));
        self.sessions.remove_mut(&id)
    }
}
