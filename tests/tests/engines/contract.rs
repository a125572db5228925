//! What an engine guarantees.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossdock_ports::{EngineRow, LockEngine, LockError, LockGrant, LockLoss, LockMode, LockRequest, LockWait};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::instances::{COUNT, Instances};

/// Longer than the sessions of Consul, which may last for twice their time.
const LONG: Duration = Duration::from_secs(45);

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    NotOffered,
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::NotOffered => "–",
        }
    }
}

type Checking<'i> = Pin<Box<dyn Future<Output = ()> + 'i>>;

/// Something that engines guarantee.
pub(crate) struct Guarantee {
    pub(crate) name: &'static str,
    /// Whether an engine offers it.
    offers: fn(&EngineRow) -> bool,
    check: for<'i> fn(&'i mut Instances) -> Checking<'i>,
}

impl Guarantee {
    pub(crate) fn check(&self, runtime: &Runtime, instances: &mut Instances) -> Verdict {
        if !(self.offers)(&instances.row) {
            return Verdict::NotOffered;
        }
        let (engine, begun) = (instances.row.name, Instant::now());
        let checking = AssertUnwindSafe(|| runtime.block_on((self.check)(instances)));
        let checked = std::panic::catch_unwind(checking);
        println!("{engine}: {}: {:.1?}", self.name, begun.elapsed());
        match checked {
            Ok(()) => Verdict::Passed,
            Err(problem) => {
                let text = problem.downcast_ref::<String>().cloned();
                Verdict::Failed(text.or_else(|| problem.downcast_ref().copied().map(str::to_owned)).unwrap_or_default())
            }
        }
    }
}

macro_rules! guarantees {
    ($($name:literal, $offers:expr, $check:ident;)*) => {
        /// All guarantees.
        pub(crate) const GUARANTEES: &[Guarantee] = &[
            $(Guarantee { name: $name, offers: $offers, check: |instances| Box::pin($check(instances)) },)*
        ];
    };
}

fn always(_: &EngineRow) -> bool {
    true
}

guarantees! {
    "one holder at a time, with rising tokens", always, one_holder;
    "a request that does not wait fails at once", always, tries;
    "a request that timed out or was cancelled never holds", always, no_orphans;
    "locks are granted in the order of requests", |row| row.in_order, in_order;
    "shared locks", |row| row.shared, shared;
    "permits", |row| row.permits, permits;
    "permits must agree", |row| row.permits, other_kind;
    "several locks at once, without deadlocks", always, several;
    "any name of up to 255 bytes", always, names;
    "a lock is held for no longer than its maximum time", always, hold;
    "numbers of sequences are given once, and rise", |row| row.sequences, sequences;
    "the locks of a dead instance are free after its session", always, death;
    "a holder without the engine knows that in time", always, cut_off;
    "an outage that ends a session harms no later lock", always, outage;
    "locks survive the failure of any server", |row| row.survives_failover, failover;
}

fn exclusive(name: &str, wait: LockWait) -> LockRequest {
    LockRequest::exclusive(name, wait)
}

fn of_mode(name: &str, mode: LockMode, wait: LockWait) -> LockRequest {
    LockRequest { mode, ..exclusive(name, wait) }
}

async fn acquire(locks: &Arc<dyn LockEngine>, request: LockRequest) -> Result<Arc<dyn LockGrant>, LockError> {
    timeout(LONG, locks.acquire(request)).await.expect("an answer in time")
}

async fn held(locks: &Arc<dyn LockEngine>, name: &str) -> Arc<dyn LockGrant> {
    acquire(locks, exclusive(name, LockWait::For(LONG))).await.unwrap_or_else(|problem| panic!("{name}: {problem}"))
}

async fn is_free(locks: &Arc<dyn LockEngine>, name: &str) -> bool {
    acquire(locks, exclusive(name, LockWait::Try)).await.is_ok()
}

/// Waits until this holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

