//! State machines and their users: several behind one log, notices, reads, and a machine that is slow.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crossdock_cluster::register::{Change, Changed, Command, DONE, REGISTER, Register};
use crossdock_cluster::{
    Command as Committed, InvalidState, MachineId, Machines, Member, Node, Notice, Outbox, Proposal, Replica,
    RequestError, Settings, StartError, StateMachine, Stopped, View,
};
use crossdock_zab::{Refusal, Role, ServerId, Zxid};

use super::{Cluster, PATIENCE, append, free_address, has_leader, read};

const SECOND: MachineId = MachineId(2);
const GATED: MachineId = MachineId(3);

fn alone(folder: &Path) -> Settings {
    let members = BTreeMap::from([(ServerId(1), Member { address: free_address().into(), votes: true })]);
    let mut settings = Settings::new("test", ServerId(1), members, folder.to_owned());
    settings.create = true;
    settings.log.segment_len = 1 << 20;
    settings
}

fn set(key: &str, value: &'static str) -> Bytes {
    Command::payload(key, Change::Set(Bytes::from_static(value.as_bytes())))
}

/// The settings of three instances.
fn three(folder: &Path) -> Vec<Settings> {
    let members: BTreeMap<_, _> =
        (1..=3).map(|id| (ServerId(id), Member { address: free_address().into(), votes: true })).collect();
    let one = |id: &ServerId| {
        let mut settings = Settings::new("test", *id, members.clone(), folder.join(id.to_string()));
        settings.create = true;
        settings.snapshot_every = 10;
        settings
    };
    members.keys().map(one).collect()
}

/// Starts an instance with one machine.
fn start_with<M: StateMachine>(settings: &Settings, machine: M) -> Result<(Node, Replica<M>), StartError> {
    let mut machines = Machines::new();
    let published = machines.add(GATED, machine);
    let node = Node::start(settings, machines)?;
    let replica = node.replica(&published);
    Ok((node, replica))
}

/// Starts an instance with two registers.
fn start_two(settings: &Settings) -> (Node, [Replica<Register>; 2]) {
    let mut machines = Machines::new();
    let published = [REGISTER, SECOND].map(|id| machines.add(id, Register::default()));
    let node = Node::start(settings, machines).expect("it starts");
    let replicas = published.map(|published| node.replica(&published));
    (node, replicas)
}

async fn check([first, second]: &[Replica<Register>; 2], both: &'static str) {
    let (first, second) = (first.read().await.expect("it leads"), second.read().await.expect("it leads"));
    assert_eq!((first.get("key"), second.get("key")), (&b"first"[..], &b"second"[..]));
    assert_eq!(second.get("both"), both.as_bytes());
}

#[tokio::test]
async fn several_machines_share_a_log_and_its_snapshots() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = alone(folder.path());
    let (node, two) = start_two(&settings);
    has_leader(&two[0]).await;
    two[0].propose(set("key", "first")).await.expect("done");
    two[1].propose(set("key", "second")).await.expect("done");
    check(&two, "").await;
    node.stop();
    // From the log alone; then a snapshot of both is taken.
    settings.snapshot_every = 1;
    let (node, two) = start_two(&settings);
    has_leader(&two[0]).await;
    two[1].propose(set("both", "there")).await.expect("done");
    check(&two, "there").await;
    let saved = two[0].until(|status| status.activity.snapshots.saved > 0);
    tokio::time::timeout(PATIENCE, saved).await.expect("in time").expect("it runs");
    node.stop();
    settings.snapshot_every = u64::MAX;
    let (node, two) = start_two(&settings);
    has_leader(&two[0]).await;
    check(&two, "there").await;
    node.stop();
    // A release without the second machine does not throw its state away.
    let mut machines = Machines::new();
    machines.add(REGISTER, Register::default());
    let refused = Node::start(&settings, machines).err();
    assert!(matches!(&refused, Some(StartError::State(_))), "{refused:?}");
}

#[tokio::test]
async fn an_instance_stops_at_a_command_for_a_machine_that_it_lacks() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = alone(folder.path());
    let (node, two) = start_two(&settings);
    has_leader(&two[0]).await;
    two[1].propose(set("key", "second")).await.expect("done");
    node.stop();
    let mut machines = Machines::new();
    machines.add(REGISTER, Register::default());
    let node = Node::start(&settings, machines).expect("the log is good");
    let stopped = node.client().until(|status| status.stopped.is_some()).await.expect("it runs").stopped;
    assert!(matches!(&stopped, Some(Stopped::State(problem)) if problem.contains("machine 2")), "{stopped:?}");
}

