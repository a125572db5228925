//! Entries that one instance of a cluster reads at a time.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossdock_tests::{Counter, Gateway, Ledger, RabbitMq, call, crossdock, routes, until};

/// Messages published before and after the beginning of each hand-over.
const EACH: u64 = 40;

/// Whether a gateway reads the entry.
fn is_owner(gateway: &Gateway) -> bool {
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    metrics.lines().any(|line| line.starts_with("crossdock_cluster_singleton{") && line.ends_with(" 1"))
}

fn owner(instances: &[Gateway], but: Option<usize>) -> usize {
    let mut found = None;
    until("an instance to read the entry", || {
        found = (0..instances.len()).find(|at| Some(*at) != but && is_owner(&instances[*at]));
        found.is_some()
    });
    found.expect("an owner")
}

/// Kills, freezes and asks the instance that reads a queue to give it up, while messages arrive.
#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn a_queue_is_read_by_one_instance_at_a_time() {
    let rounds: u64 = std::env::var("CROSSDOCK_ROUNDS").map_or(6, |text| text.parse().expect("a number"));
    let broker = RabbitMq::start();
    let (queue, dead) = (broker.name("singleton"), broker.name("singleton-dead"));
    broker.run(&["declare", &dead]);
    // A classic queue requeues a message at its original position.
    broker.run(&["declare-classic", &queue]);
    let counter = Counter::start(true);
    // Some messages are in flight at each hand-over.
    counter.slow_down(10);
    let listener = format!("broker: {{ amqp: {{ url: \"{}\" }} }}", broker.url);
    let values: [(&str, &dyn std::fmt::Display); 3] =
        [("COUNTER", &counter.address), ("QUEUE", &queue), ("DEAD", &dead)];
    let mut instances = Gateway::start_cluster_with(3, &listener, &routes("singletons", &values));
    let (mut by_kind, mut sent) = ([Duration::ZERO; 3], 0);
    for round in 0..rounds {
        let first = owner(&instances, None);
        let publish = |base: u64| {
            broker.run(&["publish", &queue, &format!("{{\"n\":#,\"base\":{base}}}"), &EACH.to_string()]);
        };
        publish(sent);
        let begun = Instant::now();
        let kind = usize::try_from(round % 3).expect("small");
        match kind {
            0 => {
                let gateway = instances.remove(first);
                instances.insert(first, gateway.restart());
            }
            1 => instances[first].signal("STOP"),
            _ => {
                let mut revoke = Command::new(crossdock());
                revoke.args(["locks", "revoke", &format!("entry broker/{queue}")]);
                revoke.args(["--reason", "test", "--admin", &instances[first].admin()]).stdout(Stdio::null());
                assert!(revoke.status().expect("it runs").success());
            }
        }
        publish(sent + EACH);
        // A killed one competes again once it has restarted.
        owner(&instances, (kind > 0).then_some(first));
        by_kind[kind] = by_kind[kind].max(begun.elapsed());
        if kind == 1 {
            instances[first].signal("CONT");
        }
        sent += 2 * EACH;
        until("all messages to be written", || {
            counter.written().iter().map(|(_, value)| *value).collect::<BTreeSet<_>>().len() as u64 == sent
        });
    }
    let owners = instances.iter().filter(|gateway| is_owner(gateway)).count();
    assert_eq!(owners, 1, "instances that read the queue");
    let (written, (_, rejected)) = (counter.written(), counter.state());
    assert_eq!(rejected, 0, "deliveries that overlap");
    assert!(written.is_sorted_by_key(|(token, _)| *token), "tokens of deliveries: {written:?}");
    let mut seen = BTreeSet::new();
    let firsts: Vec<u64> = written.iter().map(|(_, value)| *value).filter(|value| seen.insert(*value)).collect();
    assert!(firsts.is_sorted(), "first deliveries, without redeliveries: {firsts:?}");
    let redelivered = written.len() - firsts.len();
    println!(
        "{rounds} hand-overs: longest after kill, freeze, request {by_kind:?}; {sent} messages, {redelivered} redelivered"
    );
}

/// The number of entries that a gateway reads.
fn owned(gateway: &Gateway) -> usize {
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    let entries = metrics.lines().filter(|line| line.starts_with("crossdock_cluster_singleton{"));
    entries.filter(|line| line.ends_with(" 1")).count()
}

/// Six queues are divided among three instances, one of which fails and comes back, while messages arrive.
#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn queues_are_divided_evenly_among_the_instances_that_live() {
    const QUEUES: usize = 6;
    let broker = RabbitMq::start();
    let (queue, dead) = (broker.name("partition"), broker.name("partition-dead"));
    broker.run(&["declare", &dead]);
    for number in 0..QUEUES {
        broker.run(&["declare-classic", &format!("{queue}-{number}")]);
    }
    let ledger = Ledger::start(|_, _, _| (200, Duration::from_millis(5)));
    let listener = format!("broker: {{ amqp: {{ url: \"{}\" }} }}", broker.url);
    let values: [(&str, &dyn std::fmt::Display); 3] = [("LEDGER", &ledger.address), ("QUEUE", &queue), ("DEAD", &dead)];
    let mut instances = Gateway::start_cluster_with(3, &listener, &routes("partitioned", &values));
    let publish = || {
        for number in 0..QUEUES {
            let body = format!("{{\"key\":\"queue {number}\",\"n\":#}}");
            broker.run(&["publish", &format!("{queue}-{number}"), &body, &EACH.to_string()]);
        }
    };
    let divided = |instances: &[&Gateway], expected: &[usize]| {
        let begun = Instant::now();
        until("the queues to be divided", || {
            instances.iter().map(|gateway| owned(gateway)).eq(expected.iter().copied())
        });
        begun.elapsed()
    };
    let all = |instances: &[Gateway]| divided(&instances.iter().collect::<Vec<_>>(), &[2; 3]);
    let mut took = vec![all(&instances)];
    publish();
    instances[1].signal("STOP");
    took.push(divided(&[&instances[0], &instances[2]], &[3; 2]));
    instances[1].signal("CONT");
    took.push(all(&instances));
    publish();
    let killed = instances.remove(0);
    instances.insert(0, killed.restart());
    took.push(all(&instances));
    let expected: BTreeSet<u64> = (0..EACH).collect();
    for number in 0..QUEUES {
        let key = format!("queue {number}");
        until("all messages to be booked", || ledger.booked(&key).into_iter().collect::<BTreeSet<_>>() == expected);
    }
    assert_eq!(ledger.rejected(), 0, "deliveries that overlap");
    println!("divided at first, after a freeze, after its end, and after a kill: {took:?}");
}
