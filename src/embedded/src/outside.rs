//! Sessions of outside clients. A client can use any instance for each call, since its session and its requests are in the state that
//! all instances have; this instance keeps nothing of it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossdock_cluster::RequestError;
use crossdock_coordination::command::{Acquire, CloseSession, Downgrade, KeepAlive, OpenSession, Release};
use crossdock_coordination::{EndReason, Event, Operation, Outcome, Refusal, RequestId, SessionId, Token};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::{COMMAND_TIMEOUT, Engine, RETRY_INTERVAL, Shared, outcome, proposal};
use crate::error::{AcquireError, CommandError};
use crate::locks::{LockRequest, Wait};
use crate::requests::{Loss, loss};

/// News that wait for one watch; beyond it, the watch ends.
const NEWS_MAX: usize = 1_000;
/// Sessions that are kept alive by one command.
const BATCH_LEN_MAX: usize = 1_000;
/// The longest wait of one call.
const WAIT_MAX: Duration = Duration::from_secs(86_400);

/// Something that happened to a session, or to a request of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A request holds its locks.
    Granted(u64, Token),
    /// A holder is asked to release its locks, for this reason.
    Revoked(u64, Arc<str>),
    /// A request waits no longer, as its time to wait is over.
    TimedOut(u64),
    /// A request neither holds its locks nor waits any more.
    Lost(u64, Loss),
    /// The session has ended, with all its requests.
    SessionEnded,
}

/// Watches a session from when it was created.
pub struct SessionWatch {
    shared: Arc<Shared>,
    session: SessionId,
    news: mpsc::Receiver<News>,
}

impl Drop for SessionWatch {
    fn drop(&mut self) {
        self.news.close();
        self.shared.watches.remove_closed(self.session);
    }
}

impl SessionWatch {
    /// The next news. `None` if some may have been missed: watch again, and compare with a state. Cancel safe.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

/// All watches of sessions.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<HashMap<SessionId, Vec<mpsc::Sender<News>>>>);

impl Watches {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<mpsc::Sender<News>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, session: SessionId) -> mpsc::Receiver<News> {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        self.lock().entry(session).or_default().push(sender);
        news
    }

    fn remove_closed(&self, session: SessionId) {
        let mut all = self.lock();
        if let Some(of) = all.get_mut(&session) {
            of.retain(|sender| !sender.is_closed());
            if of.is_empty() {
                all.remove(&session);
            }
        }
    }

    pub(crate) fn handle(&self, events: &[Event]) {
        let mut all = self.lock();
        if all.is_empty() {
            return;
        }
        for event in events {
            let (session, news) = match event {
                Event::Granted(id, token) => (id.session, News::Granted(id.number, *token)),
                Event::Revoked(id, reason) => (id.session, News::Revoked(id.number, Arc::clone(reason))),
                Event::Ended(id, EndReason::TimedOut) => (id.session, News::TimedOut(id.number)),
                Event::Ended(id, reason) => (id.session, News::Lost(id.number, loss(reason))),
                Event::SessionEnded(session) => (*session, News::SessionEnded),
                _ => continue,
            };
            if let Some(of) = all.get_mut(&session) {
                // One that is slow or gone is closed.
                of.retain(|sender| sender.try_send(news.clone()).is_ok());
                if of.is_empty() || news == News::SessionEnded {
                    all.remove(&session);
                }
            }
        }
    }

    /// Events were missed, or the instance has ended.
    pub(crate) fn miss(&self) {
        self.lock().clear();
    }
}

type Alive = oneshot::Sender<Result<bool, CommandError>>;

/// Sessions that wait for the next command that keeps sessions alive.
#[derive(Debug, Default)]
pub(crate) struct KeepAlives(Mutex<KeptAlive>);

#[derive(Debug, Default)]
struct KeptAlive {
    waiting: Vec<(SessionId, Alive)>,
    /// A task sends them.
    is_sending: bool,
}

impl KeepAlives {
    fn lock(&self) -> MutexGuard<'_, KeptAlive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session. Whether a task has to be started.
    fn add(&self, session: SessionId, alive: Alive) -> bool {
        let mut of = self.lock();
        of.waiting.push((session, alive));
        !std::mem::replace(&mut of.is_sending, true)
    }