#[tokio::test]
async fn subscribers_learn_of_changes_once_they_are_visible_and_of_roles() {
    let mut cluster = Cluster::start(3, 0, |_| {});
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    has_leader(&cluster.client(other)).await;
    let client = cluster.client(other);
    let mut subscription = client.subscribe();
    cluster.client(leader).propose(set("a", "1")).await.expect("done");
    let changed = async {
        loop {
            if let Notice::Events(zxid, events) = subscription.next().await {
                return (zxid, events);
            }
        }
    };
    let (zxid, events) = tokio::time::timeout(PATIENCE, changed).await.expect("in time");
    assert_eq!(events[..], [Changed { key: "a".into() }]);
    assert_eq!(client.view().get("a"), b"1", "it is visible before");
    assert!(client.status().last >= zxid);
    cluster.nodes[leader].take().expect("it runs").stop();
    let mut roles = Vec::new();
    while roles.len() < 2 {
        if let Notice::Role(role) = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("in time") {
            roles.push(role);
        }
    }
    assert!(roles[0] == Role::Looking && roles[1] != Role::Looking, "{roles:?}");
    cluster.nodes[other].take().expect("it runs").stop();
    let ended = async { while !matches!(subscription.next().await, Notice::Ended) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("in time");
}

#[tokio::test]
async fn a_read_waits_for_what_another_instance_has_acknowledged() {
    let cluster = Cluster::start(3, 1, |_| {});
    cluster.leader().await;
    for index in 0..4 {
        has_leader(&cluster.client(index)).await;
    }
    for round in 0..50_usize {
        let (writer, reader) = (cluster.client(round % 4), cluster.client((round + 1) % 4));
        let payload = Command::payload("n", Change::Set(Bytes::from(round.to_string())));
        let (zxid, answer) = writer.propose(payload).await.expect("done");
        assert_eq!(answer, DONE);
        let view = if round.is_multiple_of(2) { reader.read().await } else { reader.read_at(zxid).await };
        assert_eq!(view.expect("it is read").get("n"), round.to_string().as_bytes());
    }
    // Reads at the same time share a round trip, and all are answered.
    let client = cluster.client(3);
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let client = client.clone();
        reads.spawn(async move { client.read().await.map(drop) });
    }
    assert!(reads.join_all().await.iter().all(Result::is_ok));
}

/// Applies nothing while it is closed.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, is_closed: bool) {
        *self.is_closed.lock().expect("no panic") = is_closed;
        self.opened.notify_all();
    }
}

struct Gated(Arc<Gate>);

struct Nothing;

impl View for Nothing {
    fn write_to(&self, _: &mut dyn Write) -> std::io::Result<()> {
        Ok(())
    }
}

impl StateMachine for Gated {
    type View = Nothing;
    type Event = ();

    fn apply(&mut self, commands: &[Committed], outbox: &mut Outbox<()>) {
        for _ in commands {
            outbox.event(());
        }
        let is_closed = self.0.is_closed.lock().expect("no panic");
        drop(self.0.opened.wait_while(is_closed, |is_closed| *is_closed).expect("no panic"));
    }

    fn view(&self) -> Nothing {
        Nothing
    }

    fn restore(&mut self, _: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        Ok(())
    }
}

