//! Three gateways under continuous load, while they are killed, frozen, cut off, restarted together, and removed from the voters. `CROSSDOCK_ROUNDS`
//! configures longer runs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossdock_client::{Client, LockOptions, Options};
use crossdock_tests::cluster::{Fault, Links as _, Proxies};
use crossdock_tests::mutex_history::{Hold, check};
use crossdock_tests::{Counter, Gateway, Ledger, LinkedAddresses, crossdock, routes, until_within};
use serde_json::{Value, json};

/// The locks that clients share, each with a service that checks their tokens.
const LOCKS: usize = 2;
/// Clients that share the locks, and accounts whose messages are ordered.
const WORKERS: usize = 6;
const ACCOUNTS: usize = 6;

/// A response over HTTP; `None` if there was none.
fn exchange(address: SocketAddr, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(12))).ok()?;
    let head = format!("{head}host: a\r\nconnection: close\r\ncontent-type: application/json\r\n");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()?;
    let (mut reply, mut buffer) = (Vec::new(), [0; 4096]);
    // The service of the counter keeps its connections open.
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        reply.extend_from_slice(&buffer[..len]);
        if is_complete(&reply) {
            break;
        }
    }
    let reply = String::from_utf8(reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn is_complete(reply: &[u8]) -> bool {
    let text = String::from_utf8_lossy(reply);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let len = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    len.is_some_and(|len: usize| body.len() >= len)
}

/// What callers know of the numbers that they sent for an account.
#[derive(Debug, Default)]
struct Sent {
    accepted: Vec<u64>,
    /// They may have been accepted.
    unknown: Vec<u64>,
}

struct Load<'t> {
    addresses: &'t [LinkedAddresses],
    token: &'t str,
    counters: &'t [Counter],
    is_over: AtomicBool,
    sent: Mutex<BTreeMap<String, Sent>>,
    holds: Mutex<Vec<(usize, Hold)>>,
    /// Writes of each counter that took effect.
    counted: [AtomicU64; LOCKS],
}

impl Load<'_> {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Sends numbers of an account one after another. With an id, each is sent again until it is accepted.
    fn tell(&self, account: usize) {
        let is_repeated = account.is_multiple_of(2);
        let key = if is_repeated { format!("once {account}") } else { format!("some {account}") };
        let target = if is_repeated { "tell-once" } else { "tell" };
        let mut at = account;
        for number in 1.. {
            let body = format!("{{\"key\":\"{key}\",\"n\":{number},\"id\":\"{key}/{number}\"}}");
            let head = format!("POST /{target} HTTP/1.1\r\ncrossdock-timeout: 3s\r\n");
            loop {
                if self.is_over() {
                    return;
                }
                at += 1;
                let reply = exchange(self.addresses[at % self.addresses.len()].public, &head, &body);
                let mut sent = self.sent.lock().expect("no panic");
                let of = sent.entry(key.clone()).or_default();
                match reply {
                    Some((202, _)) => of.accepted.push(number),
                    // Certainly not.
                    Some((_, reply)) if reply.contains("NO_QUORUM") && !is_repeated => {}
                    _ if is_repeated => {
                        drop(sent);
                        std::thread::park_timeout(Duration::from_millis(50));
                        continue;
                    }
                    _ => of.unknown.push(number),
                }
                break;
            }
        }
    }

    /// Counts under locks, in one session after another.
    async fn count(&self, worker: usize) {
        let addresses: Vec<String> = self.addresses.iter().map(|of| format!("http://{}", of.api)).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let options = Options { token: Some(self.token.to_owned()), ..Options::default() };
        let client = Client::new(&addresses, &options).expect("a client");
        let wait = LockOptions { wait: Duration::from_secs(5), ..LockOptions::default() };
        while !self.is_over() {
            let Ok(session) = client.open_session(Duration::from_secs(2), &worker.to_string()).await else { continue };
            for round in 0.. {
                if self.is_over() || !session.is_alive() {
                    break;
                }
                let lock = (worker + round) % LOCKS;
                let asked = Instant::now();
                let Ok(held) = session.acquire(&format!("lock {lock}"), wait.clone()).await else { continue };
                let granted = Instant::now();
                // Whatever happens, it was held when it was last looked at.
                let mut until = granted;
                let is_held = |until: &mut Instant| {
                    let is_held = held.is_held();
                    if is_held {
                        *until = Instant::now();
                    }
                    is_held
                };
                let counter = self.counters[lock].address;
                if is_held(&mut until)
                    && let Some((200, value)) = exchange(counter, "GET /counter HTTP/1.1\r\n", "")
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let value: Value = serde_json::from_str(&value).expect("JSON");
                    let next = value["value"].as_u64().expect("a number") + 1;
                    let head = format!("PUT /counter HTTP/1.1\r\ncrossdock-fence: {}\r\n", held.token());
                    if is_held(&mut until)
                        && let Some((200, _)) = exchange(counter, &head, &json!({ "value": next }).to_string())
                    {
                        self.counted[lock].fetch_add(1, Ordering::Relaxed);
                    }
                    is_held(&mut until);
                }
                let (owner, token) = (format!("session {}", session.id()), held.token());
                self.holds.lock().expect("no panic").push((lock, Hold { owner, token, asked, granted, until }));
            }
        }
    }
}

