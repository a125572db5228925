//! Entries that one instance of a cluster reads at a time.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossdock_engines::Kind;
use crossdock_tests::{Counter, EngineServers, Gateway, Ledger, RabbitMq, call, crossdock, routes, until};

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

/// What makes an instance lose an entry.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    /// It is asked to give it up.
    Revoke,
}

/// A queue, and a service that writes its messages.
struct Bookings {
    broker: &'static RabbitMq,
    queue: String,
    listener: String,
    routes: String,
    counter: Counter,
}

impl Bookings {
    fn new(name: &str) -> Self {
        let broker = RabbitMq::start();
        let (queue, dead) = (broker.name(name), broker.name(&format!("{name}-dead")));
        broker.run(&["declare", &dead]);
        // A classic queue requeues a message at its original position.
        broker.run(&["declare-classic", &queue]);
        let counter = Counter::start(true);
        // Some messages are in flight at each hand-over.
        counter.slow_down(10);
        let listener = format!("broker: {{ amqp: {{ url: \"{}\" }} }}", broker.url);
        let values: [(&str, &dyn std::fmt::Display); 3] =
            [("COUNTER", &counter.address), ("QUEUE", &queue), ("DEAD", &dead)];
        let routes = routes("singletons", &values);
        Self { broker, queue, listener, routes, counter }
    }

    /// Lets the instance that reads the queue lose it, again and again, while messages arrive. Prints the longest hand-over of each kind.
    fn hand_over(&self, mut instances: Vec<Gateway>, faults: &[Fault], rounds: usize) {
        let Self { broker, queue, counter, .. } = self;
        let (mut longest, mut sent) = (vec![Duration::ZERO; faults.len()], 0);
        for round in 0..rounds {
            let first = owner(&instances, None);
            let publish = |base: u64| {
                broker.run(&["publish", queue, &format!("{{\"n\":#,\"base\":{base}}}"), &EACH.to_string()]);
            };
            publish(sent);
            let begun = Instant::now();
            let fault = faults[round % faults.len()];
            match fault {
                Fault::Kill => {
                    let gateway = instances.remove(first);
                    instances.insert(first, gateway.restart());
                }
                Fault::Freeze => instances[first].signal("STOP"),
                Fault::Revoke => {
                    let mut revoke = Command::new(crossdock());
                    revoke.args(["locks", "revoke", &format!("entry broker/{queue}")]);
                    revoke.args(["--reason", "test", "--admin", &instances[first].admin()]).stdout(Stdio::null());
                    assert!(revoke.status().expect("it runs").success());
                }
            }
            publish(sent + EACH);
            // A killed one competes again once it has restarted.
            owner(&instances, (!matches!(fault, Fault::Kill)).then_some(first));
            let taken = &mut longest[round % faults.len()];
            *taken = (*taken).max(begun.elapsed());
            if let Fault::Freeze = fault {
                instances[first].signal("CONT");
            }
            sent += 2 * EACH;
            until("all messages to be written", || {
                counter.written().iter().map(|(_, value)| *value).collect::<BTreeSet<_>>().len() as u64 == sent
            });
        }
        until("one instance to read the queue", || instances.iter().filter(|gateway| is_owner(gateway)).count() == 1);
        let (written, (_, rejected)) = (counter.written(), counter.state());
        assert_eq!(rejected, 0, "deliveries that overlap");
        assert!(written.is_sorted_by_key(|(token, _)| *token), "tokens of deliveries: {written:?}");
        let mut seen = BTreeSet::new();
        let firsts: Vec<u64> = written.iter().map(|(_, value)| *value).filter(|value| seen.insert(*value)).collect();
        assert!(firsts.is_sorted(), "first deliveries, without redeliveries: {firsts:?}");
        let redelivered = written.len() - firsts.len();
        println!(
            "{rounds} hand-overs: longest after {faults:?} {longest:?}; {sent} messages, {redelivered} redelivered"
        );
    }
}

fn rounds(default: usize) -> usize {
    std::env::var("CROSSDOCK_ROUNDS").map_or(default, |text| text.parse().expect("a number"))
}

/// Kills, freezes and asks the instance that reads a queue to give it up, while messages arrive.
#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn a_queue_is_read_by_one_instance_at_a_time() {
    let bookings = Bookings::new("singleton");
    let instances = Gateway::start_cluster_with(3, &bookings.listener, &bookings.routes);
    bookings.hand_over(instances, &[Fault::Kill, Fault::Freeze, Fault::Revoke], rounds(6));
}

/// The same with engines outside of the gateway, which can only lose an entry with its session.
fn read_with(kind: Kind) {
    let (servers, bookings) = (EngineServers::start(kind), Bookings::new(kind.row().name));
    let settings = servers.settings(2);
    let instance = || Gateway::start_with_settings(&bookings.listener, &settings, &bookings.routes);
    bookings.hand_over(vec![instance(), instance()], &[Fault::Kill, Fault::Freeze], rounds(2));
}

#[test]
#[ignore = "needs RabbitMQ and ZooKeeper, which tests/run installs"]
fn external_engines_give_a_queue_one_reader_zookeeper() {
    read_with(Kind::Zookeeper);
}

#[test]
#[ignore = "needs RabbitMQ and etcd, which tests/run installs"]
fn external_engines_give_a_queue_one_reader_etcd() {
    read_with(Kind::Etcd);
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
