//! Locks and sessions of the cluster for operators: as JSON, as metrics, and as a stream that holds a lock.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use actix_web::web::Bytes;
use crossdock_coordination::{Broken, Lock, Mode, Request, RequestId, RequestState, View};
use crossdock_embedded::{AcquireError, CommandError, Engine, Held, LockRequest, Wait};
use crossdock_ports::LockEngine;
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::cluster::{REQUEST_TIMEOUT, unanswered};
use super::families::{Families, NONE};
use crate::process::Singletons;

/// Locks and sessions that are listed, unless the request says how many; and at most.
const LISTED: usize = 100;
const LISTED_MAX: usize = 10_000;
/// Requests listed for each lock.
const REQUESTS_MAX: usize = 20;
/// Interval between the lines of a stream that holds a lock: a connection that is gone is noticed by the next one.
const ALIVE_INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait and lease of a stream.
const HOLD_MAX: Duration = Duration::from_secs(86_400);

/// What to list.
#[derive(Debug)]
pub(super) struct Listed<'q> {
    pub(super) prefix: &'q str,
    pub(super) limit: usize,
}

impl<'q> Listed<'q> {
    /// `prefix=stock/` and `limit=20`, each optional.
    pub(super) fn parse(query: &'q BTreeMap<String, String>) -> Option<Self> {
        let limit = query.get("limit").map_or(Some(LISTED), |limit| limit.parse().ok())?;
        let prefix = query.get("prefix").map_or("", String::as_str);
        Some(Self { prefix, limit: limit.min(LISTED_MAX) })
    }
}

/// The locks whose names begin with the prefix, in the order of their names.
pub(super) async fn locks_json(engine: &Engine, listed: &Listed<'_>) -> Result<Value, (u16, String)> {
    let view = read(engine).await?;
    let mut found = view.locks.from(listed.prefix).take_while(|(name, _)| name.starts_with(listed.prefix));
    let locks: Vec<_> = found.by_ref().take(listed.limit).map(|(name, lock)| lock_json(&view, name, lock)).collect();
    let broken: Vec<_> = view.locks.broken().map(|(zxid, broken)| broken_json(zxid, broken)).collect();
    Ok(json!({ "locks": locks, "more": found.next().is_some(), "broken": broken }))
}

/// The sessions, in the order in which they were opened.
pub(super) async fn sessions_json(engine: &Engine, listed: &Listed<'_>) -> Result<Value, (u16, String)> {
    let view = read(engine).await?;
    let mut found = view.sessions.iter().filter(|(_, session)| session.label.starts_with(listed.prefix));
    let now = view.clock.now();
    let session = |(id, session): (crossdock_coordination::SessionId, &crossdock_coordination::Session)| {
        json!({
            "id": id.0, "label": &*session.label, "ttl_ms": session.ttl_ms,
            "expires_in_ms": (session.renewed + session.ttl_ms).saturating_sub(now),
            "requests": view.locks.requests_of(id).count(),
        })
    };
    let sessions: Vec<_> = found.by_ref().take(listed.limit).map(session).collect();
    Ok(json!({ "sessions": sessions, "more": found.next().is_some() }))
}

pub(super) async fn read(engine: &Engine) -> Result<std::sync::Arc<crossdock_embedded::State>, (u16, String)> {
    engine.read_within(REQUEST_TIMEOUT).await.map_err(|problem| (503, problem.to_string()))
}

fn mode_json(mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!("exclusive"),
        Mode::Shared => json!("shared"),
        Mode::Permit { of } => json!({ "permit_of": of }),
    }
}

fn lock_json(view: &View, name: &str, lock: &Lock) -> Value {
    let (holders, waiters) = lock.counts();
    let requests = |listed: Vec<(RequestId, Mode)>| {
        let found = listed.into_iter().filter_map(|(id, mode)| Some((id, mode, view.locks.request(id)?)));
        found.map(|(id, mode, request)| request_json(view, id, mode, request)).collect::<Vec<_>>()
    };
    json!({
        "name": name,
        "holders": requests(lock.holders().take(REQUESTS_MAX).collect()),
        "holders_count": holders,
        "waiters": requests(lock.waiters().take(REQUESTS_MAX).collect()),
        "waiters_count": waiters,
        "closed_ms": lock.closed_until().saturating_sub(view.clock.now()),
    })
}

fn request_json(view: &View, id: RequestId, mode: Mode, request: &Request) -> Value {
    let now = view.clock.now();
    let left = |until: Option<u64>| until.map(|until| until.saturating_sub(now));
    let mut shown = json!({
        "session": id.session.0, "number": id.number,
        "label": view.sessions.get(id.session).map(|session| session.label.to_string()),
        "mode": mode_json(mode), "metadata": &*request.metadata, "revoked": request.revoked.as_deref(),
    });
    match request.state {
        RequestState::Held { token, since, until } => {
            shown["token"] = json!(token.0);
            shown["held_ms"] = json!(now.saturating_sub(since));
            shown["lease_left_ms"] = json!(left(until));
        }
        RequestState::Waiting { until } => shown["wait_left_ms"] = json!(left(until)),
    }
    shown
}

fn broken_json(zxid: u64, broken: &Broken) -> Value {
    let holders: Vec<_> =
        broken.holders.iter().map(|id| json!({ "session": id.session.0, "number": id.number })).collect();
    json!({ "zxid": zxid, "lock": &*broken.lock, "time_ms": broken.time, "reason": &*broken.reason, "holders_count": broken.count, "holders": holders })
}

/// A request of an operator about the holders of a lock.
#[derive(Debug)]
pub(super) enum Change {
    /// Take the lock from them.
    Break { lock: String, reason: String },
    /// Ask them to release it.
    Revoke { lock: String, reason: String },
}

