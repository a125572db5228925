//! `idempotency: { scope: cluster }` on routes that answer with a reply.

use std::time::{Duration, Instant};

use crossdock_tests::{Connection, Gateway, Recorder, Reply, call, routes, until};

fn cluster(recorder: &Recorder) -> Vec<Gateway> {
    let instances = Gateway::start_cluster(3, &routes("keyed-in-cluster", &[("BACKEND", &recorder.address)]));
    // A leader may not be elected yet.
    until("a message to be processed", || post(&instances[0], "first", "{\"first\":1}").status == 201);
    instances
}

fn post(gateway: &Gateway, key: &str, body: &str) -> Reply {
    post_to(&gateway.public(), key, body).expect("an answer")
}

/// `None` if the instance does not answer.
fn post_to(address: &str, key: &str, body: &str) -> Option<Reply> {
    let mut connection = Connection::open(address);
    let head =
        format!("POST /book HTTP/1.1\r\nhost: x\r\nidempotency-key: {key}\r\ncontent-type: application/json\r\n");
    connection.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    connection.receive(false)
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name}{{route=\"book\"}} ")));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().expect("a number")
}

fn processed(recorder: &Recorder, body: &str) -> usize {
    recorder.processed().iter().filter(|processed| *processed == body).count()
}

#[test]
fn a_repeated_message_is_processed_once_whichever_instances_it_arrives_at() {
    let slow = |_: usize, body: &str| (if body.contains("fail") { 503 } else { 200 }, Duration::from_millis(60));
    let recorder = Recorder::start(slow);
    let instances = cluster(&recorder);
    std::thread::scope(|scope| {
        for caller in 0..18 {
            let gateway = &instances[caller % 3];
            scope.spawn(move || {
                let key = ["even", "odd"][caller / 3 % 2];
                let reply = post(gateway, key, &format!("{{\"{key}\":0.10}}"));
                assert_eq!((reply.status, reply.header("x-kept")), (201, Some("yes")), "{}", reply.body);
                assert_eq!(reply.body, format!("{{\"price\":1.50,\"got\":{{\"{key}\":0.10}}}}"));
            });
        }
    });
    assert_eq!((processed(&recorder, "{\"even\":0.10}"), processed(&recorder, "{\"odd\":0.10}")), (1, 1));
    let duplicates: u64 = instances.iter().map(|gateway| metric(gateway, "crossdock_route_duplicates_total")).sum();
    assert_eq!(duplicates, 16);

    let refused = |reply: Reply, status: u16, reason: &str| {
        assert!(reply.status == status && reply.body.contains(reason), "{} {}", reply.status, reply.body);
    };
    let [first, second, third] = &instances[..] else { panic!("three instances") };
    refused(post(second, "even", "{\"another\":1}"), 422, "KEY_REUSED");
    refused(post(third, "even\r\nx-tenant: another", "{\"even\":0.10}"), 422, "KEY_REUSED");
    refused(call(&first.public(), "POST", "/book", "{}"), 400, "KEY");
    assert_eq!(post(first, "failed", "{\"fail\":1}").status, 503);
    assert_eq!(post(second, "failed", "{\"good\":1}").status, 201, "a failure is not remembered");
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(post(first, "large", &large).status, 201);
    refused(post(second, "large", &large), 409, "CARRIED_OUT");
    let long = "k".repeat(500);
    assert_eq!([first, second].map(|gateway| post(gateway, &long, "{\"long\":1}").status), [201, 201]);
    assert_eq!(processed(&recorder, "{\"long\":1}"), 1);

    let short = |gateway: &Gateway| call(&gateway.public(), "POST", "/short", "{\"id\":7}").status;
    assert_eq!((short(first), short(second)), (200, 200));
    assert_eq!(processed(&recorder, "{\"id\":7}"), 1);
    until("the window to end", || short(third) == 200 && processed(&recorder, "{\"id\":7}") == 2);

    // In the queue of an order as well: whichever instance processes the message.
    let delivered = "{\"account\":\"a\",\"id\":8}";
    for gateway in [first, second, third, first] {
        let reply = call(&gateway.public(), "POST", "/delivered", delivered);
        assert_eq!((reply.status, &*reply.body), (200, delivered));
    }
    assert_eq!(processed(&recorder, delivered), 1);

    // Nobody waits for the reply to a message of a queue, which is settled like the first one.
    for gateway in [first, second, third] {
        assert_eq!(call(&gateway.public(), "POST", "/jobs", "{\"job\":9}").status, 202);
    }
    let queue = || first.admin_json("/api/v1/queues?prefix=jobs")["queues"][0].clone();
    until("the queue to be empty", || queue()["messages"] == 0);
    assert_eq!(
        (processed(&recorder, "{\"job\":9}"), &queue()["dead_letters"]),
        (1, &serde_json::json!(0)),
        "{}",
        queue()
    );
}

