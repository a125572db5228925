//! What a client learns of its commands when the leader is lost.

use std::collections::BTreeMap;

use bytes::Bytes;
use crossdock_cluster::register::{Change, Command, DONE, Register};
use crossdock_cluster::{ClientError, Proposal, Replica, RequestError};

use super::{Cluster, PATIENCE, has_leader, read};

fn appended(item: &str) -> Bytes {
    Command::payload("list", Change::Append(Bytes::copy_from_slice(item.as_bytes())))
}

/// Appends different items until it is stopped, and returns the outcomes.
async fn append_all(
    client: Replica<Register>,
    name: String,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> BTreeMap<String, Result<(), RequestError>> {
    let mut outcomes = BTreeMap::new();
    while !*stop.borrow_and_update() {
        let item = format!("{name}-{}", outcomes.len());
        let outcome = client.propose(appended(&item)).await;
        if outcome.is_err() {
            has_leader(&client).await;
        }
        outcomes.insert(item, outcome.map(drop));
    }
    outcomes
}

#[tokio::test]
async fn the_outcome_of_a_command_is_known_once_there_is_a_leader_again() {
    let mut cluster = Cluster::start(3, 1, |_| {});
    cluster.leader().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut lost = 0;
    let mut outcomes = BTreeMap::new();
    let mut expected = 0;
    for round in 0..4 {
        for index in 0..4 {
            has_leader(&cluster.client(index)).await;
        }
        let leader = cluster.leader().await;
        let mut writers = tokio::task::JoinSet::new();
        for index in (0..4).filter(|index| *index != leader) {
            for writer in 0..20 {
                let name = format!("{round}-{index}-{writer}");
                writers.spawn(append_all(cluster.client(index), name, stopped.clone()));
            }
        }
        let other = cluster.client((leader + 1) % 3);
        expected += 200;
        let busy = other.until(|status| status.applied.counter > expected);
        tokio::time::timeout(PATIENCE, busy).await.expect("in time").expect("it runs");
        // Without a transfer of leadership.
        cluster.nodes[leader].take().expect("it runs").stop();
        has_leader(&other).await;
        let epoch = other.status().applied.epoch;
        let again = other.until(|status| status.applied.epoch > epoch);
        tokio::time::timeout(PATIENCE, again).await.expect("in time").expect("it runs");
        expected = 0;
        stop.send(true).expect("writers run");
        for more in writers.join_all().await {
            outcomes.extend(more);
        }
        stop.send(false).expect("this test has a receiver");
        cluster.restart(leader);
    }
    let list = read(&cluster.client(0), "list").await;
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for item in list.lines() {
        *count.entry(item).or_default() += 1;
    }
    for (item, outcome) in &outcomes {
        let times = count.get(item.as_str()).copied().unwrap_or(0);
        match outcome {
            Ok(()) => assert_eq!(times, 1, "{item} was acknowledged"),
            Err(RequestError::Refused(_)) => assert_eq!(times, 0, "{item} was refused"),
            Err(RequestError::Lost) => {
                lost += 1;
                assert_eq!(times, 0, "{item} was lost");
            }
            Err(other) => panic!("{item}: {other}"),
        }
    }
    assert_eq!(count.len(), outcomes.values().filter(|outcome| outcome.is_ok()).count());
    println!("{} commands, {lost} lost with their leaders", outcomes.len());
}

#[tokio::test]
async fn a_numbered_command_is_executed_once_through_whatever_instance() {
    let mut cluster = Cluster::start(3, 0, |settings| settings.snapshot_every = 50);
    let leader = cluster.leader().await;
    for index in 0..3 {
        has_leader(&cluster.client(index)).await;
    }
    let client = cluster.client(leader);
    let id = client.open_client().await.expect("there is room");
    let numbered = |number: u64| Proposal::new(appended(&format!("item-{number}"))).numbered(id, number);
    let first = client.propose_as(numbered(1)).await.expect("executed");
    assert_eq!(first.1, DONE);
    let other = cluster.client((leader + 1) % 3);
    assert_eq!(other.propose_as(numbered(1)).await, Ok(first), "the same answer from another instance");
    let gap = Err(RequestError::Client(ClientError::Gap { next: 2 }));
    assert_eq!(other.propose_as(numbered(3)).await, gap);
    // A batch with a repetition and a gap in it.
    let batch = vec![numbered(2), numbered(2), numbered(4), numbered(3), numbered(4)];
    let outcomes = other.propose_many(batch).await;
    assert!(outcomes[0].is_ok() && outcomes[0] == outcomes[1], "{outcomes:?}");
    assert_eq!(outcomes[2], Err(RequestError::Client(ClientError::Gap { next: 3 })));
    assert!(outcomes[3].is_ok() && outcomes[4].is_ok(), "{outcomes:?}");
    // It also holds after a change of the leader, and for an instance that restarts from a snapshot.
    for number in 5..100 {
        other.propose_as(numbered(number)).await.expect("executed");
    }
    cluster.nodes[leader].take().expect("it runs").stop();
    has_leader(&other).await;
    let begun = std::time::Instant::now();
    while let Err(problem) = other.propose_as(numbered(99)).await {
        assert!(begun.elapsed() < PATIENCE, "{problem}");
        has_leader(&other).await;
    }
    cluster.restart(leader);
    let restarted = cluster.client(leader);
    has_leader(&restarted).await;
    assert!(restarted.propose_as(numbered(98)).await.is_ok());
    let items: Vec<String> = (1..100).map(|number| format!("item-{number}\n")).collect();
    assert_eq!(read(&restarted, "list").await, items.concat());
    restarted.close_client(id).await.expect("done");
    let unknown = Err(RequestError::Client(ClientError::Unknown));
    assert_eq!(restarted.propose_as(numbered(100)).await, unknown);
}
