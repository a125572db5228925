//! A lock that is held by a call.

use std::time::Duration;

use crossdock_api::hold_event::Event;
use crossdock_api::locks_client::LocksClient;
use crossdock_api::{Claim, HoldEvent, HoldRequest};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use crate::client::{CALL_TIMEOUT, Client, Error};

/// How a lock is acquired and held.
#[derive(Debug, Clone)]
pub struct LockOptions {
    /// How long to wait for it; zero to fail at once.
    pub wait: Duration,
    /// It is free this long after the instance has failed. If the client itself fails, the instance notices that within 15 seconds.
    pub ttl: Duration,
    /// Together with others that share it.
    pub shared: bool,
    /// One of so many permits; 0 for none.
    pub permits: u32,
    /// What operators see.
    pub metadata: String,
}

impl Default for LockOptions {
    /// An exclusive lock, for which it waits up to ten seconds.
    fn default() -> Self {
        let (wait, ttl) = (Duration::from_secs(10), Duration::from_secs(10));
        Self { wait, ttl, shared: false, permits: 0, metadata: String::new() }
    }
}

/// A lock that is held. Dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    token: u64,
    lost: watch::Receiver<Option<String>>,
    revoked: watch::Receiver<Option<String>>,
    _following: AbortOnDropHandle<()>,
}

impl Lock {
    /// The fencing token: send it with everything that is done under the lock, to services that reject lower ones.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether it is held, as far as this client knows.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lost.borrow().is_none()
    }

    /// Waits until the lock is lost, and returns the reason. Cancel safe.
    pub async fn lost(&mut self) -> String {
        reason(&mut self.lost).await
    }

    /// Waits until the holder is asked to release the lock, and returns the reason that was given. Cancel safe.
    pub async fn revoked(&mut self) -> String {
        reason(&mut self.revoked).await
    }
}

async fn reason(from: &mut watch::Receiver<Option<String>>) -> String {
    let found = from.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    found.unwrap_or_else(|| "the call has ended".to_owned())
}

impl Client {
    /// Acquires a lock, and holds it by a call to one instance. If that instance fails, the lock is lost; a [`Session`](crate::Session) keeps its
    /// locks.
    ///
    /// # Errors
    /// ABORTED if it was not available in time; see [`Error`].
    pub async fn lock(&self, name: &str, options: LockOptions) -> Result<Lock, Error> {
        let LockOptions { wait, ttl, shared, permits, metadata } = options;
        let request = HoldRequest {
            claims: vec![Claim { lock: name.to_owned(), shared, permits }],
            wait_ms: millis(wait),
            ttl_ms: millis(ttl),
            hold_ms: None,
            metadata,
        };
        let hold = async |channel, request| LocksClient::new(channel).hold(request).await;
        let mut events = self.call_within(wait + CALL_TIMEOUT, request, hold).await?;
        let Some(HoldEvent { event: Some(Event::Granted(token)) }) = events.message().await? else {
            return Err(Status::internal("the stream does not begin with the grant").into());
        };
        let (losing, lost) = watch::channel(None);
        let (revoking, revoked) = watch::channel(None);
        let following = tokio::spawn(follow(events, ttl / 2, losing, revoking));
        Ok(Lock { token, lost, revoked, _following: AbortOnDropHandle::new(following) })
    }
}

/// Follows what happens to a lock. The instance says at least every second, and four times in the time to live, that it is held.
async fn follow(
    mut events: Streaming<HoldEvent>,
    silence_max: Duration,
    lost: watch::Sender<Option<String>>,
    revoked: watch::Sender<Option<String>>,
) {
    let reason = loop {
        match tokio::time::timeout(silence_max, events.message()).await {
            Ok(Ok(Some(HoldEvent { event: Some(Event::Lost(reason)) }))) => break reason,
            Ok(Ok(Some(HoldEvent { event: Some(Event::Revoked(reason)) }))) => {
                revoked.send_replace(Some(reason));
            }
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => break "the call has ended".to_owned(),
            Ok(Err(status)) => break status.message().to_owned(),
            Err(_) => break "the instance does not answer".to_owned(),
        }
    };
    lost.send_replace(Some(reason));
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