/// It delays neither heartbeats nor elections; and it is not buried under commands.
#[tokio::test]
async fn a_machine_that_is_slow_ends_no_leadership_and_refuses_further_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Arc::<Gate>::default();
    let all = three(folder.path());
    let start = |settings| start_with(settings, Gated(Arc::clone(&gate))).expect("it starts");
    let nodes: Vec<_> = all.iter().map(start).collect();
    for (_, client) in &nodes {
        has_leader(client).await;
    }
    let leads = |(_, client): &&(Node, Replica<Gated>)| matches!(client.status().role, Role::Leading(_));
    let (_, leader) = nodes.iter().find(leads).expect("a leader");
    let role = leader.status().role;
    gate.set(true);
    let payload = Bytes::from(vec![7; 1 << 20]);
    let mut waiting = tokio::task::JoinSet::new();
    // In two steps, as there is a limit for those that are not committed yet, too. Further ones are refused above 64 MiB.
    for backlog in [40 << 20, 64 << 20] {
        for _ in 0..40 {
            let (client, payload) = (leader.clone(), payload.clone());
            waiting.spawn(async move { client.propose(payload).await.map(|(zxid, _)| zxid) });
        }
        let committed = leader.until(|status| status.activity.backlog_bytes >= backlog);
        tokio::time::timeout(PATIENCE, committed).await.expect("in time").expect("it runs");
    }
    assert_eq!(leader.propose(payload.clone()).await, Err(RequestError::Refused(Refusal::Busy)));
    // Followers send theirs to the leader, which is behind.
    let (_, follower) = nodes.iter().find(|node| !leads(node)).expect("a follower");
    assert_eq!(follower.propose(payload.clone()).await, Err(RequestError::Refused(Refusal::Busy)));
    // What is reserved is accepted; its answer waits.
    let reserved = leader.propose_as(Proposal::new(Bytes::from_static(b"keep-alive")).reserved());
    assert!(tokio::time::timeout(Duration::from_millis(300), reserved).await.is_err(), "it is not applied yet");
    assert_eq!(leader.status().role, role, "the epoch is unchanged");
    gate.set(false);
    let done = async {
        let mut applied = 0;
        while let Some(one) = waiting.join_next().await {
            match one.expect("no panic") {
                Ok(_) => applied += 1,
                Err(problem) => assert_eq!(problem, RequestError::Refused(Refusal::Busy)),
            }
        }
        assert!(applied >= 64, "{applied} of 80");
        leader.propose(payload.clone()).await
    };
    tokio::time::timeout(PATIENCE, done).await.expect("in time").expect("it has caught up");
    assert_eq!(leader.status().role, role, "the epoch is unchanged");
}

#[tokio::test]
async fn a_batch_larger_than_the_room_is_proposed_in_order() {
    let mut cluster = Cluster::start(1, 0, |settings| settings.log.segment_len = 64 << 20);
    let client = cluster.client(cluster.leader().await);
    // 160 MiB, where 128 may wait.
    let value = Bytes::from(vec![b'x'; 1 << 20]);
    let proposals = (0..160).map(|number: u32| {
        let key = if number.is_multiple_of(2) { "even" } else { "odd" };
        let mut value = value.to_vec();
        value[..4].copy_from_slice(&number.to_le_bytes());
        Proposal::new(Command::payload(key, Change::Set(value.into())))
    });
    let outcomes = tokio::time::timeout(PATIENCE, client.propose_many(proposals.collect())).await.expect("in time");
    let zxids: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).map(|(zxid, _)| *zxid).collect();
    assert!(zxids.is_sorted() && !zxids.is_empty(), "{zxids:?}");
    append(&client, "list", "after").await;
    assert_eq!(read(&client, "list").await, "after\n");
    cluster.nodes[0].take().expect("it runs").stop();
}

#[tokio::test]
async fn a_subscriber_that_comes_while_a_batch_is_applied_learns_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Arc::<Gate>::default();
    let (_node, client) = start_with(&alone(folder.path()), Gated(Arc::clone(&gate))).expect("it starts");
    has_leader(&client).await;
    gate.set(true);
    let proposed = tokio::spawn({
        let client = client.clone();
        async move { client.propose(Bytes::new()).await }
    });
    let waiting = client.until(|status| status.activity.backlog_bytes > 0);
    tokio::time::timeout(PATIENCE, waiting).await.expect("in time").expect("it runs");
    let mut subscription = client.subscribe();
    gate.set(false);
    proposed.await.expect("no panic").expect("done");
    // It may have come just before the batch.
    let learned = async { while !matches!(subscription.next().await, Notice::Missed | Notice::Events(..)) {} };
    tokio::time::timeout(PATIENCE, learned).await.expect("in time");
}

