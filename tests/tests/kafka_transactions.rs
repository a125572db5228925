//! `delivery: effectively-once` from Kafka to Kafka, judged by readers of committed records.

use std::collections::BTreeMap;
use std::time::Duration;

use crossdock_tests::{Gateway, Kafka, Recorder, call, routes, until, until_within};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(120);
const PARTITIONS: usize = 4;

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn listeners(kafka: &Kafka, group: &str, instance: &str) -> String {
    format!(
        "topics: {{ kafka: {{ brokers: [ {} ], group: {group}{instance}, commit_interval: 100ms, session_timeout: 1s }} }}",
        kafka.broker_list()
    )
}

/// Creates the topics, writes `count` records with 100 keys, and returns the routes that move them.
fn prepare(kafka: &Kafka, from: &str, to: &str, count: usize) -> String {
    let topics =
        [format!("{from}:{PARTITIONS}"), format!("{to}:{PARTITIONS}"), format!("{to}-even"), format!("{from}-dead")];
    kafka.run(&[&["create"][..], &topics.each_ref().map(String::as_str)].concat());
    kafka.run(&["fill", from, "{\"n\":#}", &count.to_string(), "100"]);
    routes("kafka-once", &[("BROKERS", &kafka.broker_list()), ("FROM", &from), ("TO", &to)])
}

/// The numbers of the committed records of a topic, each with its key, in the order of each partition.
fn numbers(kafka: &Kafka, topic: &str) -> Vec<(u64, String)> {
    let number = |record: Value| {
        let body: Value = serde_json::from_str(record["value"].as_str().expect("text")).expect("JSON");
        (body["n"].as_u64().expect("a number"), record["key"].as_str().expect("a key").to_owned())
    };
    kafka.read(topic).into_iter().map(number).collect()
}

