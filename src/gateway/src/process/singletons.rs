//! Entries that one instance of the cluster reads at a time (`cluster: singleton` and `partitioned`): the one that holds the lock of the
//! entry. An instance competes for a partitioned entry only while it is assigned to it; see `partitions`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossdock_embedded::Engine;
use crossdock_message::{ByteString, Code, Fault, Retry};
use crossdock_ports::{LockEngine, LockGrant, LockRequest, LockWait};
use crossdock_routing::RoutePlan;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::fence::Fence;
use super::partitions::{Assigned, Partitions};

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

    fn is_owned(&self) -> bool {
        self.fence().as_ref().is_some_and(Fence::holds)
    }
}

/// A message of such an entry in flight.
pub(crate) struct Turn(Arc<Singleton>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An entry with the task that competes for it.
struct Competing {
    singleton: Arc<Singleton>,
    is_partition: bool,
    task: AbortOnDropHandle<()>,
}

/// All such entries, by the names of their locks.
#[derive(Default)]
pub(crate) struct Singletons {
    entries: Mutex<BTreeMap<ByteString, Competing>>,
    partitions: Partitions,
}

impl Singletons {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ByteString, Competing>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Competes for the entries of these routes, and gives up all others. Partitioned ones need a cluster. Must be called on a local task set.
    pub(crate) fn compete<'r>(
        &self,
        engine: &Arc<dyn LockEngine>,
        cluster: Option<&Engine>,
        routes: impl IntoIterator<Item = &'r RoutePlan> + Clone,
    ) {
        let mut all = self.lock();
        let wanted = routes.clone().into_iter().flat_map(|route| route.owner_locks.iter().flatten());
        let wanted: BTreeMap<&ByteString, bool> = wanted.map(|lock| (&lock.name, lock.is_partitioned)).collect();
        for (_, competing) in all.extract_if(.., |name, competing| wanted.get(name) != Some(&competing.is_partition)) {
            competing.singleton.removed.notify_one();
            // It ends once the entry is handed over.
            drop(competing.task.detach());
        }
        let assigned = self.partitions.divide(cluster, routes);
        for (name, is_partition) in wanted {
            all.entry(name.clone()).or_insert_with(|| {
                let singleton = Arc::<Singleton>::default();
                let turn = is_partition.then(|| assigned.clone());
                let task = actix_rt::spawn(compete(Arc::clone(engine), name.clone(), turn, Arc::clone(&singleton)));
                Competing { singleton, is_partition, task: AbortOnDropHandle::new(task) }
            });
        }
    }

    /// Gives up all entries, as the instance stops: others read them once the messages in flight are finished.
    pub(crate) fn leave(&self, engine: &Arc<dyn LockEngine>) {
        self.compete(engine, None, std::iter::empty::<&RoutePlan>());
    }

    /// Whether this instance may read the messages of an entry now.
    pub(crate) fn is_owned(&self, name: &ByteString) -> bool {
        self.lock().get(name).is_some_and(|competing| competing.singleton.is_owned())
    }

    /// Begins a message of an entry.
    ///
    /// # Errors
    /// UNAVAILABLE if another instance reads the entry.
    pub(crate) fn begin(&self, name: &ByteString) -> Result<Fence, Fault> {
        let all = self.lock();
        let singleton = all.get(name).map(|competing| &competing.singleton);
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
        self.lock().iter().map(|(name, competing)| (name.clone(), competing.singleton.is_owned())).collect()
    }
}

/// Holds the lock of an entry whenever it is free and this instance is assigned to it, until the entry is removed.
async fn compete(
    engine: Arc<dyn LockEngine>,
    name: ByteString,
    assigned: Option<watch::Receiver<Assigned>>,
    singleton: Arc<Singleton>,
) {
    let role = if assigned.is_some() { "cluster: partitioned" } else { "cluster: singleton" };
    let request = LockRequest { metadata: role.to_owned(), ..LockRequest::exclusive(&name, LockWait::Forever) };
    let mut turn = ForThis { name: &name, assigned };
    loop {
        let acquired = tokio::select! {
            () = singleton.removed.notified() => return,
            acquired = async {
                turn.until(true).await;
                tokio::select! {
                    acquired = engine.acquire(request.clone()) => Some(acquired),
                    () = turn.until(false) => None,
                }
            } => acquired,
        };
        let held = match acquired {
            Some(Ok(held)) => held,
            Some(Err(problem)) => {
                tracing::debug!(entry = %name, %problem, "entry of one instance cannot be acquired; retrying");
                sleep(RETRY_INTERVAL).await;
                continue;
            }
            None => continue,
        };
        if own(held, &name, &mut turn, &singleton).await {
            return;
        }
    }
}

/// Whether this instance is assigned to an entry: always, if it is not partitioned.
struct ForThis<'n> {
    name: &'n ByteString,
    assigned: Option<watch::Receiver<Assigned>>,
}

impl ForThis<'_> {
    /// Waits until it is, or is not. Cancel safe.
    async fn until(&mut self, is_assigned: bool) {
        let Some(assigned) = &mut self.assigned else {
            if !is_assigned {
                std::future::pending::<()>().await;
            }
            return;
        };
        let ended = assigned.wait_for(|assigned| assigned.contains(self.name) == is_assigned).await.is_err();
        if ended {
            // The process ends.
            std::future::pending::<()>().await;
        }
    }
}

/// Reads an entry until its lock is lost, asked for, the entry is removed, which is returned, or assigned to another instance.
async fn own(held: Arc<dyn LockGrant>, name: &ByteString, turn: &mut ForThis<'_>, singleton: &Singleton) -> bool {
    *singleton.fence() = Some(Fence::new(Arc::clone(&held), None));
    tracing::info!(entry = %name, token = held.token(), "this instance reads the entry now");
    let removed = tokio::select! {
        () = singleton.removed.notified() => true,
        () = turn.until(false) => {
            tracing::info!(entry = %name, "the entry is assigned to another instance");
            false
        }
        reason = held.revoked() => {
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
        loss = held.lost() => tracing::warn!(entry = %name, %loss, "this instance has lost the entry"),
        drained = timeout_at(until, drained) => match drained {
            Ok(()) => tracing::info!(entry = %name, "this instance does not read the entry any more"),
            Err(_) => tracing::warn!(entry = %name, "messages of the entry are in flight for too long; it is given away"),
        },
    }
    held.give_up();
    removed
}
