//! The part that all engines have in common: a session that is kept alive, requests, and releases that are repeated until they are done.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossdock_ports::{LockEngine, LockError, LockGrant, LockLoss, LockRequest, LockWait, SendFuture, SequenceError};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::backend::{Backend, Opened, Problem, Ticket};
use crate::life::Life;

/// The most requests of an instance that hold or wait.
const REQUESTS_MAX: usize = 10_000;
/// Longest name of a lock or sequence, in bytes.
const NAME_LEN_MAX: usize = 255;
/// How long a request that does not wait takes at most, and how long one that does may take to reach the engine.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long numbers of a sequence take at most.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for a new session.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for one answer of the engine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts, at first and at most.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Releases and checks under way at the same time.
const CONCURRENCY: usize = 64;
/// How long a session may take to be closed when the instance stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session of this instance.
struct Own<S> {
    session: S,
    life: Arc<Life>,
    /// Until it is kept alive next.
    ended: watch::Sender<bool>,
}

impl<S> Own<S> {
    /// Waits until it has ended. Cancel safe.
    async fn has_ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

enum Current<S> {
    None,
    Open(Arc<Own<S>>),
    /// The instance stops.
    Over,
}

/// A request whose locks are to be released.
struct Due<S> {
    own: Arc<Own<S>>,
    ticket: Arc<Ticket>,
}

type Losing = watch::Sender<Option<LockLoss>>;

struct Granted<S> {
    own: Arc<Own<S>>,
    ticket: Arc<Ticket>,
    losing: Losing,
}

struct Shared<B: Backend> {
    backend: B,
    current: watch::Sender<Current<B::Session>>,
    lost: AtomicU64,
    /// What is held, by the ids of the tickets.
    granted: Mutex<HashMap<String, Granted<B::Session>>>,
    /// Requests that are not yet released.
    requests: AtomicU64,
    releases: mpsc::Sender<Due<B::Session>>,
    runtime: Handle,
}

impl<B: Backend> Shared<B> {
    fn granted(&self) -> MutexGuard<'_, HashMap<String, Granted<B::Session>>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current session, which is waited for until this time.
    async fn session(&self, deadline: Instant) -> Result<Arc<Own<B::Session>>, LockError> {
        let mut current = self.current.subscribe();
        let is_known = |current: &Current<B::Session>| !matches!(current, Current::None);
        let unavailable = |problem: &str| LockError::Unavailable(problem.to_owned());
        match timeout_at(deadline, current.wait_for(is_known)).await {
            Ok(Ok(current)) => match &*current {
                Current::Open(own) => Ok(Arc::clone(own)),
                Current::None | Current::Over => Err(unavailable("the instance stops")),
            },
            Ok(Err(_)) => Err(unavailable("the instance stops")),
            Err(_) => Err(unavailable("the instance has no session with the engine")),
        }
    }

    /// Ends what a session held.
    fn end(&self, own: &Arc<Own<B::Session>>) {
        own.life.end();
        own.ended.send_replace(true);
        for granted in self.granted().values().filter(|granted| Arc::ptr_eq(&granted.own, own)) {
            lose(&granted.losing, LockLoss::SessionLost);
        }
    }
}

/// Notes why locks were lost, unless that is known.
fn lose(losing: &Losing, loss: LockLoss) {
    losing.send_if_modified(|known| {
        let is_news = known.is_none();
        if is_news {
            *known = Some(loss);
        }
        is_news
    });
}

fn deleted() -> LockLoss {
    LockLoss::Broken("it was deleted in the engine".into())
}

/// A request that is open. Dropping it releases or cancels it.
struct Open<B: Backend> {
    shared: Arc<Shared<B>>,
    own: Arc<Own<B::Session>>,
    ticket: Arc<Ticket>,
    is_over: AtomicBool,
}

impl<B: Backend> Open<B> {
    fn release(&self) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.shared.granted().remove(&self.ticket.id);
            let due = Due { own: Arc::clone(&self.own), ticket: Arc::clone(&self.ticket) };
            // There is room for all requests. Without its task, the instance stops, and the session ends with it.
            let _ = self.shared.releases.try_send(due);
        }
    }
}

impl<B: Backend> Drop for Open<B> {
    fn drop(&mut self) {
        self.release();
    }
}

struct Grant<B: Backend> {
    open: Arc<Open<B>>,
    token: u64,
    lost: watch::Receiver<Option<LockLoss>>,
    /// Until when the locks may be held.
    until: Option<Instant>,
    _expiring: Option<AbortOnDropHandle<()>>,
}

