//! Engines on real instances.

mod cluster;
mod queues;

use std::time::Duration;

use crossdock_coordination::{Claim, Mode, Rate};
use crossdock_embedded::{AcquireError, Held, LockRequest, Loss, Wait};
use tokio::time::timeout;

use self::cluster::{Cluster, TTL};

const LONG: Duration = Duration::from_secs(20);

fn exclusive(lock: &str, wait: Wait) -> LockRequest {
    LockRequest::new(lock, Mode::Exclusive, wait)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("in time")
}

#[tokio::test]
async fn a_lock_is_handed_over_between_instances_with_a_rising_token() {
    let cluster = Cluster::start(3).await;
    let mut last = None;
    let mut held: Option<Held> = None;
    for round in 0..9 {
        let engine = cluster.engine(round % 3);
        let waiting = tokio::spawn(async move { engine.acquire(&exclusive("stock", Wait::For(LONG))).await });
        let other = cluster.engine((round + 1) % 3);
        let refused = in_time(other.acquire(&exclusive("stock", Wait::Try))).await;
        match held.take() {
            Some(held) => {
                assert!(matches!(refused, Err(AcquireError::NotAvailable)));
                held.release().await;
            }
            // It came first, or not.
            None => drop(refused),
        }
        let next = in_time(waiting).await.expect("a task").expect("a lock");
        assert!(last < Some(next.token()), "{last:?}, then {}", next.token());
        last = Some(next.token());
        held = Some(next);
    }
    drop(held);
    cluster.stop().await;
}

#[tokio::test]
async fn a_request_that_is_dropped_holds_nothing() {
    let cluster = Cluster::start(3).await;
    let held = in_time(cluster.engine(0).acquire(&exclusive("a", Wait::Try))).await.expect("a lock");
    let engine = cluster.engine(1);
    let waiting = tokio::spawn(async move { engine.acquire(&exclusive("a", Wait::Forever)).await.map(drop) });
    cluster.until(0, |state| state.locks.get("a").is_some_and(|lock| lock.counts() == (1, 1))).await;
    waiting.abort();
    cluster.until(0, |state| state.locks.get("a").is_some_and(|lock| lock.counts() == (1, 0))).await;
    let timed_out = in_time(cluster.engine(2).acquire(&exclusive("a", Wait::For(Duration::from_millis(50))))).await;
    assert!(matches!(timed_out, Err(AcquireError::TimedOut)));
    drop(held);
    cluster.until(0, |state| state.locks.iter().next().is_none()).await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_locks_of_a_lost_instance_are_free_after_its_session() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    for lost in [follower, leader] {
        let held = in_time(cluster.engine(lost).acquire(&exclusive("a", Wait::Forever))).await.expect("a lock");
        let token = held.token();
        let begun = std::time::Instant::now();
        cluster.kill(lost);
        assert_eq!(in_time(held.validity().lost()).await, Loss::SessionLost, "its own handle is told");
        let next = in_time(cluster.engine(other).acquire(&exclusive("a", Wait::Forever))).await.expect("a lock");
        let took = begun.elapsed();
        assert!(next.token() > token);
        assert!(took > TTL * 2 / 3, "the session ended after {took:?}");
        next.release().await;
        cluster.restart(lost).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn holders_are_told_who_takes_their_lock() {
    let cluster = Cluster::start(1).await;
    let engine = cluster.engine(0);
    let held = in_time(engine.acquire(&exclusive("a", Wait::Try))).await.expect("a lock");
    assert_eq!(engine.revoke_lock("a", "maintenance").await, Ok(1));
    assert_eq!(in_time(held.validity().revoked()).await.as_deref(), Some("maintenance"));
    assert!(held.validity().holds(), "the holder decides");
    let steal = LockRequest { steal: Some("night shift".to_owned()), ..exclusive("a", Wait::Try) };
    let thief = in_time(engine.acquire(&steal)).await.expect("a lock");
    assert_eq!(in_time(held.validity().lost()).await, Loss::Broken("night shift".into()));
    assert_eq!(engine.break_lock("a", "again").await, Ok(1));
    assert_eq!(in_time(thief.validity().lost()).await, Loss::Broken("again".into()));
    let short = LockRequest { hold: Some(Duration::from_millis(100)), ..exclusive("a", Wait::Try) };
    let held = in_time(engine.acquire(&short)).await.expect("a lock");
    assert_eq!(in_time(held.validity().lost()).await, Loss::HoldExpired);
    cluster.stop().await;
}

#[tokio::test]
async fn several_locks_are_acquired_together() {
    let cluster = Cluster::start(1).await;
    let engine = cluster.engine(0);
    let both = LockRequest {
        claims: ["a", "b"].map(|lock| Claim { lock: lock.into(), mode: Mode::Exclusive }).to_vec(),
        ..exclusive("", Wait::Try)
    };
    let held = in_time(engine.acquire(&both)).await.expect("both");
    for lock in ["a", "b"] {
        assert!(matches!(engine.acquire(&exclusive(lock, Wait::Try)).await, Err(AcquireError::NotAvailable)));
    }
    held.release().await;
    assert!(engine.acquire(&exclusive("b", Wait::Try)).await.is_ok());
    cluster.stop().await;
}

#[tokio::test]
async fn numbers_of_a_sequence_rise_over_all_instances() {
    let cluster = Cluster::start(3).await;
    let mut last = 0;
    for round in 0..30 {
        let engine = cluster.engine(round % 3);
        let numbers: Vec<_> = (0..10)
            .map(|_| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.next_number("orders").await })
            })
            .collect();
        let mut taken = Vec::new();
        for number in numbers {
            taken.push(in_time(number).await.expect("a task").expect("a number"));
        }
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "{taken:?}");
        assert!(taken[0] > last, "{taken:?} after {last}");
        last = taken[9];
    }
    cluster.stop().await;
}