/// Checks that each number below `count` took effect once, as a whole, and in the order of its key.
fn check(kafka: &Kafka, from: &str, to: &str, count: usize) {
    let is_rejected = |number: &u64| number % 1000 == 7;
    let expected = |keep: &dyn Fn(&u64) -> bool| (0..count as u64).filter(keep).collect::<Vec<_>>();
    let moved = numbers(kafka, to);
    let mut last = BTreeMap::<&str, u64>::new();
    for (number, key) in &moved {
        let before = last.insert(key, *number);
        assert!(before.is_none_or(|before| before < *number), "{number} was overtaken by {before:?}");
    }
    for (topic, expected) in [
        (to.to_owned(), expected(&|number| !is_rejected(number))),
        (format!("{to}-even"), expected(&|number| number % 2 == 0)),
        (format!("{from}-dead"), expected(&is_rejected)),
    ] {
        let mut found: Vec<u64> = numbers(kafka, &topic).into_iter().map(|(number, _)| number).collect();
        found.sort_unstable();
        let (mut lost, mut twice) = (expected.clone(), Vec::new());
        lost.retain(|number| found.binary_search(number).is_err());
        twice.extend(found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]));
        assert!(lost.is_empty() && twice.is_empty(), "{topic}: lost {lost:?}, twice {twice:?}");
        assert_eq!(found, expected, "{topic}");
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_transactions_take_effect_once_wherever_a_gateway_is_killed() {
    let total = from_environment("CROSSDOCK_MESSAGES", 20_000);
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("atomic"), kafka.name("atomic-to"));
    let routes = prepare(kafka, &from, &to, total);
    // A named instance ends the transactions of its predecessor at once.
    let listeners = listeners(kafka, &from, ", instance: one");
    for failpoint in ["kafka.received@700", "kafka.routed@1500", "kafka.batch@2", "kafka.transaction@2"] {
        let mut gateway = Gateway::start_with_failpoint(&listeners, &routes, &[], failpoint);
        assert_eq!(gateway.wait().code, None, "the gateway is killed at {failpoint}");
    }
    let mut gateway = Gateway::start_with(&listeners, &routes);
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == total as u64);
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    let counted = |event: &str| {
        let start = format!("crossdock_listener_events_total{{listener=\"topics\",event=\"{event}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
        line.expect(event).parse::<u64>().expect("a number")
    };
    assert!(counted("transaction_committed") > 0 && counted("dead_letter") > 0, "{metrics}");
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code, Some(0));
    check(kafka, &from, &to, total);
    println!("in {total}, lost 0, 0 duplicates after four kills");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_transactions_take_effect_once_when_partitions_move() {
    let rounds = from_environment("CROSSDOCK_ROUNDS", 3);
    let total = 4_000 * rounds;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("shared"), kafka.name("shared-to"));
    let routes = prepare(kafka, &from, &to, total);
    let listeners = listeners(kafka, &from, "");
    let first = Gateway::start_with(&listeners, &routes);
    let assigned = |gateway: &Gateway| gateway.log().iter().any(|line| line.contains("partitions assigned"));
    for _ in 0..rounds {
        let mut second = Gateway::start_with(&listeners, &routes);
        until("the second gateway to get partitions", || assigned(&second));
        second.signal("TERM");
        assert_eq!(second.wait().code, Some(0));
    }
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == total as u64);
    drop(first);
    check(kafka, &from, &to, total);
    println!("in {total}, lost 0, 0 duplicates after {rounds} joins and leaves");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_transactions_survive_the_brokers() {
    const COUNT: usize = 6_000;
    let kafka = Kafka::start_three();
    let (from, to) = (kafka.name("resumed"), kafka.name("resumed-to"));
    let routes = prepare(&kafka, &from, &to, COUNT);
    let mut gateway = Gateway::start_with(&listeners(&kafka, &from, ", instance: one"), &routes);
    for broker in 0..3 {
        until_within(LONG, "records to be moved", || numbers(&kafka, &to).len() > COUNT * broker / 4);
        kafka.crash(broker);
    }
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code, Some(0));
    check(&kafka, &from, &to, COUNT);
    println!("in {COUNT}, lost 0, 0 duplicates after three crashes");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_transactions_of_a_frozen_gateway_take_effect_once() {
    const COUNT: usize = 12_000;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("frozen"), kafka.name("frozen-to"));
    let routes = prepare(kafka, &from, &to, COUNT);
    let listeners = listeners(kafka, &from, "");
    let first = Gateway::start_with(&listeners, &routes);
    until("some records to be moved", || numbers(kafka, &to).len() > 100);
    // It loses its partitions in the middle of a transaction, and finishes it after another one took over.
    first.signal("STOP");
    let second = Gateway::start_with(&listeners, &routes);
    until_within(LONG, "the second gateway to take over", || {
        second.log().iter().any(|line| line.contains("partitions assigned"))
    });
    first.signal("CONT");
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    drop((first, second));
    check(kafka, &from, &to, COUNT);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_transactions_that_outlast_their_partitions_take_no_effect() {
    const COUNT: usize = 8;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("outlasted"), kafka.name("outlasted-to"));
    kafka.run(&["create", &format!("{from}:2"), &to, &format!("{from}-dead")]);
    kafka.run(&["fill", &from, "{\"n\":#}", &COUNT.to_string(), "8"]);
    // Longer than a revocation waits.
    let service = Recorder::start(|attempt, _| (200, Duration::from_secs(if attempt <= COUNT { 5 } else { 0 })));
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BROKERS", &kafka.broker_list()), ("BACKEND", &service.address), ("FROM", &from), ("TO", &to)];
    let (routes, listeners) = (routes("kafka-once-slow", &values), listeners(kafka, &from, ""));
    let first = Gateway::start_with(&listeners, &routes);
    until("the calls to begin", || service.requests() == COUNT);
    let second = Gateway::start_with(&listeners, &routes);
    until_within(LONG, "all offsets to be committed", || kafka.committed(&from, &from) == COUNT as u64);
    drop((first, second));
    let mut found: Vec<u64> = numbers(kafka, &to).into_iter().map(|(number, _)| number).collect();
    found.sort_unstable();
    assert_eq!(found, (0..COUNT as u64).collect::<Vec<_>>(), "each once");
}
