//! Network namespaces for instances, connected by a network that can be partitioned.
//!
//! Each namespace has one end of a veth pair; the other ends are attached to one bridge. A link is cut in one direction by a neighbour entry
//! with an unused MAC address: packets leave and are silently lost. Needs root.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Fault, Links};

/// A MAC address that no interface has.
const UNUSED_MAC: &str = "02:cd:00:00:00:ff";
/// The rate of a slow link.
const SLOW_RATE: &str = "2mbit";

/// Namespaces for instances and one for their clients, deleted on drop.
pub struct Namespaces {
    /// The prefix of the namespaces' names.
    prefix: String,
    count: usize,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Namespaces {
    /// Creates namespaces for `count` instances.
    ///
    /// # Panics
    /// If that is not permitted.
    #[must_use]
    pub fn create(count: usize) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let this = Self { prefix: format!("crossdock-{}-{number}-", std::process::id()), count };
        let hub = this.hub();
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add bridge type bridge"));
        ip(&format!("-n {hub} link set bridge up"));
        for index in 0..=count {
            let name = this.name(index);
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link add cable type veth peer name to-{index} netns {hub}"));
            ip(&format!("-n {name} link set cable address {}", mac_address(index)));
            ip(&format!("-n {name} addr add {}/24 dev cable", this.address(index)));
            ip(&format!("-n {name} link set cable up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {hub} link set to-{index} master bridge"));
            ip(&format!("-n {hub} link set to-{index} up"));
        }
        this
    }

    fn hub(&self) -> String {
        format!("{}hub", self.prefix)
    }

    fn name(&self, index: usize) -> String {
        format!("{}{index}", self.prefix)
    }

    /// The IP address of an instance.
    #[must_use]
    pub fn address(&self, instance: usize) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(instance + 1).unwrap_or(u8::MAX)).into()
    }

    /// The command that runs `command` in an instance's namespace.
    #[must_use]
    pub fn command(&self, instance: usize, command: &[String]) -> Vec<String> {
        let exec = ["ip".to_owned(), "netns".to_owned(), "exec".to_owned(), self.name(instance)];
        exec.iter().chain(command).cloned().collect()
    }

    /// Moves this thread, and threads it spawns later, to the clients' namespace.
    ///
    /// # Panics
    /// If that is not permitted.
    pub fn enter(&self) {
        let path = format!("/run/netns/{}", self.name(self.count));
        let file = File::open(path).expect("a namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
    }

    /// Drops packets sent by `from` to `to`.
    fn cut(&self, from: usize, to: usize) {
        let (name, address) = (self.name(from), self.address(to));
        ip(&format!("-n {name} neigh replace {address} lladdr {UNUSED_MAC} nud permanent dev cable"));
    }

    fn cut_both(&self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }
}

/// The MAC address of an instance's interface.
fn mac_address(index: usize) -> String {
    format!("02:cd:00:00:00:{index:02x}")
}

impl Links for Namespaces {
    fn inject(&self, leader: usize, fault: Fault) {
        let others = (0..self.count).filter(|other| *other != leader);
        let near = (leader + 1) % self.count;
        match fault {
            Fault::CutLeader => others.for_each(|other| self.cut_both(leader, other)),
            Fault::MuteLeader => others.for_each(|other| self.cut(leader, other)),
            Fault::DeafLeader => others.for_each(|other| self.cut(other, leader)),
            Fault::CutPair => self.cut_both(leader, near),
            Fault::CutMinority => others.filter(|other| *other != near).for_each(|other| {
                self.cut_both(leader, other);
                self.cut_both(near, other);
            }),
            Fault::SlowLeader => {
                let rate = format!("qdisc replace dev cable root tbf rate {SLOW_RATE} burst 10k limit 500k");
                tc(&self.name(leader), &rate);
            }
            _ => {}
        }
    }

    fn heal(&self) {
        for from in 0..self.count {
            let name = self.name(from);
            for to in (0..self.count).filter(|to| *to != from) {
                let (address, mac) = (self.address(to), mac_address(to));
                ip(&format!("-n {name} neigh replace {address} lladdr {mac} nud reachable dev cable"));
            }
            let _ = Command::new("tc").args(["-n", &name, "qdisc", "del", "dev", "cable", "root"]).output();
        }
    }
}

fn tc(namespace: &str, arguments: &str) {
    let output = Command::new("tc").args(["-n", namespace]).args(arguments.split_whitespace()).output().expect("tc");
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in (0..=self.count).map(|index| self.name(index)).chain([self.hub()]) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