#[tokio::test]
async fn an_instance_whose_machine_panics_stops_and_tells_subscribers() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Arc::<Gate>::default();
    let (_node, client) = start_with(&alone(folder.path()), Gated(Arc::clone(&gate))).expect("it starts");
    has_leader(&client).await;
    let mut subscription = client.subscribe();
    // The machine finds its lock poisoned.
    let poisoned = Arc::clone(&gate);
    let poisoning = std::thread::spawn(move || {
        let _held = poisoned.is_closed.lock().expect("not yet");
        panic!("on purpose");
    });
    assert!(poisoning.join().is_err());
    assert_eq!(client.propose(Bytes::new()).await, Err(RequestError::Ended));
    let stopped = client.until(|status| status.stopped.is_some());
    let stopped = tokio::time::timeout(PATIENCE, stopped).await.expect("in time").expect("it runs").stopped;
    assert!(matches!(&stopped, Some(Stopped::State(_))), "{stopped:?}");
    let ended = async { while !matches!(subscription.next().await, Notice::Ended) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("in time");
}

#[tokio::test]
async fn reads_that_nobody_waits_for_are_forgotten() {
    let cluster = Cluster::start(1, 0, |_| {});
    let client = cluster.client(cluster.leader().await);
    let later = Zxid::new(crossdock_zab::Epoch(9), 1);
    for _ in 0..100 {
        let read = tokio::time::timeout(Duration::from_millis(1), client.read_at(later)).await;
        assert!(read.is_err(), "it is not applied");
    }
    let forgotten = client.until(|status| status.activity.requests == 0);
    tokio::time::timeout(PATIENCE, forgotten).await.expect("in time").expect("it runs");
}

/// A release that understands this version; it answers with the one in effect.
struct Release(u32);

impl StateMachine for Release {
    type View = Nothing;
    type Event = ();

    fn version(&self) -> u32 {
        self.0
    }

    fn apply(&mut self, commands: &[Committed], outbox: &mut Outbox<()>) {
        let version = Bytes::from(outbox.version().to_string());
        (0..commands.len()).for_each(|at| outbox.answer(at, version.clone()));
    }

    fn view(&self) -> Nothing {
        Nothing
    }

    fn restore(&mut self, _: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        Ok(())
    }
}

#[tokio::test]
async fn a_version_of_a_machine_is_used_once_all_instances_understand_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = three(folder.path());
    let start = |id: usize, version: u32| start_with(&all[id - 1], Release(version));
    let mut nodes: Vec<_> = [1, 2, 3].map(|id| start(id, if id == 1 { 1 } else { 2 }).expect("it starts")).into();
    let all_connected = |status: &crossdock_cluster::Status| {
        status.role != Role::Looking && status.peers.iter().all(|peer| peer.is_connected)
    };
    let answer = async |client: &Replica<Release>| {
        let begun = std::time::Instant::now();
        loop {
            match client.propose(Bytes::new()).await {
                Ok((_, answer)) => return answer,
                Err(problem) => assert!(begun.elapsed() < PATIENCE, "{problem}"),
            }
            has_leader(client).await;
        }
    };
    for (_, client) in &nodes {
        tokio::time::timeout(PATIENCE, client.until(all_connected)).await.expect("in time").expect("it runs");
    }
    for _ in 0..20 {
        assert_eq!(answer(&nodes[1].1).await, "1", "the first instance does not understand the second version");
    }
    nodes.remove(0).0.stop();
    nodes.insert(0, start(1, 2).expect("it starts"));
    let begun = std::time::Instant::now();
    while answer(&nodes[1].1).await != "2" {
        assert!(begun.elapsed() < PATIENCE, "all understand the second version");
    }
    for (_, client) in &nodes {
        assert_eq!(answer(client).await, "2");
        client.barrier().await.expect("it follows");
        assert_eq!(client.version(), 2);
    }
    // The earlier release can read neither the log nor the snapshots any more.
    for _ in 0..20 {
        answer(&nodes[1].1).await;
    }
    nodes.remove(0).0.stop();
    match start(1, 1) {
        Err(problem) => assert!(matches!(&problem, StartError::State(_)), "{problem}"),
        Ok((node, _)) => {
            let client = node.client();
            let stopped = client.until(|status| status.stopped.is_some());
            let stopped = tokio::time::timeout(PATIENCE, stopped).await.expect("in time").expect("it runs").stopped;
            assert!(
                matches!(&stopped, Some(Stopped::State(problem)) if problem.contains("use a later release")),
                "{stopped:?}"
            );
        }
    }
}
