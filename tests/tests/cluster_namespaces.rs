//! Instances in network namespaces, with certificates and real cables between them. Needs root, `ip` and `tc`; clocks of the day are set by
//! libfaketime. `CROSSDOCK_ROUNDS` makes it long.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossdock_tests::cluster::{
    Clients, Disk, Fault, Instance, Namespaces, Rounds, Ways as _, leader, wait_until_all_follow,
};
use crossdock_tests::{until, write_member_certificates};

const PEERS: u16 = 7101;
const CLIENTS: u16 = 7201;

/// As many instances, each in its namespace, with its data in a folder.
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

fn rounds(of: usize) -> usize {
    std::env::var("CROSSDOCK_ROUNDS").map_or(of, |text| text.parse().expect("a number"))
}

/// Where libfaketime is.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("libraries").flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    found.expect("libfaketime: install the Debian package")
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
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::make(3));
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
            // The clock that only goes on does so.
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        instance.start();
        let process = instance.child.as_ref().expect("it runs").id();
        let has_library =
            || std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default().contains("faketime");
        until("the library to be there", has_library);
    }
    let mut all = Rounds { instances: &mut instances, ways: &network, set_clock: Some(&set_clock) };
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
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::make(5));
    network.enter();
    let mut instances = instances_in(folder.path(), &network, 5);
    instances.iter_mut().for_each(Instance::start);
    Rounds { instances: &mut instances, ways: &network, set_clock: None }.run(&faults, rounds(faults.len())).print();
}

/// Longer than an instance waits for a sign of life, and than a connection lives without one.
const STALL: Duration = Duration::from_secs(4);

#[test]
#[ignore = "needs network namespaces and disks of its own"]
fn namespaces_a_disk_that_stalls_holds_up_nobody() {
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::make(3));
    network.enter();
    let disks: Vec<Disk> = (1..=3).map(|id| Disk::mount(folder.path().join(id.to_string()), 128 << 20)).collect();
    let mut instances = instances_in(folder.path(), &network, 3);
    for instance in &mut instances {
        // Beside `lost+found`.
        let data = instance.data.join("log");
        let (old, new) = (instance.data.display().to_string(), data.display().to_string());
        instance.command.iter_mut().filter(|argument| **argument == old).for_each(|argument| argument.clone_from(&new));
        instance.data = data;
        instance.start();
    }
    wait_until_all_follow(&instances);
    let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.clients).collect();
    let clients = Clients::start(&addresses);
    until("some writes", || clients.writes() >= 150);
    let leads = leader(&instances);
    for index in [leads, (leads + 1) % 3] {
        disks[index].freeze();
        let begun = Instant::now();
        until("the disk to have stood still for long", || begun.elapsed() > STALL);
        let (pause, ended) = (clients.longest_pause(begun, Instant::now()), Instant::now());
        assert_eq!(leader(&instances), leads, "signs of life do not wait for a disk");
        disks[index].thaw();
        let who = if index == leads { "leader" } else { "follower" };
        println!("the disk of the {who} stood still for {:.1?}: no write for at most {pause:.1?}", ended - begun);
        assert!(pause < Duration::from_secs(1), "{pause:?}");
        wait_until_all_follow(&instances);
        let since = Instant::now();
        until("writes to go on", || clients.recovered(since).is_some());
    }
    let judged = clients.judge();
    println!("{} writes acknowledged, lost 0", judged.acknowledged);
    instances.iter_mut().for_each(Instance::kill);
}

/// One after another, instances are ended as an operator ends them, and come back as a release that speaks a later version.
#[test]
#[ignore = "needs network namespaces"]
fn namespaces_instances_are_brought_to_a_later_version_one_by_one() {
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Namespaces::make(3));
    network.enter();
    network.heal();
    let mut instances = instances_in(folder.path(), &network, 3);
    instances.iter_mut().for_each(Instance::start);
    wait_until_all_follow(&instances);
    let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.clients).collect();
    let clients = Clients::start(&addresses);
    until("some writes", || clients.writes() >= 150);
    let begun = Instant::now();
    // Followers first, the leader last; then all once more, to what does not speak the first version any more.
    for versions in ["versions=1-2", "versions=2-2"] {
        let leads = leader(&instances);
        for index in [(leads + 1) % 3, (leads + 2) % 3, leads] {
            instances[index].end();
            instances[index].command.retain(|argument| !argument.starts_with("versions="));
            instances[index].command.push(versions.to_owned());
            instances[index].start();
            wait_until_all_follow(&instances);
            let since = Instant::now();
            until("writes to go on", || clients.recovered(since).is_some());
        }
    }
    let pause = clients.longest_pause(begun, Instant::now());
    // One that speaks the first version only is left alone, and does not hurt.
    instances[0].end();
    let last = instances[0].command.len() - 1;
    instances[0].command[last] = "versions=1-1".to_owned();
    instances[0].start();
    let since = Instant::now();
    until("the others to lead", || {
        ["leading", "following"].iter().all(|role| instances[1..].iter().any(|instance| instance.role() == *role))
    });
    until("writes to go on", || clients.recovered(since).is_some());
    until("it to run, and to look", || instances[0].role() == "looking");
    instances[0].end();
    instances[0].command[last] = "versions=2-2".to_owned();
    instances[0].start();
    wait_until_all_follow(&instances);
    let judged = clients.judge();
    println!("six restarts: {} writes acknowledged, lost 0, no write for at most {pause:.1?}", judged.acknowledged);
}
