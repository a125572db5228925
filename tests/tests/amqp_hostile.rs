//! AMQP with malicious and malformed input, with RabbitMQ: no message is lost, the process and its connections survive, and failures do
//! not affect other messages.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossdock_tests::{Backend, Gateway, RabbitMq, Reply, call, crossdock, routes, until, until_within};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(300);

fn listeners(broker: &RabbitMq) -> String {
    format!("public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  broker: {{ amqp: {{ url: \"{}\" }} }}\n", broker.url)
}

fn depth(broker: &RabbitMq, queue: &str) -> usize {
    broker.run(&["depth", queue]).parse().expect("a number")
}

fn drained(broker: &RabbitMq, queue: &str) -> Vec<Value> {
    let count = depth(broker, queue);
    let lines = broker.run(&["drain", queue, &count.to_string()]);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn lost_connections(gateway: &Gateway, purpose: &str) -> usize {
    let matches = |line: &&String| line.contains("broker connection lost") && line.contains(purpose);
    gateway.log().iter().filter(matches).count()
}

fn reason(reply: &Reply) -> Option<String> {
    serde_json::from_str::<Value>(&reply.body).ok()?["reason"].as_str().map(ToOwned::to_owned)
}

/// Routes that forward a queue to an HTTP service.
fn consumer_routes(backend: &Backend, queue: &str, dead: &str) -> String {
    routes("amqp-echo", &[("BACKEND", &backend.address), ("QUEUE", &queue), ("DEAD", &dead)])
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_messages_with_deeply_nested_headers_or_invalid_utf8_are_dead_lettered() {
    let (broker, backend) = (RabbitMq::start(), Backend::start());
    let (queue, dead) = (broker.name("nested"), broker.name("nested-dead"));
    broker.run(&["declare", &queue, &dead]);
    let mut gateway = Gateway::start_with_files(&listeners(broker), &consumer_routes(&backend, &queue, &dead), &[]);
    for (kind, levels) in [("F", "1"), ("F", "64"), ("A", "64")] {
        broker.run_hostile(&["nest", &queue, kind, levels]);
    }
    // The routing key is not part of the message that the route sees.
    broker.run_hostile(&["latin1", &queue, "key"]);
    until("the readable messages to be delivered", || backend.requests() == 4);
    let bad = [("F", "65"), ("A", "65"), ("F", "2000"), ("A", "2000"), ("F", "18000"), ("A", "25000")];
    for (kind, levels) in bad {
        broker.run_hostile(&["nest", &queue, kind, levels]);
    }
    for property in ["message_id", "content_type", "type", "app_id", "correlation_id"] {
        broker.run_hostile(&["latin1", &queue, property]);
    }
    until("all others to be dead-lettered", || depth(broker, &dead) == bad.len() + 5);
    // The command line can read them too.
    let listed = Command::new(crossdock()).args(["dlq", "list", "--config"]).arg(gateway.folder()).output();
    let listed = String::from_utf8(listed.expect("the command runs").stdout).expect("UTF-8");
    assert!(listed.contains(&format!("{} dead letters", bad.len() + 5)), "{listed}");
    for letter in drained(broker, &dead) {
        assert_eq!(letter["headers"]["crossdock-reason"], "PROPERTIES", "{letter}");
        assert_eq!(letter["body"], "{\"a\":1}");
        let names: Vec<&String> = letter["headers"].as_object().expect("headers").keys().collect();
        assert!(names.iter().any(|name| *name == "crossdock-headers-dropped"), "{letter}");
    }
    assert_eq!((backend.requests(), lost_connections(&gateway, "")), (4, 0));
    assert!(gateway.is_running());
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_a_reply_with_deeply_nested_headers_is_a_bad_reply() {
    let broker = RabbitMq::start();
    let queue = broker.name("asked-deep");
    broker.run(&["declare", &queue]);
    let routes = routes("amqp-ask", &[("BROKER", &broker.url), ("QUEUE", &queue)]);
    let mut gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    let mut service = broker.hostile(&["answer", &queue, "F", "5000"]).stdout(Stdio::piped()).spawn().expect("pika");
    BufReader::new(service.stdout.take().expect("its output")).lines().next().expect("a line").expect("text");
    let reply = call(&gateway.public(), "POST", "/ask", "{}");
    assert_eq!((reply.status, reason(&reply).as_deref()), (500, Some("BAD_REPLY")));
    service.wait().expect("it ends");
    assert!(gateway.is_running());
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_returned_messages_with_equal_ids_are_distinguished_by_their_headers() {
    let count: usize = std::env::var("CROSSDOCK_MESSAGES").map_or(4_000, |text| text.parse().expect("a number"));
    let broker = RabbitMq::start();
    let (queue, dead, out) = (broker.name("equal"), broker.name("equal-dead"), broker.name("equal-out"));
    let exchange = broker.name("regions");
    broker.run(&["declare-classic", &queue, &dead, &out]);
    broker.run_hostile(&["region", &exchange, &out]);
    broker.run_hostile(&["equal", &queue, &count.to_string()]);
    // An error rule of the route dead-letters returned messages at once.
    let routes =
        routes("amqp-regions", &[("BROKER", &broker.url), ("EXCHANGE", &exchange), ("QUEUE", &queue), ("DEAD", &dead)]);
    let _gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    until_within(LONG, "all messages to be processed", || {
        depth(broker, &queue) == 0 && depth(broker, &out) + depth(broker, &dead) == count
    });
    let numbers = |queue: &str, rest: u64| {
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        for message in drained(broker, queue) {
            let body: Value = serde_json::from_str(message["body"].as_str().expect("a body")).expect("JSON");
            *seen.entry(body["n"].as_u64().expect("a number")).or_default() += 1;
        }
        let (lost, duplicates) = (count / 2 - seen.len(), seen.values().filter(|times| **times > 1).count());
        println!("{queue}: {} messages, lost {lost}, duplicates {duplicates}", seen.len());
        assert!(seen.keys().all(|number| number % 2 == rest), "no message took the other path");
        assert_eq!((lost, duplicates), (0, 0));
    };
    numbers(&out, 0);
    numbers(&dead, 1);
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_invalid_reply_addresses_do_not_affect_other_requests() {
    let (broker, backend) = (RabbitMq::start(), Backend::start());
    let [queue, dead, out, asked] =
        ["replies", "replies-dead", "replies-out", "replies-asked"].map(|name| broker.name(name));
    broker.run(&["declare", &queue, &dead, &out, &asked]);
    let routes = routes(
        "amqp-reply-addresses",
        &[
            ("BROKER", &broker.url),
            ("BACKEND", &backend.address),
            ("OUT", &out),
            ("ASKED", &asked),
            ("QUEUE", &queue),
            ("DEAD", &dead),
        ],
    );
    let gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    let mut service = broker.peer(&["serve", &asked]).stdout(Stdio::piped()).spawn().expect("pika");
    BufReader::new(service.stdout.take().expect("its output")).lines().next().expect("a line").expect("text");
    let (gone, foreign) = (broker.run_hostile(&["address", "gone"]), broker.run_hostile(&["address", "foreign"]));
    let old = "amq.rabbitmq.reply-to.g2dkABByYWJiaXRAb3RoZXItaG9zdAAAGSsAAAAAAw==.VehVGcPRkVkhHYaCr9MIeQ==";
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for path in ["/post", "/post", "/ask", "/ask"] {
            let (stop, address) = (&stop, gateway.public());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let reply = call(&address, "POST", path, "{}");
                    assert!(matches!(reply.status, 200 | 202), "{path}: {} {:?}", reply.status, reply.body);
                }
            });
        }
        scope.spawn(|| {
            // Stops the callers even if an assertion below fails.
            struct StopOnDrop<'a>(&'a AtomicBool);
            impl Drop for StopOnDrop<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _stop = StopOnDrop(&stop);
            for (address, count) in
                [(gone.as_str(), "3"), (&foreign, "3"), (old, "1"), ("amq.rabbitmq.reply-to.nonsense", "1")]
            {
                broker.run_hostile(&["ask", &queue, address, count]);
            }
            until("every request to be settled", || depth(broker, &queue) == 0 && backend.requests() == 8);
            until("requests with a foreign reply address to be dead-lettered", || depth(broker, &dead) >= 4);
        });
    });
    let _ = service.kill();
    let _ = service.wait();
    assert_eq!(backend.requests(), 8, "each request is processed once");
    for purpose in ["Publish", "Reply", "Consume"] {
        assert_eq!(lost_connections(&gateway, &format!("purpose={purpose} ")), 0, "{purpose}");
    }
    assert!(drained(broker, &dead).iter().all(|letter| letter["headers"]["crossdock-reason"] == "REPLY_ADDRESS"));
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_refusing_one_message_does_not_affect_concurrent_ones() {
    // Limits and permissions apply to the whole broker.
    let broker = RabbitMq::start_private();
    let [from, dead, out] = ["refused", "refused-dead", "refused-out"].map(|name| broker.name(name));
    broker.run(&["declare", &from, &dead]);
    broker.run(&["bind", "amq.topic", &out, "open.*"]);
    broker.control(&["set_topic_permissions", "guest", "amq.topic", "^open", ".*"]);
    broker.control(&["eval", "application:set_env(rabbit, max_message_size, 100000)."]);
    broker.run(&["publish", &from, "{\"place\":\"closed\"}"]);
    let routes = routes("amqp-refusals", &[("BROKER", &broker.url), ("FROM", &from), ("DEAD", &dead)]);
    let gateway = Gateway::start_with_files(&listeners(&broker), &routes, &[]);
    let count = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    for number in 0..150 {
                        let reply = call(&gateway.public(), "POST", "/put/open", &format!("{{\"n\":{number}}}"));
                        assert_eq!(reply.status, 202, "a concurrent caller: {:?}", reply.body);
                    }
                    150
                })
            })
            .collect();
        let large = format!("\"{}\"", "y".repeat(200_000));
        for _ in 0..5 {
            for (path, body, expected) in [("/put/closed", "{}", 403), ("/put/open", large.as_str(), 413)] {
                let reply = call(&gateway.public(), "POST", path, body);
                assert_eq!((reply.status, reason(&reply).as_deref()), (expected, Some("REFUSED")), "{path}");
                assert!(!reply.body.contains("guest"), "broker users are not disclosed");
            }
        }
        callers.into_iter().map(|caller| caller.join().expect("no call fails")).sum::<usize>()
    });
    // Messages that were republished individually may have been stored before.
    let stored = depth(&broker, &out);
    println!("{count} accepted, {stored} stored");
    assert!((count..count + 50).contains(&stored), "{count} accepted, {stored} stored");
    until("the refused message to be dead-lettered", || depth(&broker, &dead) == 1);
    let letters = drained(&broker, &dead);
    assert_eq!(letters[0]["headers"]["crossdock-attempts"], 1, "it is not retried: {}", letters[0]);
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_a_dead_letter_cycle_across_listeners_is_slowed_down() {
    let (broker, backend) = (RabbitMq::start(), Backend::start());
    let (there, back) = (broker.name("cycle-there"), broker.name("cycle-back"));
    broker.run(&["declare", &there, &back]);
    // With two listeners, the check assumes queues of two brokers.
    let listeners = listeners(broker) + &format!("  other: {{ amqp: {{ url: \"{}\" }} }}\n", broker.url);
    let routes = routes("amqp-dead-letter-cycle", &[("BACKEND", &backend.address), ("THERE", &there), ("BACK", &back)]);
    let gateway = Gateway::start_with_files(&listeners, &routes, &[]);
    broker.run(&["publish", &there, "{}"]);
    let warnings = || gateway.log().iter().filter(|line| line.contains("dead letter cycle detected")).count();
    // The delays before the second and third warning are one and two seconds.
    until("the message to be slowed down", || warnings() == 3);
    assert_eq!(backend.requests(), 11, "nine before the first delay, one after each");
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_an_expiring_message_is_delivered_or_dead_lettered_with_its_last_error() {
    const COUNT: usize = 300;
    let (broker, backend) = (RabbitMq::start(), Backend::start());
    let [from, dead, out] = ["expiring", "expiring-dead", "expiring-out"].map(|name| broker.name(name));
    let [failing, failed] = ["expiring-fails", "expiring-failed"].map(|name| broker.name(name));
    broker.run(&["declare", &from, &dead, &out, &failing, &failed]);
    let routes = routes(
        "amqp-expiring",
        &[
            ("BROKER", &broker.url),
            ("BACKEND", &backend.address),
            ("FROM", &from),
            ("DEAD", &dead),
            ("OUT", &out),
            ("FAILING", &failing),
            ("FAILED", &failed),
        ],
    );
    let _gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    until("the queues to be consumed", || {
        broker.run_hostile(&["expiring", &failing, "1", "400"]);
        depth(broker, &failed) > 0
    });
    // Shorter than a quorum queue takes to confirm.
    broker.run_hostile(&["expiring", &from, &COUNT.to_string(), "3"]);
    until("the queue to be empty", || depth(broker, &from) == 0);
    let mut before = usize::MAX;
    until("no message to be in flight", || {
        let now = depth(broker, &out) + depth(broker, &dead);
        std::mem::replace(&mut before, now) == now
    });
    let numbers = |queue: &str| {
        let bodies = drained(broker, queue).into_iter();
        bodies
            .map(|message| message["body"].as_str().expect("a body").to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (delivered, dead_lettered) = (numbers(&out), numbers(&dead));
    println!("{} delivered, {} dead-lettered, the rest expired in the queue", delivered.len(), dead_lettered.len());
    assert!(!delivered.is_empty(), "some arrive in time");
    assert!(delivered.is_disjoint(&dead_lettered), "no message is both");
    for letter in drained(broker, &failed) {
        assert_eq!(letter["headers"]["crossdock-reason"], "SERVICE_STATUS", "{letter}");
    }
}
