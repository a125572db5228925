//! The session of this instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossdock_cluster::RequestError;
use crossdock_coordination::command::{CloseSession, KeepAlive, OpenSession};
use crossdock_coordination::limits::TTL_MS;
use crossdock_coordination::{Event, Operation, Outcome, RequestId, SessionId, View};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::engine::{Options, RETRY_INTERVAL, Shared, outcome, proposal};
use crate::error::CommandError;

/// The session is given up if it is not known to live for this part of its time to live: the cluster lets it expire a little
/// later.
const GIVE_UP_AFTER: f64 = 0.9;
/// Time until a session is opened again after the cluster has refused it.
const REFUSED_INTERVAL: Duration = Duration::from_secs(5);
/// How long a session may take to be closed when the instance stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The current session.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) id: SessionId,
    next_number: Arc<AtomicU64>,
    pub(crate) life: Arc<Life>,
}

/// Until when a session is known to live.
#[derive(Debug)]
pub(crate) struct Life {
    opened: Instant,
    /// Milliseconds since then.
    until: AtomicU64,
}

impl Life {
    fn new(opened: Instant, until: Instant) -> Self {
        let life = Self { opened, until: AtomicU64::new(0) };
        life.extend(until);
        life
    }

    fn extend(&self, until: Instant) {
        let millis = u64::try_from((until - self.opened).as_millis()).unwrap_or(u64::MAX);
        self.until.store(millis, Ordering::Release);
    }

    pub(crate) fn until(&self) -> Instant {
        self.opened + Duration::from_millis(self.until.load(Ordering::Acquire))
    }
}

impl Own {
    /// An id for a new request.
    pub(crate) fn next_request(&self) -> RequestId {
        RequestId { session: self.id, number: self.next_number.fetch_add(1, Ordering::Relaxed) }
    }
}

#[derive(Debug)]
enum Current {
    None,
    Open(Own),
    /// The engine or the instance has ended.
    Over,
}

/// The sessions of this instance, one after another.
#[derive(Debug)]
pub(crate) struct Sessions {
    options: Options,
    current: watch::Sender<Current>,
    lost: AtomicU64,
}

impl Sessions {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, current: watch::Sender::new(Current::None), lost: AtomicU64::new(0) }
    }

    /// The current session, which is waited for.
    pub(crate) async fn get(&self, deadline: Instant) -> Result<Own, CommandError> {
        let mut current = self.current.subscribe();
        let is_known = |current: &Current| !matches!(current, Current::None);
        match timeout_at(deadline, current.wait_for(is_known)).await {
            Ok(Ok(current)) => match &*current {
                Current::Open(own) => Ok(own.clone()),
                Current::None | Current::Over => Err(RequestError::Ended.into()),
            },
            Ok(Err(_)) => Err(RequestError::Ended.into()),
            Err(_) => Err(CommandError::TimedOut),
        }
    }

    /// The time to live of a session.
    fn ttl(&self) -> Duration {
        self.options.ttl.min(Duration::from_millis(*TTL_MS.end()))
    }

    pub(crate) fn label(&self) -> &str {
        &self.options.label
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(&*self.current.borrow(), Current::Open(_))
    }

    /// The number of lost sessions.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn is_current(&self, id: SessionId) -> bool {
        matches!(&*self.current.borrow(), Current::Open(own) if own.id == id)
    }

    pub(crate) fn current(&self) -> Option<SessionId> {
        match &*self.current.borrow() {
            Current::Open(own) => Some(own.id),
            Current::None | Current::Over => None,
        }
    }

    /// Until when the current session is known to live.
    pub(crate) fn life(&self) -> Option<Arc<Life>> {
        match &*self.current.borrow() {
            Current::Open(own) => Some(Arc::clone(&own.life)),
            Current::None | Current::Over => None,
        }
    }

    /// Gives up a session, if it is the current one.
    fn give_up(&self, id: SessionId) {
        self.current.send_if_modified(|current| {
            let is_current = matches!(current, Current::Open(own) if own.id == id);
            if is_current {
                *current = Current::None;
            }
            is_current
        });
    }

    pub(crate) fn handle(&self, event: &Event) {
        if let Event::SessionEnded(id) = event {
            self.give_up(*id);
        }
    }

    /// Compares with a state, after events were missed.
    pub(crate) fn compare(&self, view: &View) {
        let current = match &*self.current.borrow() {
            Current::Open(own) => own.id,
            Current::None | Current::Over => return,
        };
        if view.sessions.get(current).is_none() && view.clock.has_passed(current.0) {
            self.give_up(current);
        }
    }

    pub(crate) fn end(&self) {
        self.current.send_replace(Current::Over);
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(&*self.current.borrow(), Current::Over)
    }
}

