//! Each fault leaves one log line, by which an operator finds out why a request failed, and nothing from messages.

use crossdock_tests::{Backend, Connection, Gateway, call, exchange, until};
use serde_json::Value;

const SECRET: &str = "Zahlungsdaten-4711";

fn gateway(backend: &Backend) -> Gateway {
    Gateway::start(&format!(
        "version: 1
services:
  echo: {{ http: {{ url: \"http://{}\", operations: {{ post: {{ post: /echo }} }} }} }}
  down: {{ http: {{ url: \"http://127.0.0.1:1\", operations: {{ post: {{ post: / }} }} }} }}
routes:
  echo:
    from: {{ http: {{ listen: public, post: /echo }} }}
    steps:
      - map: {{ name: req.name, peer: peer.address, has_principal: has(auth.principal) }}
      - call: echo.post
  down: {{ from: {{ http: {{ listen: public, post: /down }} }}, steps: [ {{ call: down.post }} ] }}
",
        backend.address
    ))
}

/// The fields of the fault lines that were logged so far.
fn faults(gateway: &Gateway) -> Vec<Value> {
    let lines = gateway.log();
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_fault =
        |line: &Value| matches!(line["fields"]["message"].as_str(), Some("request failed" | "request refused"));
    parsed.filter(is_fault).collect()
}

#[test]
fn each_fault_leaves_one_line_with_its_place_and_cause() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let failed = call(&gateway.public(), "POST", "/down", &format!("{{\"name\":\"{SECRET}\"}}"));
    assert_eq!(failed.status, 503, "{}", failed.body);
    until("the fault to be logged", || faults(&gateway).len() == 1);
    let line = faults(&gateway).remove(0);
    let fields = &line["fields"];
    assert_eq!(line["level"], "WARN");
    let expected = [
        ("route", "down"),
        ("service", "down"),
        ("endpoint", "http://127.0.0.1:1"),
        ("code", "unavailable"),
        ("reason", "UNREACHABLE"),
    ];
    for (field, value) in expected {
        assert_eq!(fields[field], value, "{line}");
    }
    assert!(fields["cause"].as_str().is_some_and(|cause| cause.contains("refused")), "{line}");
    assert!(fields["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    assert!(failed.body.contains(fields["request"].as_str().expect("an id")), "the caller gets the same id");

    for (path, body, reason) in [
        ("/echo", format!("{{\"name\":\"{SECRET}\""), "BODY_MALFORMED"),
        ("/echo", format!("{{\"other\":\"{SECRET}\"}}"), "FIELD_MISSING"),
        ("/nowhere", String::new(), "NO_ROUTE"),
        ("/a/%2e%2e%2fb", String::new(), "PATH"),
    ] {
        let before = faults(&gateway).len();
        let refused = call(&gateway.public(), "POST", path, &body);
        assert!((400..500).contains(&refused.status), "{path}: {}", refused.status);
        until("the fault to be logged", || faults(&gateway).len() > before);
        let line = faults(&gateway).pop().expect("a line");
        assert_eq!((faults(&gateway).len(), &line["level"]), (before + 1, &Value::from("INFO")), "{line}");
        assert_eq!(line["fields"]["reason"], reason, "{line}");
    }
    let mut connection = Connection::open(&gateway.public());
    connection.send(b"GET / HTTP/1.1\nHost: x\n\n");
    until("the malformed head to be logged", || {
        faults(&gateway).iter().any(|line| line["fields"]["reason"] == "REQUEST_REFUSED")
    });
    assert!(!gateway.log().join("\n").contains(SECRET), "nothing from messages is logged");
}

#[test]
fn expressions_see_the_caller_and_its_connection() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let reply = call(&gateway.public(), "POST", "/echo", "{\"name\":\"n\"}");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let body: Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!((&body["peer"], &body["has_principal"]), (&Value::from("127.0.0.1"), &Value::from(false)), "{body}");
    assert!(faults(&gateway).is_empty());
}

#[test]
fn a_flood_of_faults_is_logged_within_a_limit_and_counted() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let requests = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
    for _ in 0..20 {
        let (replies, _) = exchange(&gateway.public(), requests.as_bytes(), 100);
        assert!(replies.iter().all(|reply| reply.status == 404));
    }
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    assert!(metrics.contains("\ncrossdock_refused_total 2000\n"), "all of them are counted");
    assert!(faults(&gateway).len() < 2000, "not every one has a line");
}
