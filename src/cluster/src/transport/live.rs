//! Live links to peers: an unauthenticated connection must not replace one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_zab::ServerId;

/// A link is live if it received something within this time, three heartbeats of an idle link. A peer whose host vanished cannot reconnect
/// before it has passed.
const LIVES: Duration = Duration::from_millis(1500);

/// When a link last received something, in milliseconds since [`Live::began`].
type Heard = Arc<AtomicU64>;

/// The latest link to each peer.
#[derive(Debug)]
pub(super) struct Live {
    began: Instant,
    links: Mutex<BTreeMap<ServerId, Heard>>,
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
    /// The peer has a live link, and the new connection is not authenticated.
    pub(super) fn enter(&self, peer: ServerId, is_proven: bool) -> Result<Entered<'_>, String> {
        let now = self.now();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = |heard: &Heard| u128::from(now.saturating_sub(heard.load(Ordering::Relaxed))) < LIVES.as_millis();
        if !is_proven && links.get(&peer).is_some_and(lives) {
            return Err(format!("server {peer} is already connected, and this connection is not authenticated"));
        }
        let heard = Arc::new(AtomicU64::new(now));
        links.insert(peer, Arc::clone(&heard));
        Ok(Entered { live: self, peer, heard })
    }
}

/// A registered link.
#[derive(Debug)]
pub(super) struct Entered<'l> {
    live: &'l Live,
    peer: ServerId,
    heard: Heard,
}

impl Entered<'_> {
    /// Notes that the link received something.
    pub(super) fn now(&self) {
        self.heard.store(self.live.now(), Ordering::Relaxed);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut links = self.live.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.get(&self.peer).is_some_and(|heard| Arc::ptr_eq(heard, &self.heard)) {
            links.remove(&self.peer);
        }
    }
}
