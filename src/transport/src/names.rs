//! Resolves host names and keeps their addresses current for as long as they are used.
//!
//! A name is looked up when it is first used, again when the time to live of its last answer expires (clamped to 1–60 s), and early when one
//! of its addresses is unreachable. A failed lookup changes nothing: the last answer stays in force until there is another one.

mod lookup;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, watch};

use self::lookup::LookupError;

use self::lookup::{Answer, look_up};

/// Minimum interval between two lookups of a name.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Maximum interval: services are moved before a long time to live expires.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Maximum interval after consecutive failures, with exponential backoff.
const INTERVAL_FAILED_MAX: Duration = Duration::from_secs(30);
/// Maximum number of addresses of one name.
const ADDRESSES_MAX: usize = 64;

/// The known addresses of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The last answer: sorted, without duplicates, at most 64; empty before the first answer.
    pub list: Arc<[IpAddr]>,
    /// Why the last lookup failed; `None` if it succeeded.
    pub problem: Option<Arc<str>>,
}

/// All names in use by the process, and the thread that looks them up.
#[derive(Debug, Default)]
pub struct Names {
    runtime: OnceLock<Runtime>,
    used: Mutex<HashMap<String, Weak<Name>>>,
}

/// A name in use. It is looked up until its last user drops it.
#[derive(Debug)]
pub struct Name {
    host: String,
    addresses: watch::Sender<Addresses>,
    /// Wakes the lookup task: a refresh was requested, or the name was dropped.
    wake: Arc<Notify>,
    succeeded_total: AtomicU64,
    failed_total: AtomicU64,
}

impl Names {
    /// Starts to look up a name, unless it is in use already. Does not wait for the first answer.
    ///
    /// # Errors
    /// If the lookup thread cannot be started.
    pub fn name(&self, host: &str) -> io::Result<Arc<Name>> {
        let handle = self.handle()?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, name| name.strong_count() > 0);
        if let Some(name) = used.get(host).and_then(Weak::upgrade) {
            return Ok(name);
        }
        let name = Arc::new(Name::new(host));
        used.insert(host.to_owned(), Arc::downgrade(&name));
        handle.spawn(keep_current(Arc::downgrade(&name), Arc::clone(&name.wake)));
        Ok(name)
    }

    /// All names in use, in alphabetical order.
    pub fn all(&self) -> Vec<Arc<Name>> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<Name>> = used.values().filter_map(Weak::upgrade).collect();
        all.sort_by(|one, other| one.host.cmp(&other.host));
        all
    }

    /// The runtime of the lookups, for tasks that watch their results.
    ///
    /// # Errors
    /// If the lookup thread cannot be started.
    pub fn handle(&self) -> io::Result<Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle().clone());
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name("names").enable_all().build()?;
        Ok(self.runtime.get_or_init(|| built).handle().clone())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last owner may be a task, which must not block.
            runtime.shutdown_background();
        }
    }
}

