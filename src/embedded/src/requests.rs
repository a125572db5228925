//! The open requests of this instance, and what became of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossdock_coordination::{EndReason, Event, RequestId, SessionId, Token, View};
use tokio::sync::watch;

/// Why locks are not held any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// It was released elsewhere.
    #[error("the lock was released")]
    Released,
    /// They were held for their maximum time.
    #[error("the lock was held for its maximum time")]
    HoldExpired,
    /// The session expired, or could not be kept alive: another one may hold them already.
    #[error("the session with the cluster was lost")]
    SessionLost,
    /// An operator, or another request, took them.
    #[error("the lock was taken away: {0}")]
    Broken(std::sync::Arc<str>),
    /// It is not known why: this instance was behind.
    #[error("the lock was lost")]
    Unknown,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is known of it.
    Sent,
    Waiting,
    Held(Token),
    /// It has waited as long as it was to.
    TimedOut,
    Lost(Loss),
}

impl Progress {
    /// Nothing follows.
    fn is_final(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Lost(_))
    }
}

/// What a request's handle sees.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) progress: Progress,
    /// The holder is asked to release the lock, for this reason.
    pub(crate) revoked: Option<std::sync::Arc<str>>,
}

/// The open requests.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<HashMap<RequestId, watch::Sender<Seen>>>);

impl Requests {
    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, watch::Sender<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request, before its command is sent.
    pub(crate) fn add(&self, id: RequestId) -> watch::Receiver<Seen> {
        let (sender, receiver) = watch::channel(Seen { progress: Progress::Sent, revoked: None });
        self.lock().insert(id, sender);
        receiver
    }

    pub(crate) fn remove(&self, id: RequestId) {
        self.lock().remove(&id);
    }

    /// Their number.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Notes progress, unless more is known already.
    pub(crate) fn note(&self, id: RequestId, progress: Progress) {
        if let Some(sender) = self.lock().get(&id) {
            note(sender, progress);
        }
    }

    pub(crate) fn handle(&self, event: &Event) {
        match event {
            Event::Granted(id, token) => self.note(*id, Progress::Held(*token)),
            Event::Ended(id, EndReason::TimedOut) => self.note(*id, Progress::TimedOut),
            Event::Ended(id, reason) => self.note(*id, Progress::Lost(loss(reason))),
            Event::Revoked(id, reason) => {
                if let Some(sender) = self.lock().get(id) {
                    sender.send_modify(|seen| seen.revoked = Some(std::sync::Arc::clone(reason)));
                }
            }
            Event::SessionEnded(session) => self.end_session(*session),
            _ => {}
        }
    }

    /// Ends the requests of a session.
    pub(crate) fn end_session(&self, session: SessionId) {
        for (_, sender) in self.lock().iter().filter(|(id, _)| id.session == session) {
            note(sender, Progress::Lost(Loss::SessionLost));
        }
    }

    /// Compares all with a state, after events were missed.
    pub(crate) fn compare(&self, view: &View) {
        for (id, sender) in self.lock().iter() {
            match view.locks.request(*id) {
                Some(request) => {
                    note(sender, request.token().map_or(Progress::Waiting, Progress::Held));
                    if let Some(reason) = &request.revoked {
                        sender.send_modify(|seen| seen.revoked = Some(std::sync::Arc::clone(reason)));
                    }
                }
                None if view.sessions.get(id.session).is_none() && view.clock.has_passed(id.session.0) => {
                    note(sender, Progress::Lost(Loss::SessionLost));
                }
                None if view.locks.is_finished(*id) => note(sender, Progress::Lost(Loss::Unknown)),
                None => {}
            }
        }
    }

    /// Ends all: the instance has ended.
    pub(crate) fn end_all(&self) {
        for sender in self.lock().values() {
            note(sender, Progress::Lost(Loss::SessionLost));
        }
    }
}

fn note(sender: &watch::Sender<Seen>, progress: Progress) {
    sender.send_if_modified(|seen| {
        let is_news = match (&seen.progress, &progress) {
            (known, _) if known.is_final() => false,
            // Answers and events come by different ways.
            (Progress::Held(_), Progress::Waiting) | (_, Progress::Sent) => false,
            (known, progress) => known != progress,
        };
        if is_news {
            seen.progress = progress;
        }
        is_news
    });
}

pub(crate) fn loss(reason: &EndReason) -> Loss {
    match reason {
        EndReason::Released => Loss::Released,
        EndReason::HoldExpired => Loss::HoldExpired,
        EndReason::SessionExpired | EndReason::SessionClosed => Loss::SessionLost,
        EndReason::Broken(reason) => Loss::Broken(std::sync::Arc::clone(reason)),
        EndReason::TimedOut => Loss::Unknown,
    }
}