    /// The sessions of the next command; none if the task ends.
    fn take(&self) -> Vec<(SessionId, Alive)> {
        let mut of = self.lock();
        of.waiting.retain(|(_, alive)| !alive.is_closed());
        let count = of.waiting.len().min(BATCH_LEN_MAX);
        let rest = of.waiting.split_off(count);
        let taken = std::mem::replace(&mut of.waiting, rest);
        of.is_sending = !taken.is_empty();
        taken
    }
}

async fn keep_alive(shared: Arc<Shared>) {
    loop {
        let waiting = shared.keep_alives.take();
        if waiting.is_empty() {
            return;
        }
        let command = KeepAlive { sessions: waiting.iter().map(|(session, _)| session.0).collect() };
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let kept = shared.execute_first_by(Operation::KeepAlive(command), deadline).await;
        for (session, alive) in waiting {
            let _ = alive.send(match &kept {
                Ok(Outcome::Unknown(unknown)) => Ok(!unknown.sessions.contains(&session.0)),
                Ok(_) => Err(CommandError::Unreadable),
                Err(problem) => Err(*problem),
            });
        }
    }
}

/// Cancels a request whose caller does not wait any more: it must not be granted locks that nobody knows of. Without effect if another caller has
/// repeated the request since.
struct Cancel {
    shared: Arc<Shared>,
    id: RequestId,
    attempt: u64,
    is_needed: bool,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if self.is_needed {
            let (shared, id, attempt) = (Arc::clone(&self.shared), self.id, self.attempt);
            self.shared.runtime.spawn(async move { shared.cancel(id, attempt).await });
        }
    }
}

impl Shared {
    /// Cancels a request, however long the cluster cannot be reached: its session may be kept alive by other instances.
    async fn cancel(&self, id: RequestId, attempt: u64) {
        loop {
            match self.execute_first_by(release(id, attempt), Instant::now() + COMMAND_TIMEOUT).await {
                Err(CommandError::Cluster(RequestError::Ended)) => return,
                Err(CommandError::Cluster(_) | CommandError::TimedOut) => sleep(RETRY_INTERVAL).await,
                Ok(_) | Err(CommandError::Refused(_) | CommandError::Unreadable) => return,
            }
        }
    }
}

fn release(id: RequestId, attempt: u64) -> Operation {
    Operation::Release(Release { session: id.session.0, number: id.number, attempt })
}