impl Name {
    fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            addresses: watch::Sender::default(),
            wake: Arc::default(),
            succeeded_total: AtomicU64::new(0),
            failed_total: AtomicU64::new(0),
        }
    }

    /// The host name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The current addresses.
    pub fn addresses(&self) -> Addresses {
        self.addresses.borrow().clone()
    }

    /// Subscribes to changes. The channel closes when the name is dropped, so hold both while waiting.
    pub fn subscribe(&self) -> watch::Receiver<Addresses> {
        self.addresses.subscribe()
    }

    /// Requests a lookup as soon as the minimum interval allows: an address turned out to be unreachable.
    pub fn refresh(&self) {
        self.wake.notify_one();
    }

    /// The numbers of successful and of failed lookups.
    pub fn lookups(&self) -> (u64, u64) {
        (self.succeeded_total.load(Ordering::Relaxed), self.failed_total.load(Ordering::Relaxed))
    }

    /// Applies the result of a lookup and logs changes.
    fn update(&self, result: Result<Vec<IpAddr>, LookupError>) {
        let host = &*self.host;
        match result {
            Ok(mut found) => {
                self.succeeded_total.fetch_add(1, Ordering::Relaxed);
                found.sort_unstable();
                found.dedup();
                let left_out = found.len().saturating_sub(ADDRESSES_MAX);
                found.truncate(ADDRESSES_MAX);
                self.addresses.send_if_modified(|known| {
                    let was_failing = known.problem.take().is_some();
                    let is_changed = *known.list != *found;
                    if is_changed {
                        tracing::info!(name = host, before = ?known.list, now = ?found, "addresses of a name changed");
                        if left_out > 0 {
                            tracing::warn!(name = host, left_out, "name has more than {ADDRESSES_MAX} addresses");
                        }
                        known.list = found.into();
                    } else if was_failing {
                        tracing::info!(name = host, "name can be resolved again");
                    }
                    is_changed || was_failing
                });
            }
            Err(problem) => {
                self.failed_total.fetch_add(1, Ordering::Relaxed);
                let problem = problem.to_string();
                self.addresses.send_if_modified(|known| {
                    if known.problem.as_deref() == Some(&*problem) {
                        return false;
                    }
                    tracing::warn!(name = host, problem, kept = ?known.list, "name cannot be resolved");
                    known.problem = Some(problem.into());
                    true
                });
            }
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Looks up a name until its last user drops it.
async fn keep_current(name: Weak<Name>, wake: Arc<Notify>) {
    let mut failures = 0;
    loop {
        let Some(name_used) = name.upgrade() else { return };
        let known = name_used.addresses().list;
        let started = Instant::now();
        let wait = match look_up(&name_used.host, &known).await {
            Ok(Answer { addresses, valid_until }) => {
                failures = 0;
                name_used.update(Ok(addresses));
                valid_until.saturating_duration_since(Instant::now()).clamp(INTERVAL_MIN, INTERVAL_MAX)
            }
            Err(problem) => {
                name_used.update(Err(problem));
                failures += 1;
                backoff(failures)
            }
        };
        drop(name_used);
        wait_or_wake(wait, &wake, started + INTERVAL_MIN, &name).await;
    }
}

/// The wait after this many consecutive failures, at least one.
fn backoff(failures: u32) -> Duration {
    INTERVAL_MIN.saturating_mul(1 << (failures - 1).min(16)).min(INTERVAL_FAILED_MAX)
}

/// Waits for `wait` or a wake-up. After a wake-up, waits until `earliest`, unless the name was dropped.
async fn wait_or_wake(wait: Duration, wake: &Notify, earliest: Instant, name: &Weak<Name>) {
    let woken = tokio::time::timeout(wait, wake.notified()).await.is_ok();
    if woken && name.strong_count() > 0 {
        tokio::time::sleep_until(earliest.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn answers_are_sorted_and_a_failed_lookup_keeps_the_last_answer() {
        let name = Name::new("orders");
        assert_eq!(name.addresses(), Addresses::default());
        name.update(Ok(vec![ip(2), ip(1), ip(2)]));
        assert_eq!(*name.addresses().list, [ip(1), ip(2)]);
        let mut changes = name.subscribe();
        name.update(Err(LookupError::TimedOut));
        let kept = name.addresses();
        assert_eq!((&*kept.list, kept.problem.as_deref()), (&[ip(1), ip(2)][..], Some("the name servers timed out")));
        assert!(changes.has_changed().expect("the name is alive"));
        changes.mark_unchanged();
        name.update(Err(LookupError::TimedOut));
        assert!(!changes.has_changed().expect("the name is alive"), "the same problem is not a change");
        name.update(Ok(vec![ip(3)]));
        assert_eq!(name.addresses(), Addresses { list: [ip(3)].into(), problem: None });
        assert_eq!(name.lookups(), (2, 2));
    }

    #[test]
    fn addresses_are_limited_to_64() {
        let name = Name::new("orders");
        name.update(Ok((0..=255).map(ip).collect()));
        assert_eq!(*name.addresses().list, (0..64).map(ip).collect::<Vec<_>>());
    }

    #[test]
    fn consecutive_failures_back_off_up_to_30_seconds() {
        let waits: Vec<u64> = [1, 2, 5, 6, 40].map(|failures| backoff(failures).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 16, 30, 30]);
    }

    #[test]
    fn users_of_a_name_share_it_and_the_last_one_removes_it() {
        let names = Names::default();
        let (one, other) = (names.name("one.invalid").expect("a thread"), names.name("one.invalid").expect("a thread"));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(names.all().len(), 1);
        drop((one, other));
        assert!(names.all().is_empty());
    }
}
