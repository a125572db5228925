//! Instances in network namespaces of their own, with a real network between them that can be cut.
//!
//! Each namespace has one end of a virtual cable; the other ends are in one bridge. A way is cut by a neighbour entry with an address that nobody has:
//! what is sent leaves and arrives nowhere, as on a cable that is broken in one direction, and nobody is told. Needs root.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Fault, Ways};

/// An address of no card.
const NOBODY: &str = "02:cd:00:00:00:ff";
/// Bits a second of a way that crawls.
const SLOW: &str = "2mbit";

/// Namespaces for so many instances, and one for their clients. They are gone when this is dropped.
pub struct Namespaces {
    /// What the names begin with.
    prefix: String,
    count: usize,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {told}");
}

impl Namespaces {
    /// Makes them.
    ///
    /// # Panics
    /// Where that is not allowed.
    #[must_use]
    pub fn make(count: usize) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let this = Self { prefix: format!("crossdock-{}-{number}-", std::process::id()), count };
        let hub = this.hub();
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add bridge type bridge"));
        ip(&format!("-n {hub} link set bridge up"));
        for place in 0..=count {
            let name = this.name(place);
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link add cable type veth peer name to-{place} netns {hub}"));
            ip(&format!("-n {name} link set cable address {}", card(place)));
            ip(&format!("-n {name} addr add {}/24 dev cable", this.address(place)));
            ip(&format!("-n {name} link set cable up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {hub} link set to-{place} master bridge"));
            ip(&format!("-n {hub} link set to-{place} up"));
        }
        this
    }

    fn hub(&self) -> String {
        format!("{}hub", self.prefix)
    }

    fn name(&self, place: usize) -> String {
        format!("{}{place}", self.prefix)
    }

    /// The address of an instance.
    #[must_use]
    pub fn address(&self, instance: usize) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(instance + 1).unwrap_or(u8::MAX)).into()
    }

    /// A program and its arguments, in an instance's namespace.
    #[must_use]
    pub fn command(&self, instance: usize, command: &[String]) -> Vec<String> {
        let exec = ["ip".to_owned(), "netns".to_owned(), "exec".to_owned(), self.name(instance)];
        exec.iter().chain(command).cloned().collect()
    }

    /// Moves this thread, and those that it begins, to where clients are.
    ///
    /// # Panics
    /// When that is not allowed.
    pub fn enter(&self) {
        let path = format!("/run/netns/{}", self.name(self.count));
        let file = File::open(path).expect("a namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
    }

    /// What one sends arrives nowhere at the other.
    fn cut(&self, from: usize, to: usize) {
        let (name, address) = (self.name(from), self.address(to));
        ip(&format!("-n {name} neigh replace {address} lladdr {NOBODY} nud permanent dev cable"));
    }

    fn cut_both(&self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }
}

/// The address of an instance's card.
fn card(place: usize) -> String {
    format!("02:cd:00:00:00:{place:02x}")
}

impl Ways for Namespaces {
    fn set(&self, leader: usize, fault: Fault) {
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
                let rate = format!("qdisc replace dev cable root tbf rate {SLOW} burst 10k limit 500k");
                tc(&self.name(leader), &rate);
            }
            _ => {}
        }
    }

    fn heal(&self) {
        for from in 0..self.count {
            let name = self.name(from);
            for to in (0..self.count).filter(|to| *to != from) {
                let (address, card) = (self.address(to), card(to));
                ip(&format!("-n {name} neigh replace {address} lladdr {card} nud reachable dev cable"));
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
        for name in (0..=self.count).map(|place| self.name(place)).chain([self.hub()]) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