impl Engine {
    /// Opens a session for a client, which ends after `ttl` unless it is kept alive.
    ///
    /// # Errors
    /// See [`CommandError`]. If the outcome is unknown, a session may be left that expires.
    pub async fn open_session(&self, ttl: Duration, label: &str) -> Result<SessionId, CommandError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let open = proposal(Operation::OpenSession(OpenSession { ttl_ms, label: label.to_owned() }));
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        loop {
            let opened = timeout_at(deadline, self.0.replica.propose_as(open.clone())).await;
            match opened.map_err(|_| CommandError::TimedOut)? {
                Ok((zxid, answer)) => return outcome(Ok(answer)).map(|_| SessionId(zxid.to_u64())),
                Err(error) if crate::engine::is_passing(error) => sleep(RETRY_INTERVAL).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Keeps a session alive. Whether it exists.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn keep_session_alive(&self, session: SessionId) -> Result<bool, CommandError> {
        let (alive, kept) = oneshot::channel();
        if self.0.keep_alives.add(session, alive) {
            self.0.runtime.spawn(keep_alive(Arc::clone(&self.0)));
        }
        kept.await.unwrap_or(Err(CommandError::TimedOut))
    }

    /// Ends a session, with everything that it holds.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn close_session(&self, session: SessionId) -> Result<(), CommandError> {
        let close = Operation::CloseSession(CloseSession { session: session.0 });
        self.0.execute_first_by(close, Instant::now() + COMMAND_TIMEOUT).await.map(drop)
    }

    /// Watches a session. It misses nothing that happens after this call.
    #[must_use]
    pub fn watch_session(&self, session: SessionId) -> SessionWatch {
        SessionWatch { shared: Arc::clone(&self.0), session, news: self.0.watches.add(session) }
    }

    /// Acquires locks for a request of a client's session. A call with the number of an earlier one is about the same request, at any
    /// instance: it waits on, or returns the token. The last call decides: if its future is dropped, or it fails, the request is cancelled.
    /// `stop` ends the call without that.
    ///
    /// # Errors
    /// See [`AcquireError`]. The locks are not held and will not be, unless it is a [`CommandError`] that is not a refusal: then the request has to
    /// be repeated or released.
    pub async fn acquire_in(
        &self,
        id: RequestId,
        request: &LockRequest,
        stop: impl Future<Output = ()>,
    ) -> Result<Token, AcquireError> {
        let attempt = self.0.attempts.fetch_add(1, Ordering::Relaxed).max(1);
        let mut cancel = Cancel { shared: Arc::clone(&self.0), id, attempt, is_needed: true };
        let result = tokio::select! {
            result = self.acquire_as(id, attempt, request) => result,
            () = stop => {
                cancel.is_needed = false;
                return Err(CommandError::Cluster(RequestError::Ended).into());
            }
        };
        cancel.is_needed = match &result {
            Ok(_) | Err(AcquireError::NotAvailable | AcquireError::SessionLost) => false,
            // The request of this number, if there is one, is another one.
            Err(AcquireError::Command(CommandError::Refused(refusal))) => *refusal == Refusal::TooMany,
            Err(_) => true,
        };
        result
    }

    async fn acquire_as(&self, id: RequestId, attempt: u64, request: &LockRequest) -> Result<Token, AcquireError> {
        let mut watch = self.watch_session(id.session);
        let now = Instant::now();
        let (deadline, until) = match request.wait {
            Wait::Try => (None, now + COMMAND_TIMEOUT),
            Wait::For(wait) => (Some(now + wait.min(WAIT_MAX)), now + wait.min(WAIT_MAX)),
            Wait::Forever => (None, now + WAIT_MAX),
        };
        let command = Operation::Acquire(Acquire { attempt, ..request.command(id, deadline) });
        match self.0.execute_by(command, until.min(now + COMMAND_TIMEOUT)).await {
            Ok(Outcome::Granted(granted)) => Ok(Token(granted.token)),
            // An earlier call waits for longer.
            Ok(Outcome::Waiting(_)) if request.wait == Wait::Try => Err(AcquireError::TimedOut),
            Ok(Outcome::Waiting(_)) => self.granted(id, &mut watch, until).await,
            Ok(_) => Err(CommandError::Unreadable.into()),
            Err(CommandError::Refused(Refusal::NotAvailable)) => Err(AcquireError::NotAvailable),
            // It has ended before, or an attempt was executed whose answer was lost.
            Err(CommandError::Refused(Refusal::Finished)) => Err(AcquireError::NotAvailable),
            Err(CommandError::Refused(Refusal::NoSession)) => Err(AcquireError::SessionLost),
            Err(problem) => Err(problem.into()),
        }
    }

    /// Waits until a request is granted.
    async fn granted(&self, id: RequestId, watch: &mut SessionWatch, until: Instant) -> Result<Token, AcquireError> {
        loop {
            match timeout_at(until, watch.next()).await {
                Ok(Some(News::Granted(number, token))) if number == id.number => return Ok(token),
                Ok(Some(News::TimedOut(number))) if number == id.number => return Err(AcquireError::TimedOut),
                Ok(Some(News::Lost(number, loss))) if number == id.number => return Err(AcquireError::Lost(loss)),
                Ok(Some(News::SessionEnded)) => return Err(AcquireError::SessionLost),
                Ok(Some(_)) => {}
                Ok(None) => {
                    *watch = self.watch_session(id.session);
                    let view = self.view();
                    match view.locks.request(id).map(crossdock_coordination::Request::token) {
                        Some(Some(token)) => return Ok(token),
                        Some(None) => {}
                        None if view.locks.is_finished(id) => return Err(AcquireError::TimedOut),
                        None if view.sessions.get(id.session).is_none() && view.clock.has_passed(id.session.0) => {
                            return Err(AcquireError::SessionLost);
                        }
                        None => sleep(RETRY_INTERVAL).await,
                    }
                }
                Err(_) => return Err(AcquireError::TimedOut),
            }
        }
    }

    /// Releases what a request of a client's session holds, or cancels it. It will not be granted any more.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn release_in(&self, id: RequestId) -> Result<(), CommandError> {
        self.0.execute_first_by(release(id, 0), Instant::now() + COMMAND_TIMEOUT).await.map(drop)
    }

    /// Turns an exclusive request of a client's session into a shared one. It keeps its token.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn downgrade_in(&self, id: RequestId) -> Result<(), CommandError> {
        let downgrade = Operation::Downgrade(Downgrade { session: id.session.0, number: id.number });
        self.0.execute_by(downgrade, Instant::now() + COMMAND_TIMEOUT).await.map(drop)
    }
}
