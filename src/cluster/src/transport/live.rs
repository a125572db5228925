//! Live links to peers: neither an unauthenticated connection nor another instance with the same id may replace one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossdock_zab::{LogId, ServerId};

use super::error::LinkError;

use crate::platform::Instant;

/// A link is live if it received something within this time, three heartbeats of an idle link. A peer whose host vanished cannot reconnect
/// before it has passed.
const LIVE_TIMEOUT: Duration = Duration::from_millis(1500);

/// When a link last received something, in milliseconds since [`Live::began`].
type LastReceived = Arc<AtomicU64>;

/// The latest link to each peer, and the log of the peer.
#[derive(Debug)]
pub(super) struct Live {
    began: Instant,
    links: Mutex<BTreeMap<ServerId, (LogId, LastReceived)>>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), links: Mutex::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Registers a link as the peer's latest one until the returned value is dropped.
    ///
    /// # Errors
    /// The peer has a live link, and the new connection is not authenticated or belongs to another log.
    pub(super) fn register(
        &self,
        peer: ServerId,
        log: LogId,
        is_authenticated: bool,
    ) -> Result<Registration<'_>, LinkError> {
        let now = self.now();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = |last_received: &LastReceived| {
            u128::from(now.saturating_sub(last_received.load(Ordering::Relaxed))) < LIVE_TIMEOUT.as_millis()
        };
        match links.get(&peer).filter(|(_, last_received)| is_live(last_received)) {
            Some((other, _)) if *other != log => return Err(LinkError::SecondInstance { peer }),
            Some(_) if !is_authenticated => return Err(LinkError::AlreadyConnected(peer)),
            _ => {}
        }
        let last_received = Arc::new(AtomicU64::new(now));
        links.insert(peer, (log, Arc::clone(&last_received)));
        Ok(Registration { live: self, peer, last_received })
    }
}

/// A registered link.
#[derive(Debug)]
pub(super) struct Registration<'l> {
    live: &'l Live,
    peer: ServerId,
    last_received: LastReceived,
}

impl Registration<'_> {
    /// Records that the link received something.
    pub(super) fn touch(&self) {
        self.last_received.store(self.live.now(), Ordering::Relaxed);
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut links = self.live.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.get(&self.peer).is_some_and(|(_, last_received)| Arc::ptr_eq(last_received, &self.last_received)) {
            links.remove(&self.peer);
        }
    }
}
