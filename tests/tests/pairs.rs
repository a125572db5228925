//! Every pair of protocols, one-way and request/reply: clients of others call, services of others answer.

use std::path::PathBuf;
use std::process::Command;

use crossdock_tests::{Backend, Gateway, Peer, RabbitMq, call, judged, peers, repository, until};
use serde_json::{Value, json};

const PROTO: &[u8] = b"syntax = \"proto3\";
package pair.v1;
service Http { rpc Ask(Note) returns (Note); rpc Tell(Note) returns (Note); }
service Grpc { rpc Ask(Note) returns (Note); rpc Tell(Note) returns (Note); }
service Amqp { rpc Ask(Note) returns (Note); rpc Tell(Note) returns (Note); }
message Note { string text = 1; int64 number = 2; repeated string list = 3; }
";

/// `{"text":"085","number":"9007199254740993","list":["one"]}` in protobuf, a field each.
const FIELDS: [&str; 3] = ["0a03303835", "108180808080808010", "1a036f6e65"];

fn note() -> Value {
    json!({ "text": "085", "number": "9007199254740993", "list": ["one"] })
}

struct Bed {
    broker: &'static RabbitMq,
    backend: Backend,
    grpc: PathBuf,
    /// What the service of gRPC got, a line for each call.
    log: PathBuf,
    gateway: Gateway,
    queues: String,
    _servers: (Peer, Peer),
    _folder: tempfile::TempDir,
}

const PROTOCOLS: [&str; 3] = ["Http", "Grpc", "Amqp"];

impl Bed {
    fn start() -> Self {
        let (broker, backend, grpc) = (RabbitMq::start(), Backend::start(), peers("grpc").join("venv/bin/python"));
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("calls");
        std::fs::write(&log, "").expect("a file");
        let queues = broker.name("pairs");
        let raw = repository().join("tests/peers/grpc/python/raw.py");
        let server = Peer::start(Command::new(&grpc).arg(raw).arg("serve").arg(&log));
        let served = format!("{queues}-served");
        let amqp_server = Peer::start(&mut broker.peer(&["serve", &served]));
        let told = format!("{queues}-told");
        broker.run(&["declare", &told]);
        let mut routes = format!(
            "version: 1
contracts: {{ pair: {{ proto: pair.proto }} }}
services:
  Http: {{ http: {{ url: \"http://{}\", operations: {{ Ask: {{ post: /echo, as: pair.v1.Http/Ask }}, Tell: {{ post: /echo, as: pair.v1.Http/Tell }} }} }} }}
  Grpc: {{ grpc: {{ url: \"http://{}\", service: pair.v1.Grpc }} }}
  Amqp: {{ amqp: {{ url: \"{}\", operations: {{ Ask: {{ queue: {served}, reply: true, as: pair.v1.Amqp/Ask }}, Tell: {{ queue: {told}, as: pair.v1.Amqp/Tell }} }} }} }}
routes:
",
            backend.address, server.address, broker.url
        );
        for to in PROTOCOLS {
            for (kind, step) in [("Ask", "call"), ("Tell", "send")] {
                routes += &format!(
                    "  {to}-{kind}:
    from:
      - http: {{ listen: public, post: /{to}/{kind} }}
      - grpc: {{ listen: internal }}
      - amqp: {{ listen: broker, queue: {queues}-{to}-{kind}, declare: create, reject: discard }}
    as: pair.v1.{to}/{kind}
    steps: [ {{ {step}: {to}.{kind} }} ]
"
                );
            }
        }
        let listeners = format!(
            "{{ public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}, internal: {{ grpc: {{ bind: \"127.0.0.1:0\" }} }}, broker: {{ amqp: {{ url: \"{}\" }} }} }}",
            broker.url
        );
        let gateway = Gateway::start_with_files(&listeners, &routes, &[("pair.proto", PROTO)]);
        for to in PROTOCOLS {
            for kind in ["Ask", "Tell"] {
                until("the queues to be made", || {
                    broker.peer(&["depth", &format!("{queues}-{to}-{kind}")]).output().expect("pika").status.success()
                });
            }
        }
        Self { broker, backend, grpc, log, gateway, queues, _servers: (server, amqp_server), _folder: folder }
    }

    /// Calls, and gives the reply as JSON; nothing where none is expected.
    fn call(&self, from: &str, to: &str, kind: &str) -> Option<Value> {
        let text = note().to_string();
        match from {
            "Http" => {
                let answer = call(&self.gateway.public(), "POST", &format!("/{to}/{kind}"), &text);
                assert!((200..300).contains(&answer.status), "{from} {to} {kind}: {} {}", answer.status, answer.body);
                (kind == "Ask").then(|| serde_json::from_str(&answer.body).expect("JSON"))
            }
            "Grpc" => {
                let mut command = Command::new(&self.grpc);
                command.arg(repository().join("tests/peers/grpc/python/raw.py")).arg("call");
                command.arg(self.gateway.listener("internal")).arg(format!("/pair.v1.{to}/{kind}"));
                let (good, told) = judged(command.arg(FIELDS.concat()));
                let expected = if kind == "Ask" { FIELDS.concat() } else { String::new() };
                assert!(good && told.trim() == expected, "{from} {to} {kind}: {told}");
                (kind == "Ask").then(note)
            }
            _ => {
                let queue = format!("{}-{to}-{kind}", self.queues);
                if kind == "Tell" {
                    self.broker.run(&["publish", &queue, &text]);
                    return None;
                }
                let told = self.broker.run(&["call", &queue, &text]);
                let reply: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{from} {to} {kind}: {told}"));
                assert_eq!(reply["headers"]["crossdock-status"], Value::Null, "{from} {to} {kind}: {reply}");
                Some(serde_json::from_str(reply["body"].as_str().expect("text")).expect("JSON"))
            }
        }
    }

    /// How many messages a service has got in all.
    fn got(&self, to: &str) -> usize {
        match to {
            "Http" => self.backend.requests(),
            "Grpc" => std::fs::read_to_string(&self.log).expect("its log").lines().count(),
            _ => self.broker.run(&["depth", &format!("{}-told", self.queues)]).parse().expect("a number"),
        }
    }
}

#[test]
#[ignore = "needs RabbitMQ and gRPC for Python, which tests/run installs"]
fn rabbitmq_grpcio_and_http_in_every_pair_one_way_and_answered() {
    let bed = Bed::start();
    let mut cells = 0;
    for from in PROTOCOLS {
        for to in PROTOCOLS {
            assert_eq!(bed.call(from, to, "Ask"), Some(note()), "{from} to {to}");
            let before = bed.got(to);
            assert_eq!(bed.call(from, to, "Tell"), None);
            until(&format!("what {from} told {to} to arrive"), || bed.got(to) == before + 1);
            cells += 2;
        }
    }
    assert_eq!(cells, 18);
    let calls = std::fs::read_to_string(&bed.log).expect("a log");
    // Fields go in the order in which they came.
    let whole =
        |message: &str| FIELDS.iter().all(|field| message.contains(field)) && message.len() == FIELDS.concat().len();
    assert!(calls.lines().all(whole), "{calls}");
    let told = format!("{}-told", bed.queues);
    for line in bed.broker.run(&["drain", &told, "3"]).lines() {
        let message: Value = serde_json::from_str(line).expect("JSON");
        let body: Value = serde_json::from_str(message["body"].as_str().expect("text")).expect("JSON");
        assert_eq!((body, &message["content_type"]), (note(), &"application/json".into()));
    }
}
