//! The Kafka adapter with Apache Kafka, its own tools, aiokafka and franz-go.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossdock_tests::{
    Backend, Gateway, Kafka, Recorder, call, call_with, peers, routes, until, until_within, write_certificates,
};
use serde_json::{Value, json};

/// An HTTP listener, and a member of a group that only this test uses.
fn listeners(kafka: &Kafka, group: &str) -> String {
    format!(
        "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  topics: {{ kafka: {{ brokers: \"{}\", group: {group}, commit_interval: 100ms }} }}",
        kafka.brokers
    )
}

fn problem(body: &str) -> Value {
    serde_json::from_str(body).expect(body)
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_stores_records_accepted_over_http() {
    let kafka = Kafka::start();
    let topic = kafka.name("orders");
    let topics = [
        format!("{topic}:3"),
        format!("{topic}-secure"),
        format!("{topic}-compacted:1:cleanup.policy=compact"),
        format!("{topic}-small:1:max.message.bytes=1000"),
    ];
    kafka.run(&[&["create"][..], &topics.each_ref().map(String::as_str)].concat());
    let (user, password) = &kafka.login;
    let routes = routes(
        "kafka-intake",
        &[
            ("BROKERS", &kafka.brokers),
            ("BROKERS_WITH_LOGIN", &kafka.brokers_with_login),
            ("TOPIC", &topic),
            ("USER", user),
            ("PASSWORD", password),
        ],
    );
    let gateway = Gateway::start(&routes);
    let bodies = ["a", "b", "a"].map(|customer| format!("{{ \"customer\": \"{customer}\", \"n\" : 1.10 }}"));
    for body in &bodies {
        assert_eq!(call(&gateway.public(), "POST", "/orders", body).status, 202);
    }
    let records = kafka.read(&topic);
    assert_eq!(records.len(), 3);
    let with_key = |key: &str| records.iter().filter(|record| record["key"] == key).collect::<Vec<_>>();
    let of_a = with_key("a");
    assert_eq!((of_a.len(), with_key("b").len()), (2, 1));
    assert_eq!(of_a[0]["partition"], of_a[1]["partition"], "one key, one partition");
    assert_eq!(of_a[0]["value"], bodies[0], "byte for byte");
    assert!(of_a[0]["headers"].as_array().expect("headers").contains(&json!(["content-type", "application/json"])));
    assert_eq!(call(&gateway.public(), "POST", "/secure", "{}").status, 202, "with a login");
    // Compresses badly.
    let digits: String = (0..2000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    let large = format!("\"{digits}\"");
    for (path, body, status, reason) in [
        ("/orders", "{}", 400, "ADDRESS_FIELD"),
        ("/compact", "{}", 400, "REFUSED"),
        ("/small", large.as_str(), 413, "REFUSED"),
        ("/lost", "{}", 503, "NO_TOPIC"),
    ] {
        let reply = call_with(&gateway.public(), "POST", path, "application/json", body.as_bytes());
        assert_eq!(
            (reply.status, problem(&reply.body)["reason"].as_str()),
            (status, Some(reason)),
            "{path}: {}",
            reply.body
        );
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_records_cross_unchanged() {
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("exact"), kafka.name("exact-to"));
    kafka.run(&["create", &from, &to]);
    let sent = [
        json!({ "key": "k", "value": "text", "headers": [["x-a", "1"], ["x-b", "b"]], "timestamp": 1_700_000_000_123_u64 }),
        json!({ "key": null, "value": "hex:ff00fe", "headers": [], "timestamp": 1_700_000_000_124_u64 }),
        json!({ "key": "hex:fffe", "value": null, "headers": [], "timestamp": 1_700_000_000_125_u64 }),
        json!({ "key": "", "value": "", "headers": [], "timestamp": 1_700_000_000_126_u64 }),
    ];
    kafka.write(&from, &sent);
    let routes = routes("kafka-bridge", &[("BROKERS", &kafka.brokers), ("FROM", &from), ("TO", &to)]);
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes);
    until("all records to cross", || kafka.run(&["count", &to]) == "4");
    let received = kafka.read(&to);
    for (sent, received) in sent.iter().zip(&received) {
        for field in ["key", "value", "headers", "timestamp"] {
            assert_eq!(received[field], sent[field], "{field} of {sent}");
        }
    }
    until("their offsets to be committed", || kafka.committed(&from, &from) == 4);
    drop(gateway);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_records_are_retried_in_order_and_dead_lettered_with_their_content() {
    let kafka = Kafka::start();
    let (from, dead) = (kafka.name("retried"), kafka.name("retried-dead"));
    kafka.run(&["create", &from, &dead]);
    // Record 1 fails twice, record 2 is invalid.
    let service = Recorder::start(|attempt, body| match body {
        _ if body.contains("\"n\":1") && attempt < 4 => (503, Duration::ZERO),
        _ if body.contains("\"n\":2") => (400, Duration::ZERO),
        _ => (200, Duration::ZERO),
    });
    let record = |n: u32| json!({ "key": "k", "value": format!("{{\"n\":{n}}}"), "headers": [["X-Own", "own"]], "timestamp": 1_700_000_000_000_u64 });
    kafka.write(&from, &(0..4).map(record).collect::<Vec<_>>());
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"partition"), ("DEAD", &dead)];
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes("kafka-to-http", &values));
    until("all offsets to be committed", || kafka.committed(&from, &from) == 4);
    drop(gateway);
    assert_eq!(service.processed(), ["{\"n\":0}", "{\"n\":1}", "{\"n\":3}"]);
    let letters = kafka.read(&dead);
    assert_eq!(letters.len(), 1, "{letters:?}");
    for field in ["key", "value", "timestamp"] {
        assert_eq!(letters[0][field], record(2)[field]);
    }
    let headers = letters[0]["headers"].as_array().expect("headers");
    let position = format!("{from}/0/2");
    for expected in [
        json!(["X-Own", "own"]),
        json!(["crossdock-status", "3"]),
        json!(["crossdock-queue", from]),
        json!(["crossdock-position", position]),
        json!(["crossdock-attempts", "1"]),
    ] {
        assert!(headers.contains(&expected), "{expected} in {headers:?}");
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_retry_topics_hold_no_other_record() {
    let kafka = Kafka::start();
    let from = kafka.name("set-aside");
    let (soon, later, dead) = (format!("{from}-soon"), format!("{from}-later"), format!("{from}-dead"));
    kafka.run(&["create", &from]);
    let attempts = Arc::new(Mutex::new(HashMap::<String, Vec<Instant>>::new()));
    let shared = Arc::clone(&attempts);
    // Record 1 fails twice, record 2 always; the service cannot process record 3 for its first four attempts.
    let service = Recorder::start(move |_, body| {
        let mut attempts = shared.lock().expect("no panic");
        let times = attempts.entry(body.to_owned()).or_default();
        times.push(Instant::now());
        let status = match (problem(body)["n"].as_u64(), times.len()) {
            (Some(1), ..=2) | (Some(2), _) => 500,
            (Some(3), ..=4) => 503,
            _ => 200,
        };
        (status, Duration::ZERO)
    });
    let record = |n: u32| json!({ "key": "k", "value": format!("{{\"n\":{n}}}"), "headers": [["X-Own", "own"], ["crossdock-due", "1"]], "timestamp": 1_700_000_000_000_u64 });
    kafka.write(&from, &(1..=8).map(record).collect::<Vec<_>>());
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"none"), ("DEAD", &dead)];
    let routes = routes("kafka-to-http", &values).replace(
        ", backoff: 50ms",
        &format!(", declare: create, retry: [ {{ topic: {soon}, after: 300ms }}, {{ topic: {later}, after: 700ms }} ]"),
    );
    assert!(routes.contains("retry:"), "{routes}");
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes);
    until_within(Duration::from_secs(30), "all records to be processed", || service.processed().len() == 7);
    until("the dead letter", || kafka.run(&["count", &dead]) == "1");
    let times = |n: u32| attempts.lock().expect("no panic")[&format!("{{\"n\":{n}}}")].clone();
    for (n, count) in [(1, 3), (2, 3), (3, 5), (8, 1)] {
        assert_eq!(times(n).len(), count, "record {n}");
    }
    let waits: Vec<_> = times(3).windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[0] >= Duration::from_millis(300) && waits[0] < Duration::from_millis(700), "{waits:?}");
    assert!(waits[1..].iter().all(|wait| *wait >= Duration::from_millis(700)), "{waits:?}");
    assert!(times(8)[0] < times(1)[1], "a record that waits holds no other");
    let letter = &kafka.read(&dead)[0];
    for field in ["key", "value", "timestamp"] {
        assert_eq!(letter[field], record(2)[field]);
    }
    let headers = letter["headers"].as_array().expect("headers");
    for expected in [
        json!(["X-Own", "own"]),
        json!(["crossdock-queue", from]),
        json!(["crossdock-position", format!("{from}/0/1")]),
        json!(["crossdock-attempts", "3"]),
        json!(["crossdock-hops", "1"]),
    ] {
        assert!(headers.contains(&expected), "{expected} in {headers:?}");
    }
    assert!(!headers.iter().any(|header| header[0] == "crossdock-due"), "{headers:?}");
    // Brokers delete records by their timestamp: a copy has the time at which it was moved.
    let copy = &kafka.read(&soon)[0];
    assert!(copy["timestamp"].as_u64().expect("a time") > 1_764_000_000_000, "{copy}");
    assert!(
        copy["headers"].as_array().expect("headers").contains(&json!(["crossdock-time", "1700000000000"])),
        "{copy}"
    );
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    // Records 1 and 2 moved twice, record 3 four times.
    let moved = "crossdock_listener_events_total{listener=\"topics\",event=\"retry\"} 8";
    assert!(
        metrics.contains(moved),
        "{}",
        metrics.lines().filter(|line| line.contains("listener_events")).collect::<Vec<_>>().join("\n")
    );
    // Records in a retry topic belong to the entry no matter who wrote them, even if its main topic has changed since.
    let other = format!("{from}-other");
    kafka.run(&["create", &other]);
    gateway.write_routes(&routes.replace(&format!("topic: {from},"), &format!("topic: {other},")));
    gateway.signal("HUP");
    kafka.write(&later, &[json!({ "value": "{\"n\":9}" })]);
    until("the record of the retry topic to be processed", || service.processed().len() == 8);
    for topic in [&soon, &later] {
        until("all offsets to be committed", || {
            kafka.committed(&from, topic) == kafka.run(&["count", topic]).parse::<u64>().expect("a number")
        });
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_keys_are_processed_in_order_and_side_by_side() {
    let kafka = Kafka::start();
    let (from, dead) = (kafka.name("keyed"), kafka.name("keyed-dead"));
    kafka.run(&["create", &from, &dead]);
    let service = Recorder::start(|_, _| (200, Duration::from_millis(50)));
    // 200 records with ten keys in one partition: 10 s one after another.
    kafka.run(&["fill", &from, "{\"n\":#}", "200", "10"]);
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"key"), ("DEAD", &dead)];
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes("kafka-to-http", &values));
    until("all offsets to be committed", || kafka.committed(&from, &from) == 200);
    drop(gateway);
    let numbers = service.processed().into_iter().map(|body| problem(&body)["n"].as_u64().expect("a number"));
    let mut last = [None; 10];
    for number in numbers {
        let key = usize::try_from(number % 10).expect("a key");
        assert!(last[key].is_none_or(|last| last < number), "{number} was overtaken");
        last[key] = Some(number);
    }
    assert_eq!(last, std::array::from_fn(|key| Some(190 + key as u64)));
    assert!((5..=10).contains(&service.in_flight_max()), "{} at the same time", service.in_flight_max());
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_drains_without_loss_and_shares_partitions() {
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("drained"), kafka.name("drained-to"));
    kafka.run(&["create", &format!("{from}:4"), &format!("{to}:4")]);
    kafka.run(&["fill", &from, "{\"n\":#}", "4000", "100"]);
    let routes = routes("kafka-bridge", &[("BROKERS", &kafka.brokers), ("FROM", &from), ("TO", &to)]);
    let start = || Gateway::start_with(&listeners(kafka, &from), &routes);
    // The second one joins while the first one works, and takes over when that stops.
    let mut first = start();
    until("some records to cross", || kafka.run(&["count", &to]) != "0");
    let second = start();
    until("the second one to get partitions", || second.log().iter().any(|line| line.contains("partitions assigned")));
    first.signal("TERM");
    assert_eq!(first.wait().code, Some(0));
    kafka.run(&["fill", &from, "{\"n\":#}", "1000", "100"]);
    until("all offsets to be committed", || kafka.committed(&from, &from) == 5000);
    let mut values: Vec<_> = kafka.read(&to).iter().map(|record| record["value"].to_string()).collect();
    let crossed = values.len();
    values.sort();
    values.dedup();
    assert_eq!((values.len(), crossed), (4000, 5000), "none is lost, none comes twice");
    drop(second);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_is_reached_over_tls_with_certificates_and_logins() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let kafka = Kafka::start_with_tls(folder.path());
    kafka.run(&["create", "secure"]);
    let backend = Backend::start();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let good = format!("{{ ca: {}, cert: {}, key: {} }}", file("ca.pem"), file("client.pem"), file("client.key"));
    let nobody = format!("{{ ca: {} }}", file("ca.pem"));
    let distrusting =
        format!("{{ ca: {}, cert: {}, key: {} }}", file("other-ca.pem"), file("client.pem"), file("client.key"));
    let (brokers, login) = (kafka.brokers_with_tls.as_ref(), kafka.brokers_with_tls_and_login.as_ref());
    let (brokers, (user, password)) = (brokers.expect("TLS"), &kafka.login);
    let (token, expired) = (unsigned_token(3600), folder.path().join("expired"));
    std::fs::write(&expired, unsigned_token(-3600)).expect("a file");
    let expired = expired.display().to_string();
    let values: [(&str, &dyn std::fmt::Display); 10] = [
        ("TOKEN", &token),
        ("EXPIRED", &expired),
        ("BROKERS", brokers),
        ("LOGIN", login.expect("TLS")),
        ("GOOD", &good),
        ("NOBODY", &nobody),
        ("DISTRUSTING", &distrusting),
        ("BACKEND", &backend.address),
        ("USER", user),
        ("PASSWORD", password),
    ];
    let listeners = format!(
        "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  topics: {{ kafka: {{ brokers: \"{brokers}\", tls: {good}, group: secure }} }}"
    );
    let gateway = Gateway::start_with(&listeners, &routes("kafka-tls", &values));
    for path in ["/good", "/login", "/token"] {
        let reply = call(&gateway.public(), "POST", path, "{}");
        assert_eq!(reply.status, 202, "{path}: {}", reply.body);
    }
    until("all records to be consumed over TLS", || backend.requests() == 3);
    for (path, cause) in [("/nobody", "SSL"), ("/distrusting", "certificate"), ("/expired", "expired")] {
        let reply = call(&gateway.public(), "POST", path, "{}");
        assert_eq!(reply.status, 503, "{path}: {}", reply.body);
        let services = gateway.admin_json("/api/v1/services").to_string();
        assert!(services.contains(cause), "{path}: the reason is shown: {services}");
    }
    let secrets = [password, &token];
    assert!(!gateway.log().iter().any(|line| secrets.iter().any(|secret| line.contains(*secret))), "none is logged");
}

