//! Instances in one process, over loopback, with logs on disk.

#[path = "nodes/backup.rs"]
mod backup;
#[path = "nodes/catch_up.rs"]
mod catch_up;
#[path = "nodes/foreign.rs"]
mod foreign;
#[path = "nodes/machines.rs"]
mod machines;
#[path = "nodes/membership.rs"]
mod membership;
#[path = "nodes/outcomes.rs"]
mod outcomes;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_cluster::register::{self, Change, Command, CompareAndSet, DONE, NOT_DONE, Register};
use crossdock_cluster::{Client, Member, Node, Replica, RequestError, Settings, StartError};
use crossdock_zab::{Refusal, Role, ServerId};

const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    settings: Vec<Settings>,
    nodes: Vec<Option<Instance>>,
    _folder: tempfile::TempDir,
}

fn free_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

impl Cluster {
    fn start(voters: u64, observers: u64, change: impl Fn(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let members: BTreeMap<ServerId, Member> = (1..=voters + observers)
            .map(|id| (ServerId(id), Member { address: free_address().into(), votes: id <= voters }))
            .collect();
        let settings = members.keys().map(|id| {
            let mut settings = Settings::new("test", *id, members.clone(), folder.path().join(id.to_string()));
            settings.create = true;
            settings.log.segment_len = 1 << 20;
            change(&mut settings);
            settings
        });
        let settings: Vec<Settings> = settings.collect();
        let nodes = settings.iter().map(|settings| Some(start(settings))).collect();
        Self { settings, nodes, _folder: folder }
    }

    fn client(&self, index: usize) -> Replica<Register> {
        self.nodes[index].as_ref().expect("it runs").client()
    }

    fn restart(&mut self, index: usize) {
        self.nodes[index] = Some(start(&self.settings[index]));
    }

    /// The index of the leader, once there is one.
    async fn leader(&self) -> usize {
        let leading = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let client = node.as_ref()?.client();
            Some(Box::pin(async move {
                client.until(|status| matches!(status.role, Role::Leading(_))).await?;
                Ok::<_, RequestError>(index)
            }))
        });
        let found = tokio::time::timeout(PATIENCE, futures_util::future::select_ok(leading));
        found.await.expect("no leader in time").expect("some run").0
    }
}

/// An instance that replicates a register.
struct Instance {
    node: Node,
    register: Replica<Register>,
}

impl Instance {
    fn client(&self) -> Replica<Register> {
        self.register.clone()
    }

    fn address(&self) -> std::net::SocketAddr {
        self.node.address()
    }

    fn stop(self) {
        self.node.stop();
    }

    async fn shut_down(self) {
        self.node.shut_down().await;
    }
}

fn start(settings: &Settings) -> Instance {
    let (node, register) = register::start(settings).expect("it starts");
    Instance { node, register }
}

/// Waits until the instance leads or follows.
async fn has_leader(client: &Client) {
    let client = client.clone();
    let found = client.until(|status| status.role != Role::Looking);
    tokio::time::timeout(PATIENCE, found).await.expect("there is no leader").expect("it runs");
    // Let the driver publish the end of its old role before the next request.
    tokio::task::yield_now().await;
}

/// Appends until it is known to have succeeded. An item may be appended more than once.
async fn append(client: &Replica<Register>, key: &str, item: &str) {
    let begun = Instant::now();
    loop {
        let payload = Command::payload(key, Change::Append(Bytes::copy_from_slice(item.as_bytes())));
        match client.propose(payload).await {
            Ok((_, answer)) => return assert_eq!(answer, DONE),
            Err(RequestError::Ended) => panic!("the instance has ended"),
            Err(_) => has_leader(client).await,
        }
        assert!(begun.elapsed() < PATIENCE, "{item} was not appended in time");
    }
}

async fn read(client: &Replica<Register>, key: &str) -> String {
    let begun = Instant::now();
    loop {
        match client.read().await {
            Ok(values) => return String::from_utf8(values.get(key).to_vec()).expect("text"),
            Err(problem) => {
                assert!(begun.elapsed() < PATIENCE, "{key} was not read in time: {problem}");
                has_leader(client).await;
            }
        }
    }
}