#[test]
fn a_key_survives_its_caller_its_instance_and_a_restart_of_all() {
    let recorder = Recorder::start(|_, _| (200, Duration::from_millis(150)));
    let mut instances = cluster(&recorder);
    let mut connection = Connection::open(&instances[0].public());
    let head = "POST /book HTTP/1.1\r\nhost: x\r\nidempotency-key: left\r\ncontent-type: application/json\r\n";
    connection.send(format!("{head}content-length: 10\r\n\r\n{{\"left\":1}}").as_bytes());
    until("the call to be in flight", || recorder.requests() == 2);
    drop(connection);
    let expected = "{\"price\":1.50,\"got\":{\"left\":1}}";
    assert_eq!(post(&instances[1], "left", "{\"left\":1}").body, expected, "the duplicate waits for it");
    drop(instances.remove(0));
    until("another leader", || post(&instances[0], "left", "{\"left\":1}").body == expected);
    let second = instances.remove(0).restart();
    let third = instances.remove(0).restart();
    for gateway in [&second, &third] {
        until("the cluster to be back", || post(gateway, "left", "{\"left\":1}").body == expected);
    }
    assert_eq!(processed(&recorder, "{\"left\":1}"), 1);
}

/// The instance that processes a message is killed, or frozen for longer than its session: it is not known what it has done, so a
/// duplicate is processed, and its result is the one that is remembered.
#[test]
fn a_duplicate_is_processed_once_the_session_of_a_failed_instance_has_ended() {
    let recorder = Recorder::start(|number, body| {
        let is_first = body.contains("held") && number < 2;
        (200, if is_first { Duration::from_millis(2_500) } else { Duration::ZERO })
    });
    let instances = cluster(&recorder);
    let [frozen, other, third] = &instances[..] else { panic!("three instances") };
    std::thread::scope(|scope| {
        let held = scope.spawn(|| post(frozen, "held", "{\"held\":1}"));
        until("the call to be in flight", || recorder.requests() == 2);
        frozen.signal("STOP");
        let begun = Instant::now();
        assert_eq!(post(other, "held", "{\"held\":1}").status, 201);
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(500), "the session ended after {took:?}");
        assert_eq!(post(third, "held", "{\"held\":1}").status, 201);
        assert_eq!(recorder.requests(), 3, "its result is remembered");
        frozen.signal("CONT");
        assert_eq!(held.join().expect("no panic").status, 201, "it was processed");
    });
    assert_eq!(metric(frozen, "crossdock_route_keys_lost_total"), 1);
    assert!(frozen.log().iter().any(|line| line.contains("idempotency key is not remembered")));
    until("the frozen instance to have a session", || post(frozen, "held", "{\"held\":1}").status == 201);
    assert_eq!(recorder.requests(), 3);
}

#[test]
fn without_a_majority_nothing_is_processed() {
    let recorder = Recorder::start(|_, _| (200, Duration::ZERO));
    let mut instances = cluster(&recorder);
    assert_eq!(post(&instances[2], "known", "{\"known\":1}").status, 201);
    instances.truncate(1);
    let reply = post(&instances[0], "new\r\ncrossdock-timeout: 1500ms", "{\"new\":1}");
    assert!(reply.status == 503 && reply.body.contains("NO_QUORUM"), "{} {}", reply.status, reply.body);
    assert_eq!(post(&instances[0], "known", "{\"known\":1}").status, 201, "what it knows, it answers");
    assert_eq!((processed(&recorder, "{\"new\":1}"), processed(&recorder, "{\"known\":1}")), (0, 1));
}