async fn one_holder(instances: &mut Instances) {
    const EACH: usize = 15;
    let (inside, last) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut workers = Vec::new();
    for at in (0..COUNT).chain(0..COUNT) {
        let (locks, inside, last) = (instances.locks(at), Arc::clone(&inside), Arc::clone(&last));
        workers.push(tokio::spawn(async move {
            for _ in 0..EACH {
                let grant = held(&locks, "one").await;
                assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0, "two holders");
                assert!(grant.holds());
                let before = last.swap(grant.token(), Ordering::AcqRel);
                assert!(before < grant.token(), "token {} after {before}", grant.token());
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::AcqRel);
            }
        }));
    }
    for worker in workers {
        worker.await.expect("no panic");
    }
}

async fn tries(instances: &mut Instances) {
    let (own, other) = (instances.locks(0), instances.locks(1));
    let grant = held(&own, "try").await;
    for locks in [&other, &own] {
        let begun = Instant::now();
        let refused = acquire(locks, exclusive("try", LockWait::Try)).await.err();
        assert_eq!(refused, Some(LockError::TimedOut));
        assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    }
    drop(grant);
    until("a lock to be free", async || is_free(&other, "try").await).await;
}

async fn no_orphans(instances: &mut Instances) {
    let (own, other) = (instances.locks(0), instances.locks(1));
    let grant = held(&own, "orphan").await;
    let short = Duration::from_millis(150);
    let refused = acquire(&other, exclusive("orphan", LockWait::For(short))).await.err();
    assert_eq!(refused, Some(LockError::TimedOut));
    for millis in 0..30 {
        let waiting = other.acquire(exclusive("orphan", LockWait::Forever));
        assert!(timeout(Duration::from_millis(millis), waiting).await.is_err(), "granted to two");
    }
    drop(grant);
    // Cancelled at any time, also while it is granted.
    for millis in 0..30 {
        let _ = timeout(Duration::from_millis(millis), other.acquire(exclusive("orphan", LockWait::Forever))).await;
    }
    let begun = Instant::now();
    drop(held(&own, "orphan").await);
    until("a lock to be free", async || is_free(&other, "orphan").await).await;
    // What is only free because it has expired was never released.
    assert!(begun.elapsed() < instances.ttl / 2, "free after {:?}", begun.elapsed());
}

