//! Generations of the routes: this instance proposes and prepares them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossdock_coordination::command::{Prepared, Propose, RouteFile, ServeRoutes, Withdraw};
use crossdock_coordination::{Event, Operation, Outcome, SessionId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::engine::{COMMAND_TIMEOUT, Engine, RETRY_INTERVAL, Shared};
use crate::error::CommandError;

/// How long instances may take to prepare a generation.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(20);

/// What this instance does with generations.
#[derive(Debug)]
pub(crate) struct Generations {
    /// Counts what may have changed.
    changes: watch::Sender<u64>,
    serves: AtomicBool,
}

impl Default for Generations {
    fn default() -> Self {
        Self { changes: watch::Sender::new(0), serves: AtomicBool::new(false) }
    }
}

impl Generations {
    pub(crate) fn handle(&self, event: &Event) {
        if let Event::GenerationProposed(_)
        | Event::GenerationInForce(_)
        | Event::GenerationRejected(_)
        | Event::GenerationStaged(_)
        | Event::GenerationWithdrawn(_) = event
        {
            self.changed();
        }
    }

    /// Something may have changed.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Serves routes in a session that was opened, if this instance does.
pub(crate) async fn serve_in(shared: &Arc<Shared>, session: SessionId) {
    while shared.generations.serves.load(Ordering::Acquire) && shared.sessions.is_current(session) {
        let serve = Operation::ServeRoutes(ServeRoutes { session: session.0 });
        match shared.execute_by(serve, Instant::now() + COMMAND_TIMEOUT).await {
            Ok(_) | Err(CommandError::Refused(_)) => break,
            Err(_) => sleep(RETRY_INTERVAL).await,
        }
    }
    // It has to prepare what is proposed.
    shared.generations.changed();
}

impl Engine {
    /// Serves routes from now on: no generation is put into force before this instance has [prepared](Engine::prepared) it, as long as it is
    /// connected. The number that is returned changes whenever there may be something new: compare with the [view](Engine::view).
    pub fn serve_routes(&self) -> watch::Receiver<u64> {
        if !self.0.generations.serves.swap(true, Ordering::AcqRel)
            && let Some(session) = self.session()
        {
            let shared = Arc::clone(&self.0);
            self.0.runtime.spawn(async move { serve_in(&shared, session).await });
        }
        self.0.generations.changes.subscribe()
    }

    /// The session of this instance, if it has one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.0.sessions.current()
    }

    /// Says that this instance has prepared a generation, or why it cannot.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn prepared(&self, number: u64, problem: &str) -> Result<(), CommandError> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let session = self.0.sessions.get(deadline).await?.id.0;
        let problem =
            problem[..problem.floor_char_boundary(crossdock_coordination::limits::PROBLEM_BYTES_MAX)].to_owned();
        let command = Prepared { session, number, problem };
        self.0.execute_by(Operation::Prepared(command), deadline).await.map(drop)
    }

    /// Proposes a generation of the routes with these files, based on the one in force with this number, or 0. Only instances whose sessions
    /// have the labels in `stage` will serve it, if there are any. Returns its number, by which it is found in the view: in force, staged, or rejected.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again, with the same files and comment.
    pub async fn propose_routes(
        &self,
        base: u64,
        files: &BTreeMap<String, Bytes>,
        (author, comment): (&str, &str),
        stage: &[String],
    ) -> Result<u64, CommandError> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let session = self.0.sessions.get(deadline).await?.id.0;
        let file = |(path, content): (&String, &Bytes)| RouteFile { path: path.clone(), content: content.clone() };
        let timeout_ms = u64::try_from(PREPARE_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let files = files.iter().map(file).collect();
        let (author, comment) = (author.to_owned(), comment.to_owned());
        let command = Propose { session, base, files, author, comment, timeout_ms, stage: stage.to_vec() };
        match self.0.execute_by(Operation::Propose(command), deadline).await? {
            Outcome::Proposed(number) => Ok(number),
            _ => Err(CommandError::Unreadable),
        }
    }

    /// Ends the stage of a generation: all instances serve the one in force.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn withdraw_routes(&self, number: u64) -> Result<(), CommandError> {
        let withdraw = Operation::Withdraw(Withdraw { number });
        self.0.execute_by(withdraw, Instant::now() + COMMAND_TIMEOUT).await.map(drop)
    }

    /// The label of the sessions of this instance.
    #[must_use]
    pub fn label(&self) -> &str {
        self.0.sessions.label()
    }
}