#[tokio::test]
async fn one_instance_is_a_cluster() {
    let mut cluster = Cluster::start(1, 0, |_| {});
    let client = cluster.client(0);
    append(&client, "a", "1").await;
    let set = |expected: Option<&'static [u8]>, value: &'static [u8]| {
        let compare = CompareAndSet { expected: expected.map(Bytes::from_static), value: Bytes::from_static(value) };
        client.propose(Command::payload("b", Change::CompareAndSet(compare)))
    };
    assert_eq!(set(None, b"1").await.expect("done").1, DONE);
    assert_eq!(set(None, b"2").await.expect("answered").1, NOT_DONE);
    assert_eq!(set(Some(b"1"), b"3").await.expect("done").1, DONE);
    assert_eq!(read(&client, "b").await, "3");
    cluster.nodes[0].take().expect("it runs").stop();
    assert_eq!(client.propose(Bytes::new()).await, Err(RequestError::Ended));
    cluster.restart(0);
    let client = cluster.client(0);
    assert_eq!((read(&client, "a").await, read(&client, "b").await), ("1\n".into(), "3".into()));
}

#[tokio::test]
async fn three_instances_agree_and_survive_their_leader() {
    let mut cluster = Cluster::start(3, 1, |_| {});
    cluster.leader().await;
    for round in 0..3 {
        for index in 0..4 {
            append(&cluster.client(index), "list", &format!("{round}-{index}")).await;
        }
    }
    let leader = cluster.leader().await;
    let before = read(&cluster.client(leader), "list").await;
    assert_eq!(before.lines().count(), 12);
    cluster.nodes[leader].take().expect("it runs").stop();
    let other = (leader + 1) % 3;
    let begun = Instant::now();
    append(&cluster.client(other), "list", "after").await;
    println!("done again after {:?}", begun.elapsed());
    let expected = before + "after\n";
    for index in (0..4).filter(|index| *index != leader) {
        assert_eq!(read(&cluster.client(index), "list").await, expected, "instance {}", index + 1);
    }
    cluster.restart(leader);
    assert_eq!(read(&cluster.client(leader), "list").await, expected);
    assert_eq!(cluster.client(leader).view().get("list"), expected.as_bytes());
}

#[tokio::test]
async fn leadership_is_transferred_to_the_requested_successor() {
    let cluster = Cluster::start(3, 0, |_| {});
    let leader = cluster.leader().await;
    append(&cluster.client(leader), "a", "1").await;
    let successor = (leader + 2) % 3;
    let id = ServerId(successor as u64 + 1);
    cluster.client(leader).transfer_leadership(Some(id)).await.expect("it runs");
    let leads = |status: &crossdock_cluster::Status| matches!(status.role, Role::Leading(_));
    let client = cluster.client(successor);
    tokio::time::timeout(PATIENCE, client.until(leads)).await.expect("in time").expect("it runs");
    append(&client, "a", "2").await;
    assert_eq!(read(&client, "a").await, "1\n2\n");
}

#[tokio::test]
async fn a_late_follower_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, 0, |settings| settings.snapshot_every = 50);
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    append(&cluster.client(leader), "list", "first").await;
    cluster.nodes[late].take().expect("it runs").stop();
    let client = cluster.client(leader);
    // More transactions than are kept in memory.
    let many: Vec<_> = (0..12_000)
        .map(|number| {
            let client = client.clone();
            async move {
                let payload = Command::payload("n", Change::Set(Bytes::from(format!("{number}"))));
                while client.propose(payload.clone()).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        })
        .collect();
    let mut together = tokio::task::JoinSet::new();
    for one in many {
        together.spawn(one);
    }
    while together.join_next().await.is_some() {}
    append(&client, "list", "last").await;
    cluster.restart(late);
    assert_eq!(read(&cluster.client(late), "list").await, "first\nlast\n");
    let folder = &cluster.settings[late].data;
    let snapshots = || std::fs::read_dir(folder).expect("a folder").filter(is_snapshot).count();
    assert!(snapshots() > 0, "{folder:?} has no snapshot");
    // It also restarts from that snapshot.
    cluster.nodes[late].take().expect("it runs").stop();
    cluster.restart(late);
    assert_eq!(read(&cluster.client(late), "list").await, "first\nlast\n");
}

