//! Losses and duplicates of the Kafka adapter: kills of gateways and brokers, rebalances, changes of routes.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossdock_tests::{Gateway, Kafka, Recorder, routes, until, until_within};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(120);
/// The window of the entry: the most records that are redelivered after a kill.
const WINDOW: usize = 1_000;
const PARTITIONS: usize = 4;

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn listeners(kafka: &Kafka, group: &str, protocol: &str) -> String {
    format!(
        "topics: {{ kafka: {{ brokers: [ {} ], group: {group}, protocol: {protocol}, commit_interval: 100ms }} }}",
        kafka.broker_list()
    )
}

/// Creates the topics, writes `count` records with 100 keys, and returns the routes that move them.
fn prepare(kafka: &Kafka, from: &str, to: &str, count: usize) -> String {
    let partitions = PARTITIONS;
    kafka.run(&["create", &format!("{from}:{partitions}"), &format!("{to}:{partitions}"), &format!("{from}-dead")]);
    kafka.run(&["fill", from, "{\"n\":#}", &count.to_string(), "100"]);
    routes("kafka-move", &[("BROKERS", &kafka.broker_list()), ("FROM", &from), ("TO", &to)])
}

/// Checks that no number below `count` is missing and that first arrivals are in the order of each key; returns the number of duplicates.
fn check(kafka: &Kafka, to: &str, count: usize) -> usize {
    let (mut seen, mut last) = (BTreeMap::<u64, usize>::new(), BTreeMap::<String, u64>::new());
    for record in kafka.read(to) {
        let body: Value = serde_json::from_str(record["value"].as_str().expect("text")).expect("JSON");
        let number = body["n"].as_u64().expect("a number");
        let times = seen.entry(number).or_default();
        *times += 1;
        if *times == 1 {
            let key = record["key"].as_str().expect("a key").to_owned();
            let before = last.insert(key, number);
            assert!(before.is_none_or(|before| before < number), "{number} was overtaken by {before:?}");
        }
    }
    let lost: Vec<_> = (0..count as u64).filter(|number| !seen.contains_key(number)).collect();
    assert!(lost.is_empty(), "lost {}: {:?}", lost.len(), &lost[..lost.len().min(20)]);
    seen.values().map(|times| times - 1).sum()
}

fn count(kafka: &Kafka, topic: &str) -> usize {
    kafka.run(&["count", topic]).parse().expect("a number")
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_loses_nothing_wherever_a_gateway_is_killed() {
    let total = from_environment("CROSSDOCK_MESSAGES", 20_000);
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("killed"), kafka.name("killed-to"));
    let routes = prepare(kafka, &from, &to, total);
    let listeners =
        listeners(kafka, &from, "classic").replace("commit_interval", "session_timeout: 1s, commit_interval");
    let points = ["received", "routed", "decided", "settled", "draining"];
    for (number, point) in points.iter().enumerate() {
        let failpoint = format!("kafka.{point}@{}", if *point == "draining" { 1 } else { total / 20 + 7 * number });
        let mut gateway = Gateway::start_with_failpoint(&listeners, &routes, &[], &failpoint);
        if *point == "draining" {
            until("some records to be moved", || count(kafka, &to) > 2_000);
            gateway.signal("TERM");
        }
        assert_eq!(gateway.wait().code, None, "the gateway is killed at {failpoint}");
    }
    let gateway = Gateway::start_with(&listeners, &routes);
    let time = LONG.max(Duration::from_millis(total as u64));
    until_within(time, "all offsets to be committed", || kafka.committed(&from, &from) == total as u64);
    drop(gateway);
    let duplicates = check(kafka, &to, total);
    let bound = points.len() * WINDOW * PARTITIONS;
    println!("in {total}, out {}, lost 0, duplicates {duplicates} of at most {bound}", total + duplicates);
    assert!(duplicates <= bound, "{duplicates} duplicates");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_loses_nothing_when_brokers_are_killed() {
    let rounds = from_environment("CROSSDOCK_ROUNDS", 1);
    let total = 5_000 * rounds;
    let kafka = Kafka::start_three();
    let (from, to) = (kafka.name("crashed"), kafka.name("crashed-to"));
    let routes = prepare(&kafka, &from, &to, total);
    let mut gateway = Gateway::start_with(&listeners(&kafka, &from, "classic"), &routes);
    for round in 0..rounds {
        until_within(LONG, "records to be moved", || count(&kafka, &to) > total * round / rounds);
        for broker in 0..3 {
            kafka.crash(broker);
        }
    }
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == total as u64);
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code, Some(0));
    let duplicates = check(&kafka, &to, total);
    println!("in {total}, lost 0, {duplicates} duplicates after {} crashes", 3 * rounds);
    assert!(duplicates <= 3 * rounds * WINDOW);
}