/// Opens a session, keeps it alive, and opens another one when it is lost.
pub(crate) async fn keep(shared: Arc<Shared>) {
    while !shared.sessions.is_over() {
        let opened = Instant::now();
        let id = match open(&shared).await {
            Ok(Some(id)) => id,
            Ok(None) => {
                sleep(RETRY_INTERVAL).await;
                continue;
            }
            Err(problem) => {
                tracing::error!(%problem, "cannot open a session with the cluster; trying again");
                sleep(REFUSED_INTERVAL).await;
                continue;
            }
        };
        let known_until = opened + shared.sessions.ttl().mul_f64(GIVE_UP_AFTER);
        let life = Arc::new(Life::new(opened, known_until));
        let own = Own { id, next_number: Arc::new(AtomicU64::new(1)), life: Arc::clone(&life) };
        let is_open = shared.sessions.current.send_if_modified(|current| {
            let is_open = matches!(current, Current::None);
            if is_open {
                *current = Current::Open(own);
            }
            is_open
        });
        if !is_open {
            return;
        }
        tracing::info!(session = %id, "session with the cluster opened");
        let serving = Arc::clone(&shared);
        shared.runtime.spawn(async move { crate::generations::serve_in(&serving, id).await });
        keep_alive(&shared, id, &life).await;
        shared.sessions.give_up(id);
        shared.requests.end_session(id);
        shared.queues.end_session(id);
        if !shared.sessions.is_over() {
            shared.sessions.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(session = %id, "session with the cluster lost, with everything that this instance held");
            // The cluster may still keep it, with locks and requests that have no owner any more.
            close_until_done(&shared, id).await;
        }
    }
}

/// Closes a session, as soon as the cluster executes that.
async fn close_until_done(shared: &Shared, id: SessionId) {
    let close = || proposal(Operation::CloseSession(CloseSession { session: id.0 })).reserved();
    while let Err(problem) = shared.replica.propose_as(close()).await {
        if problem == RequestError::Ended {
            return;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Opens a session; `None` if the cluster does not answer, and an error if it refuses.
async fn open(shared: &Shared) -> Result<Option<SessionId>, CommandError> {
    let (ttl, label) = (shared.sessions.ttl(), &shared.sessions.options.label);
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let open = Operation::OpenSession(OpenSession { ttl_ms, label: label.clone() });
    // If the outcome is unknown, a session that nobody uses expires.
    let Ok((zxid, answer)) = shared.replica.propose_as(proposal(open)).await else { return Ok(None) };
    outcome(Ok(answer)).map(|_| Some(SessionId(zxid.to_u64())))
}

/// Keeps a session alive until it is lost. Its time counts from when a command was sent, which is before the cluster counts.
async fn keep_alive(shared: &Shared, id: SessionId, life: &Life) {
    let ttl = shared.sessions.ttl();
    let mut next = life.opened + ttl / 3;
    let mut current = shared.sessions.current.subscribe();
    loop {
        let is_gone = |current: &Current| !matches!(current, Current::Open(own) if own.id == id);
        if timeout_at(next, current.wait_for(is_gone)).await.is_ok() {
            return;
        }
        let sent = Instant::now();
        if sent >= life.until() {
            return;
        }
        let command = Operation::KeepAlive(KeepAlive { sessions: vec![id.0] });
        let proposed = shared.replica.propose_as(proposal(command).reserved());
        let answer = timeout_at(life.until(), proposed).await;
        match answer.map(|answer| outcome(answer.map(|(_, answer)| answer))) {
            Ok(Ok(Outcome::Unknown(unknown))) if unknown.sessions.is_empty() => {
                life.extend(sent + ttl.mul_f64(GIVE_UP_AFTER));
                next = sent + ttl / 3;
            }
            Ok(Ok(_)) | Err(_) => return,
            Ok(Err(_)) => next = Instant::now() + RETRY_INTERVAL,
        }
    }
}

/// Ends the session for good.
pub(crate) async fn close(shared: &Shared) {
    let current = shared.sessions.current.send_replace(Current::Over);
    let Current::Open(own) = current else { return };
    // Before another instance may be granted anything.
    shared.requests.end_session(own.id);
    shared.queues.end_session(own.id);
    let closing = close_until_done(shared, own.id);
    if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
        tracing::warn!(session = %own.id, "session with the cluster not closed; it expires");
    }
}
