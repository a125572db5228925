//! Routes with an order over all instances of a cluster.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossdock_tests::{Gateway, Ledger, RabbitMq, Reply, call, crossdock, routes, until, until_within};
use serde_json::{Value, json};

fn cluster(count: usize, ledger: &Ledger) -> Vec<Gateway> {
    let instances = Gateway::start_cluster(count, &routes("ordered", &[("LEDGER", &ledger.address)]));
    // A leader may not be elected yet.
    until("messages to be accepted", || ask(&instances[0], "first", 1).status == 201);
    instances
}

fn post(gateway: &Gateway, target: &str, body: &str) -> Reply {
    call(&gateway.public(), "POST", target, body)
}

fn ask(gateway: &Gateway, key: &str, number: u64) -> Reply {
    post(gateway, "/ask", &format!("{{\"key\":\"{key}\",\"n\":{number}}}"))
}

fn tell(gateway: &Gateway, key: &str, number: u64) -> Reply {
    post(gateway, "/tell", &format!("{{\"key\":\"{key}\",\"n\":{number}}}"))
}

fn body(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{}: {}", reply.status, reply.body))
}

fn reason(reply: &Reply) -> Option<String> {
    body(reply)["reason"].as_str().map(str::to_owned)
}

#[test]
fn a_caller_gets_the_reply_whichever_instance_processes_its_message() {
    let ledger = Ledger::start(|_, number, _| (if number == 13 { 422 } else { 200 }, Duration::ZERO));
    let instances = cluster(3, &ledger);
    for number in 0..30 {
        let gateway = &instances[number % 3];
        let (key, number) = (format!("account {number}"), number as u64);
        let reply = ask(gateway, &key, number);
        if number == 13 {
            assert_eq!((reply.status, reason(&reply).as_deref()), (400, Some("SERVICE_STATUS")), "{}", reply.body);
            continue;
        }
        assert_eq!((reply.status, reply.header("x-served")), (201, Some("yes")), "{}", reply.body);
        assert_eq!(body(&reply)["booked"], number);
        assert!(body(&reply)["token"].as_u64() > Some(0), "{}", reply.body);
    }
    let refused = ask(&instances[1], "", 1);
    assert_eq!((refused.status, reason(&refused).as_deref()), (400, Some("KEY")));
    let large = "x".repeat(1 << 20);
    let refused = post(&instances[1], "/ask", &format!("{{\"key\":\"a\",\"n\":1,\"text\":\"{large}\"}}"));
    assert_eq!((refused.status, reason(&refused).as_deref()), (413, Some("BODY_TOO_LARGE")));
    assert_eq!(ledger.rejected(), 0);
}

