//! Instances as processes of this machine, killed, frozen and cut off while clients write and read: nothing that was acknowledged is lost, and one
//! order explains all that was seen. `CROSSDOCK_ROUNDS` makes it long.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crossdock_tests::cluster::{Fault, Instance, Line, Proxies, Rounds, leader};
use crossdock_tests::{free_address, until};

const INSTANCES: usize = 3;

/// Instances with their data in a folder, and what is between them.
fn instances_in(folder: &Path) -> (Vec<Instance>, Proxies) {
    let real: Vec<SocketAddr> = (0..INSTANCES).map(|_| free_address()).collect();
    let proxies = Proxies::start(&real);
    let instances = (0..INSTANCES).map(|index| {
        let seen = |of: usize| format!("{}={}", of + 1, proxies.address(of, index, real[of]));
        let members: Vec<String> = (0..INSTANCES).map(seen).collect();
        let (clients, data) = (free_address(), folder.join((index + 1).to_string()));
        let program = env!("CARGO_BIN_EXE_register-node").to_owned();
        let folder = data.display().to_string();
        let command = vec![program, (index + 1).to_string(), folder, clients.to_string(), members.join(",")];
        Instance { command, environment: Vec::new(), data, clients, child: None }
    });
    (instances.collect(), proxies)
}

/// Appends items to the current leader, which may change on a busy machine, until `count` are acknowledged; returns them.
fn append_some(instances: &[Instance], list: &str, count: usize, size: usize) -> Vec<String> {
    let mut line = None;
    let mut done = Vec::new();
    until("some writes", || {
        while done.len() < count {
            let Some(open) = line.get_or_insert_with(|| Line::open(instances[leader(instances)].clients)) else {
                line = None;
                return false;
            };
            let item = format!("{list}-{}-{}", done.len(), "x".repeat(size));
            match open.ask(&format!("0 append {list} {item}")) {
                Ok(answer) if answer == "0 done" => done.push(item),
                _ => {
                    line = None;
                    return false;
                }
            }
        }
        true
    });
    done
}

#[test]
fn an_instance_whose_log_is_damaged_stops_says_where_and_gets_all_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut instances, _proxies) = instances_in(folder.path());
    instances.iter_mut().for_each(Instance::start);
    let leads = leader(&instances);
    append_some(&instances, "before", 20, 200);
    let follower = (leads + 1) % INSTANCES;
    until("the follower to follow", || instances[follower].role() == "following");
    instances[follower].kill();
    let log = instances[follower].data.join("log-0000000000000001");
    let mut bytes = std::fs::read(&log).expect("a log");
    bytes[5000] ^= 1;
    std::fs::write(&log, bytes).expect("a log");
    let (program, arguments) = instances[follower].command.split_first().expect("a command");
    let output = Command::new(program).args(arguments).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("Damaged") && told.contains("log-0000000000000001"), "{told}");
    // The others go on.
    append_some(&instances, "after", 20, 200);
    // Without what is left of its log it follows at first without a vote.
    instances[follower].lose_log();
    instances[follower].start();
    until("it to vote again", || instances[follower].role() == "following");
    // Of the two that have all, one is enough then.
    let leads = leader(&instances);
    let other = (0..INSTANCES).find(|index| *index != leads && *index != follower).expect("a third");
    instances[other].kill();
    append_some(&instances, "last", 20, 200);
    let read = Line::open(instances[follower].clients).and_then(|mut line| line.ask("1 read before").ok());
    assert_eq!(read.map(|answer| answer.matches("before-").count()), Some(20));
}

#[test]
fn an_instance_whose_disk_is_full_ends_its_part_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut instances, _proxies) = instances_in(folder.path());
    for instance in &mut instances {
        // What cannot be written is an error then, not the end of the process.
        let mut command = Command::new("bash");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).args(&instance.command);
        instance.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    }
    let leads = leader(&instances);
    let full = (leads + 1) % INSTANCES;
    append_some(&instances, "list", 10, 200);
    until("it to follow", || instances[full].role() == "following");
    // From here on it can make no segment.
    let process = instances[full].child.as_ref().expect("it runs").id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &process, "--fsize=100000"]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit");
    append_some(&instances, "list", 150, 20_000);
    until("it to end its part", || instances[full].role() == "looking");
    append_some(&instances, "list", 20, 200);
    assert_eq!(
        instances[full].role(),
        "looking",
        "what is durable there is not known: it does not come back by itself"
    );
    // With room again, and started anew, it does.
    instances[full].kill();
    instances[full].start();
    until("it to follow again", || instances[full].role() == "following");
}

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed_frozen_or_cut_off() {
    let faults = [
        Fault::KillLeader,
        Fault::FreezeLeader,
        Fault::KillFollower,
        Fault::CutLeader,
        Fault::MuteLeader,
        Fault::DeafLeader,
        Fault::CutPair,
        Fault::LoseLog,
        Fault::KillAll,
    ];
    let rounds = std::env::var("CROSSDOCK_ROUNDS").map_or(faults.len(), |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let (mut instances, proxies) = instances_in(folder.path());
    instances.iter_mut().for_each(Instance::start);
    Rounds { instances: &mut instances, ways: &proxies, set_clock: None }.run(&faults, rounds).print();
}
