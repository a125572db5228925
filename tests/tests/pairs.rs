//! Every pair of protocols, one-way and request/reply, with contracts and opaque, between third-party clients and services.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::Command;

use crossdock_tests::{Backend, Gateway, Kafka, Peer, RabbitMq, call_with, peers, repository, routes, run_peer, until};
use serde_json::{Value, json};

const PROTO: &[u8] = b"syntax = \"proto3\";
package pair.v1;
service Http { rpc Ask(Note) returns (Note); rpc Tell(Note) returns (Note); }
service Grpc { rpc Ask(Note) returns (Note); rpc Tell(Note) returns (Note); }
service Amqp { rpc Ask(Note) returns (Note); rpc Tell(Note) returns (Note); }
service Kafka { rpc Ask(Note) returns (Note); rpc Tell(Note) returns (Note); }
message Note { string text = 1; int64 number = 2; repeated string list = 3; }
";

/// The fields of [`note`] in protobuf, in hexadecimal.
const FIELDS: [&str; 3] = ["0a03303835", "108180808080808010", "1a036f6e65"];

fn note() -> Value {
    json!({ "text": "085", "number": "9007199254740993", "list": ["one"] })
}

/// [`note`] in protobuf.
fn wire() -> Vec<u8> {
    unhex(&FIELDS.concat())
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
}

/// A body in the notation of `tests/peers/amqp/peer.py`.
fn show(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap_or_else(|_| format!("hex:{}", hex(body)))
}

/// The inverse of [`show`].
fn parse_shown(text: &str) -> Vec<u8> {
    text.strip_prefix("hex:").map_or_else(|| text.as_bytes().to_vec(), unhex)
}

/// The gateway with a client and a service for each protocol.
struct Testbed {
    broker: &'static RabbitMq,
    kafka: &'static Kafka,
    backend: Backend,
    grpc: PathBuf,
    /// The log of the gRPC service: the request of each call in hexadecimal.
    log: PathBuf,
    gateway: Gateway,
    queues: String,
    mode: Mode,
    _servers: [Peer; 3],
    _folder: tempfile::TempDir,
}

const PROTOCOLS: [&str; 4] = ["Http", "Grpc", "Amqp", "Kafka"];

/// How the routes treat messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// With contracts: JSON over HTTP, AMQP and Kafka, protobuf over gRPC.
    Contracts,
    /// Opaque: the same bytes everywhere.
    Opaque,
}

