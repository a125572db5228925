//! Instances in network namespaces that use TLS. Needs root, `ip` and `tc`; libfaketime sets the wall clocks. `CROSSDOCK_ROUNDS` configures
//! longer runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossdock_tests::cluster::{
    Clients, Disk, Fault, Instance, LineClient, Links as _, Namespaces, Rounds, leader, wait_until_all_follow,
};
use crossdock_tests::{until, until_within, write_member_certificates};

const PEERS: u16 = 7101;
const CLIENTS: u16 = 7201;

/// Creates instances, each in its own namespace, with their data in a folder.
fn instances_in(folder: &Path, network: &Namespaces, count: usize) -> Vec<Instance> {
    write_member_certificates(folder, "register", count);
    let address = |index: usize, port: u16| SocketAddr::new(network.address(index), port);
    let members: Vec<String> = (0..count).map(|index| format!("{}={}", index + 1, address(index, PEERS))).collect();
    let one = |index: usize| {
        let (clients, data) = (address(index, CLIENTS), folder.join((index + 1).to_string()));
        let program = env!("CARGO_BIN_EXE_register-node").to_owned();
        let (data_folder, tls) = (data.display().to_string(), format!("tls={}", folder.display()));
        let command = [program, (index + 1).to_string(), data_folder, clients.to_string(), members.join(","), tls];
        let command = network.command(index, &command);
        Instance { command, environment: Vec::new(), data, clients, child: None }
    };
    (0..count).map(one).collect()
}

fn rounds(default: usize) -> usize {
    std::env::var("CROSSDOCK_ROUNDS").map_or(default, |text| text.parse().expect("a number"))
}

/// The path of libfaketime.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("libraries").flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    found.expect("libfaketime is missing: install the Debian package libfaketime")
}

#[test]
#[ignore = "needs network namespaces and libfaketime"]
fn namespaces_three_instances_lose_nothing() {
    let faults = [
        Fault::KillLeader,
        Fault::CutLeader,
        Fault::MuteLeader,
        Fault::DeafLeader,
        Fault::CutPair,
        Fault::SlowLeader,
        Fault::FreezeLeader,
        Fault::ClockJump,
        Fault::KillAll,
    ];
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::create(3));
    network.enter();
    let mut instances = instances_in(folder.path(), &network, 3);
    let clock = |index: usize| folder.path().join(format!("clock-{}", index + 1));
    let set_clock = |index: usize, seconds: i64| std::fs::write(clock(index), format!("{seconds:+}")).expect("a file");
    for (index, instance) in instances.iter_mut().enumerate() {
        set_clock(index, 0);
        instance.environment = [
            ("LD_PRELOAD", faketime().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock(index).display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // The monotonic clock stays real.
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        instance.start();
        let process = instance.child.as_ref().expect("it runs").id();
        let has_library =
            || std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default().contains("faketime");
        until("libfaketime to be loaded", has_library);
    }
    let mut all =
        Rounds { instances: &mut instances, links: &network, set_clock: Some(&set_clock), calm: Duration::ZERO };
    all.run(&faults, rounds(faults.len())).print();
}

#[test]
#[ignore = "needs network namespaces"]
fn namespaces_five_instances_lose_nothing() {
    let faults = [
        Fault::CutMinority,
        Fault::KillTwo,
        Fault::MuteLeader,
        Fault::CutPair,
        Fault::FreezeLeader,
        Fault::KillFollower,
        Fault::LoseLog,
        Fault::KillAll,
    ];
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::create(5));
    network.enter();
    let mut instances = instances_in(folder.path(), &network, 5);
    instances.iter_mut().for_each(Instance::start);
    Rounds { instances: &mut instances, links: &network, set_clock: None, calm: Duration::ZERO }
        .run(&faults, rounds(faults.len()))
        .print();
}

/// Starts three instances, each on a disk of its own with this many bytes.
fn start_on_disks(folder: &Path, network: &Namespaces, bytes: u64) -> (Vec<Disk>, Vec<Instance>) {
    let disks: Vec<Disk> = (1..=3).map(|id| Disk::mount(folder.join(id.to_string()), bytes)).collect();
    let mut instances = instances_in(folder, network, 3);
    for instance in &mut instances {
        // A subfolder, as the root of the file system contains `lost+found`.
        let data = instance.data.join("log");
        let (old, new) = (instance.data.display().to_string(), data.display().to_string());
        instance.command.iter_mut().filter(|argument| **argument == old).for_each(|argument| argument.clone_from(&new));
        instance.data = data;
        instance.start();
    }
    (disks, instances)
}

/// Longer than the heartbeat timeout and the idle timeout of a connection.
const STALL: Duration = Duration::from_secs(4);

#[test]
#[ignore = "needs network namespaces and private disks"]
fn namespaces_a_stalled_disk_does_not_block_writes() {
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::create(3));
    network.enter();
    let (disks, mut instances) = start_on_disks(folder.path(), &network, 128 << 20);
    wait_until_all_follow(&instances);
    let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.clients).collect();
    let clients = Clients::start(&addresses);
    until("some writes", || clients.writes() >= 150);
    let leader_index = leader(&instances);
    for index in [leader_index, (leader_index + 1) % 3] {
        disks[index].freeze();
        let begun = Instant::now();
        until("the disk to be stalled for long enough", || begun.elapsed() > STALL);
        let (pause, ended) = (clients.longest_pause(begun, Instant::now()), Instant::now());
        assert_eq!(leader(&instances), leader_index, "heartbeats do not wait for the disk");
        disks[index].thaw();
        let role = if index == leader_index { "leader" } else { "follower" };
        println!("the disk of the {role} was stalled for {:.1?}: no write for at most {pause:.1?}", ended - begun);
        assert!(pause < Duration::from_secs(1), "{pause:?}");
        wait_until_all_follow(&instances);
        let since = Instant::now();
        until("writes to continue", || clients.recovery_time(since).is_some());
    }
    let summary = clients.stop_and_verify();
    println!("{} writes acknowledged, lost 0", summary.acknowledged);
    instances.iter_mut().for_each(Instance::kill);
}

