//! Events of CloudEvents in both modes over every protocol, made and read by its SDK for Python.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crossdock_tests::{Backend, Gateway, Kafka, Peer, RabbitMq, call, exchange, peers, repository, routes, until};
use serde_json::{Value, json};

fn peer(arguments: &[&str]) -> Command {
    let mut command = Command::new(peers("cloudevents").join("venv/bin/python"));
    command.arg(repository().join("tests/peers/cloudevents/peer.py")).args(arguments);
    command
}

fn run(arguments: &[&str], input: &str) -> String {
    let mut command = peer(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer runs");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The gateway between the services of all protocols.
struct Testbed {
    broker: &'static RabbitMq,
    kafka: &'static Kafka,
    gateway: Gateway,
    name: String,
    http_log: PathBuf,
    grpc_log: PathBuf,
    _servers: [Peer; 2],
    _folder: tempfile::TempDir,
}

const SOURCES: [(&str, &str); 8] = [
    ("http", "binary"),
    ("http", "structured"),
    ("amqp", "binary"),
    ("amqp", "structured"),
    ("kafka", "binary"),
    ("kafka", "structured"),
    ("grpc", "structured"),
    ("grpc", "binary"),
];

impl Testbed {
    fn start() -> Self {
        let (broker, kafka, folder) = (RabbitMq::start(), Kafka::start(), tempfile::tempdir().expect("a folder"));
        let name = broker.name("cloudevents");
        let serve = |protocol: &str| {
            let log = folder.path().join(protocol);
            std::fs::write(&log, "").expect("a file");
            (Peer::start(&mut peer(&["serve", protocol, &log.to_string_lossy()])), log)
        };
        let ((http, http_log), (grpc, grpc_log)) = (serve("http"), serve("grpc"));
        let places = ["binary", "structured", "events"].map(|place| format!("{name}-{place}"));
        broker.run(&["declare", &places[0], &places[1]]);
        kafka.run(&["create", &places[0], &places[1], &places[2]]);
        let routes = routes(
            "cloudevents",
            &[
                ("HTTP", &http.address),
                ("GRPC", &grpc.address),
                ("BROKERS", &kafka.brokers),
                ("BROKER", &broker.url),
                ("NAME", &name),
            ],
        );
        let listeners = format!(
            "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}
  internal: {{ grpc: {{ bind: \"127.0.0.1:0\" }} }}
  broker: {{ amqp: {{ url: \"{}\" }} }}
  topics: {{ kafka: {{ brokers: \"{}\", group: {name} }} }}",
            broker.url, kafka.brokers
        );
        let gateway = Gateway::start_with(&listeners, &routes);
        until("the queue to be declared", || {
            broker.peer(&["depth", &places[2]]).output().expect("pika").status.success()
        });
        Self { broker, kafka, gateway, name, http_log, grpc_log, _servers: [http, grpc], _folder: folder }
    }

    fn send(&self, protocol: &str, mode: &str, event: &Value) {
        let (address, target) = match protocol {
            "http" => (self.gateway.public(), "/events".to_owned()),
            "grpc" => (self.gateway.listener("internal"), "/events.v1.Events/Send".to_owned()),
            "amqp" => (self.broker.url.clone(), format!("{}-events", self.name)),
            _ => (self.kafka.brokers.clone(), format!("{}-events", self.name)),
        };
        let answer = run(&["send", protocol, &address, &target, mode], &event.to_string());
        assert!(answer.starts_with("20"), "{protocol} {mode}: {answer}");
    }

    /// What the services have received since they were last asked: `sinks` are services with a mode.
    fn received(&self, sinks: &[(&str, &str)]) -> Vec<Value> {
        let lines = |log: &PathBuf| std::fs::read_to_string(log).expect("its log").lines().map(str::to_owned).collect();
        let count = |protocol: &str| sinks.iter().filter(|(sink, _)| *sink == protocol).count();
        let mut all: Vec<String> = Vec::new();
        for (protocol, log) in [("http", &self.http_log), ("grpc", &self.grpc_log)] {
            until("the events to arrive", || {
                let lines: Vec<String> = lines(log);
                lines.len() >= count(protocol)
            });
            let mut found: Vec<String> = lines(log);
            found.sort_by_key(|line| line.contains("\"mode\": \"structured\""));
            all.extend(found);
            std::fs::write(log, "").expect("a file");
        }
        for mode in ["binary", "structured"] {
            let place = format!("{}-{mode}", self.name);
            all.push(run(&["read", "amqp", &self.broker.url, &place], ""));
            all.push(run(&["read", "kafka", &self.kafka.brokers, &place], ""));
        }
        all.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line:?}"))).collect()
    }
}

/// Attributes whose texts need care: letters outside ASCII, spaces, quotes and percent signs.
fn attributes(media_type: Option<&str>) -> Value {
    let mut attributes = json!({
        "id": "7-ä", "source": "/shops/nord ost?x=%20", "type": "order.placed", "subject": "a \"b\" \\c",
        "time": "2026-01-31T06:00:00.250000+00:00", "number": 5, "partitionkey": "customer 1",
    });
    if let Some(media_type) = media_type {
        attributes["datacontenttype"] = media_type.into();
    }
    attributes
}

/// Compares attributes by their texts, as binary mode has no other type.
fn assert_attributes(found: &Value, expected: &Value, what: &str) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let texts = |attributes: &Value| {
        let pairs = attributes.as_object().expect("attributes").iter().filter(|(name, _)| *name != "specversion");
        pairs.map(|(name, value)| (name.clone(), text(value))).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(texts(found), texts(expected), "{what}");
}

#[test]
#[ignore = "needs RabbitMQ, Kafka and the SDK of CloudEvents, which tests/run installs"]
fn cloudevents_cross_http_grpcio_rabbitmq_and_kafka_in_both_modes() {
    let bed = Testbed::start();
    let json = json!({ "sku": "085", "count": 12_345_678_901_234_567_u64, "text": "ä" });
    for (media_type, data) in [
        (Some("application/json"), json),
        (Some("application/protobuf"), json!("hex:0a03303835ff")),
        (Some("text/xml"), json!("<a>ä</a>")),
        (None, Value::Null),
    ] {
        // Protobuf is the only data that a message of gRPC can be.
        let is_proto = media_type == Some("application/protobuf");
        let count = if is_proto { 8 } else { 7 };
        let sources =
            if media_type == Some("application/json") || is_proto { &SOURCES[..count] } else { &SOURCES[4..7] };
        for (protocol, mode) in sources {
            let mut sinks = SOURCES.to_vec();
            sinks.truncate(count);
            bed.send(protocol, mode, &json!({ "attributes": attributes(media_type), "data": data }));
            let received = bed.received(&sinks);
            assert_eq!(received.len(), count, "{protocol} {mode}");
            for (index, event) in received.iter().enumerate() {
                let what = format!("{protocol} {mode} {media_type:?} to {index}: {event}");
                let (mut expected, mut found) = (attributes(media_type), event["attributes"].clone());
                if is_proto && (found.get("datacontenttype").is_none() || (*protocol, *mode) == ("grpc", "binary")) {
                    // A message of gRPC has no media type of its own.
                    for attributes in [&mut expected, &mut found] {
                        attributes.as_object_mut().expect("attributes").remove("datacontenttype");
                    }
                }
                assert_attributes(&found, &expected, &what);
                assert_eq!(event["data"], data, "{what}");
                if event["mode"] == "structured" && *mode == "structured" {
                    assert_eq!(event["attributes"]["number"], 5, "{what}");
                }
                if event.get("key").is_some() && event["mode"] == "binary" {
                    assert_eq!(event["key"], "customer 1", "{what}");
                    assert_eq!(event["is_null"], data.is_null(), "an event without data is a tombstone: {what}");
                }
            }
        }
    }
}

const STEPS: &str = "version: 1
services:
  shop:
    http:
      url: \"http://@BACKEND@\"
      operations:
        place: { post: /echo, envelope: cloudevents }
        tell: { post: /echo, envelope: cloudevents-structured }
routes:
  plain:
    from: { http: { listen: public, post: /orders } }
    steps:
      - event: { source: /gateway }
      - event: { type: order.placed, subject: \"${req.sku}\" }
      - call: shop.place
  lines:
    from: { http: { listen: public, post: /lines, envelope: cloudevents } }
    steps:
      - event: { source: /gateway }
      - event: { id: \"${event.id}-x\", partitionkey: k }
      - split: { each: req.lines, as: line, steps: [ { send: shop.place } ] }
  told:
    from: { http: { listen: public, post: /told } }
    steps:
      - event: { source: /gateway, type: \"${req.type}\" }
      - call: shop.tell
  events:
    from: { http: { listen: public, post: /events, envelope: cloudevents } }
    steps:
      - choice:
          - when: \"event.type == 'order.placed' && event.subject.startsWith('A')\"
            steps: [ { event: { type: order.accepted } }, { call: shop.place } ]
          - otherwise: [ { respond: { body: { type: event.type, id: event.id } } } ]
";

#[test]
fn routes_read_and_set_the_attributes_of_events() {
    let backend = Backend::start();
    let gateway = Gateway::start(&STEPS.replace("@BACKEND@", &backend.address.to_string()));
    let header = |name: &str| {
        let head = backend.last_head().to_lowercase();
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned())
    };
    // A plain message becomes an event.
    let answer = call(&gateway.public(), "POST", "/orders", r#"{"sku":"ä 1"}"#);
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"sku":"ä 1"}"#));
    assert_eq!(header("ce-subject").as_deref(), Some("%c3%a4%201"));
    assert_eq!((header("ce-type"), header("ce-specversion")), (Some("order.placed".into()), Some("1.0".into())));
    assert_eq!(header("ce-id"), header("x-request-id"), "the id of an event is that of its message by default");
    let answer = call(&gateway.public(), "POST", "/told", r#"{"type":"a","n":1.50}"#);
    assert!(
        answer.body.ends_with(r#""datacontenttype":"application/json","data":{"type":"a","n":1.50}}"#),
        "{}",
        answer.body
    );
    assert_eq!(header("content-type").as_deref(), Some("application/cloudevents+json"));
    let refused = call(&gateway.public(), "POST", "/told", r#"{"type":""}"#);
    assert!(refused.status == 400 && refused.body.contains("is empty"), "{}", refused.body);
    // The attributes of an event decide its way; a step replaces some.
    let event = |head: &str, body: &str| {
        let request = format!("POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n{head}\r\n{body}", body.len());
        let (mut replies, _) = exchange(&gateway.public(), request.as_bytes(), 1);
        replies.pop().expect("a response")
    };
    let head = "ce-specversion: 1.0\r\nCE-ID: 1\r\nce-source: /a\r\nce-type: order.placed\r\nce-flag: true\r\n";
    let accepted = event(&format!("{head}ce-subject: A1\r\ncontent-type: application/json\r\n"), "{}");
    assert_eq!(accepted.status, 200, "{}", accepted.body);
    assert_eq!((header("ce-type"), header("ce-flag")), (Some("order.accepted".into()), Some("true".into())));
    assert_eq!((header("ce-id"), header("ce-subject")), (Some("1".into()), Some("a1".into())));
    let other = event(&format!("{head}ce-subject: B1\r\n"), "");
    assert_eq!(other.body, r#"{"type":"order.placed","id":"1"}"#);
    // The parts of an event have ids of their own, and attributes that a step adds are never dropped.
    let lines = |target: &str, extra: String| {
        let body = r#"{"lines":[{"n":1},{"n":2}]}"#;
        let head = format!("{head}{extra}content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        let request = format!("POST {target} HTTP/1.1\r\nhost: a\r\n{head}\r\n{body}");
        exchange(&gateway.public(), request.as_bytes(), 1).0.pop().expect("a response").status
    };
    assert_eq!(lines("/lines", (5..=64).map(|n| format!("ce-a{n}: 1\r\n")).collect()), 202);
    assert_eq!((header("ce-id"), header("ce-partitionkey")), (Some("1-x.1".into()), Some("k".into())));
    assert_eq!(lines("/lines", (5..=65).map(|n| format!("ce-a{n}: 1\r\n")).collect()), 400, "too many are received");
    // An event in an event is never taken for it.
    let inner = r#"{"specversion":"1.0","id":"i","source":"/b","type":"u"}"#;
    let outer = r#"{"specversion":"1.0","id":"o","source":"/a","type":"order.placed","subject":"A","datacontenttype":"TYPE","data":DATA}"#;
    let structured = |media_type: &str, data: &str| {
        let body = outer.replace("TYPE", media_type).replace("DATA", data);
        event("content-type: application/cloudevents+json\r\n", &body)
    };
    let refused = structured("application/cloudevents+json", inner);
    assert!(refused.status == 400 && refused.body.contains("structured mode"), "{}", refused.body);
    assert_eq!(structured("text/plain\\r\\nx-evil: 1", "\"\"").status, 400);
    // Whatever is not an event is refused.
    for (head, status) in [
        (String::new(), 400),
        (head.replace("1.0", "0.3"), 400),
        (head.replace("CE-ID", "x-id"), 400),
        (format!("{head}ce-id: 2\r\n"), 400),
        (format!("{head}ce-time: today\r\n"), 400),
        (format!("{head}ce-a-b: 1\r\n"), 400),
        (format!("{head}ce-x: %ff\r\n"), 400),
        ("content-type: application/cloudevents-batch+json\r\n".to_owned(), 415),
        ("content-type: application/cloudevents+avro\r\n".to_owned(), 415),
        ("content-type: application/cloudevents+json\r\n".to_owned(), 400),
    ] {
        let refused = event(&head, "");
        assert!(refused.status == status && refused.body.contains("EVENT"), "{head}: {}", refused.body);
    }
}
