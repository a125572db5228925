//! The methods of the API.

mod cluster;
mod locks;
mod queues;
mod sequences;
mod sessions;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossdock_coordination::SessionId;
use crossdock_embedded::Engine;
use futures_util::Stream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::access::Caller;
use crate::status::of_command;

/// The most sessions of one client, and of all clients: instances need some as well.
const SESSIONS_MAX: usize = 1_000;
const ALL_SESSIONS_MAX: usize = 9_000;
/// Interval between two looks at the session of the instance itself.
const CONNECTED_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time to live of a session: one that is shorter ends with any change of the leader.
const TTL_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;

/// A stream of the server.
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the methods need.
#[derive(Clone)]
pub(crate) struct Methods {
    pub(crate) engine: Engine,
    pub(crate) cluster: crossdock_cluster::Client,
    /// The instance stops: streams end.
    pub(crate) stop: CancellationToken,
    /// How many sessions are being opened for each client.
    pub(crate) opening: Arc<Mutex<HashMap<String, usize>>>,
}

/// A session that is being opened.
struct Opening {
    opening: Arc<Mutex<HashMap<String, usize>>>,
    client: String,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = opening.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                opening.remove(&self.client);
            }
        }
    }
}

/// Why a stream ends that its client has not ended.
#[derive(Clone)]
struct Ending {
    stop: CancellationToken,
    is_gone: CancellationToken,
    engine: Engine,
}

impl Ending {
    /// Waits until it does. Cancel safe.
    async fn status(&self) -> Status {
        // What the cluster says does not reach an instance without a session.
        let is_cut_off = async {
            loop {
                tokio::time::sleep(CONNECTED_INTERVAL).await;
                if !self.engine.has_session() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => Status::unavailable("the instance stops; use another one"),
            () = self.is_gone.cancelled() => Status::unauthenticated("the client was removed or changed"),
            () = is_cut_off => Status::unavailable("the instance is not connected to the cluster; use another one"),
        }
    }
}

/// The client of a call.
fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("the call has neither a known token nor a known certificate"))
}

fn is_of_clients(label: &str) -> bool {
    label.starts_with("client ")
}

impl Methods {
    /// A session of a client, as this instance knows it, or as the cluster does.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if there is no such session of this client.
    async fn own_session(&self, caller: &Caller, session: u64) -> Result<SessionId, Status> {
        let id = SessionId(session);
        let is_own =
            |view: &crossdock_embedded::State| view.sessions.get(id).map(|session| caller.owns(&session.label));
        let mut known = is_own(&self.engine.view());
        if known.is_none() {
            // It may have been opened at another instance just now.
            let view = self.engine.read().await.map_err(|problem| Status::unavailable(problem.to_string()))?;
            known = is_own(&view);
        }
        match known {
            Some(true) => Ok(id),
            // Who owns another one is nobody's business.
            Some(false) | None => Err(Status::failed_precondition("the session has ended, or is none of this client")),
        }
    }

    /// Opens a session for a client.
    async fn open_session(&self, caller: &Caller, ttl_ms: u64, label: &str) -> Result<SessionId, Status> {
        if !TTL_MS.contains(&ttl_ms) {
            let (least, most) = (TTL_MS.start(), TTL_MS.end());
            return Err(Status::invalid_argument(format!("`ttl_ms` must be between {least} and {most}")));
        }
        let opening = self.reserve(caller)?;
        let label = caller.label(label);
        let ttl = Duration::from_millis(ttl_ms);
        let (engine, (opened, session)) = (self.engine.clone(), oneshot::channel());
        // If the client does not wait any more, nobody would close it.
        tokio::spawn(async move {
            let result = engine.open_session(ttl, &label).await;
            drop(opening);
            if let Err(Ok(session)) = opened.send(result) {
                let _ = engine.close_session(session).await;
            }
        });
        let session = session.await.map_err(|_| Status::internal("the session was not opened"))?;
        session.map_err(|problem| of_command(&problem))
    }

    /// Makes sure that a client may open another session.
    fn reserve(&self, caller: &Caller) -> Result<Opening, Status> {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.engine.view();
        let (mut own, mut all) = (opening.get(&caller.name).copied().unwrap_or(0), opening.values().sum::<usize>());
        for (_, session) in view.sessions.iter() {
            own += usize::from(caller.owns(&session.label));
            all += usize::from(is_of_clients(&session.label));
        }
        if own >= SESSIONS_MAX || all >= ALL_SESSIONS_MAX {
            let message = "the client, or all clients together, have too many sessions";
            return Err(Status::resource_exhausted(message));
        }
        *opening.entry(caller.name.clone()).or_default() += 1;
        Ok(Opening { opening: Arc::clone(&self.opening), client: caller.name.clone() })
    }

    fn ending(&self, caller: &Caller) -> Ending {
        Ending { stop: self.stop.clone(), is_gone: caller.is_gone.clone(), engine: self.engine.clone() }
    }
}