#[tokio::test]
async fn a_snapshot_transfer_may_outlast_the_heartbeat_timeout() {
    // Two megabytes at one per second; the heartbeat timeout is 0.7 s.
    let mut cluster = Cluster::start(3, 0, |settings| {
        settings.snapshot_every = 20;
        settings.snapshot_rate = 1 << 20;
        settings.log.segment_len = 4 << 20;
    });
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.nodes[late].take().expect("it runs").stop();
    let client = cluster.client(leader);
    for number in 0..20 {
        append(&client, &format!("large-{number}"), &"x".repeat(100_000)).await;
    }
    // More transactions than are kept in memory, so that the snapshot is needed.
    let mut together = tokio::task::JoinSet::new();
    for number in 0..11_000 {
        let client = client.clone();
        together.spawn(async move {
            let payload = Command::payload("n", Change::Set(Bytes::from(format!("{number}"))));
            while client.propose(payload.clone()).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
    }
    while together.join_next().await.is_some() {}
    let epoch = |client: &Client| client.status().role;
    let before = epoch(&cluster.client(leader));
    cluster.restart(late);
    assert_eq!(read(&cluster.client(late), "large-7").await.len(), 100_001);
    assert_eq!(epoch(&cluster.client(leader)), before, "a restarted follower does not depose the leader");
}

#[tokio::test]
async fn many_large_commands_stop_no_instance_and_an_oversized_one_is_refused() {
    let cluster = Cluster::start(3, 0, |settings| settings.log.segment_len = 64 << 20);
    let client = cluster.client(cluster.leader().await);
    let mut together = tokio::task::JoinSet::new();
    for number in 0..2_000 {
        let client = client.clone();
        together.spawn(async move {
            let payload = Command::payload(&format!("{number}"), Change::Set(Bytes::from(vec![b'x'; 20 * 1024])));
            client.propose(payload).await.is_ok()
        });
    }
    let mut done = 0;
    while let Some(one) = together.join_next().await {
        done += usize::from(one.expect("it is answered"));
    }
    assert!(done > 1_000, "{done}");
    let large = Command::payload("large", Change::Set(Bytes::from(vec![b'x'; 5 << 20])));
    assert_eq!(client.propose(large.clone()).await, Err(RequestError::Refused(Refusal::TooLong)));
    for index in 0..3 {
        assert_eq!(cluster.client(index).propose(large.clone()).await, Err(RequestError::Refused(Refusal::TooLong)));
        assert_eq!(cluster.client(index).status().stopped, None);
    }
}

fn is_snapshot(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("snapshot-"))
}

#[test]
fn an_instance_without_a_log_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let member = Member { address: free_address().into(), votes: true };
    let settings = |path: &Path| {
        Settings::new("test", ServerId(1), BTreeMap::from([(ServerId(1), member.clone())]), path.to_owned())
    };
    let start = |settings: &Settings| register::start(settings).map(drop);
    assert!(matches!(start(&settings(folder.path())), Err(StartError::Log(_))));
    let stranger = Settings { id: ServerId(2), ..settings(folder.path()) };
    assert!(matches!(start(&stranger), Err(StartError::Settings(_))));
}