/// A token for Kafka's test handler, which takes tokens without a signature (RFC 7515, appendix A.5), that expires after some seconds.
fn unsigned_token(lifetime: i64) -> String {
    #[expect(clippy::disallowed_methods, reason = "tokens expire by the wall clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let expiry = i64::try_from(now).expect("seconds") + lifetime;
    let claims = format!("{{\"sub\":\"gateway\",\"iat\":{},\"exp\":{expiry}}}", expiry - 7200);
    format!("{}.{}.", URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"), URL_SAFE_NO_PAD.encode(claims))
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_partitions_report_their_lag_and_pauses() {
    let kafka = Kafka::start();
    let (from, dead) = (kafka.name("lagging"), kafka.name("lagging-dead"));
    kafka.run(&["create", &from, &dead]);
    kafka.run(&["fill", &from, "{\"n\":#}", "500", "50"]);
    let is_down = Arc::new(AtomicBool::new(true));
    let shared = Arc::clone(&is_down);
    let service = Recorder::start(move |_, _| (if shared.load(Ordering::SeqCst) { 503 } else { 200 }, Duration::ZERO));
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"key"), ("DEAD", &dead)];
    let routes = routes("kafka-to-http", &values).replace("dead_letter", "window_size: 26KiB, dead_letter");
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes);
    let metric = |name: &str, value: u32| {
        let line = format!("crossdock_source_{name}{{listener=\"topics\",source=\"{from}/0\"}} {value}");
        call(&gateway.admin(), "GET", "/metrics", "").body.lines().any(|other| other == line)
    };
    until("the partition to be paused", || metric("paused", 1));
    // 26 KiB in records of up to 10 bytes, each with an overhead of 256.
    assert!(metric("unsettled", 101), "{}", gateway.admin_json("/api/v1/listeners"));
    until("its lag to be reported", || metric("lag", 500));
    let listed = gateway.admin_json("/api/v1/listeners");
    let source = &listed["listeners"][1]["sources"][0];
    assert_eq!(
        (&source["paused"], &source["lag"], &listed["listeners"][1]["up"]),
        (&json!(true), &json!(500), &json!(true))
    );
    // Also of what is written while it is paused.
    kafka.run(&["fill", &from, "{\"n\":#}", "100", "50"]);
    until("its lag to grow", || metric("lag", 600));
    is_down.store(false, Ordering::SeqCst);
    until("all records to be settled", || metric("lag", 0) && metric("paused", 0) && metric("unsettled", 0));
    // The mark at the end of a transaction is no record that could arrive.
    kafka.run(&["write-in-transaction", &from, "{\"n\":600}"]);
    until("the record to be settled", || kafka.committed(&from, &from) == 601);
    let settled = Instant::now();
    until("the mark to be no lag", || settled.elapsed() > Duration::from_secs(6) && metric("lag", 0));
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_groups_start_where_their_settings_say() {
    let kafka = Kafka::start();
    let seconds = |n: u64| json!({ "value": n.to_string(), "timestamp": 1_700_000_000_000 + 1000 * n });
    for (start, expected) in [("2023-11-14T22:13:22Z", vec!["2", "3", "4"]), ("latest", vec!["4"])] {
        let name = kafka.name(&format!("start-{}", &start[..2]));
        let to = format!("{name}-to");
        kafka.run(&["create", &name, &to]);
        kafka.write(&name, &(0..4).map(seconds).collect::<Vec<_>>());
        let listeners =
            listeners(kafka, &name).replace("commit_interval", &format!("start: \"{start}\", commit_interval"));
        let routes = routes("kafka-bridge", &[("BROKERS", &kafka.brokers), ("FROM", &name), ("TO", &to)]);
        let assigned = |gateway: &Gateway| gateway.log().iter().any(|line| line.contains("partitions assigned"));
        let mut first = Gateway::start_with(&listeners, &routes);
        until("the partition to be assigned", || assigned(&first));
        first.signal("TERM");
        assert_eq!(first.wait().code, Some(0));
        // What is written while no member is there is not skipped.
        kafka.write(&name, &[seconds(4)]);
        let second = Gateway::start_with(&listeners, &routes);
        until("all offsets to be committed", || kafka.committed(&name, &name) == 5);
        drop(second);
        let values: Vec<_> = kafka.read(&to).iter().map(|record| record["value"].clone()).collect();
        assert_eq!(values, expected, "{start}");
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_topics_are_created_where_settings_say_so() {
    let kafka = Kafka::start();
    let topic = kafka.name("created");
    let routes = routes("kafka-create", &[("BROKERS", &kafka.brokers), ("TOPIC", &topic)]);
    let gateway = Gateway::start_with(&listeners(kafka, &topic), &routes);
    assert_eq!(call(&gateway.public(), "POST", "/put", "{}").status, 202);
    until("the record to be moved", || kafka.committed(&topic, &topic) == 1);
    assert_eq!(kafka.run(&["count", &format!("{topic}-out")]), "1");
    assert_eq!(kafka.run(&["count", &format!("{topic}-dead")]), "0", "it exists");
    until("a request to be answered", || call(&gateway.public(), "POST", "/ask", "{}").status == 200);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_topics_that_do_not_exist_are_named_unless_they_may_come_later() {
    let kafka = Kafka::start();
    let name = kafka.name("absent");
    let [there, absent, later] = ["there", "absent", "later"].map(|topic| format!("{name}-{topic}"));
    kafka.run(&["create", &there]);
    let service = Recorder::start(|_, _| (200, Duration::ZERO));
    let entry = |topic: &str, declare: &str| {
        format!("{{ kafka: {{ listen: topics, topic: {topic}, format: json, reject: discard, declare: {declare} }} }}")
    };
    let routes = format!(
        "version: 1
services: {{ back: {{ http: {{ url: \"http://{}\", operations: {{ put: {{ post: /put }} }} }} }} }}
routes: {{ r: {{ from: [ {}, {}, {} ], steps: [ {{ call: back.put }} ] }} }}
",
        service.address,
        entry(&there, "check"),
        entry(&absent, "check"),
        entry(&later, "never")
    );
    let gateway = Gateway::start_with(&listeners(kafka, &name), &routes);
    let listener = || gateway.admin_json("/api/v1/listeners").to_string();
    until("the absent topic to be named", || listener().contains(&format!("topics that do not exist: {absent}\"")));
    kafka.run(&["fill", &there, "1", "1"]);
    until("the others to be consumed", || service.processed() == ["1"]);
    kafka.run(&["create", &absent]);
    until("the listener to be up", || !listener().contains("do not exist"));
    // The client learns of new topics within half a minute.
    kafka.run(&["create", &later]);
    kafka.run(&["fill", &later, "2", "1"]);
    until_within(Duration::from_secs(60), "the later topic to be consumed", || service.processed() == ["1", "2"]);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_verifiable_producer_and_consumer_miss_no_record() {
    const COUNT: u64 = 5_000;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("verified"), kafka.name("verified-to"));
    kafka.run(&["create", &format!("{from}:4"), &format!("{to}:4")]);
    let routes = routes("kafka-bridge", &[("BROKERS", &kafka.brokers), ("FROM", &from), ("TO", &to)]);
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes);
    let count = COUNT.to_string();
    // What these programs print: events as lines of JSON.
    let events = |name: &str, arguments: &[&str]| -> Vec<Value> {
        let output = kafka.tool(name, arguments).output().expect("Java runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {text}");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let sent = events("VerifiableProducer", &["--topic", &from, "--max-messages", &count, "--repeating-keys", "50"]);
    assert_eq!(sent.iter().filter(|event| event["name"] == "producer_send_success").count() as u64, COUNT);
    until("all offsets to be committed", || kafka.committed(&from, &from) == COUNT);
    drop(gateway);
    let group = kafka.name("verifier");
    let arguments =
        ["--topic", &to, "--group-id", &group, "--max-messages", &count, "--verbose", "--reset-policy", "earliest"];
    let read = events("VerifiableConsumer", &arguments);
    let records: Vec<&Value> = read.iter().filter(|event| event["name"] == "record_data").collect();
    let number = |record: &&Value| record["value"].as_str().expect("text").parse::<u64>().expect("a number");
    let mut last = [None; 50];
    for record in &records {
        let key: usize = record["key"].as_str().expect("text").parse().expect("a number");
        let number = number(record);
        assert!(last[key].is_none_or(|last| last < number), "{number} was overtaken by {:?}", last[key]);
        last[key] = Some(number);
    }
    let mut numbers: Vec<u64> = records.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "each once");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_records_that_a_service_refuses_are_dead_lettered_and_never_skipped() {
    let kafka = Kafka::start();
    let (from, dead) = (kafka.name("refused"), kafka.name("refused-dead"));
    kafka.run(&["create", &from, &dead]);
    // Whatever status says that the service does not take the record.
    let statuses = [400, 401, 403, 404, 409, 413, 422, 501];
    let service = Recorder::start(move |_, body| {
        let number = problem(body)["n"].as_u64().and_then(|number| usize::try_from(number).ok());
        (number.and_then(|number| statuses.get(number)).copied().unwrap_or(200), Duration::ZERO)
    });
    kafka.run(&["fill", &from, "{\"n\":#}", "10"]);
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("FROM", &from), ("ORDER", &"partition"), ("DEAD", &dead)];
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes("kafka-to-http", &values));
    until("all offsets to be committed", || kafka.committed(&from, &from) == 10);
    drop(gateway);
    assert_eq!(service.processed(), ["{\"n\":8}", "{\"n\":9}"]);
    let letters: Vec<Value> = kafka.read(&dead).into_iter().map(|letter| letter["value"].clone()).collect();
    assert_eq!(letters, (0..8).map(|n| json!(format!("{{\"n\":{n}}}"))).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs Kafka and Go, which tests/run installs or asks for"]
fn kafka_franz_go_shares_a_group_with_the_gateway() {
    const COUNT: u64 = 5_000;
    let kafka = Kafka::start();
    let (from, to) = (kafka.name("mixed"), kafka.name("mixed-to"));
    kafka.run(&["create", &format!("{from}:8"), &format!("{to}:4")]);
    kafka.run(&["fill", &from, "{\"n\":#}", &COUNT.to_string(), "200"]);
    let routes = routes("kafka-bridge", &[("BROKERS", &kafka.brokers), ("FROM", &from), ("TO", &to)])
        .replace("reject: discard", "order: key, reject: discard");
    let gateway = Gateway::start_with(&listeners(kafka, &from), &routes);
    until("some records to be moved by the gateway", || kafka.committed(&from, &from) > 0);
    // It takes over half of the partitions, and gives them back.
    let mut member = Command::new(peers("franz-go").join("franz"));
    let mut member =
        member.args(["move", &kafka.brokers, &from, &from, &to]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut assigned = String::new();
    BufReader::new(member.stdout.take().expect("its output")).read_line(&mut assigned).expect("a line");
    assert_eq!(assigned, "assigned 4 partitions\n");
    kafka.run(&["fill", &from, "{\"n\":#}", &COUNT.to_string(), "200"]);
    let kill = Command::new("kill").arg(member.id().to_string()).status();
    assert!(kill.expect("it runs").success() && member.wait().expect("it ends").success());
    until("all offsets to be committed", || kafka.committed(&from, &from) == 2 * COUNT);
    drop(gateway);
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for record in kafka.read(&to) {
        *counts.entry(record["value"].as_str().expect("text").to_owned()).or_default() += 1;
    }
    assert_eq!(counts.len() as u64, COUNT, "none is lost");
    assert!(counts.values().all(|count| *count == 2), "each comes once for each time it was written");
}