impl<B: Backend> LockGrant for Grant<B> {
    fn token(&self) -> u64 {
        self.token
    }

    fn holds(&self) -> bool {
        let now = Instant::now();
        self.lost.borrow().is_none() && now < self.open.own.life.until() && self.until.is_none_or(|until| now < until)
    }

    fn lost(&self) -> SendFuture<'_, LockLoss> {
        let mut lost = self.lost.clone();
        Box::pin(async move {
            let lost = lost.wait_for(Option::is_some).await;
            lost.ok().and_then(|loss| loss.clone()).unwrap_or(LockLoss::Unknown)
        })
    }

    fn revoked(&self) -> SendFuture<'_, Option<Arc<str>>> {
        Box::pin(async move {
            self.lost().await;
            None
        })
    }

    fn give_up(&self) {
        self.open.release();
    }
}

impl<B: Backend> Shared<B> {
    async fn acquire(self: Arc<Self>, request: LockRequest) -> Result<Arc<dyn LockGrant>, LockError> {
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
            () = async { tokio::time::sleep_until(deadline.unwrap_or(now)).await }, if deadline.is_some() => {
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

    async fn take(self: Arc<Self>, sequence: String, count: u64) -> Result<u64, SequenceError> {
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
async fn release<B: Backend>(shared: Arc<Shared<B>>, due: mpsc::Receiver<Due<B::Session>>) {
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

/// Opens a session, and returns it with a time at which it was surely alive.
async fn open<B: Backend>(backend: &B) -> Result<(Opened<B::Session>, Instant), Problem> {
    let late = |_| Problem::unreachable("it does not answer in time");
    let opened = timeout(OPEN_TIMEOUT, backend.open()).await.map_err(late)??;
    // Connecting may have taken a large part of its time.
    let sent = Instant::now();
    timeout(ANSWER_TIMEOUT, backend.keep_alive(&opened.session)).await.map_err(late)??;
    Ok((opened, sent))
}

/// Opens a session, keeps it alive, and opens another one when it is lost.
async fn keep<B: Backend>(shared: Arc<Shared<B>>) {
    let mut is_reported = false;
    loop {
        let (Opened { session, ttl }, began) = match open(&shared.backend).await {
            Ok(opened) => opened,
            Err(problem) => {
                if !is_reported {
                    tracing::error!(engine = B::ROW.name, ?problem, "cannot open a session for locks; trying again");
                    is_reported = true;
                }
                sleep(RETRY_INTERVAL_MAX / 4).await;
                continue;
            }
        };
        is_reported = false;
        let life = Arc::new(Life::new(began, began + ttl.mul_f64(B::KNOWN)));
        let own = Arc::new(Own { session, life, ended: watch::Sender::new(false) });
        let is_open = shared.current.send_if_modified(|current| {
            let is_open = matches!(current, Current::None);
            if is_open {
                *current = Current::Open(Arc::clone(&own));
            }
            is_open
        });
        if !is_open {
            return;
        }
        tracing::info!(engine = B::ROW.name, session = ?own.session, "session for locks opened");
        keep_alive(&shared, &own, ttl).await;
        shared.current.send_if_modified(|current| {
            let is_own = matches!(current, Current::Open(other) if Arc::ptr_eq(other, &own));
            if is_own {
                *current = Current::None;
            }
            is_own
        });
        shared.end(&own);
        if matches!(*shared.current.borrow(), Current::Over) {
            return;
        }
        shared.lost.fetch_add(1, Ordering::Relaxed);
        tracing::error!(engine = B::ROW.name, session = ?own.session, "session for locks lost, with everything that this instance held");
        // The engine may still keep it, with locks that have no owner any more.
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let closing = async {
                while let Err(Problem::Unreachable(_)) = shared.backend.close(&own.session).await {
                    sleep(RETRY_INTERVAL_MAX).await;
                }
            };
            // After that, it has expired.
            let _ = timeout(ttl * 3, closing).await;
            shared.backend.forget(&own.session);
        });
    }
}

/// Keeps a session alive, and checks what it holds, until it is lost. Its time counts from when the engine was asked, which is before the
/// engine counts.
async fn keep_alive<B: Backend>(shared: &Arc<Shared<B>>, own: &Arc<Own<B::Session>>, ttl: Duration) {
    let interval = ttl.mul_f64(B::KNOWN / 3.0);
    // Leaves time to ask another server.
    let limit = interval / 2;
    let mut next = Instant::now() + interval;
    loop {
        tokio::select! {
            () = own.has_ended() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let sent = Instant::now();
        let until = own.life.until();
        if sent >= until {
            return;
        }
        match timeout_at(until.min(sent + limit), shared.backend.keep_alive(&own.session)).await {
            Ok(Ok(())) => {
                own.life.extend(sent + ttl.mul_f64(B::KNOWN));
                next = sent + interval;
                check(shared, own, next).await;
            }
            Ok(Err(Problem::SessionEnded)) => return,
            Ok(Err(problem)) => {
                tracing::debug!(engine = B::ROW.name, ?problem, "session for locks not kept alive; trying again");
                next = Instant::now() + RETRY_INTERVAL.min(interval);
            }
            Err(_) => next = Instant::now(),
        }
    }
}

/// Finds locks that others have taken away, until this time.
async fn check<B: Backend>(shared: &Arc<Shared<B>>, own: &Arc<Own<B::Session>>, until: Instant) {
    let granted: Vec<_> = {
        let granted = shared.granted();
        let of_session = granted.values().filter(|granted| Arc::ptr_eq(&granted.own, own));
        of_session.map(|granted| (Arc::clone(&granted.ticket), granted.losing.clone())).collect()
    };
    let checking = stream::iter(granted).for_each_concurrent(CONCURRENCY, async |(ticket, losing)| {
        if let Ok(false) = shared.backend.holds(&own.session, &ticket).await {
            lose(&losing, deleted());
        }
    });
    let _ = timeout_at(until, checking).await;
}

struct Handles<B: Backend>(Arc<Shared<B>>);

impl<B: Backend> LockEngine for Handles<B> {
    fn has_session(&self) -> bool {
        matches!(*self.0.current.borrow(), Current::Open(_))
    }

    fn sessions_lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn acquire(&self, request: LockRequest) -> SendFuture<'_, Result<Arc<dyn LockGrant>, LockError>> {
        // On the engine's runtime, since that of the caller may end sooner.
        let acquiring = AbortOnDropHandle::new(self.0.runtime.spawn(Arc::clone(&self.0).acquire(request)));
        let stopped = |_| Err(LockError::Unavailable("the instance stops".to_owned()));
        Box::pin(async move { acquiring.await.unwrap_or_else(stopped) })
    }

    fn next_numbers<'a>(&'a self, sequence: &'a str, count: u64) -> SendFuture<'a, Result<u64, SequenceError>> {
        let taking = Arc::clone(&self.0).take(sequence.to_owned(), count);
        let taking = AbortOnDropHandle::new(self.0.runtime.spawn(taking));
        let stopped = |_| Err(SequenceError::Unavailable("the instance stops".to_owned()));
        Box::pin(async move { taking.await.unwrap_or_else(stopped) })
    }

    fn close(&self) -> SendFuture<'_, ()> {
        let shared = Arc::clone(&self.0);
        let closing = self.0.runtime.spawn(async move {
            let Current::Open(own) = shared.current.send_replace(Current::Over) else { return };
            shared.end(&own);
            if timeout(CLOSE_TIMEOUT, shared.backend.close(&own.session)).await.is_err() {
                tracing::warn!(engine = B::ROW.name, "session for locks not closed; it expires");
            }
        });
        Box::pin(async move {
            let _ = closing.await;
        })
    }
}

/// The thread of an engine. When this is dropped, it ends, and what the instance holds counts as lost; its session expires.
pub struct Running {
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts an engine, with a thread of its own, so that nothing else delays what keeps its session alive.
pub(crate) fn start<B: Backend>(
    backend: impl FnOnce() -> io::Result<B> + Send + 'static,
) -> io::Result<(Arc<dyn LockEngine>, Running)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let backend = {
        let _entered = runtime.enter();
        backend()?
    };
    let (releases, due) = mpsc::channel(REQUESTS_MAX);
    let shared = Arc::new(Shared {
        backend,
        current: watch::Sender::new(Current::None),
        lost: AtomicU64::new(0),
        granted: Mutex::default(),
        requests: AtomicU64::new(0),
        releases,
        runtime: runtime.handle().clone(),
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let (keeping, ending) = (Arc::clone(&shared), Arc::clone(&shared));
    let thread = thread::Builder::new().name("locks".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let working = async { tokio::join!(keep(Arc::clone(&keeping)), release(Arc::clone(&keeping), due)) };
            tokio::select! {
                _ = working => {}
                _ = stopped => {}
            }
            if let Current::Open(own) = ending.current.send_replace(Current::Over) {
                ending.end(&own);
            }
        });
        // A lookup of a host name cannot be interrupted.
        runtime.shutdown_timeout(CLOSE_TIMEOUT);
    })?;
    Ok((Arc::new(Handles(shared)), Running { stop: Some(stop), thread: Some(thread) }))
}