impl Change {
    /// `{"break": "stock/7", "reason": "…"}`, or `revoke` instead of `break`.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return None };
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let reason = text("reason").filter(|_| object.len() == 2)?;
        match (text("break"), text("revoke")) {
            (Some(lock), None) => Some(Self::Break { lock, reason }),
            (None, Some(lock)) => Some(Self::Revoke { lock, reason }),
            _ => None,
        }
    }
}

/// Executes a request of an operator. Returns how many holders it concerned.
pub(super) async fn change(engine: &Engine, change: &Change) -> Result<Value, (u16, String)> {
    let changed = async {
        match change {
            Change::Break { lock, reason } => engine.break_lock(lock, reason).await,
            Change::Revoke { lock, reason } => engine.revoke_lock(lock, reason).await,
        }
    };
    let changed = timeout(REQUEST_TIMEOUT, changed).await.map_err(|_| unanswered())?;
    let holders = changed.map_err(|problem| (503, problem.to_string()));
    match &holders {
        Ok(holders) => tracing::warn!(?change, holders, "request of an operator about a lock"),
        Err((_, problem)) => tracing::warn!(?change, %problem, "request of an operator about a lock failed"),
    }
    holders.map(|holders| json!({ "holders": holders }))
}

/// A lock to hold for as long as the connection lasts.
#[derive(Debug)]
pub(super) struct Hold(LockRequest);

impl Hold {
    /// `{"lock": "stock/7"}`, with `wait_ms`, `lease_ms`, `shared`, `permits` and `metadata`.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return None };
        let keys = ["lock", "wait_ms", "lease_ms", "shared", "permits", "metadata"];
        if !object.keys().all(|key| keys.contains(&key.as_str())) {
            return None;
        }
        let time = |key: &str| match object.get(key) {
            None => Some(None),
            Some(value) => value.as_u64().map(|millis| Some(Duration::from_millis(millis).min(HOLD_MAX))),
        };
        let mode = match (object.get("shared"), object.get("permits")) {
            (None | Some(Value::Bool(false)), None) => Mode::Exclusive,
            (Some(Value::Bool(true)), None) => Mode::Shared,
            (None, Some(of)) => Mode::Permit { of: u32::try_from(of.as_u64()?).ok()? },
            _ => return None,
        };
        let wait = time("wait_ms")?.filter(|wait| !wait.is_zero()).map_or(Wait::Try, Wait::For);
        let metadata = object.get("metadata").map_or(Some(""), Value::as_str)?.to_owned();
        let request = LockRequest::new(object.get("lock")?.as_str()?, mode, wait);
        Some(Self(LockRequest { hold: time("lease_ms")?, metadata, ..request }))
    }
}

/// Acquires a lock. Returns lines of JSON that last as long as it is held: the token, then empty objects to keep the connection
/// alive, and last why it was lost.
pub(super) async fn hold(
    engine: &Engine,
    Hold(request): Hold,
) -> Result<impl Stream<Item = io::Result<Bytes>> + 'static, (u16, String)> {
    let held = engine.acquire(&request).await.map_err(|problem| {
        let status = match problem {
            AcquireError::NotAvailable | AcquireError::TimedOut => 409,
            AcquireError::Command(CommandError::Refused(_)) => 400,
            AcquireError::SessionLost | AcquireError::Lost(_) | AcquireError::Command(_) => 503,
        };
        (status, problem.to_string())
    })?;
    let first = line(&json!({ "token": held.token().0 }));
    Ok(futures_util::stream::unfold(Holding::Granted(held, first), |state| async {
        match state {
            Holding::Granted(held, first) => Some((Ok(first), Holding::Held(held))),
            Holding::Held(held) => match timeout(ALIVE_INTERVAL, held.validity().lost()).await {
                Err(_) => Some((Ok(line(&json!({}))), Holding::Held(held))),
                Ok(loss) => Some((Ok(line(&json!({ "lost": loss.to_string() }))), Holding::Over)),
            },
            Holding::Over => None,
        }
    }))
}

/// The state of a stream that holds a lock.
enum Holding {
    Granted(Held, Bytes),
    Held(Held),
    Over,
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

/// The metrics of the engine of locks, whichever it is.
pub(super) fn engine_metrics(out: &mut Families<'_>, locks: &dyn LockEngine, singletons: &Singletons) -> fmt::Result {
    let owned = singletons.statuses();
    let owned = owned.into_iter().map(|(name, is_owned)| (vec![("entry", name.to_string())], u64::from(is_owned)));
    let help = "1 while this instance reads the entry, which one instance reads at a time.";
    out.gauge("crossdock_cluster_singleton", help, owned)?;
    let help = "1 while this instance has a session with its cluster, or with the engine of `coordination`.";
    out.gauge("crossdock_cluster_session_open", help, [(NONE, u64::from(locks.has_session()))])?;
    let help = "Sessions that this instance has lost, with everything that it held.";
    out.counter("crossdock_cluster_sessions_lost", help, [(NONE, locks.sessions_lost())])
}

pub(super) fn lock_metrics(out: &mut Families<'_>, engine: &Engine) -> fmt::Result {
    let view = engine.view();
    let requests = engine.requests();
    let gauges = [
        ("crossdock_cluster_sessions", "Sessions of instances and clients.", view.sessions.len() as u64),
        ("crossdock_cluster_locks", "Locks that are held, waited for, or closed.", view.locks.len() as u64),
        (
            "crossdock_cluster_lock_requests",
            "Requests for locks that hold or wait, of all instances.",
            view.locks.requests_len() as u64,
        ),
        (
            "crossdock_cluster_own_lock_requests",
            "Requests for locks that hold or wait, of this instance.",
            requests as u64,
        ),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, [(NONE, value)])?;
    }
    Ok(())
}
