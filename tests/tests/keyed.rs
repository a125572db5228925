//! Processing by key: `order` and `idempotency`; and steps that send several messages for one: `split`, `multicast`, `filter`.

use std::collections::BTreeMap;
use std::time::Duration;

use crossdock_tests::{Connection, Gateway, RabbitMq, Recorder, call, routes, until};
use serde_json::Value;

fn number(body: &str) -> i64 {
    let body: Value = serde_json::from_str(body).expect(body);
    body["n"].as_i64().expect("a number")
}

/// The message numbers by key in processing order, without repetitions.
fn by_key(processed: &[String], keys: i64) -> BTreeMap<i64, Vec<i64>> {
    let mut sequences: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for number in processed.iter().map(|body| number(body)) {
        let sequence = sequences.entry(number % keys).or_default();
        if !sequence.contains(&number) {
            sequence.push(number);
        }
    }
    sequences
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_messages_of_one_key_stay_in_order() {
    const COUNT: u16 = 600;
    let broker = RabbitMq::start();
    let (queue, dead) = (broker.name("ordered"), broker.name("ordered-dead"));
    // A classic queue requeues a message at its original position; a quorum queue does not.
    broker.run(&["declare", &dead]);
    broker.run(&["declare-classic", &queue]);
    broker.run(&["publish", &queue, "{\"n\":#}", &COUNT.to_string()]);
    // Every fourth request fails, and delays vary.
    let flaky = |request: usize, _: &str| {
        (if request % 4 == 3 { 503 } else { 200 }, Duration::from_millis([0, 3, 1, 0, 7][request % 5]))
    };
    let recorder = Recorder::start(flaky);
    let listener = format!("broker: {{ amqp: {{ url: \"{}\" }} }}", broker.url);
    let routes = routes("keyed-order", &[("BACKEND", &recorder.address), ("QUEUE", &queue), ("DEAD", &dead)]);
    for stop_after in [COUNT / 4, COUNT / 2, COUNT].map(usize::from) {
        let mut gateway = Gateway::start_with(&listener, &routes);
        until("some messages to be processed", || recorder.processed().len() >= stop_after);
        gateway.signal("TERM");
        assert_eq!(gateway.wait().code, Some(0));
    }
    for (key, sequence) in by_key(&recorder.processed(), 5) {
        let expected: Vec<i64> = (0..i64::from(COUNT)).filter(|number| number % 5 == key).collect();
        let wrong = sequence.iter().zip(&expected).position(|(got, expected)| got != expected);
        let around = wrong.map(|at| &sequence[at.saturating_sub(5)..(at + 10).min(sequence.len())]);
        assert!(
            wrong.is_none() && sequence.len() == expected.len(),
            "{} messages of key {key}, out of order at {around:?}",
            sequence.len()
        );
    }
    assert!(
        (2..=5).contains(&recorder.in_flight_max()),
        "different keys are processed concurrently: {}",
        recorder.in_flight_max()
    );
    assert_eq!(broker.run(&["depth", &dead]), "0");
}

fn deduplicating_gateway(recorder: &Recorder) -> Gateway {
    Gateway::start(&routes("keyed-idempotency", &[("BACKEND", &recorder.address)]))
}

fn post_with_key(address: &str, key: &str, body: &str) -> (u16, String) {
    let mut connection = Connection::open(address);
    let head =
        format!("POST /book HTTP/1.1\r\nhost: x\r\nidempotency-key: {key}\r\ncontent-type: application/json\r\n");
    connection.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let reply = connection.receive(false).expect("an answer");
    (reply.status, reply.body)
}

#[test]
fn a_repeated_message_is_processed_once() {
    let slow = |_: usize, body: &str| (if body.contains("fail") { 503 } else { 201 }, Duration::from_millis(60));
    let recorder = Recorder::start(slow);
    let gateway = deduplicating_gateway(&recorder);
    let address = gateway.public();
    let callers: Vec<_> = (0..12)
        .map(|caller| {
            let address = address.clone();
            std::thread::spawn(move || {
                let key = if caller % 2 == 0 { "even" } else { "odd" };
                assert_eq!(
                    post_with_key(&address, key, &format!("{{\"{key}\":1}}")),
                    (201, format!("{{\"{key}\":1}}"))
                );
            })
        })
        .collect();
    for caller in callers {
        caller.join().expect("all callers get the same response");
    }
    let mut processed = recorder.processed();
    processed.sort();
    assert_eq!(processed, ["{\"even\":1}", "{\"odd\":1}"]);

    let (status, answer) = post_with_key(&address, "even", "{\"another\":1}");
    assert!(status == 422 && answer.contains("KEY_REUSED"), "{status} {answer}");
    let (status, _) = post_with_key(&address, "even\r\nx-tenant: another", "{\"even\":1}");
    assert_eq!(status, 422, "a key of another tenant is not shared");
    assert_eq!(post_with_key(&address, "third", "{\"fail\":1}").0, 503);
    assert_eq!(post_with_key(&address, "third", "{\"good\":1}").0, 201, "a failure is not cached");
    let keyless = call(&address, "POST", "/book", "{}");
    assert!(keyless.status == 400 && keyless.body.contains("KEY"), "{} {}", keyless.status, keyless.body);
    assert_eq!(recorder.requests(), 4);

    let short = || call(&address, "POST", "/short", "{\"id\":7}").status;
    assert_eq!((short(), short()), (201, 201));
    assert_eq!(recorder.requests(), 5);
    until("the window to end", || short() == 201 && recorder.requests() == 6);
}

#[test]
fn a_retry_after_a_disconnect_gets_the_first_result() {
    let recorder = Recorder::start(|_, _| (200, Duration::from_millis(150)));
    let gateway = deduplicating_gateway(&recorder);
    let address = gateway.public();
    let mut connection = Connection::open(&address);
    let head = "POST /book HTTP/1.1\r\nhost: x\r\nidempotency-key: left\r\ncontent-type: application/json\r\n";
    connection.send(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes());
    until("the call to be in flight", || recorder.requests() == 1);
    drop(connection);
    assert_eq!(post_with_key(&address, "left", "{}"), (200, "{}".to_owned()));
    assert_eq!(recorder.requests(), 1);
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_receives_the_messages_of_split_multicast_and_filter() {
    let broker = RabbitMq::start();
    let name = |part: &str| broker.name(part);
    broker.run(&["declare", &name("lines"), &name("audit"), &name("large")]);
    let gateway = Gateway::start(&routes(
        "keyed-parts",
        &[("BROKER", &broker.url), ("LINES", &name("lines")), ("AUDIT", &name("audit")), ("LARGE", &name("large"))],
    ));
    let post = |path: &str, body: &str| call(&gateway.public(), "POST", path, body);
    let order = "{\"id\":\"o-1\",\"lines\":[{\"sku\":\"a\",\"count\":1.50},{\"sku\":\"b\",\"count\":2}]}";
    assert_eq!(post("/orders", order).status, 202);
    assert_eq!(post("/orders", "{\"id\":\"o-2\",\"lines\":[]}").status, 202);
    let drain = |queue: &str, count: &str| -> Vec<Value> {
        let output = broker.run(&["drain", &name(queue), count]);
        output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let lines = drain("lines", "2");
    let bodies: Vec<&str> = lines.iter().filter_map(|line| line["body"].as_str()).collect();
    assert_eq!(
        bodies,
        ["{\"order\":\"o-1\",\"sku\":\"a\",\"count\":1.50}", "{\"order\":\"o-1\",\"sku\":\"b\",\"count\":2}"]
    );
    let ids: Vec<&str> = lines.iter().filter_map(|line| line["message_id"].as_str()).collect();
    assert!(
        ids[0].ends_with(".0") && ids[1].ends_with(".1") && ids[0][..ids[0].len() - 2] == ids[1][..ids[1].len() - 2],
        "{ids:?}"
    );
    assert_eq!(lines[1]["headers"]["x-order"], "o-1", "each part carries the headers that were set");
    assert_eq!(drain("audit", "1")[0]["body"], "{\"id\":\"o-1\"}");
    assert_eq!(
        (broker.run(&["depth", &name("large")]), broker.run(&["depth", &name("audit")])),
        ("0".into(), "0".into())
    );

    assert_eq!(post("/whole", "{\"items\":[1,\"two\",{\"three\":3}]}").status, 202);
    let mut bodies: Vec<String> =
        drain("lines", "3").iter().filter_map(|line| line["body"].as_str().map(str::to_owned)).collect();
    bodies.sort();
    assert_eq!(bodies, ["\"two\"", "1", "{\"three\":3}"]);
    assert_eq!(post("/whole", "{\"items\":7}").status, 400);

    let half = post("/half", "{}");
    assert!(half.status == 503 && half.body.contains("UNROUTABLE"), "{} {}", half.status, half.body);
    assert_eq!(drain("audit", "1").len(), 1, "the other branches are executed nevertheless");
}

#[test]
fn the_message_of_a_disconnected_caller_is_not_overtaken_within_its_key() {
    let recorder = Recorder::start(|number, _| (200, Duration::from_millis(if number == 0 { 300 } else { 0 })));
    let gateway = Gateway::start(&routes("keyed-overtaking", &[("BACKEND", &recorder.address)]));
    let mut connection = Connection::open(&gateway.public());
    let first = "{\"key\":1,\"n\":1}";
    let head = "POST /book HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    connection.send(format!("{head}content-length: {}\r\n\r\n{first}", first.len()).as_bytes());
    until("the call to be in flight", || recorder.requests() == 1);
    drop(connection);
    let second = call(&gateway.public(), "POST", "/book", "{\"key\":1,\"n\":2}");
    assert_eq!(second.status, 200, "{}", second.body);
    assert_eq!(recorder.processed(), [first, "{\"key\":1,\"n\":2}"]);
    let other = call(&gateway.public(), "POST", "/book", "{\"n\":3}");
    assert!(other.status == 400 && other.body.contains("is absent"), "{} {}", other.status, other.body);
}
