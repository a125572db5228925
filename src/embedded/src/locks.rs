//! Acquiring locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossdock_coordination::command::{self, Acquire, Remember};
use crossdock_coordination::limits::{SESSION_REQUESTS_MAX, WAIT_MS_MAX};
use crossdock_coordination::{Claim, Mode, Operation, Outcome, Refusal, RequestId, Token};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::engine::{COMMAND_TIMEOUT, Engine, Shared};
use crate::error::{AcquireError, CommandError};
use crate::requests::{Loss, Progress, Seen};
use crate::session::Life;

/// How long a request that does not wait takes at most.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_millis(WAIT_MS_MAX);

/// How long to wait for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Try,
    /// For this time, up to a day.
    For(Duration),
    /// Until they are available.
    Forever,
}

/// A request for one or more locks, all of which are held together.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// The locks.
    pub claims: Vec<Claim>,
    /// How long to wait.
    pub wait: Wait,
    /// How long they may be held; otherwise for as long as the session of this instance lives.
    pub hold: Option<Duration>,
    /// How long they stay closed if they are lost while they are held.
    pub delay: Duration,
    /// What operators see.
    pub metadata: String,
    /// Who acquires it within the session, if the lock is granted at once to an owner that holds it already.
    pub reentrant_owner: Option<String>,
    /// Take them from their holders, ahead of all that wait, for this reason.
    pub steal: Option<String>,
}

impl LockRequest {
    /// A request for one lock.
    #[must_use]
    pub fn new(lock: &str, mode: Mode, wait: Wait) -> Self {
        let claims = vec![Claim { lock: lock.into(), mode }];
        Self {
            claims,
            wait,
            hold: None,
            delay: Duration::ZERO,
            metadata: String::new(),
            reentrant_owner: None,
            steal: None,
        }
    }

    pub(crate) fn command(&self, id: RequestId, deadline: Option<Instant>) -> Acquire {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let claim =
            |claim: &Claim| command::Claim { lock: claim.lock.to_string(), mode: Some(claim.mode.to_command()) };
        Acquire {
            session: id.session.0,
            number: id.number,
            claims: self.claims.iter().map(claim).collect(),
            wait_ms: match self.wait {
                Wait::Try => Some(0),
                Wait::For(_) => deadline.map(|deadline| millis(deadline - Instant::now()).max(1)),
                Wait::Forever => None,
            },
            hold_ms: self.hold.map(millis),
            delay_ms: millis(self.delay),
            owner: self.reentrant_owner.clone().unwrap_or_default(),
            reentrant: self.reentrant_owner.is_some(),
            metadata: self.metadata.clone(),
            steal: self.steal.clone(),
            attempt: 0,
        }
    }
}

/// The result of a message that was processed under the lock of its key.
#[derive(Debug, Clone)]
pub struct NewResult {
    /// The group of the key.
    pub group: String,
    /// The key, of up to 512 bytes.
    pub key: String,
    /// A digest of the message, to tell it from another one of the same key.
    pub digest: u64,
    /// How long it is remembered, up to 30 days.
    pub window: Duration,
    /// The number of keys of the group that are remembered: beyond it, the oldest are forgotten.
    pub keys_max: u64,
    /// What duplicates get, up to 64 KiB.
    pub result: bytes::Bytes,
}

/// A request that is open. Dropping it releases or cancels it, unless it has ended.
struct Open {
    shared: Arc<Shared>,
    id: RequestId,
    seen: watch::Receiver<Seen>,
    /// It is known to have ended, or is being released.
    is_over: AtomicBool,
}

impl Open {
    /// Releases it, once. `done` is told when that has happened, or is not needed.
    fn release(&self, done: Option<oneshot::Sender<()>>) {
        let has_ended = matches!(self.seen.borrow().progress, Progress::TimedOut | Progress::Lost(_));
        if !self.is_over.swap(true, Ordering::AcqRel) && !has_ended {
            self.shared.releases.add(self.id, done);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.release(None);
        self.shared.requests.remove(self.id);
    }
}

/// Locks that are held. Dropping it releases them, without waiting for that.
pub struct Held {
    open: Open,
    token: Token,
    life: Arc<Life>,
}

/// Whether locks are still held, as far as this instance knows.
#[derive(Debug, Clone)]
pub struct Validity {
    seen: watch::Receiver<Seen>,
    life: Arc<Life>,
}

impl Validity {
    /// Whether they are held. They are not if the session was not kept alive for so long that it may have expired, even if
    /// nothing has told this instance yet, because it was paused.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self.seen.borrow().progress, Progress::Held(_)) && Instant::now() < self.life.until()
    }

    /// Waits until they are lost. Cancel safe.
    pub async fn lost(&mut self) -> Loss {
        let lost = self.seen.wait_for(|seen| matches!(seen.progress, Progress::Lost(_))).await;
        match lost.map(|seen| seen.progress.clone()) {
            Ok(Progress::Lost(loss)) => loss,
            _ => Loss::Unknown,
        }
    }

    /// Waits until the holder is asked to release them, or they are lost. Returns the reason that was given. Cancel safe.
    pub async fn revoked(&mut self) -> Option<Arc<str>> {
        let is_over = |seen: &Seen| seen.revoked.is_some() || matches!(seen.progress, Progress::Lost(_));
        self.seen.wait_for(is_over).await.ok().and_then(|seen| seen.revoked.clone())
    }
}