async fn in_order(instances: &mut Instances) {
    let grant = held(&instances.locks(0), "order").await;
    let granted = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for number in 0..9 {
        let (locks, granted) = (instances.locks(number % COUNT), Arc::clone(&granted));
        waiting.push(tokio::spawn(async move {
            let grant = held(&locks, "order").await;
            granted.lock().expect("no panic").push((number, grant.token()));
        }));
        // Until the request is there.
        sleep(Duration::from_millis(200)).await;
    }
    drop(grant);
    for one in waiting {
        one.await.expect("no panic");
    }
    let granted = granted.lock().expect("no panic").clone();
    assert_eq!(granted.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    assert!(granted.is_sorted_by_key(|(_, token)| *token), "{granted:?}");
}

async fn shared(instances: &mut Instances) {
    let share = |wait| of_mode("shared", LockMode::Shared, wait);
    let first = acquire(&instances.locks(0), share(LockWait::For(LONG))).await.expect("a share");
    let second = acquire(&instances.locks(1), share(LockWait::For(LONG))).await.expect("another share");
    assert!(!is_free(&instances.locks(2), "shared").await, "granted beside shares");
    let locks = instances.locks(2);
    let alone = tokio::spawn(async move { held(&locks, "shared").await });
    sleep(Duration::from_millis(200)).await;
    let behind = acquire(&instances.locks(0), share(LockWait::Try)).await.err();
    assert_eq!(behind, Some(LockError::TimedOut), "a share is granted behind one that waits");
    drop(first);
    drop(second);
    let alone = alone.await.expect("no panic");
    assert!(acquire(&instances.locks(1), share(LockWait::Try)).await.is_err(), "a share beside the holder");
    drop(alone);
    until("a share", async || acquire(&instances.locks(1), share(LockWait::Try)).await.is_ok()).await;
}

async fn permits(instances: &mut Instances) {
    const OF: u32 = 2;
    let (inside, most) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let mut workers = Vec::new();
    for at in 0..2 * COUNT {
        let (locks, inside, most) = (instances.locks(at % COUNT), Arc::clone(&inside), Arc::clone(&most));
        workers.push(tokio::spawn(async move {
            for _ in 0..5 {
                let request = of_mode("permits", LockMode::Permit(OF), LockWait::For(LONG));
                let grant = acquire(&locks, request).await.expect("a permit");
                most.fetch_max(inside.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                sleep(Duration::from_millis(5)).await;
                inside.fetch_sub(1, Ordering::AcqRel);
                drop(grant);
            }
        }));
    }
    for worker in workers {
        worker.await.expect("no panic");
    }
    assert_eq!(most.load(Ordering::Acquire), i64::from(OF), "holders at a time");
}

async fn other_kind(instances: &mut Instances) {
    let request = |of| of_mode("kind", LockMode::Permit(of), LockWait::For(LONG));
    let grant = acquire(&instances.locks(0), request(2)).await.expect("a permit");
    let refused = acquire(&instances.locks(1), request(3)).await.err();
    assert_eq!(refused, Some(LockError::OtherKind));
    assert_eq!(
        acquire(&instances.locks(1), exclusive("kind", LockWait::For(LONG))).await.err(),
        Some(LockError::OtherKind)
    );
    drop(grant);
}

async fn several(instances: &mut Instances) {
    let last = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for (at, names) in [(0, ["a", "b"]), (1, ["b", "a"]), (2, ["c", "a"]), (0, ["b", "c"])] {
        let (locks, last) = (instances.locks(at), Arc::clone(&last));
        workers.push(tokio::spawn(async move {
            for _ in 0..10 {
                let request = LockRequest {
                    names: names.iter().map(|name| Arc::from(*name)).collect(),
                    ..exclusive("", LockWait::For(LONG))
                };
                let grant = acquire(&locks, request).await.expect("both locks");
                if names.contains(&"a") {
                    let before = last.swap(grant.token(), Ordering::AcqRel);
                    assert!(before < grant.token(), "token {} after {before}", grant.token());
                }
            }
        }));
    }
    let (locks, only) = (instances.locks(2), Arc::clone(&last));
    workers.push(tokio::spawn(async move {
        for _ in 0..10 {
            let grant = held(&locks, "a").await;
            let before = only.swap(grant.token(), Ordering::AcqRel);
            assert!(before < grant.token(), "token {} after {before}", grant.token());
        }
    }));
    for worker in workers {
        worker.await.expect("no panic");
    }
}

async fn names(instances: &mut Instances) {
    let long = "ü/".repeat(85);
    let all = ["stock/7", "stock", "..", ".", "%2F", "a b?c#d%", "{x}", "0123", "grün", &long];
    let mut grants = Vec::new();
    for name in all {
        grants.push(held(&instances.locks(0), name).await);
    }
    for name in all {
        assert!(!is_free(&instances.locks(1), name).await, "`{name}` is held");
    }
    for name in [String::new(), "x".repeat(256)] {
        let refused = acquire(&instances.locks(0), exclusive(&name, LockWait::Try)).await.err();
        assert_eq!(refused, Some(LockError::InvalidName));
    }
}

async fn hold(instances: &mut Instances) {
    let request = LockRequest { hold: Some(Duration::from_millis(300)), ..exclusive("hold", LockWait::For(LONG)) };
    let begun = Instant::now();
    let grant = acquire(&instances.locks(0), request).await.expect("a lock");
    let next = held(&instances.locks(1), "hold").await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "after {:?}", begun.elapsed());
    assert!(next.token() > grant.token());
    // The instance may be told a little later than the next holder.
    assert_eq!(timeout(LONG, grant.lost()).await.expect("in time"), LockLoss::HoldExpired);
    assert!(!grant.holds());
}

async fn sequences(instances: &mut Instances) {
    let mut workers = Vec::new();
    for at in 0..COUNT {
        let locks = instances.locks(at);
        workers.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            for count in (1..=20).map(|round| round % 4 + 1) {
                let first = locks.next_numbers("numbers/of %", count).await.expect("numbers");
                assert!(taken.last() < Some(&first), "{first} after {:?}", taken.last());
                taken.extend(first..first + count);
            }
            taken
        }));
    }
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.expect("no panic"));
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "a number was given twice");
    assert!(all[0] >= 1);
}