/// A body that is neither UTF-8 nor protobuf.
const OPAQUE: &[u8] = b"\xff\x00\xfe\r\n{\x80";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Testbed {
    fn start(mode: Mode) -> Self {
        let (broker, kafka) = (RabbitMq::start(), Kafka::start());
        let (backend, grpc) = (Backend::start(), peers("grpc").join("venv/bin/python"));
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("calls");
        std::fs::write(&log, "").expect("a file");
        let queues = broker.name(if mode == Mode::Opaque { "pairs-opaque" } else { "pairs" });
        let raw = repository().join("tests/peers/grpc/python/raw.py");
        let server = Peer::start(Command::new(&grpc).arg(raw).arg("serve").arg(&log));
        let served = format!("{queues}-served");
        let amqp_server = Peer::start(&mut broker.peer(&["serve", &served]));
        let tell_queue = format!("{queues}-told");
        broker.run(&["declare", &tell_queue]);
        let kinds = PROTOCOLS.iter().flat_map(|to| ["Ask", "Tell"].map(|kind| format!("{to}-{kind}")));
        let used = ["served", "told", "replies", "asked"].map(str::to_owned);
        let topics: Vec<String> = kinds.chain(used).map(|name| format!("{queues}-{name}")).collect();
        let create: Vec<&str> = std::iter::once("create").chain(topics.iter().map(String::as_str)).collect();
        kafka.run(&create);
        let kafka_server = Peer::start(&mut kafka.peer(&["serve", &served]));
        let replies = format!("{queues}-replies");
        let values: [(&str, &dyn Display); 7] = [
            ("BROKERS", &kafka.brokers),
            ("REPLIES", &replies),
            ("BACKEND", &backend.address),
            ("SERVER", &server.address),
            ("BROKER", &broker.url),
            ("SERVED", &served),
            ("TOLD", &tell_queue),
        ];
        let mut routes = match mode {
            Mode::Contracts => routes("pairs-contracts", &values),
            Mode::Opaque => routes("pairs-opaque", &values),
        };
        for to in PROTOCOLS {
            for (kind, step) in [("Ask", "call"), ("Tell", "send")] {
                let (answer, method, about) = match mode {
                    Mode::Contracts => ("", String::new(), format!("    as: pair.v1.{to}/{kind}\n")),
                    Mode::Opaque => {
                        (", answer: raw", format!(", method: pair.v1.{to}/{kind}, opaque: true"), String::new())
                    }
                };
                routes += &format!(
                    "  {to}-{kind}:
    from:
      - http: {{ listen: public, post: /{to}/{kind}{answer} }}
      - grpc: {{ listen: internal{method} }}
      - amqp: {{ listen: broker, queue: {queues}-{to}-{kind}, declare: create, reject: discard{answer} }}
      - kafka: {{ listen: topics, topic: {queues}-{to}-{kind}, reply_to: [ {queues}-asked ], reject: discard{answer} }}
{about}    steps: [ {{ {step}: {to}.{kind} }} ]
"
                );
            }
        }
        let listeners = format!(
            "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}
  internal: {{ grpc: {{ bind: \"127.0.0.1:0\" }} }}
  broker: {{ amqp: {{ url: \"{}\" }} }}
  topics: {{ kafka: {{ brokers: \"{}\", group: {queues} }} }}",
            broker.url, kafka.brokers
        );
        let gateway = Gateway::start_with_files(&listeners, &routes, &[("pair.proto", PROTO)]);
        for to in PROTOCOLS {
            for kind in ["Ask", "Tell"] {
                until("the queues to be declared", || {
                    broker.peer(&["depth", &format!("{queues}-{to}-{kind}")]).output().expect("pika").status.success()
                });
            }
        }
        let servers = [server, amqp_server, kafka_server];
        Self { broker, kafka, backend, grpc, log, gateway, queues, mode, _servers: servers, _folder: folder }
    }

    /// The body that is sent over a protocol, and its media type.
    fn request(&self, protocol: &str) -> (Vec<u8>, &'static str) {
        match (self.mode, protocol) {
            (Mode::Opaque, _) => (OPAQUE.to_vec(), "application/protobuf"),
            (Mode::Contracts, "Grpc") => (wire(), "application/protobuf"),
            (Mode::Contracts, _) => (note().to_string().into_bytes(), "application/json"),
        }
    }

    /// Makes a call; returns the body of the reply, or `None` for one-way calls.
    fn call(&self, from: &str, to: &str, kind: &str) -> Option<Vec<u8>> {
        let (body, media_type) = self.request(from);
        match from {
            "Http" => {
                let answer = call_with(&self.gateway.public(), "POST", &format!("/{to}/{kind}"), media_type, &body);
                assert!((200..300).contains(&answer.status), "{from} {to} {kind}: {} {}", answer.status, answer.body);
                let has_reply = kind == "Ask";
                assert!(!has_reply || answer.header("content-type") == Some(media_type), "{}", answer.head);
                has_reply.then_some(answer.bytes)
            }
            "Grpc" => {
                let mut command = Command::new(&self.grpc);
                command.arg(repository().join("tests/peers/grpc/python/raw.py")).arg("call");
                command.arg(self.gateway.listener("internal")).arg(format!("/pair.v1.{to}/{kind}"));
                let (is_success, output) = run_peer(command.arg(hex(&body)));
                let expected = if kind == "Ask" { hex(&body) } else { String::new() };
                assert!(is_success && output.trim() == expected, "{from} {to} {kind}: {output}");
                (kind == "Ask").then_some(body)
            }
            "Kafka" => {
                let topic = format!("{}-{to}-{kind}", self.queues);
                if kind == "Tell" {
                    let record = json!({ "key": "k", "value": show(&body), "headers": [["content-type", media_type]] });
                    self.kafka.write(&topic, &[record]);
                    return None;
                }
                let replies = format!("{}-asked", self.queues);
                let output = self.kafka.run(&["ask", &topic, &replies, &show(&body), media_type]);
                let reply: Value = serde_json::from_str(&output).expect("JSON");
                let headers = reply["headers"].as_array().unwrap_or_else(|| panic!("{from} {to} {kind}: no reply"));
                assert!(headers.contains(&json!(["content-type", media_type])), "{from} {to} {kind}: {reply}");
                assert_eq!(reply["key"], "key", "{from} {to} {kind}: {reply}");
                Some(parse_shown(reply["value"].as_str().expect("text")))
            }
            _ => {
                let queue = format!("{}-{to}-{kind}", self.queues);
                if kind == "Tell" {
                    self.broker.run(&["publish", &queue, &show(&body)]);
                    return None;
                }
                let output = self.broker.run(&["call", &queue, &show(&body)]);
                let reply: Value =
                    serde_json::from_str(&output).unwrap_or_else(|_| panic!("{from} {to} {kind}: {output}"));
                assert_eq!(reply["headers"]["crossdock-status"], Value::Null, "{from} {to} {kind}: {reply}");
                assert_eq!(reply["content_type"], media_type, "{from} {to} {kind}: {reply}");
                Some(parse_shown(reply["body"].as_str().expect("text")))
            }
        }
    }

    /// Whether a body received over a protocol is equivalent to what was sent.
    fn is_equivalent(&self, protocol: &str, body: &[u8]) -> bool {
        let (sent, media_type) = self.request(protocol);
        let json = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON");
        match media_type {
            "application/json" => json(body) == json(&sent),
            // Fields are written in the order in which they were received.
            _ if self.mode == Mode::Contracts => {
                body.len() == sent.len() && FIELDS.iter().all(|field| hex(body).contains(field))
            }
            _ => body == sent,
        }
    }

    /// The number of messages that a service has received.
    fn received(&self, to: &str) -> usize {
        match to {
            "Http" => self.backend.requests(),
            "Grpc" => std::fs::read_to_string(&self.log).expect("its log").lines().count(),
            "Kafka" => self.kafka.run(&["count", &format!("{}-told", self.queues)]).trim().parse().expect("a number"),
            _ => self.broker.run(&["depth", &format!("{}-told", self.queues)]).parse().expect("a number"),
        }
    }
}

/// Makes a request/reply and a one-way call for each pair of protocols.
fn call_every_pair(bed: &Testbed) {
    let mut calls = 0;
    for from in PROTOCOLS {
        for to in PROTOCOLS {
            let reply = bed.call(from, to, "Ask").expect("a reply");
            assert!(bed.is_equivalent(from, &reply), "{from} to {to}: {}", hex(&reply));
            let before = bed.received(to);
            assert_eq!(bed.call(from, to, "Tell"), None);
            until(&format!("the message from {from} to {to} to arrive"), || bed.received(to) == before + 1);
            calls += 2;
        }
    }
    assert_eq!(calls, 32);
    let log = std::fs::read_to_string(&bed.log).expect("a log");
    assert!(log.lines().all(|message| bed.is_equivalent("Grpc", &unhex(message))), "{log}");
    let tell_queue = format!("{}-told", bed.queues);
    let media_type = bed.request("Amqp").1;
    for line in bed.broker.run(&["drain", &tell_queue, "4"]).lines() {
        let message: Value = serde_json::from_str(line).expect("JSON");
        assert!(bed.is_equivalent("Amqp", &parse_shown(message["body"].as_str().expect("text"))), "{line}");
        assert_eq!(message["content_type"], media_type);
    }
    for record in bed.kafka.read(&tell_queue) {
        assert!(bed.is_equivalent("Kafka", &parse_shown(record["value"].as_str().expect("text"))), "{record}");
        let headers = record["headers"].as_array().expect("headers");
        assert!(headers.contains(&json!(["content-type", media_type])), "{record}");
    }
}

#[test]
#[ignore = "needs RabbitMQ, Kafka and gRPC for Python, which tests/run installs"]
fn rabbitmq_kafka_grpcio_and_http_exchange_messages_in_every_pair() {
    call_every_pair(&Testbed::start(Mode::Contracts));
}

#[test]
#[ignore = "needs RabbitMQ, Kafka and gRPC for Python, which tests/run installs"]
fn rabbitmq_kafka_grpcio_and_http_exchange_opaque_bytes_in_every_pair() {
    let bed = Testbed::start(Mode::Opaque);
    call_every_pair(&bed);
    // A gRPC service rejects bodies with another media type.
    let answer = call_with(&bed.gateway.public(), "POST", "/Grpc/Ask", "application/json", b"{}");
    assert_eq!(answer.status, 415, "{}", answer.body);
    // The media type of the reply does not depend on that of the request.
    let answer = call_with(&bed.gateway.public(), "POST", "/Grpc/Ask", "application/x-protobuf; v=1", OPAQUE);
    assert_eq!((answer.header("content-type"), &*answer.bytes), (Some("application/protobuf"), OPAQUE));
    // An empty body is a valid message.
    let mut command = Command::new(&bed.grpc);
    command.arg(repository().join("tests/peers/grpc/python/raw.py")).arg("call");
    command.arg(bed.gateway.listener("internal")).args(["/pair.v1.Grpc/Ask", ""]);
    assert_eq!(run_peer(&mut command), (true, "\n".to_owned()));
}
