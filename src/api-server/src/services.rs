//! The methods of the API.

mod cluster;
mod locks;
mod queues;
mod sequences;
mod sessions;

use std::pin::Pin;
use std::sync::Arc;

use crossdock_coordination::SessionId;
use crossdock_embedded::Engine;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::access::Caller;
use crate::status::of_command;

/// The most sessions of one client, and of all clients: instances need some as well.
const SESSIONS_MAX: usize = 1_000;
const ALL_SESSIONS_MAX: usize = 9_000;
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
        let view = self.engine.view();
        let (mut own, mut all) = (0, 0);
        for (_, session) in view.sessions.iter() {
            own += usize::from(caller.owns(&session.label));
            all += usize::from(is_of_clients(&session.label));
        }
        if own >= SESSIONS_MAX || all >= ALL_SESSIONS_MAX {
            let message = "the client, or all clients together, have too many sessions";
            return Err(Status::resource_exhausted(message));
        }
        let label = caller.label(label);
        let ttl = std::time::Duration::from_millis(ttl_ms);
        self.engine.open_session(ttl, &label).await.map_err(|problem| of_command(&problem))
    }
}
