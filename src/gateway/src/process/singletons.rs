//! Entries that one instance of the cluster reads at a time (`cluster: singleton`): the one that holds the lock of the entry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossdock_coordination::Mode;
use crossdock_embedded::{Engine, Held, LockRequest, Wait};
use crossdock_message::{ByteString, Code, Fault, Retry};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::fence::Fence;

/// Time within which adapters notice that they may not read an entry any more, with a margin: they check several times per second.
const NOTICE_TIME: Duration = Duration::from_millis(750);
/// How long an entry is not given to another instance because messages are in flight.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two looks at messages in flight.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);
/// Time until a lock is requested again, after the cluster could not grant it.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// An entry that one instance reads at a time.
#[derive(Default)]
struct Singleton {
    /// The lock, while this instance holds it.
    fence: Mutex<Option<Fence>>,
    in_flight: AtomicUsize,
    /// The entry was removed from the routes.
    removed: Notify,
}

impl Singleton {
    fn fence(&self) -> MutexGuard<'_, Option<Fence>> {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message of such an entry in flight.
pub(crate) struct Turn(Arc<Singleton>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All such entries, by the names of their locks.
#[derive(Default)]
pub(crate) struct Singletons(Mutex<BTreeMap<ByteString, (Arc<Singleton>, AbortOnDropHandle<()>)>>);

impl Singletons {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ByteString, (Arc<Singleton>, AbortOnDropHandle<()>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Competes for these entries, and gives up all others. Must be called on a local task set.
    pub(crate) fn compete(&self, engine: &Engine, names: impl IntoIterator<Item = ByteString>) {
        let mut all = self.lock();
        let names: Vec<_> = names.into_iter().collect();
        for (_, (singleton, task)) in all.extract_if(.., |name, _| !names.contains(name)) {
            singleton.removed.notify_one();
            // It ends once the entry is handed over.
            drop(task.detach());
        }
        for name in names {
            all.entry(name.clone()).or_insert_with(|| {
                let singleton = Arc::<Singleton>::default();
                let task = actix_rt::spawn(compete(engine.clone(), name, Arc::clone(&singleton)));
                (singleton, AbortOnDropHandle::new(task))
            });
        }
    }

    /// Whether this instance may read the messages of an entry now.
    pub(crate) fn is_owned(&self, name: &ByteString) -> bool {
        self.lock().get(name).is_some_and(|(singleton, _)| singleton.fence().as_ref().is_some_and(Fence::holds))
    }

    /// Begins a message of an entry.
    ///
    /// # Errors
    /// UNAVAILABLE if another instance reads the entry.
    pub(crate) fn begin(&self, name: &ByteString) -> Result<Fence, Fault> {
        let all = self.lock();
        let singleton = all.get(name).map(|(singleton, _)| singleton);
        let fence = singleton.and_then(|singleton| {
            let fence = singleton.fence();
            // Counted before the lock can be given up.
            let owned = fence.clone().filter(Fence::holds)?;
            singleton.in_flight.fetch_add(1, Ordering::AcqRel);
            Some(owned.with_turn(Turn(Arc::clone(singleton))))
        });
        fence.ok_or_else(|| {
            let message = "another instance of the cluster reads this entry";
            Fault::new(Code::Unavailable, "NOT_OWNER", message).with_retry(Retry::Same)
        })
    }

    /// Each entry, and whether this instance reads it.
    pub(crate) fn statuses(&self) -> Vec<(ByteString, bool)> {
        let is_owned = |singleton: &Singleton| singleton.fence().as_ref().is_some_and(Fence::holds);
        self.lock().iter().map(|(name, (singleton, _))| (name.clone(), is_owned(singleton))).collect()
    }
}

/// Holds the lock of an entry whenever it is free, until the entry is removed.
async fn compete(engine: Engine, name: ByteString, singleton: Arc<Singleton>) {
    let request = LockRequest {
        metadata: "cluster: singleton".to_owned(),
        ..LockRequest::new(&name, Mode::Exclusive, Wait::Forever)
    };
    loop {
        let acquired = tokio::select! {
            () = singleton.removed.notified() => return,
            acquired = engine.acquire(&request) => acquired,
        };
        let held = match acquired {
            Ok(held) => held,
            Err(problem) => {
                tracing::debug!(entry = %name, %problem, "entry of one instance cannot be acquired; retrying");
                sleep(RETRY_INTERVAL).await;
                continue;
            }
        };
        if own(held, &name, &singleton).await {
            return;
        }
    }
}

/// Reads an entry until its lock is lost, asked for, or the entry is removed, which is returned.
async fn own(held: Held, name: &ByteString, singleton: &Singleton) -> bool {
    let mut validity = held.validity();
    let held = Arc::new(held);
    *singleton.fence() = Some(Fence::new(&held, None));
    tracing::info!(entry = %name, token = %held.token(), "this instance reads the entry now");
    let removed = tokio::select! {
        () = singleton.removed.notified() => true,
        reason = validity.revoked() => {
            // Without a reason, the lock is lost.
            if let Some(reason) = reason {
                tracing::info!(entry = %name, %reason, "the entry is given to another instance");
            }
            false
        }
    };
    // From here on, no message of it begins.
    *singleton.fence() = None;
    let until = Instant::now() + HAND_OVER_TIMEOUT;
    let drained = async {
        // Until then, the adapter may still have messages that it has to give back.
        sleep(NOTICE_TIME).await;
        while singleton.in_flight.load(Ordering::Acquire) > 0 {
            sleep(DRAIN_INTERVAL).await;
        }
    };
    tokio::select! {
        loss = validity.lost() => tracing::warn!(entry = %name, %loss, "this instance has lost the entry"),
        drained = timeout_at(until, drained) => match drained {
            Ok(()) => tracing::info!(entry = %name, "this instance does not read the entry any more"),
            Err(_) => tracing::warn!(entry = %name, "messages of the entry are in flight for too long; it is given away"),
        },
    }
    held.give_up();
    removed
}