async fn death(instances: &mut Instances) {
    let grant = held(&instances.locks(0), "death").await;
    let token = grant.token();
    instances.replace(0);
    assert!(!grant.holds(), "its own handle knows");
    let begun = Instant::now();
    let next = held(&instances.locks(1), "death").await;
    assert!(next.token() > token);
    println!(
        "{}: free {:.1?} after the death of an instance with sessions of {:.0?}",
        instances.row.name,
        begun.elapsed(),
        instances.ttl
    );
    until("another session", async || instances.locks(0).has_session()).await;
}

async fn cut_off(instances: &mut Instances) {
    let (grant, ttl) = (held(&instances.locks(0), "cut off").await, instances.ttl);
    instances.cut_off();
    let lost = timeout(ttl, grant.lost()).await;
    let holds = grant.holds();
    let again = timeout(Duration::from_millis(300), grant.lost()).await;
    instances.connect();
    assert!(!holds, "it does not know after the time of its session");
    assert!(lost.is_ok() || again.is_ok(), "the holder was not notified");
    let locks = instances.locks(0);
    until("another session", async || locks.has_session()).await;
    assert!(held(&locks, "cut off").await.token() > grant.token());
}

async fn outage(instances: &mut Instances) {
    let (locks, ttl) = (instances.locks(0), instances.ttl);
    let before = held(&locks, "before").await;
    instances.cut_off();
    // Until the attempt to close the session has failed, and before the next one.
    sleep(ttl + Duration::from_secs(3)).await;
    instances.connect();
    assert!(!before.holds());
    let grant = held(&locks, "outage").await;
    // What was left of the session before is cleaned up meanwhile.
    sleep(Duration::from_secs(5)).await;
    assert!(grant.holds(), "the lock was lost");
    assert!(!is_free(&instances.locks(1), "outage").await, "granted to two");
    // Of the same instance as well.
    assert!(!is_free(&locks, "outage").await, "granted to two requests");
    drop(grant);
    until("a lock to be free", async || is_free(&instances.locks(1), "outage").await).await;
}

async fn failover(instances: &mut Instances) {
    let mut last = 0;
    let servers = instances.servers().map_or(0, |servers| servers.count());
    for server in 0..servers {
        let grant = held(&instances.locks(server % COUNT), "failover").await;
        assert!(grant.token() > last);
        last = grant.token();
        instances.servers().expect("servers").crash(server, 0.3);
        let other = instances.locks((server + 1) % COUNT);
        let tried = acquire(&other, exclusive("failover", LockWait::For(Duration::from_millis(500)))).await;
        assert!(tried.is_err(), "granted to two");
        assert!(grant.holds(), "the lock was lost with a server");
        // Another lock can be acquired.
        drop(held(&other, "another").await);
    }
    // Of the embedded engine, the instances are the servers.
    for at in 0..COUNT - servers {
        let grant = held(&instances.locks((at + 1) % COUNT), "failover").await;
        instances.replace(at);
        assert!(grant.holds(), "held through the failure of another instance");
        drop(held(&instances.locks((at + 2) % COUNT), "another").await);
    }
}