#[test]
fn a_message_that_fails_is_retried_before_those_behind_it_and_becomes_a_dead_letter() {
    let ledger = Ledger::start(|_, number, attempt| match (number, attempt) {
        // It succeeds at last, it does once it is replayed, and it is invalid at first.
        (2, 0 | 1) | (4, 0..3) => (500, Duration::ZERO),
        (6, 0) => (400, Duration::ZERO),
        _ => (200, Duration::ZERO),
    });
    let instances = cluster(3, &ledger);
    for number in 1..=7 {
        let reply = tell(&instances[number % 3], "a", number as u64);
        assert_eq!((reply.status, &*reply.body), (202, ""));
    }
    until("all messages to be settled", || ledger.booked("a").len() == 5);
    assert_eq!(ledger.booked("a"), [1, 2, 3, 5, 7]);
    let run = |words: &[&str]| {
        let folder = instances[1].folder().to_str().expect("a path").to_owned();
        let mut command = Command::new(crossdock());
        command.args(words).args(["--config", &folder, "--admin", &instances[1].admin()]);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let listed = run(&["queues", "list", "route tell", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let queue = &listed["queues"][0];
    assert_eq!((&queue["name"], &queue["messages"]), (&json!("route tell"), &json!(0)), "{queue}");
    assert_eq!((&queue["dead_letters"], queue["consumers"].as_array().map(Vec::len)), (&json!(2), Some(3)), "{queue}");
    assert!(run(&["queues", "list"]).contains("route tell "), "for people");
    let letters = run(&["dlq", "list", "--json"]);
    let letters: Vec<Value> = letters.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |key: &str| letters.iter().map(|letter| letter[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("source"), ["route tell"; 2]);
    assert_eq!(of("reason"), ["SERVICE_STATUS"; 2]);
    assert_eq!(of("attempts"), [3, 1]);
    let id = letters[0]["id"].as_str().expect("an id");
    assert_eq!(run(&["dlq", "show", id, "--body"]), "{\"key\":\"a\",\"n\":4}");
    assert_eq!(run(&["dlq", "replay", "--all"]).trim(), "2 replayed");
    until("the dead letters to be booked", || ledger.booked("a").len() == 7);
    assert_eq!(ledger.booked("a"), [1, 2, 3, 5, 7, 4, 6]);
    assert!(run(&["dlq", "list"]).contains("0 dead letters"));
    let metrics = call(&instances[1].admin(), "GET", "/metrics", "").body;
    assert!(metrics.contains("crossdock_queue_messages{queue=\"route tell\"} 0"), "{metrics}");
    assert!(metrics.contains("crossdock_queue_events_total{queue=\"route tell\",event=\"enqueued\"}"), "{metrics}");
}

#[test]
fn a_duplicate_is_processed_once_within_its_window() {
    let ledger = Ledger::start(|_, _, _| (200, Duration::from_millis(2)));
    let instances = cluster(3, &ledger);
    let tell_once = |gateway: &Gateway, number: u64, id: &str| {
        post(gateway, "/tell-once", &format!("{{\"key\":\"a\",\"n\":{number},\"id\":\"{id}\"}}")).status
    };
    std::thread::scope(|scope| {
        for gateway in &instances {
            scope.spawn(|| {
                for number in 1..=20 {
                    assert_eq!(tell_once(gateway, number, &format!("id {number}")), 202);
                }
            });
        }
    });
    assert_eq!(tell_once(&instances[2], 99, "id 1"), 422, "another message with the id");
    assert_eq!(tell_once(&instances[1], 21, "last"), 202);
    until("all messages to be booked", || ledger.booked("a").last() == Some(&21));
    let mut booked = ledger.booked("a");
    booked.sort_unstable();
    assert_eq!(booked, (1..=21).collect::<Vec<_>>());
}

#[test]
fn a_queue_carries_messages_between_routes_of_all_instances() {
    let ledger = Ledger::start(|_, number, attempt| match (number, attempt) {
        (5, 0 | 1) => (503, Duration::ZERO),
        _ => (200, Duration::ZERO),
    });
    let mut instances = Gateway::start_cluster(3, &routes("queued", &[("LEDGER", &ledger.address)]));
    let add = |gateway: &Gateway, target: &str, number: u64| {
        post(gateway, target, &format!("{{\"key\":\"a\",\"n\":{number}}}")).status
    };
    until("messages to be accepted", || add(&instances[0], "/bookings", 1) == 202);
    assert_eq!(add(&instances[1], "/bookings/later", 99), 202);
    for number in 2..=20 {
        assert_eq!(add(&instances[usize::try_from(number).expect("small") % 3], "/bookings", number), 202);
    }
    assert_eq!(add(&instances[2], "/bookings", 7), 202, "a duplicate");
    assert_eq!(add(&instances[2], "/bookings", 1_000), 202, "a message that the route refuses");
    until("all messages to be booked", || ledger.booked("a").len() == 21);
    assert_eq!(ledger.booked("a"), (1..=20).chain([99]).collect::<Vec<_>>());
    let dead_letters = || {
        let queues = instances[0].admin_json("/api/v1/queues?prefix=bookings");
        queues["queues"][0]["dead_letters"].as_u64()
    };
    until("the message to be a dead letter", || dead_letters() == Some(1));
    let letters = instances[1].admin_json("/api/v1/queues/dead?queue=bookings");
    let letter = &letters["dead_letters"][0];
    assert_eq!(
        (&letter["reason"], &letter["error"]),
        (&json!("REQUIRED"), &json!("the number is too large")),
        "{letter}"
    );
    // The cluster keeps what is not processed, also without any instance.
    assert_eq!(add(&instances[1], "/bookings/later", 100), 202);
    instances = instances.into_iter().map(Gateway::restart).collect();
    until("the delayed message to be booked", || ledger.booked("a").last() == Some(&100));
    assert_eq!(ledger.booked("a").len(), 22);
    assert_eq!(instances.len(), 3);
}

/// One instance reads the queue of the broker at a time, and all of them process its messages.
#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn messages_of_a_broker_keep_their_order_while_instances_are_killed() {
    const EACH: u64 = 100;
    let broker = RabbitMq::start();
    let (queue, dead) = (broker.name("ordered"), broker.name("ordered-dead"));
    broker.run(&["declare", &dead]);
    // A classic queue requeues a message at its original position.
    broker.run(&["declare-classic", &queue]);
    let ledger = Ledger::start(|_, number, attempt| {
        (if number % 29 == 5 && attempt == 0 { 500 } else { 200 }, Duration::from_millis(2))
    });
    let listener = format!("broker: {{ amqp: {{ url: \"{}\" }} }}", broker.url);
    let values: [(&str, &dyn std::fmt::Display); 3] = [("LEDGER", &ledger.address), ("QUEUE", &queue), ("DEAD", &dead)];
    let mut instances = Gateway::start_cluster_with(3, &listener, &routes("ordered-broker", &values));
    for round in 0..3 {
        let accounts = ["a", "b"].map(|account| format!("{account}{round}"));
        for account in &accounts {
            broker.run(&["publish", &queue, &format!("{{\"key\":\"{account}\",\"n\":#}}"), &EACH.to_string()]);
        }
        let gateway = instances.remove(round);
        instances.insert(round, gateway.restart());
        for account in &accounts {
            let distinct =
                || ledger.booked(account).into_iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
            until_within(Duration::from_secs(20), "all messages to be booked", || distinct() == EACH);
            let mut seen = std::collections::BTreeSet::new();
            let firsts: Vec<_> = ledger.booked(account).into_iter().filter(|number| seen.insert(*number)).collect();
            assert!(firsts.is_sorted(), "{account} is out of order: {firsts:?}");
        }
    }
}

/// What callers know of the numbers that they sent for an account.
#[derive(Debug, Default)]
struct Sent {
    accepted: Vec<u64>,
    /// They may have been accepted.
    unknown: Vec<u64>,
}

/// Callers send messages to all instances, one after another for each account, while instances are killed, frozen and told to leave.
#[test]
fn no_accepted_message_is_lost_or_overtaken_while_instances_fail() {
    const ACCOUNTS: usize = 8;
    let rounds: u64 = std::env::var("CROSSDOCK_ROUNDS").map_or(4, |text| text.parse().expect("a number"));
    let ledger = Ledger::start(|_, number, attempt| {
        (if number % 17 == 3 && attempt == 0 { 500 } else { 200 }, Duration::from_millis(3))
    });
    let mut instances = cluster(3, &ledger);
    let sent: Mutex<BTreeMap<String, Sent>> = Mutex::default();
    let begun = Instant::now();
    for round in 0..rounds {
        let addresses: Vec<String> = instances.iter().map(Gateway::public).collect();
        let failing = usize::try_from(round % 3).expect("small");
        std::thread::scope(|scope| {
            for account in 0..ACCOUNTS {
                let (addresses, sent) = (&addresses, &sent);
                scope.spawn(move || {
                    let key = format!("{round}/{account}");
                    for number in 1..=60 {
                        let address = &addresses[usize::try_from(number).expect("small") % 3];
                        let reply = try_tell(address, &key, number);
                        let mut sent = sent.lock().expect("no panic");
                        let of = sent.entry(key.clone()).or_default();
                        match reply.as_deref() {
                            Some(reply) if reply.starts_with("HTTP/1.1 202 ") => of.accepted.push(number),
                            Some(reply) if reply.contains("NO_QUORUM") => {}
                            _ => of.unknown.push(number),
                        }
                    }
                });
            }
            std::thread::park_timeout(Duration::from_millis(200));
            if round % 2 == 0 {
                let gateway = instances.remove(failing);
                instances.insert(failing, gateway.restart());
            } else {
                instances[failing].signal("STOP");
                // Longer than its session.
                std::thread::park_timeout(Duration::from_millis(1_800));
                instances[failing].signal("CONT");
            }
        });
    }
    let sent = sent.into_inner().expect("no panic");
    let missing = |(key, of): (&String, &Sent)| {
        let booked = ledger.booked(key);
        of.accepted.iter().filter(|number| !booked.contains(number)).count()
    };
    until("all accepted messages to be booked", || sent.iter().map(missing).sum::<usize>() == 0);
    let (mut accepted, mut repeated) = (0, 0);
    for (key, of) in &sent {
        let booked = ledger.booked(key);
        assert!(booked.is_sorted(), "{key} is out of order: {booked:?}");
        let mut counts = HashMap::<u64, usize>::new();
        for number in &booked {
            *counts.entry(*number).or_default() += 1;
        }
        assert!(counts.keys().all(|number| of.accepted.contains(number) || of.unknown.contains(number)));
        accepted += of.accepted.len();
        repeated += booked.len() - counts.len();
    }
    println!(
        "{rounds} faults, {accepted} accepted messages, {repeated} booked again, {} rejected by token, {:?}",
        ledger.rejected(),
        begun.elapsed()
    );
    assert!(accepted > 1_000, "only {accepted} messages were accepted");
}

/// The response; `None` if the instance does not answer.
fn try_tell(address: &str, key: &str, number: u64) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(12))).ok()?;
    let body = format!("{{\"key\":\"{key}\",\"n\":{number}}}");
    let head = "POST /tell HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()?;
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    Some(reply).filter(|reply| !reply.is_empty())
}
