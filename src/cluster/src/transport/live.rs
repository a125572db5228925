//! Which instances are connected: without proof of who it is, nobody takes the place of one that is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_zab::ServerId;

/// Whoever was heard so lately lives: three of the signs of life that an idle connection sends. A machine that is gone without a word is away
/// for as long before it may come back.
const LIVES: Duration = Duration::from_millis(1500);

/// When something last came over a connection, in milliseconds of [`Live::began`].
type Heard = Arc<AtomicU64>;

/// The latest connection with each other instance.
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

    /// Makes a connection the instance's latest one, until it is dropped.
    ///
    /// # Errors
    /// That there is one already which lives, where nothing proves who it is that connects.
    pub(super) fn enter(&self, peer: ServerId, is_proven: bool) -> Result<Entered<'_>, String> {
        let now = self.now();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = |heard: &Heard| u128::from(now.saturating_sub(heard.load(Ordering::Relaxed))) < LIVES.as_millis();
        if !is_proven && links.get(&peer).is_some_and(lives) {
            return Err(format!("server {peer} is connected already, and nothing proves that this is the same one"));
        }
        let heard = Arc::new(AtomicU64::new(now));
        links.insert(peer, Arc::clone(&heard));
        Ok(Entered { live: self, peer, heard })
    }
}

/// A connection that is its instance's latest one.
#[derive(Debug)]
pub(super) struct Entered<'l> {
    live: &'l Live,
    peer: ServerId,
    heard: Heard,
}

impl Entered<'_> {
    /// Something came.
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
