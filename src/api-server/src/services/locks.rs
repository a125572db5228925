//! Locks.

use std::sync::Arc;
use std::time::Duration;

use crossdock_api::hold_event::Event;
use crossdock_api::locks_server::Locks;
use crossdock_api::{
    AcquireRequest, AcquireResponse, BreakRequest, BreakResponse, DowngradeRequest, DowngradeResponse, HoldEvent,
    HoldRequest, Holder, ListLocksRequest, ListLocksResponse, LockState, ReleaseRequest, ReleaseResponse,
    RevokeRequest, RevokeResponse,
};
use crossdock_cluster::RequestError;
use crossdock_coordination::{Claim, Lock, Mode, RequestId, SessionId, Token, View};
use crossdock_embedded::{CommandError, Engine, LockRequest, News, SessionWatch, Wait};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use super::{Ending, Events, Methods, caller};
use crate::access::{Action, Caller};
use crate::status::{of_acquire, of_command};

/// The time to live of a session that holds locks for a call, unless it says another one.
const HOLD_TTL_MS: u64 = 10_000;
/// Interval between two events of a call that holds locks.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A part of its time after which a session that could not be kept alive counts as lost: the cluster may be faster.
const GIVE_UP_AFTER: f64 = 0.9;
/// Locks that are listed, and holders of each.
const LISTED: u32 = 100;
const LISTED_MAX: u32 = 10_000;
const HOLDERS_MAX: usize = 20;

/// The locks of a call, which its client may acquire.
fn claims(caller: &Caller, claims: Vec<crossdock_api::Claim>) -> Result<Vec<Claim>, Status> {
    let read = |claim: crossdock_api::Claim| {
        caller.check(Action::Locks, &claim.lock)?;
        let mode = match (claim.shared, claim.permits) {
            (false, 0) => Mode::Exclusive,
            (true, 0) => Mode::Shared,
            (false, of) => Mode::Permit { of },
            (true, _) => {
                return Err(Status::invalid_argument("a claim is either `shared` or one of several `permits`"));
            }
        };
        Ok(Claim { lock: claim.lock.into(), mode })
    };
    if claims.is_empty() {
        return Err(Status::invalid_argument("a request needs at least one claim"));
    }
    claims.into_iter().map(read).collect()
}

fn wait(millis: u64) -> Wait {
    if millis == 0 { Wait::Try } else { Wait::For(Duration::from_millis(millis)) }
}