impl Held {
    /// The request that holds them.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.open.id
    }

    /// The fencing token.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Tells whether they are still held.
    #[must_use]
    pub fn validity(&self) -> Validity {
        Validity { seen: self.open.seen.clone(), life: Arc::clone(&self.life) }
    }

    /// Stores the result of what was done under the lock, for its next holders, and releases it. If it fails, the lock is still held.
    ///
    /// # Errors
    /// See [`CommandError`]: the lock was lost, there is no room, or it is not known at the deadline whether the result was stored.
    pub async fn remember(&self, new: NewResult, deadline: Instant) -> Result<(), CommandError> {
        let RequestId { session, number } = self.open.id;
        let NewResult { group, key, digest, window, keys_max, result } = new;
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
        let command = Remember { session: session.0, number, group, key, digest, window_ms, keys_max, result };
        let mut validity = self.validity();
        let storing = self.open.shared.execute_by(Operation::Remember(command), deadline);
        tokio::pin!(storing);
        let stored = tokio::select! {
            biased;
            stored = &mut storing => stored?,
            loss = validity.lost() => match loss {
                // The command itself releases the lock, which may be told before its answer.
                Loss::Released | Loss::Unknown => storing.await?,
                _ => return Err(CommandError::Refused(Refusal::NotHeld)),
            },
        };
        match stored {
            Outcome::Done(_) => {
                self.open.is_over.store(true, Ordering::Release);
                Ok(())
            }
            _ => Err(CommandError::Unreadable),
        }
    }

    /// Releases them now, without waiting for that, although it is not dropped yet.
    pub fn give_up(&self) {
        self.open.release(None);
    }

    /// Releases them, and waits until that has happened or they are lost. If the future is dropped, they are released all the
    /// same.
    pub async fn release(self) {
        let (done, waiting) = oneshot::channel();
        self.open.release(Some(done));
        let _ = waiting.await;
    }
}

impl Engine {
    /// The result of a key and its digest, as far as this instance knows. What was stored under a lock before this instance was granted
    /// it is known.
    #[must_use]
    pub fn result(&self, group: &str, key: &str) -> Option<(bytes::Bytes, u64)> {
        let view = self.view();
        let found = view.results.get(group, key, view.clock.now())?;
        Some((found.result.clone(), found.digest))
    }

    /// Acquires locks. If the future is dropped, the request is cancelled.
    ///
    /// # Errors
    /// See [`AcquireError`]: the locks are not held, and will not be.
    pub async fn acquire(&self, request: &LockRequest) -> Result<Held, AcquireError> {
        let now = Instant::now();
        let (deadline, answered_by) = match request.wait {
            Wait::Try => (None, now + TRY_TIMEOUT),
            Wait::For(wait) => {
                let deadline = now + wait.min(WAIT_MAX);
                (Some(deadline), deadline)
            }
            Wait::Forever => (None, now + COMMAND_TIMEOUT),
        };
        let own = self.0.sessions.get(answered_by).await?;
        if self.0.requests.len() >= SESSION_REQUESTS_MAX {
            return Err(CommandError::Refused(Refusal::TooMany).into());
        }
        let id = own.next_request();
        let seen = self.0.requests.add(id);
        let open = Open { shared: Arc::clone(&self.0), id, seen: seen.clone(), is_over: AtomicBool::new(false) };
        let operation = Operation::Acquire(request.command(id, deadline));
        match self.0.execute_by(operation, answered_by).await {
            Ok(Outcome::Granted(granted)) => self.0.requests.note(id, Progress::Held(Token(granted.token))),
            Ok(Outcome::Waiting(_)) => self.0.requests.note(id, Progress::Waiting),
            Ok(_) => return Err(CommandError::Unreadable.into()),
            Err(CommandError::Refused(refusal)) => {
                // After other refusals, an earlier attempt may still arrive.
                if matches!(refusal, Refusal::NotAvailable | Refusal::NoSession | Refusal::Finished) {
                    open.is_over.store(true, Ordering::Release);
                }
                return Err(match refusal {
                    Refusal::NotAvailable => AcquireError::NotAvailable,
                    Refusal::NoSession => AcquireError::SessionLost,
                    // It was granted or waited with an earlier attempt, and ended meanwhile.
                    Refusal::Finished if request.wait == Wait::Try => AcquireError::NotAvailable,
                    Refusal::Finished => AcquireError::TimedOut,
                    refusal => CommandError::Refused(refusal).into(),
                });
            }
            Err(problem) => return Err(problem.into()),
        }
        match decided(seen, deadline).await {
            Progress::Held(token) => Ok(Held { open, token, life: own.life }),
            Progress::Lost(Loss::SessionLost) => Err(AcquireError::SessionLost),
            // What happened is not known if notices were missed.
            Progress::Lost(Loss::Unknown) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                Err(AcquireError::TimedOut)
            }
            Progress::Lost(loss) => Err(AcquireError::Lost(loss)),
            Progress::TimedOut | Progress::Sent | Progress::Waiting => Err(AcquireError::TimedOut),
        }
    }
}

/// Waits until a request is granted or has ended, or until this time.
async fn decided(mut seen: watch::Receiver<Seen>, deadline: Option<Instant>) -> Progress {
    let is_decided = |seen: &Seen| !matches!(seen.progress, Progress::Sent | Progress::Waiting);
    let decided = async { seen.wait_for(is_decided).await.map(|seen| seen.progress.clone()) };
    let decided = match deadline {
        Some(deadline) => timeout_at(deadline, decided).await.unwrap_or(Ok(Progress::TimedOut)),
        None => decided.await,
    };
    decided.unwrap_or(Progress::Lost(Loss::SessionLost))
}
