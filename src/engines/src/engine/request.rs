//! Requests to the engine, and their releases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossdock_ports::{LockError, LockGrant, LockLoss, LockRequest, LockWait, SequenceError};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::grant::{Due, Grant, Granted, Open, deleted, lose};
use super::{ANSWER_TIMEOUT, CONCURRENCY, REQUESTS_MAX, RETRY_INTERVAL, RETRY_INTERVAL_MAX, Shared};
use crate::backend::{Backend, Problem, Ticket};

/// Longest name of a lock or sequence, in bytes.
const NAME_LEN_MAX: usize = 255;
/// How long a request that does not wait takes at most, and how long one that does may take to reach the engine.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long numbers of a sequence take at most.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl<B: Backend> Shared<B> {
    pub(super) async fn acquire(self: Arc<Self>, request: LockRequest) -> Result<Arc<dyn LockGrant>, LockError> {
        let LockRequest { mut names, mode, wait, hold, metadata } = request;
        names.sort();
        names.dedup();
        if names.is_empty() || names.iter().any(|name| !(1..=NAME_LEN_MAX).contains(&name.len())) {
            return Err(LockError::InvalidName);
        }
        let now = Instant::now();
        let deadline = match wait {
            LockWait::Try => Some(now + TRY_TIMEOUT),
            LockWait::For(wait) => Some(now + wait),
            LockWait::Forever => None,
        };
        let own = self.session(deadline.unwrap_or(now + ANSWER_TIMEOUT)).await?;
        if self.requests.fetch_add(1, Ordering::AcqRel) >= REQUESTS_MAX as u64 {
            self.requests.fetch_sub(1, Ordering::AcqRel);
            return Err(LockError::TooMany);
        }
        let ticket = Arc::new(Ticket::new(names, mode, metadata));
        let open = Open { shared: Arc::clone(&self), own, ticket, is_over: AtomicBool::new(false) };
        let mut last = None;
        let acquiring = async {
            let mut pause = RETRY_INTERVAL;
            loop {
                open.ticket.note_attempt();
                match self.backend.acquire(&open.own.session, &open.ticket, wait != LockWait::Try).await {
                    Ok(Some(token)) => return Ok(token),
                    Ok(None) => return Err(LockError::TimedOut),
                    Err(Problem::OtherKind) => return Err(LockError::OtherKind),
                    Err(Problem::SessionEnded) => return Err(LockError::Lost(LockLoss::SessionLost)),
                    Err(Problem::Vanished) => return Err(LockError::Lost(deleted())),
                    Err(Problem::Exhausted) => return Err(LockError::TooMany),
                    Err(Problem::Unreachable(problem)) => last = Some(problem),
                }
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_INTERVAL_MAX);
            }
        };
        let mut late = false;
        let acquired = tokio::select! {
            biased;
            () = open.own.has_ended() => Err(LockError::Lost(LockLoss::SessionLost)),
            acquired = acquiring => acquired,
            () = tokio::time::sleep_until(deadline.unwrap_or(now)), if deadline.is_some() => {
                late = true;
                Err(LockError::TimedOut)
            }
        };
        let token = match acquired {
            Ok(token) => token,
            Err(LockError::TimedOut) if last.is_some() || late && wait == LockWait::Try => {
                let silent = || "the engine does not answer in time".to_owned();
                return Err(LockError::Unavailable(last.unwrap_or_else(silent)));
            }
            Err(problem) => return Err(problem),
        };
        let (losing, lost) = watch::channel(None);
        let until = hold.map(|hold| Instant::now() + hold);
        let granted = Granted { own: Arc::clone(&open.own), ticket: Arc::clone(&open.ticket), losing: losing.clone() };
        self.granted().insert(open.ticket.id.clone(), granted);
        if *open.own.ended.borrow() {
            lose(&losing, LockLoss::SessionLost);
        }
        let open = Arc::new(open);
        let expiring = until.map(|until| {
            let open = Arc::downgrade(&open);
            AbortOnDropHandle::new(self.runtime.spawn(async move {
                tokio::time::sleep_until(until).await;
                lose(&losing, LockLoss::HoldExpired);
                if let Some(open) = open.upgrade() {
                    open.release();
                }
            }))
        });
        Ok(Arc::new(Grant { open, token, lost, until, _expiring: expiring }))
    }

    pub(super) async fn take(self: Arc<Self>, sequence: String, count: u64) -> Result<u64, SequenceError> {
        let mut last = "the engine does not answer in time".to_owned();
        let until = Instant::now() + TAKE_TIMEOUT;
        let taking = async {
            loop {
                let own = match self.session(until).await {
                    Ok(own) => own,
                    Err(problem) => return Err(SequenceError::Unavailable(problem.to_string())),
                };
                match timeout(ANSWER_TIMEOUT, self.backend.take(&own.session, &sequence, count)).await {
                    Ok(Ok(first)) => return Ok(first),
                    Ok(Err(Problem::Exhausted)) => return Err(SequenceError::Exhausted),
                    Ok(Err(Problem::Unreachable(problem))) => last = problem,
                    Ok(Err(_)) | Err(_) => {}
                }
                sleep(RETRY_INTERVAL).await;
            }
        };
        match timeout_at(until, taking).await {
            Ok(taken) => taken,
            Err(_) => Err(SequenceError::Unavailable(last)),
        }
    }
}

/// Releases what was dropped, however long that takes while its session lives.
pub(super) async fn release<B: Backend>(shared: Arc<Shared<B>>, due: mpsc::Receiver<Due<B::Session>>) {
    let due = stream::unfold(due, async |mut due| due.recv().await.map(|one| (one, due)));
    due.for_each_concurrent(CONCURRENCY, async |Due { own, ticket }| {
        let withdrawing = async {
            let mut pause = RETRY_INTERVAL;
            loop {
                match timeout(ANSWER_TIMEOUT, shared.backend.withdraw(&own.session, &ticket)).await {
                    Ok(Ok(()) | Err(Problem::SessionEnded)) => return,
                    Ok(Err(problem)) => tracing::debug!(locks = ?ticket.names, ?problem, "not released yet"),
                    Err(_) => tracing::debug!(locks = ?ticket.names, "not released yet: no answer"),
                }
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_INTERVAL_MAX);
            }
        };
        tokio::select! {
            () = withdrawing => {}
            // Its locks are released with it.
            () = own.has_ended() => {}
        }
        shared.requests.fetch_sub(1, Ordering::AcqRel);
    })
    .await;
}