#[tonic::async_trait]
impl Locks for Methods {
    async fn acquire(&self, request: Request<AcquireRequest>) -> Result<Response<AcquireResponse>, Status> {
        let caller = caller(&request)?;
        let AcquireRequest {
            session,
            number,
            claims: wanted,
            wait_ms,
            hold_ms,
            delay_ms,
            metadata,
            reentrant_owner,
            steal,
        } = request.into_inner();
        let claims = claims(&caller, wanted)?;
        if steal.is_some() {
            claims.iter().try_for_each(|claim| caller.check(Action::Operate, &claim.lock))?;
        }
        if number == 0 {
            return Err(Status::invalid_argument("`number` must be at least 1"));
        }
        let session = self.own_session(&caller, session).await?;
        let wanted = LockRequest {
            claims,
            wait: wait(wait_ms),
            hold: hold_ms.map(Duration::from_millis),
            delay: Duration::from_millis(delay_ms),
            metadata,
            reentrant_owner,
            steal,
        };
        let acquired = self.engine.acquire_in(RequestId { session, number }, &wanted, self.stop.cancelled()).await;
        let Token(token) = acquired.map_err(|problem| of_acquire(&problem))?;
        Ok(Response::new(AcquireResponse { token }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let caller = caller(&request)?;
        let ReleaseRequest { session, number } = request.into_inner();
        let session = self.own_session(&caller, session).await?;
        self.engine.release_in(RequestId { session, number }).await.map_err(|problem| of_command(&problem))?;
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        let caller = caller(&request)?;
        let DowngradeRequest { session, number } = request.into_inner();
        let session = self.own_session(&caller, session).await?;
        self.engine.downgrade_in(RequestId { session, number }).await.map_err(|problem| of_command(&problem))?;
        Ok(Response::new(DowngradeResponse {}))
    }

    type HoldStream = Events<HoldEvent>;

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<Self::HoldStream>, Status> {
        let caller = caller(&request)?;
        let HoldRequest { claims: wanted, wait_ms, ttl_ms, hold_ms, metadata } = request.into_inner();
        let claims = claims(&caller, wanted)?;
        let ttl_ms = if ttl_ms == 0 { HOLD_TTL_MS } else { ttl_ms };
        let session = self.open_session(&caller, ttl_ms, "a call that holds locks").await?;
        // From here on, the session ends with the call.
        let mut holding =
            Holding::new(self.engine.clone(), self.ending(&caller), session, Duration::from_millis(ttl_ms));
        let wanted = LockRequest {
            claims,
            wait: wait(wait_ms),
            hold: hold_ms.map(Duration::from_millis),
            delay: Duration::ZERO,
            metadata,
            reentrant_owner: None,
            steal: None,
        };
        let acquired = self.engine.acquire_in(RequestId { session, number: 1 }, &wanted, self.stop.cancelled()).await;
        holding.granted = Some(acquired.map_err(|problem| of_acquire(&problem))?);
        let events = futures_util::stream::unfold(Some(holding), async |holding| {
            let mut holding = holding?;
            let event = holding.next().await;
            let is_last = matches!(event, Err(_) | Ok(HoldEvent { event: Some(Event::Lost(_)) }));
            Some((event, (!is_last).then_some(holding)))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list(&self, request: Request<ListLocksRequest>) -> Result<Response<ListLocksResponse>, Status> {
        let caller = caller(&request)?;
        let ListLocksRequest { prefix, limit } = request.into_inner();
        caller.check(Action::State, &prefix)?;
        let view = self.engine.read().await.map_err(|problem| Status::unavailable(problem.to_string()))?;
        let limit = if limit == 0 { LISTED } else { limit.min(LISTED_MAX) } as usize;
        let mut found = view.locks.from(&prefix).take_while(|(name, _)| name.starts_with(&prefix));
        let locks = found.by_ref().take(limit).map(|(name, lock)| state_of(&view, name, lock)).collect();
        Ok(Response::new(ListLocksResponse { locks, has_more: found.next().is_some() }))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let caller = caller(&request)?;
        let RevokeRequest { lock, reason } = request.into_inner();
        caller.check(Action::Operate, &lock)?;
        let holders = self.engine.revoke_lock(&lock, &reason).await.map_err(|problem| of_command(&problem))?;
        tracing::warn!(client = caller.name, lock, reason, holders, "holders of a lock asked to release it");
        Ok(Response::new(RevokeResponse { holders }))
    }

    async fn r#break(&self, request: Request<BreakRequest>) -> Result<Response<BreakResponse>, Status> {
        let caller = caller(&request)?;
        let BreakRequest { lock, reason } = request.into_inner();
        caller.check(Action::Operate, &lock)?;
        let holders = self.engine.break_lock(&lock, &reason).await.map_err(|problem| match problem {
            // A repetition could take the lock from its next holder.
            CommandError::Cluster(RequestError::Unknown) | CommandError::TimedOut => {
                Status::unknown(problem.to_string())
            }
            problem => of_command(&problem),
        })?;
        tracing::warn!(client = caller.name, lock, reason, holders, "lock taken from its holders");
        Ok(Response::new(BreakResponse { holders }))
    }
}

fn state_of(view: &View, name: &Arc<str>, lock: &Lock) -> LockState {
    let (holders, waiters) = lock.counts();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let holder = |(id, _): (RequestId, Mode)| {
        let request = view.locks.request(id)?;
        Some(Holder {
            session: id.session.0,
            number: id.number,
            label: view.sessions.get(id.session).map(|session| session.label.to_string()).unwrap_or_default(),
            token: request.token().map_or(0, |token| token.0),
            metadata: request.metadata.to_string(),
        })
    };
    LockState {
        name: name.to_string(),
        holders: lock.holders().take(HOLDERS_MAX).filter_map(holder).collect(),
        holders_count: count(holders),
        waiters_count: count(waiters),
    }
}

/// A call that holds locks in a session of its own, which it keeps alive. The session ends with it.
struct Holding {
    engine: Engine,
    ending: Ending,
    session: SessionId,
    watch: SessionWatch,
    granted: Option<Token>,
    /// The reason of the last request to release the locks.
    revoked: Option<Arc<str>>,
    /// Until when the session is known to live.
    alive_until: watch::Receiver<Instant>,
    ticks: tokio::time::Interval,
    _keeping: AbortOnDropHandle<()>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let (engine, session) = (self.engine.clone(), self.session);
        // If that fails, it expires.
        tokio::spawn(async move { engine.close_session(session).await });
    }
}

impl Holding {
    fn new(engine: Engine, ending: Ending, session: SessionId, ttl: Duration) -> Self {
        // It was opened just now, or a moment ago.
        let (living, alive_until) = watch::channel(Instant::now() + ttl.mul_f64(GIVE_UP_AFTER));
        let keeping = tokio::spawn(keep_alive(engine.clone(), session, ttl, living));
        let mut ticks = interval(ALIVE_INTERVAL.min(ttl / 4));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let watch = engine.watch_session(session);
        Self {
            engine,
            ending,
            session,
            watch,
            granted: None,
            revoked: None,
            alive_until,
            ticks,
            _keeping: AbortOnDropHandle::new(keeping),
        }
    }

    async fn next(&mut self) -> Result<HoldEvent, Status> {
        if let Some(token) = self.granted.take() {
            return Ok(HoldEvent { event: Some(Event::Granted(token.0)) });
        }
        let event = loop {
            let until = *self.alive_until.borrow_and_update();
            let news = tokio::select! {
                biased;
                news = self.watch.next() => news,
                () = sleep_until(until) => {
                    break Event::Lost("the session of the call could not be kept alive: the cluster is not reachable".to_owned());
                }
                status = self.ending.status() => return Err(status),
                _ = self.ticks.tick() => break Event::IsHeld(true),
                _ = self.alive_until.changed() => continue,
            };
            match news {
                Some(News::Revoked(_, reason)) => {
                    self.revoked = Some(Arc::clone(&reason));
                    break Event::Revoked(reason.to_string());
                }
                Some(News::Lost(_, loss)) => break Event::Lost(loss.to_string()),
                Some(News::SessionEnded) => break Event::Lost("the session of the call has ended".to_owned()),
                Some(News::Granted(..) | News::TimedOut(_)) => {}
                None => {
                    self.watch = self.engine.watch_session(self.session);
                    let request = RequestId { session: self.session, number: 1 };
                    let view = self.engine.view();
                    let Some(request) = view.locks.request(request) else {
                        break Event::Lost("the lock was lost".to_owned());
                    };
                    if request.revoked != self.revoked
                        && let Some(reason) = &request.revoked
                    {
                        self.revoked = Some(Arc::clone(reason));
                        break Event::Revoked(reason.to_string());
                    }
                }
            }
        };
        Ok(HoldEvent { event: Some(event) })
    }
}

/// Keeps a session alive until it has ended.
async fn keep_alive(engine: Engine, session: SessionId, ttl: Duration, living: watch::Sender<Instant>) {
    let mut next = Instant::now() + ttl / 3;
    loop {
        sleep_until(next).await;
        let sent = Instant::now();
        next = sent + ttl / 3;
        match engine.keep_session_alive(session).await {
            Ok(true) => {
                living.send_replace(sent + ttl.mul_f64(GIVE_UP_AFTER));
            }
            Ok(false) => return,
            // It is tried again in good time, if the cluster is back.
            Err(_) => next = Instant::now() + ttl / 20,
        }
    }
}
