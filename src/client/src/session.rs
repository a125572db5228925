//! Sessions: they outlive the failure of an instance, and so do their locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossdock_api::locks_client::LocksClient;
use crossdock_api::sessions_client::SessionsClient;
use crossdock_api::{AcquireRequest, Claim, CloseRequest, KeepAliveRequest, OpenRequest, ReleaseRequest};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use crate::client::{CALL_TIMEOUT, Client, Error};
use crate::lock::{LockOptions, millis};

/// A part of its time after which a session that could not be kept alive counts as lost: the cluster may be faster.
const GIVE_UP_AFTER: f64 = 0.9;

/// Time between two attempts to release what nobody needs any more.
const RELEASE_INTERVAL: Duration = Duration::from_millis(200);

/// A session that is kept alive until it is dropped or closed.
#[derive(Debug, Clone)]
pub struct Session(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    id: u64,
    next_number: AtomicU64,
    /// Until when it is known to live.
    living: Arc<watch::Sender<Instant>>,
    _keeping: AbortOnDropHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let (client, session) = (self.client.clone(), self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // If that fails, it expires.
            runtime.spawn(async move { close(&client, session).await });
        }
    }
}

async fn close(client: &Client, session: u64) -> Result<(), Error> {
    let request = CloseRequest { session };
    client.call(request, async |channel, request| SessionsClient::new(channel).close(request).await).await.map(drop)
}

impl Client {
    /// Opens a session, whose locks are free `ttl` after it was last kept alive: at least one second.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open_session(&self, ttl: Duration, label: &str) -> Result<Session, Error> {
        let opened = Instant::now();
        let request = OpenRequest { ttl_ms: millis(ttl), label: label.to_owned() };
        let opening = self.call(request, async |channel, request| SessionsClient::new(channel).open(request).await);
        let id = opening.await?.session;
        let living = Arc::new(watch::Sender::new(opened + ttl.mul_f64(GIVE_UP_AFTER)));
        let keeping = tokio::spawn(keep_alive(self.clone(), id, ttl, Arc::clone(&living)));
        Ok(Session(Arc::new(Shared {
            client: self.clone(),
            id,
            next_number: AtomicU64::new(1),
            living,
            _keeping: AbortOnDropHandle::new(keeping),
        })))
    }
}

/// Keeps a session alive until it has ended.
async fn keep_alive(client: Client, session: u64, ttl: Duration, living: Arc<watch::Sender<Instant>>) {
    // An instance that does not answer leaves time for others.
    let limit = ttl / 6;
    let mut next = Instant::now() + ttl / 3;
    loop {
        tokio::time::sleep_until(next).await;
        let sent = Instant::now();
        let until = *living.borrow();
        if sent >= until {
            return;
        }
        let request = KeepAliveRequest { session };
        let keep = async |channel, request| SessionsClient::new(channel).keep_alive(request).await;
        match tokio::time::timeout_at(until, client.call_within(limit, request, keep)).await {
            Ok(Ok(_)) => {
                living.send_modify(|until| *until = (*until).max(sent + ttl.mul_f64(GIVE_UP_AFTER)));
                next = sent + ttl / 3;
            }
            Ok(Err(error)) if error.code() == Code::FailedPrecondition => {
                living.send_replace(sent);
                return;
            }
            Ok(Err(_)) => next = Instant::now() + ttl / 20,
            Err(_) => return,
        }
    }
}

/// A lock of a session. Dropping it releases it.
#[derive(Debug)]
pub struct Held {
    session: Session,
    number: u64,
    token: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let (session, number) = (self.session.clone(), self.number);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { session.release_surely(number).await });
        }
    }
}

impl Held {
    /// The fencing token.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether the session lives, as far as this client knows. An operator may have taken the lock all the same: the token protects from that.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.session.is_alive()
    }
}

impl Session {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether it lives, as far as this client knows.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Instant::now() < *self.0.living.borrow()
    }

    /// Acquires a lock. The request keeps its place among those that wait if an instance fails. `ttl` of the options is that of the session.
    ///
    /// # Errors
    /// ABORTED if it was not available in time; see [`Error`].
    pub async fn acquire(&self, lock: &str, options: LockOptions) -> Result<Held, Error> {
        let mut held = self.numbered();
        let LockOptions { wait, shared, permits, metadata, .. } = options;
        let until = Instant::now() + wait;
        let acquire = async |channel, request| LocksClient::new(channel).acquire(request).await;
        let mut is_repeated = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let request = AcquireRequest {
                session: self.0.id,
                number: held.number,
                claims: vec![Claim { lock: lock.to_owned(), shared, permits }],
                wait_ms: millis(left),
                metadata: metadata.clone(),
                ..AcquireRequest::default()
            };
            match self.0.client.call_within(left + CALL_TIMEOUT, request, acquire).await {
                Ok(response) => {
                    held.token = response.token;
                    return Ok(held);
                }
                Err(error) if left.is_zero() || !self.is_alive() => return Err(error),
                Err(error) if error.code() == Code::Unavailable => {}
                // An instance may have cancelled the request when the connection to it was lost.
                Err(error) if error.code() == Code::Aborted && is_repeated => held = self.numbered(),
                Err(error) => return Err(error),
            }
            is_repeated = true;
        }
    }

    /// A new request. If it is dropped, nothing is left behind.
    fn numbered(&self) -> Held {
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        Held { session: self.clone(), number, token: 0 }
    }

    /// Releases a request, however long no instance can: otherwise the session, which is kept alive, would hold its locks for ever.
    async fn release_surely(&self, number: u64) {
        while let Err(error) = self.release(number).await {
            if error.code() == Code::FailedPrecondition || !self.is_alive() {
                // They are released with the session.
                return;
            }
            tokio::time::sleep(RELEASE_INTERVAL).await;
        }
    }

    async fn release(&self, number: u64) -> Result<(), Error> {
        let request = ReleaseRequest { session: self.0.id, number };
        let release = async |channel, request| LocksClient::new(channel).release(request).await;
        self.0.client.call(request, release).await.map(drop)
    }

    /// Ends it, with everything that it holds.
    ///
    /// # Errors
    /// See [`Error`]; it expires in any case.
    pub async fn close(self) -> Result<(), Error> {
        self.0.living.send_replace(Instant::now());
        close(&self.0.client, self.0.id).await
    }
}