/// The outcome of every command is known to the leader's own clients after a shutdown.
#[tokio::test]
async fn a_leader_that_shuts_down_answers_all_its_requests() {
    let mut cluster = Cluster::start(3, 0, |_| {});
    let leads = cluster.leader().await;
    for index in 0..3 {
        has_leader(&cluster.client(index)).await;
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..30 {
        let client = cluster.client(leads);
        writers.spawn(async move {
            let mut done = 0;
            loop {
                match client.propose(Command::payload(&format!("key-{writer}"), Change::Append(Bytes::from("x")))).await
                {
                    Ok(_) => done += 1,
                    Err(RequestError::Unknown) => return (done, false),
                    // Refused during the transfer, or the instance has ended.
                    Err(_) => return (done, true),
                }
            }
        });
    }
    let client = cluster.client(leads);
    let busy = client.until(|status| status.applied.counter > 200);
    tokio::time::timeout(PATIENCE, busy).await.expect("in time").expect("it runs");
    cluster.nodes[leads].take().expect("it runs").shut_down().await;
    let ended = writers.join_all().await;
    assert!(ended.iter().all(|(done, known)| *done > 0 && *known), "{ended:?}");
}

/// Transferring the command takes longer than the heartbeat timeout.
#[tokio::test]
async fn a_slow_transfer_of_a_large_command_ends_no_leadership() {
    let folder = tempfile::tempdir().expect("a folder");
    let real: Vec<_> = (0..3).map(|_| free_address()).collect();
    // The third instance dials the others through links limited to 1 MiB/s.
    let slow: Vec<_> = real.iter().map(|address| slow_proxy(*address)).collect();
    let mut nodes = Vec::new();
    for id in 1..=3_u64 {
        let member = |other: u64| {
            let index = usize::try_from(other - 1).expect("small");
            let address = if id == 3 && other < 3 { slow[index] } else { real[index] };
            (ServerId(other), Member { address: address.into(), votes: true })
        };
        let members: BTreeMap<ServerId, Member> = (1..=3).map(member).collect();
        let mut settings = Settings::new("test", ServerId(id), members, folder.path().join(id.to_string()));
        settings.create = true;
        nodes.push(start(&settings));
    }
    for node in &nodes {
        has_leader(&node.client()).await;
    }
    let epoch = |status: &crossdock_cluster::Status| match status.role {
        Role::Following(_, epoch) | Role::Leading(epoch) => Some(epoch),
        _ => None,
    };
    let before = epoch(&nodes[2].client().status());
    let value = Bytes::from(vec![b'x'; 3 << 20]);
    let done = nodes[0].client().propose(Command::payload("large", Change::Set(value))).await;
    let (zxid, _) = done.expect("it is done");
    let third = nodes[2].client();
    let there = third.until(|status| status.applied >= zxid);
    tokio::time::timeout(PATIENCE, there).await.expect("in time").expect("it runs");
    assert_eq!(epoch(&nodes[2].client().status()), before, "the epoch is unchanged");
}

/// The address of a proxy that forwards to `to` at 1 MiB/s in each direction.
fn slow_proxy(to: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    const PIECE: usize = 16 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = std::net::TcpStream::connect(to) else { continue };
            for (mut from, mut to) in [(&near, &far), (&far, &near)]
                .map(|(from, to)| (from.try_clone().expect("a socket"), to.try_clone().expect("a socket")))
            {
                std::thread::spawn(move || {
                    let mut buffer = vec![0; PIECE];
                    while let Ok(len @ 1..) = from.read(&mut buffer) {
                        std::thread::park_timeout(Duration::from_micros(len as u64));
                        if to.write_all(&buffer[..len]).is_err() {
                            break;
                        }
                    }
                    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
                });
            }
        }
    });
    address
}

fn epoch(client: &Client) -> u32 {
    match client.status().role {
        Role::Leading(epoch) | Role::Following(_, epoch) | Role::Observing(_, epoch) => epoch.0,
        Role::Looking => 0,
    }
}

#[tokio::test]
async fn an_unauthenticated_hello_does_not_replace_a_live_link() {
    let cluster = Cluster::start(3, 0, |_| {});
    cluster.leader().await;
    for index in 0..3 {
        has_leader(&cluster.client(index)).await;
    }
    let before = epoch(&cluster.client(0));
    let address = cluster.nodes[0].as_ref().expect("it runs").address();
    for server in [2, 3, 2, 3] {
        let mut foreign = foreign::Caller::dial(address);
        foreign.send_hello(server, 1);
        let refusal = tokio::task::spawn_blocking(move || foreign.refusal()).await.expect("no panic");
        assert!(refusal.is_some_and(|reason| reason.contains(&format!("two instances with the id {server}?"))));
    }
    append(&cluster.client(0), "list", "after").await;
    assert_eq!(epoch(&cluster.client(0)), before, "the epoch is unchanged");
}