fn cluster_command(gateway: &Gateway, words: &[&str]) {
    let mut command = Command::new(crossdock());
    command.arg("cluster").args(words).args(["--admin", &gateway.admin()]);
    let output = command.output().expect("it runs");
    if !output.status.success() {
        // Shown if the test fails.
        println!("{words:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
}

/// Adds or removes an instance as a voter, by another one, and repeats that until it is so: an answer may be lost.
fn change_voters(word: &str, instance: &Gateway, other: &Gateway) {
    let id = instance.admin_json("/api/v1/cluster")["id"].as_u64().expect("an id");
    until_within(Duration::from_secs(30), &format!("a voter: {word} {id}"), || {
        if other.admin_json("/api/v1/cluster")["leader"] == id {
            // A leader cannot be removed.
            cluster_command(instance, &["transfer"]);
        }
        cluster_command(other, &[word, &id.to_string()]);
        let state = other.admin_json("/api/v1/cluster");
        let voters = state["membership"]["voters"].as_array().expect("voters");
        voters.iter().any(|voter| voter["id"] == id) == (word == "add")
    });
}

/// Ends the load, also if the test fails.
struct End<'l>(&'l AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn pause(millis: u64) {
    std::thread::park_timeout(Duration::from_millis(millis));
}

/// Lets an instance fail, a different one each time, and heals what does not heal by itself.
fn fail(round: usize, instances: &mut Vec<Gateway>, links: &Proxies) {
    let at = (round / 5 + round) % 3;
    match round % 5 {
        0 => {
            let gateway = instances.remove(at);
            instances.insert(at, gateway.restart());
        }
        1 => {
            // For longer than its session.
            instances[at].signal("STOP");
            pause(2_000);
            instances[at].signal("CONT");
        }
        2 => {
            links.inject(at, Fault::CutLeader);
            pause(2_500);
            links.heal();
        }
        3 => *instances = Gateway::restart_all(std::mem::take(instances)),
        _ => {
            let (instance, other) = (&instances[at], &instances[(at + 1) % 3]);
            change_voters("remove", instance, other);
            pause(500);
            change_voters("add", instance, other);
        }
    }
}

/// Waits until all accepted messages have reached the ledger.
fn wait_until_booked(sent: &BTreeMap<String, Sent>, ledger: &Ledger, instances: &[Gateway]) {
    let missing = |(key, of): (&String, &Sent)| {
        let booked: BTreeSet<u64> = ledger.booked(key).into_iter().collect();
        of.accepted.iter().filter(|number| !booked.contains(number)).count()
    };
    let begun = Instant::now();
    while sent.iter().map(missing).sum::<usize>() > 0 {
        if begun.elapsed() > Duration::from_secs(30) {
            for (key, of) in sent {
                let booked: BTreeSet<u64> = ledger.booked(key).into_iter().collect();
                let missing: Vec<_> = of.accepted.iter().filter(|number| !booked.contains(number)).collect();
                println!("{key}: {} accepted, missing {missing:?}", of.accepted.len());
            }
            for gateway in instances {
                println!("{}", gateway.admin_json("/api/v1/queues"));
            }
            panic!("accepted messages are not booked");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_lost_overtaken_or_held_twice_whatever_happens_to_the_instances() {
    let rounds: usize = std::env::var("CROSSDOCK_ROUNDS").map_or(5, |text| text.parse().expect("a number"));
    let ledger = Ledger::start(|_, number, attempt| {
        (if number % 31 == 7 && attempt == 0 { 500 } else { 200 }, Duration::from_millis(2))
    });
    let counters: Vec<Counter> = (0..LOCKS).map(|_| Counter::start(true)).collect();
    let output = Command::new(crossdock()).arg("token").output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let word = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim();
    let clients = format!("version: 1\nclients: {{ load: {{ token: \"{}\", scopes: [ locks ] }} }}\n", word("digest:"));
    let addresses = [LinkedAddresses::free(), LinkedAddresses::free(), LinkedAddresses::free()];
    let links = Proxies::start(&addresses.map(|of| of.peer));
    let all = routes("cluster-load", &[("LEDGER", &ledger.address)]);
    let mut instances = Gateway::start_linked_cluster(&links, &addresses, &all, &clients);
    let load = Load {
        addresses: &addresses,
        token: word("token:"),
        counters: &counters,
        is_over: AtomicBool::new(false),
        sent: Mutex::default(),
        holds: Mutex::default(),
        counted: Default::default(),
    };
    std::thread::scope(|scope| {
        for account in 0..ACCOUNTS {
            let load = &load;
            scope.spawn(move || load.tell(account));
        }
        for worker in 0..WORKERS {
            let load = &load;
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            scope.spawn(move || runtime.expect("a runtime").block_on(load.count(worker)));
        }
        let _end = End(&load.is_over);
        pause(1_000);
        for round in 0..rounds {
            fail(round, &mut instances, &links);
            pause(1_000);
        }
        // Everything goes on after the last fault.
        let progress = || {
            let sent = load.sent.lock().expect("no panic");
            let accepted = sent.values().map(|of| of.accepted.len());
            let counted =
                load.counted.iter().map(|count| usize::try_from(count.load(Ordering::Relaxed)).expect("small"));
            accepted.chain(counted).collect::<Vec<_>>()
        };
        let before = progress();
        assert_eq!(before.len(), ACCOUNTS + LOCKS);
        let begun = Instant::now();
        while !before.iter().zip(progress()).all(|(before, now)| now > *before) {
            if begun.elapsed() > Duration::from_secs(20) {
                println!("accounts and locks: {before:?}, then {:?}", progress());
                println!("{}", instances[0].admin_json("/api/v1/locks"));
                panic!("some of them do not go on");
            }
            pause(20);
        }
    });
    let Load { sent, holds, counted, .. } = load;
    let (sent, holds) = (sent.into_inner().expect("no panic"), holds.into_inner().expect("no panic"));
    for (lock, (counter, counted)) in counters.iter().zip(&counted).enumerate() {
        let of: Vec<Hold> = holds.iter().filter(|(of, _)| *of == lock).map(|(_, hold)| hold.clone()).collect();
        check(&of).unwrap_or_else(|problem| panic!("lock {lock}: {problem}"));
        let (value, rejected) = counter.state();
        let counted = counted.load(Ordering::Relaxed);
        assert_eq!(value, counted, "updates of counter {lock} are lost");
        println!("lock {lock}: {} holds, {counted} counted, {rejected} rejected by token", of.len());
    }
    wait_until_booked(&sent, &ledger, &instances);
    let (mut accepted, mut repeated) = (0, 0);
    for (key, of) in &sent {
        let booked = ledger.booked(key);
        let numbers: BTreeSet<u64> = booked.iter().copied().collect();
        assert!(booked.is_sorted(), "{key} is out of order: {booked:?}");
        assert!(
            numbers
                .iter()
                .all(|number| of.accepted.contains(number) || of.unknown.contains(number) || key.starts_with("once"))
        );
        accepted += of.accepted.len();
        repeated += booked.len() - numbers.len();
    }
    println!("{rounds} faults, {accepted} accepted messages, {repeated} delivered again");
    assert!(accepted > 100 * rounds && holds.len() > 10 * rounds, "{accepted} messages, {} holds", holds.len());
}