/// The bytes that a process has received over its open connections, by the port of the other end.
fn received_by_port(pid: u32) -> BTreeMap<u16, u64> {
    let output = Command::new("ss").args(["-tinpH"]).output().expect("ss of iproute2");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut received, mut port) = (BTreeMap::new(), None);
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            // State, two queues, and the addresses of this end and the other.
            let peer = line.split_whitespace().nth(4).and_then(|peer| peer.rsplit(':').next()?.parse().ok());
            port = peer.filter(|_| line.contains(&format!("pid={pid},")));
        }
        let bytes = line.split_whitespace().find_map(|word| word.strip_prefix("bytes_received:")?.parse::<u64>().ok());
        if let Some((port, bytes)) = port.zip(bytes) {
            *received.entry(port).or_default() += bytes;
        }
    }
    received
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_the_replica_of_the_own_rack_is_read() {
    const COUNT: u64 = 4_000;
    let kafka = Kafka::start_three();
    let from = kafka.name("racks");
    kafka.run(&["create", &from]);
    kafka.run(&["fill", &from, &format!("{{\"n\":#,\"text\":\"{}\"}}", "x".repeat(1_000)), &COUNT.to_string()]);
    let routes = format!(
        "version: 1\nroutes: {{ r: {{ from: {{ kafka: {{ listen: topics, topic: {from}, reject: discard }} }}, steps: [ {{ respond: {{ status: 204 }} }} ] }} }}\n"
    );
    // One partition, whose leader is in one of the racks; each of them has a replica.
    for (rack, broker) in kafka.brokers.split(',').enumerate() {
        let group = format!("{from}-{rack}");
        let listeners = listeners(&kafka, &group, "classic")
            .replace("commit_interval", &format!("rack: rack-{rack}, commit_interval"));
        let gateway = Gateway::start_with(&listeners, &routes);
        until_within(LONG, "all offsets to be committed", || kafka.committed(&group, &from) == COUNT);
        let received = received_by_port(gateway.pid());
        let port: u16 = broker.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let (own, all) = (received[&port], received.values().sum::<u64>());
        assert!(own > COUNT * 1_000 && all - own < own / 10, "rack {rack}, whose broker is {broker}: {received:?}");
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_loses_nothing_when_partitions_move() {
    let rounds = from_environment("CROSSDOCK_ROUNDS", 4);
    let total = 3_000 * rounds;
    let kafka = Kafka::start();
    for protocol in ["classic", "consumer"] {
        let (from, to) = (kafka.name(&format!("moved-{protocol}")), kafka.name(&format!("moved-{protocol}-to")));
        let routes = prepare(kafka, &from, &to, 0);
        let listeners = listeners(kafka, &from, protocol);
        let first = Gateway::start_with(&listeners, &routes);
        let assigned = |gateway: &Gateway| gateway.log().iter().any(|line| line.contains("partitions assigned"));
        until("partitions to be assigned", || assigned(&first));
        for _ in 0..rounds {
            kafka.run(&["fill", &from, "{\"n\":#}", &(total / rounds).to_string(), "100"]);
            let mut second = Gateway::start_with(&listeners, &routes);
            until("the second gateway to get partitions", || assigned(&second));
            second.signal("TERM");
            assert_eq!(second.wait().code, Some(0));
        }
        until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == total as u64);
        let mut arrivals = BTreeMap::<String, usize>::new();
        for record in kafka.read(&to) {
            *arrivals.entry(record["value"].to_string()).or_default() += 1;
        }
        assert_eq!(arrivals.len(), total / rounds);
        assert!(arrivals.values().all(|times| *times >= rounds), "lost under {protocol}");
        assert!(arrivals.values().all(|times| *times == rounds), "duplicates under {protocol}");
        println!("{protocol}: in {total}, lost 0, 0 duplicates after {rounds} joins and leaves");
        drop(first);
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_records_before_settled_ones_are_finished_before_their_partition_moves() {
    const COUNT: usize = 200;
    let kafka = Kafka::start();
    let (from, dead) = (kafka.name("finished"), kafka.name("finished-dead"));
    kafka.run(&["create", &format!("{from}:2"), &dead]);
    // Records with every tenth key are slow, so that others of their partition are settled before them.
    let service = Recorder::start(|_, body| {
        let is_slow = body.ends_with("0}");
        (200, Duration::from_millis(if is_slow { 150 } else { 0 }))
    });
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"key"), ("DEAD", &dead)];
    let routes = routes("kafka-to-http", &values).replace("dead_letter", "window: 20, dead_letter");
    let listeners = listeners(kafka, &from, "classic");
    let first = Gateway::start_with(&listeners, &routes);
    let owns = |gateway: &Gateway| gateway.log().iter().any(|line| line.contains("partitions assigned"));
    until("partitions to be assigned", || owns(&first));
    kafka.run(&["fill", &from, "{\"n\":#}", &COUNT.to_string(), "10"]);
    let mut second = Gateway::start_with(&listeners, &routes);
    until("the second gateway to get a partition", || owns(&second));
    second.signal("TERM");
    assert_eq!(second.wait().code, Some(0));
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    drop(first);
    let mut processed = service.processed();
    processed.sort();
    processed.dedup();
    assert_eq!((processed.len(), service.processed().len()), (COUNT, COUNT), "none twice");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_records_stay_in_their_topic_while_its_route_is_removed() {
    const COUNT: usize = 6_000;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("left"), kafka.name("left-to"));
    let with = prepare(kafka, &from, &to, COUNT);
    let without = with.split("routes:").next().expect("services").to_owned() + "routes: {}\n";
    let gateway = Gateway::start_with(&listeners(kafka, &from, "classic"), &with);
    let generation = || gateway.admin_json("/readyz")["generation"].as_u64().expect("a number");
    for round in 1..=3 {
        until("some records to be moved", || count(kafka, &to) >= round * COUNT / 10);
        gateway.write_routes(&without);
        until("the route to be removed", || generation() == 2 * round as u64);
        gateway.write_routes(&with);
        until("the route to be added", || generation() == 2 * round as u64 + 1);
    }
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    let duplicates = check(kafka, &to, COUNT);
    println!("in {COUNT}, lost 0, {duplicates} duplicates after three removals");
    assert!(duplicates <= WINDOW, "{duplicates} duplicates");
    assert_eq!(count(kafka, &format!("{from}-dead")), 0, "no dead letters");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_partitions_that_come_back_while_full_are_consumed() {
    const COUNT: usize = 3_000;
    let kafka = Kafka::start();
    let (from, dead) = (kafka.name("full"), kafka.name("full-dead"));
    kafka.run(&["create", &format!("{from}:2"), &dead]);
    kafka.run(&["fill", &from, "{\"n\":#}", &COUNT.to_string(), "100"]);
    let is_down = Arc::new(AtomicBool::new(true));
    let shared = Arc::clone(&is_down);
    let service = Recorder::start(move |_, _| {
        let status = if shared.load(Ordering::SeqCst) { 503 } else { 200 };
        (status, Duration::ZERO)
    });
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"key"), ("DEAD", &dead)];
    let routes =
        routes("kafka-to-http", &values).replace("dead_letter", "window: 100, window_size: 26KiB, dead_letter");
    let listeners = listeners(kafka, &from, "classic");
    let first = Gateway::start_with(&listeners, &routes);
    let owns = |gateway: &Gateway| {
        gateway.log().iter().any(|line| line.contains("partitions assigned") && line.contains(&format!("{from}/")))
    };
    until("the partitions to be full", || service.requests() > 100);
    // A partition moves to another gateway and back while its window is full, and it is paused.
    let mut second = Gateway::start_with(&listeners, &routes);
    until("the second gateway to get a partition", || owns(&second));
    second.signal("TERM");
    assert_eq!(second.wait().code, Some(0));
    is_down.store(false, Ordering::SeqCst);
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    assert!(service.processed().len() >= COUNT);
    drop(first);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_a_record_with_a_header_name_that_is_not_utf8_is_dead_lettered() {
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("named"), kafka.name("named-to"));
    let routes = prepare(kafka, &from, &to, 0);
    kafka.run(&["write-binary-name", &from]);
    kafka.run(&["fill", &from, "{\"n\":#}", "10", "100"]);
    let gateway = Gateway::start_with(&listeners(kafka, &from, "classic"), &routes);
    until("all offsets to be committed", || kafka.committed(&from, &from) == 11);
    let letters = kafka.read(&format!("{from}-dead"));
    assert_eq!((letters.len(), count(kafka, &to)), (1, 10), "{letters:?}");
    let headers = letters[0]["headers"].as_array().expect("headers");
    assert!(headers.contains(&serde_json::json!(["crossdock-reason", "HEADER"])), "{headers:?}");
    assert!(headers.contains(&serde_json::json!(["x-good", "kept"])), "{headers:?}");
    drop(gateway);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_processes_at_most_once_under_kills_and_stops() {
    const COUNT: usize = 300;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("once"), kafka.name("once-to"));
    let routes = prepare(kafka, &from, &to, COUNT).replace("steps:", "delivery: at-most-once\n    steps:");
    let listeners =
        listeners(kafka, &from, "classic").replace("commit_interval", "session_timeout: 1s, commit_interval");
    let mut killed = Gateway::start_with_failpoint(&listeners, &routes, &[], "kafka.decided@50");
    assert_eq!(killed.wait().code, None, "the gateway is killed");
    let mut stopped = Gateway::start_with(&listeners, &routes);
    until("more records to be moved", || count(kafka, &to) > 100);
    stopped.signal("TERM");
    assert_eq!(stopped.wait().code, Some(0));
    let last = Gateway::start_with(&listeners, &routes);
    until("all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    drop(last);
    let mut numbers: Vec<_> = kafka.read(&to).iter().map(|record| record["value"].to_string()).collect();
    let moved = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), moved, "none twice");
    println!("{moved} of {COUNT} moved");
    // A kill loses at most the records in process.
    assert!(moved >= COUNT - 64, "{moved} of {COUNT} moved");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_processes_at_most_once_by_key() {
    const COUNT: usize = 120;
    let kafka = Kafka::start();
    let (from, dead) = (kafka.name("once-by-key"), kafka.name("once-by-key-dead"));
    kafka.run(&["create", &from, &dead]);
    // Most records have one key, so that the others start long before them.
    let record = |n: usize| serde_json::json!({ "key": if n % 10 == 9 { format!("k{n}") } else { "k".into() }, "value": format!("{{\"n\":{n}}}") });
    kafka.write(&from, &(0..COUNT).map(record).collect::<Vec<_>>());
    let service = Recorder::start(|_, _| (200, Duration::from_millis(20)));
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"key"), ("DEAD", &dead)];
    let routes = routes("kafka-to-http", &values)
        .replace("dead_letter", "concurrency: 16, dead_letter")
        .replace("steps:", "delivery: at-most-once\n    steps:");
    let listeners = listeners(kafka, &from, "classic");
    let mut stopped = Gateway::start_with(&listeners, &routes);
    until("some records to be processed", || service.requests() > 30);
    stopped.signal("TERM");
    assert_eq!(stopped.wait().code, Some(0));
    let last = Gateway::start_with(&listeners, &routes);
    until("all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    until("all records to be processed", || service.processed().len() >= COUNT);
    drop(last);
    let mut processed = service.processed();
    processed.sort();
    processed.dedup();
    assert_eq!((processed.len(), service.processed().len()), (COUNT, COUNT), "a stop neither loses nor repeats any");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_a_frozen_gateway_rejoins_and_never_moves_offsets_back() {
    const COUNT: usize = 12_000;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("thawed"), kafka.name("thawed-to"));
    let routes = prepare(kafka, &from, &to, COUNT);
    let listeners =
        listeners(kafka, &from, "classic").replace("commit_interval", "session_timeout: 1s, commit_interval");
    let first = Gateway::start_with(&listeners, &routes);
    let mut committed = 0;
    // Every offset that is seen on the way.
    let mut advances_to = |wanted: u64| {
        let now = kafka.committed(&from, &from);
        assert!(now >= committed, "committed offsets went back from {committed} to {now}");
        committed = now;
        now >= wanted
    };
    until_within(LONG, "some records to be moved", || advances_to(500));
    first.signal("STOP");
    let second = Gateway::start_with(&listeners, &routes);
    let assigned = |gateway: &Gateway| gateway.log().iter().filter(|line| line.contains("partitions assigned")).count();
    until_within(LONG, "the second gateway to take over", || assigned(&second) > 0);
    let before = assigned(&first);
    first.signal("CONT");
    until_within(LONG, "all offsets to be committed", || advances_to(COUNT as u64));
    until_within(LONG, "the first gateway to rejoin", || assigned(&first) > before);
    drop((first, second));
    let duplicates = check(kafka, &to, COUNT);
    println!("in {COUNT}, lost 0, {duplicates} duplicates after a freeze");
    assert!(duplicates <= PARTITIONS * WINDOW, "{duplicates} duplicates");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_offsets_advance_over_changes_of_the_guarantee() {
    const COUNT: usize = 200;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("guarantees"), kafka.name("guarantees-to"));
    let routes = prepare(kafka, &from, &to, 0);
    let with = |delivery: &str| routes.replace("steps:", &format!("delivery: {delivery}\n    steps:"));
    let deliveries = ["at-least-once", "effectively-once", "at-most-once", "effectively-once", "at-least-once"];
    let gateway = Gateway::start_with(&listeners(kafka, &from, "classic"), &with(deliveries[0]));
    for (round, delivery) in deliveries.iter().enumerate() {
        if round > 0 {
            gateway.write_routes(&with(delivery));
        }
        // Some of them are processed before the change, some after it.
        kafka.run(&["fill", &from, "{\"n\":#}", &COUNT.to_string(), "100"]);
        let wanted = ((round + 1) * COUNT) as u64;
        until(&format!("all offsets to be committed {delivery}"), || kafka.committed(&from, &from) == wanted);
    }
    drop(gateway);
    assert_eq!(count(kafka, &to), deliveries.len() * COUNT, "none is lost, none comes twice");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_records_in_process_keep_the_guarantee_they_were_admitted_with() {
    const COUNT: usize = 8;
    let kafka = Kafka::start();
    for (before, after) in [("at-most-once", "at-least-once"), ("at-least-once", "at-most-once")] {
        let (from, dead) = (kafka.name(before), kafka.name(&format!("{before}-dead")));
        kafka.run(&["create", &from, &dead]);
        kafka.run(&["fill", &from, "{\"n\":#}", &COUNT.to_string(), "1"]);
        // All have one key, and wait for the first one when the route changes.
        let service = Recorder::start(|attempt, _| (200, Duration::from_secs(if attempt == 0 { 3 } else { 0 })));
        let values: [(&str, &dyn std::fmt::Display); 4] =
            [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"key"), ("DEAD", &dead)];
        let routes = routes("kafka-to-http", &values)
            .replace("dead_letter", "concurrency: 16, dead_letter")
            .replace("timeout: 2s", "timeout: 9s");
        let with = |delivery: &str| routes.replace("steps:", &format!("delivery: {delivery}\n    steps:"));
        let gateway = Gateway::start_with(&listeners(kafka, &from, "classic"), &with(before));
        until("the first record to be processed", || service.requests() == 1);
        gateway.write_routes(&with(after));
        until("all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
        assert_eq!(service.processed().len(), COUNT, "each once");
    }
}