/// Anyone who can reach the port can open connections; they must not take the file descriptors of the log.
#[tokio::test]
async fn connections_without_a_hello_are_limited_and_keep_no_member_away() {
    let mut cluster = Cluster::start(3, 0, |_| {});
    cluster.leader().await;
    append(&cluster.client(0), "list", "before").await;
    let addresses = [0, 1].map(|index| cluster.nodes[index].as_ref().expect("it runs").address());
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let attack = std::thread::spawn(move || {
        let mut held = std::collections::VecDeque::new();
        while stopped.recv_timeout(Duration::from_millis(2)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            for address in addresses {
                held.extend(std::net::TcpStream::connect(address));
                count.fetch_add(1, Ordering::Relaxed);
            }
            // This process must not run out of file descriptors itself.
            if held.len() > 400 {
                held.pop_front();
                held.pop_front();
            }
        }
        held
    });
    let begun = Instant::now();
    while opened.load(Ordering::Relaxed) < 400 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.nodes[2].take().expect("it runs").stop();
    cluster.restart(2);
    append(&cluster.client(2), "list", "during").await;
    stop.send(()).expect("the attack goes on");
    let held = tokio::task::spawn_blocking(|| attack.join().expect("no panic")).await.expect("no panic");
    let is_open = |stream: &std::net::TcpStream| {
        let waiting = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
        waiting.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let open = || held.iter().filter(|stream| is_open(stream)).count();
    // The last ones may still have to be accepted. All of them end by themselves after three seconds.
    let begun = Instant::now();
    while open() > 2 * 64 && begun.elapsed() < Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let opened = opened.load(Ordering::Relaxed);
    assert!(opened >= 400 && open() <= 2 * 64, "{opened} connections were opened, {} of them are open", open());
    assert_eq!(read(&cluster.client(2), "list").await.lines().count(), 2);
}

/// Without TLS, a process at the address of an absent member can impersonate it. Its claims must not disable the cluster.
#[tokio::test]
async fn a_bogus_accepted_epoch_does_not_disable_the_cluster() {
    let mut cluster = Cluster::start(3, 0, |_| {});
    cluster.leader().await;
    cluster.nodes[2].take().expect("it runs").stop();
    for claimed in [u32::MAX - 1, u32::MAX, 1 << 31, 3_000_000] {
        for index in 0..2 {
            let address = cluster.nodes[index].as_ref().expect("it runs").address();
            let mut foreign = foreign::Caller::dial(address);
            foreign.send_hello(3, index as u64 + 1);
            // The previous connection may still count as live.
            let claims = tokio::task::spawn_blocking(move || {
                if foreign.has_reply() {
                    foreign.send_cepoch(claimed);
                    foreign.count_received();
                }
            });
            let _ = tokio::time::timeout(Duration::from_secs(2), claims).await;
        }
        append(&cluster.client(0), "list", &claimed.to_string()).await;
    }
    assert!(epoch(&cluster.client(0)) < 1000, "{:?}", cluster.client(0).status());
    cluster.restart(2);
    append(&cluster.client(2), "list", "back").await;
    assert_eq!(read(&cluster.client(1), "list").await.lines().count(), 5);
}

#[test]
fn addresses_that_others_reach_need_tls_or_a_trusted_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let member = |address: &str| Member { address: address.parse().expect("an address"), votes: true };
    let members = BTreeMap::from([(ServerId(1), member("127.0.0.1:0")), (ServerId(2), member("192.0.2.7:7101"))]);
    let mut settings = Settings::new("test", ServerId(1), members, folder.path().to_owned());
    settings.create = true;
    let start = register::start;
    let refused = start(&settings).err().expect("it does not start");
    assert!(refused.to_string().contains("server 2 is at 192.0.2.7:7101, which other machines can reach"), "{refused}");
    settings.is_network_trusted = true;
    start(&settings).expect("it starts").0.stop();
}

#[tokio::test]
async fn a_connection_from_another_address_is_not_accepted_as_a_member() {
    let folder = tempfile::tempdir().expect("a folder");
    let member = |address: &str| Member { address: address.parse().expect("an address"), votes: true };
    let members = BTreeMap::from([(ServerId(1), member("127.0.0.1:0")), (ServerId(2), member("192.0.2.7:7101"))]);
    let mut settings = Settings::new("test", ServerId(1), members, folder.path().to_owned());
    (settings.create, settings.is_network_trusted) = (true, true);
    let node = start(&settings);
    let mut foreign = foreign::Caller::dial(node.address());
    foreign.send_hello(2, 1);
    let refusal = tokio::task::spawn_blocking(move || foreign.refusal()).await.expect("no panic");
    assert!(refusal.is_some_and(|reason| reason.contains("has another address")));
}
