//! Gateways that keep their locks in an engine, under pauses and failures of servers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossdock_engines::Kind;
use crossdock_tests::{Counter, EngineServers, Gateway, call, routes, until};

/// The time to live of sessions, in seconds, and the least one of Consul.
const SESSION_S: u64 = 2;
const CONSUL_SESSION_S: u64 = 10;
const CALLERS: usize = 4;

fn rounds() -> usize {
    std::env::var("CROSSDOCK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// How long calls may stall after a fault: the locks of a frozen gateway are free after its session, with Consul after twice its time and the delay.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Lets callers stop, also if the test fails.
struct Stopping<'s>(&'s AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Two gateways that count with a service which can only be read and written, and checks tokens. One of them is frozen for longer than its session
/// lives, and each server of the engine is killed, in turn. Every write that took effect is the next number.
fn count_under_faults(kind: Kind, session_s: u64) {
    let mut servers = EngineServers::start(kind);
    let counter = Counter::start(true);
    counter.slow_down(2);
    let text = routes("locks", &[("COUNTER", &counter.address)]);
    // What an engine does not offer is refused; see `the_settings_are_checked`.
    let text = if kind.row().permits { text } else { text.replace("permits: 2, ", "") };
    let (listener, settings) = ("public: { http: { bind: \"127.0.0.1:0\" } }", servers.settings(session_s));
    let gateways = [(); 2].map(|()| Gateway::start_with_settings(listener, &settings, &text));
    let lock = |gateway: &Gateway| call(&gateway.public(), "POST", "/busy", "").status;
    until("a lock to be granted", || gateways.iter().all(|gateway| lock(gateway) == 204));
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut longest = Duration::ZERO;
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (gateway, stop, answered) = (&gateways[caller % 2], &stop, &answered);
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    if call(&gateway.public(), "POST", "/locked", "").status == 200 {
                        answered.fetch_add(1, Ordering::AcqRel);
                    }
                }
            });
        }
        let stopping = Stopping(&stop);
        let progress = || {
            let (before, begun) = (answered.load(Ordering::Acquire), Instant::now());
            while answered.load(Ordering::Acquire) <= before + 5 {
                assert!(begun.elapsed() < STALL_MAX, "calls are not answered");
                std::thread::park_timeout(Duration::from_millis(10));
            }
            begun.elapsed()
        };
        for round in 0..rounds() {
            progress();
            let frozen = &gateways[round % 2];
            frozen.signal("STOP");
            std::thread::park_timeout(Duration::from_millis(session_s * 1_000 + 1_500));
            // The other one counts.
            longest = longest.max(progress());
            frozen.signal("CONT");
            for server in 0..servers.count() {
                servers.crash(server, 0.2);
                longest = longest.max(progress());
            }
        }
        drop(stopping);
    });
    let (value, rejected) = counter.state();
    let written = counter.written();
    assert!(written.iter().map(|(_, value)| *value).eq(1..=value), "updates were lost");
    assert!(written.is_sorted_by_key(|(token, _)| *token), "tokens fell");
    let answered = answered.load(Ordering::Acquire);
    assert!(answered <= value, "{answered} calls were answered, {value} counted");
    println!(
        "{}: {value} updates, {answered} of them answered, {rejected} rejected for their tokens, none lost; stalls of at most {longest:.1?} after a fault",
        kind.row().name
    );
}

#[test]
#[ignore = "needs ZooKeeper; tests/run installs it"]
fn external_engines_lose_no_update_zookeeper() {
    count_under_faults(Kind::Zookeeper, SESSION_S);
}

#[test]
#[ignore = "needs etcd; tests/run installs it"]
fn external_engines_lose_no_update_etcd() {
    count_under_faults(Kind::Etcd, SESSION_S);
}

#[test]
#[ignore = "needs Redis; tests/run installs it"]
fn external_engines_lose_no_update_redis() {
    count_under_faults(Kind::Redis, SESSION_S);
}

#[test]
#[ignore = "needs Consul, which takes minutes to compile: `tests/services/services install consul`"]
fn consul_loses_no_update() {
    count_under_faults(Kind::Consul, CONSUL_SESSION_S);
}