/// Stops the clients on drop.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that keep all instances busy, and few for a run beside other tests.
const BUSY_CLIENTS: usize = 48;
const FEW_CLIENTS: usize = 3;
/// The time before the first stall of a disk, the interval between them in a long run, and their length.
const FIRST_STALL: Duration = Duration::from_secs(2);
const STALL_INTERVAL: Duration = Duration::from_secs(20);
const SHORT_STALL: Duration = Duration::from_millis(1500);

#[test]
#[ignore = "needs network namespaces and private disks"]
fn namespaces_no_leader_is_deposed_under_full_load() {
    // One stall, unless a long run is asked for.
    let minutes = std::env::var("CROSSDOCK_MINUTES").map_or(0, |text| text.parse().expect("a number"));
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::create(3));
    network.enter();
    let (disks, mut instances) = start_on_disks(folder.path(), &network, 512 << 20);
    wait_until_all_follow(&instances);
    let first = leader(&instances);
    let describe = || {
        let mut role = None;
        until("it to say its role", || {
            let text = LineClient::open(instances[first].clients).and_then(|mut line| line.request("0 describe").ok());
            role = text.and_then(|text| text.split(' ').nth(1).map(ToOwned::to_owned));
            role.is_some()
        });
        role.unwrap_or_default()
    };
    let role = describe();
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Also if this panics: the scope waits for the clients.
        let _end = Stop(&stop);
        for client in 0..if minutes > 0 { BUSY_CLIENTS } else { FEW_CLIENTS } {
            let (address, stop, writes) = (instances[client % 3].clients, &stop, &writes);
            scope.spawn(move || {
                let mut line = None;
                let request = format!("0 set key-{client} {}", "x".repeat(200));
                while !stop.load(Ordering::Relaxed) {
                    // Its requests time out soon on a busy machine.
                    let Some(open) = line.get_or_insert_with(|| LineClient::open(address)) else {
                        line = None;
                        std::thread::park_timeout(Duration::from_millis(5));
                        continue;
                    };
                    match open.request(&request) {
                        Ok(answer) => drop(writes.fetch_add(u64::from(answer == "0 done"), Ordering::Relaxed)),
                        Err(_) => line = None,
                    }
                }
            });
        }
        let begun = Instant::now();
        let mut stalls = 0;
        while stalls == 0 || begun.elapsed() < Duration::from_secs(60 * minutes) {
            let since = Instant::now();
            let interval = if stalls == 0 { FIRST_STALL } else { STALL_INTERVAL };
            until_within(2 * STALL_INTERVAL, "the next stall to be due", || since.elapsed() >= interval);
            disks[stalls % disks.len()].freeze();
            until_within(2 * STALL_INTERVAL, "the stall to end", || since.elapsed() >= interval + SHORT_STALL);
            disks[stalls % disks.len()].thaw();
            stalls += 1;
            let now = describe();
            assert_eq!(now, role, "after {:.0?}", begun.elapsed());
        }
        println!(
            "{} writes, {stalls} stalls of a disk in {:.0?}: {role}",
            writes.load(Ordering::Relaxed),
            begun.elapsed()
        );
    });
    instances.iter_mut().for_each(Instance::kill);
}

/// Instances are shut down one after another and restarted as a release with a later protocol version.
#[test]
#[ignore = "needs network namespaces"]
fn namespaces_a_rolling_upgrade_loses_no_write() {
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::create(3));
    network.enter();
    network.heal();
    let mut instances = instances_in(folder.path(), &network, 3);
    instances.iter_mut().for_each(Instance::start);
    wait_until_all_follow(&instances);
    let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.clients).collect();
    let clients = Clients::start(&addresses);
    until("some writes", || clients.writes() >= 150);
    let begun = Instant::now();
    // Followers first, the leader last; then all again, with a release that no longer supports the first version.
    for versions in ["versions=1-2", "versions=2-2"] {
        let leader_index = leader(&instances);
        for index in [(leader_index + 1) % 3, (leader_index + 2) % 3, leader_index] {
            instances[index].shut_down();
            instances[index].command.retain(|argument| !argument.starts_with("versions="));
            instances[index].command.push(versions.to_owned());
            instances[index].start();
            wait_until_all_follow(&instances);
            let since = Instant::now();
            until("writes to continue", || clients.recovery_time(since).is_some());
        }
    }
    let pause = clients.longest_pause(begun, Instant::now());
    // An instance that supports only the first version cannot join, and does not affect the others.
    instances[0].shut_down();
    let last = instances[0].command.len() - 1;
    instances[0].command[last] = "versions=1-1".to_owned();
    instances[0].start();
    let since = Instant::now();
    until("the others to elect a leader", || {
        ["leading", "following"].iter().all(|role| instances[1..].iter().any(|instance| instance.role() == *role))
    });
    until("writes to continue", || clients.recovery_time(since).is_some());
    until("the old instance to keep looking", || instances[0].role() == "looking");
    instances[0].shut_down();
    instances[0].command[last] = "versions=2-2".to_owned();
    instances[0].start();
    wait_until_all_follow(&instances);
    let summary = clients.stop_and_verify();
    println!("six restarts: {} writes acknowledged, lost 0, no write for at most {pause:.1?}", summary.acknowledged);
}
