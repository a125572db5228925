//! An instance that has fallen behind, while the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_cluster::Replica;
use crossdock_cluster::register::{Change, Command, Register};
use crossdock_zab::Role;

use super::{Cluster, has_leader, read};

/// Clients that write values of a size until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(client: &Replica<Register>, writers: usize, size: usize) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let (client, stop, acknowledged) = (client.clone(), Arc::clone(&stop), Arc::clone(&acknowledged));
            tasks.spawn(async move {
                let value = Bytes::from(vec![b'x'; size]);
                while !stop.load(Ordering::Relaxed) {
                    let payload = Command::payload(&format!("load-{writer}"), Change::Set(value.clone()));
                    match client.propose(payload).await {
                        Ok(_) => acknowledged.fetch_add(1, Ordering::Relaxed),
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            0
                        }
                    };
                }
            });
        }
        Self { stop, acknowledged, writers: tasks }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    async fn until(&self, count: u64) {
        let begun = Instant::now();
        while self.acknowledged() < count {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {count} writes", self.acknowledged());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await;
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// Its snapshot takes seconds, in which the others write more than they keep in memory, and take snapshots that cover what
/// it needs next.
#[tokio::test]
async fn a_follower_that_needs_a_snapshot_catches_up_while_others_write() {
    let mut cluster = Cluster::start(3, 0, |settings| {
        settings.snapshot_every = 2_000;
        settings.snapshot_rate = 4 << 20;
        settings.log.segment_len = 8 << 20;
    });
    let leader = cluster.leader().await;
    let client = cluster.client(leader);
    for part in 0..12 {
        let payload = Command::payload(&format!("large-{part}"), Change::Set(vec![b'y'; 1 << 20].into()));
        client.propose(payload).await.expect("it is done");
    }
    let late = (leader + 1) % 3;
    has_leader(&cluster.client(late)).await;
    cluster.nodes[late].take().expect("it runs").stop();
    // More transactions than are kept in memory.
    let load = Load::start(&client, 128, 10);
    load.until(14_000).await;
    let saved = client.status().activity.snapshots.saved;
    // The second one from here on begins after that.
    let again = client.until(|status| status.activity.snapshots.saved >= saved + 2);
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("in time").expect("it runs");
    load.end().await;
    let epoch = client.status().role;
    let load = Load::start(&client, 64, 1_000);
    cluster.restart(late);
    let begun = Instant::now();
    let behind = cluster.client(late);
    let follows = behind.until(|status| matches!(status.role, Role::Following(..)));
    let follows = tokio::time::timeout(Duration::from_secs(60), follows).await;
    let took = begun.elapsed();
    let meanwhile = load.end().await;
    assert!(follows.is_ok(), "it does not follow after {took:?} and {meanwhile} writes");
    println!("it follows after {took:?}, in which {meanwhile} writes were acknowledged");
    assert!(took > Duration::from_secs(2), "the snapshot alone takes three seconds");
    assert!(meanwhile > 2_000, "{meanwhile} writes were acknowledged");
    assert_eq!(client.status().role, epoch, "the leader stays");
    let expected = read(&client, "load-1").await;
    assert_eq!(read(&cluster.client(late), "load-1").await, expected);
    assert_eq!(read(&cluster.client(late), "large-11").await.len(), 1 << 20);
}