/// Requests that are dropped at any time, on instances that stop and come back, leave nothing behind.
#[tokio::test]
async fn no_cancelled_request_becomes_an_orphan() {
    let rounds: u64 = std::env::var("CROSSDOCK_ROUNDS").map_or(12, |text| text.parse().expect("a number"));
    let mut cluster = Cluster::start(3).await;
    for round in 0..rounds {
        let tasks: Vec<_> = (0..60_u64)
            .map(|at| {
                let engine = cluster.engine((at % 3) as usize);
                let lock = format!("lock {}", at % 4);
                tokio::spawn(async move {
                    let wait = match at % 3 {
                        0 => Wait::Try,
                        1 => Wait::For(Duration::from_millis(5 * (at % 7))),
                        _ => Wait::Forever,
                    };
                    let patience = Duration::from_micros((round * 37 + at * 211) % 20_000);
                    if let Ok(Ok(held)) = timeout(patience, engine.acquire(&exclusive(&lock, wait))).await {
                        tokio::task::yield_now().await;
                        drop(held);
                    }
                })
            })
            .collect();
        if round % 4 == 3 {
            let leader = cluster.leader().await;
            cluster.kill(leader);
            cluster.restart(leader).await;
        }
        for task in tasks {
            in_time(task).await.expect("a task");
        }
    }
    for at in 0..3 {
        cluster.until(at, |state| state.locks.iter().next().is_none()).await;
    }
    cluster.stop().await;
}

/// An instance without a quorum gives its session up before the cluster lets it expire.
#[tokio::test]
async fn what_was_given_up_during_an_outage_is_free_after_it() {
    let ttl = Duration::from_secs(3);
    let mut cluster = Cluster::start_with(3, ttl).await;
    let engine = cluster.engine(0);
    let held = in_time(engine.acquire(&exclusive("a", Wait::Try))).await.expect("a lock");
    let waiting = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.acquire(&exclusive("a", Wait::Forever)).await.map(drop) })
    };
    cluster.until(0, |state| state.locks.get("a").is_some_and(|lock| lock.counts() == (1, 1))).await;
    cluster.kill(1);
    cluster.kill(2);
    assert_eq!(in_time(held.validity().lost()).await, Loss::SessionLost);
    drop(held);
    assert_eq!(in_time(waiting).await.expect("a task"), Err(AcquireError::SessionLost));
    cluster.restart(1).await;
    cluster.restart(2).await;
    let begun = std::time::Instant::now();
    // The next session of the instance comes after the last one was closed.
    let next = in_time(engine.acquire(&exclusive("a", Wait::Forever))).await.expect("a lock");
    assert!(begun.elapsed() < ttl / 2, "it took {:?}", begun.elapsed());
    next.release().await;
    cluster.until(1, |state| state.locks.iter().next().is_none()).await;
    cluster.stop().await;
}

#[test]
fn a_sequence_goes_on_after_the_runtime_of_a_caller_has_ended() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let main = runtime();
    let cluster = main.block_on(Cluster::start(1));
    let engine = cluster.engine(0);
    let short = runtime();
    short.block_on(async {
        let mut number = std::pin::pin!(engine.next_number("orders"));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(number.as_mut().poll(context)));
        assert!(polled.await.is_pending());
    });
    drop(short);
    main.block_on(async {
        assert!(in_time(engine.next_number("orders")).await.is_ok());
        cluster.stop().await;
    });
}

#[tokio::test]
async fn the_longest_waits_are_limited() {
    let cluster = Cluster::start(1).await;
    let engine = cluster.engine(0);
    assert!(in_time(engine.acquire(&exclusive("a", Wait::For(Duration::MAX)))).await.is_ok());
    cluster.stop().await;
}

#[tokio::test]
async fn instances_share_a_budget() {
    const RATE: Rate = Rate { count: 200, per_ms: 1_000, burst: 50 };
    let cluster = Cluster::start(3).await;
    let begun = std::time::Instant::now();
    let spending: Vec<_> = (0..3)
        .map(|at| {
            let engine = cluster.engine(at);
            tokio::spawn(async move {
                let mut units = 0;
                while begun.elapsed() < Duration::from_secs(2) {
                    let spent = in_time(engine.spend("mails", RATE, 10)).await.expect("a majority");
                    units += spent.units;
                    tokio::time::sleep(Duration::from_millis(spent.wait_ms)).await;
                }
                units
            })
        })
        .collect();
    let mut spent = Vec::new();
    for task in spending {
        spent.push(task.await.expect("a task"));
    }
    let (total, millis) = (spent.iter().sum::<u64>(), u64::try_from(begun.elapsed().as_millis()).expect("short"));
    // The clock of the cluster may have been behind when it began, by the time between two ticks.
    let expected = RATE.burst + millis * RATE.count / 1_000;
    assert!((expected / 2..=expected + RATE.count / 10).contains(&total), "{spent:?} in {millis} ms");
    assert!(spent.iter().all(|units| *units > 0), "{spent:?}");
    cluster.stop().await;
}
