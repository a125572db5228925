//! Malicious input over HTTP/1.1: it costs bounded memory and time, the process survives, and other callers are served.

use std::time::{Duration, Instant};

use crossdock_tests::{Backend, Connection, Gateway, call, exchange, until};

fn gateway(backend: &Backend) -> Gateway {
    Gateway::start_with(
        "public:
    http:
      bind: \"127.0.0.1:0\"
      head_timeout: 1s
      body_timeout: 2s
      idle_timeout: 2s
      connections: 200
      connections_per_address: 100",
        &format!(
            "version: 1
services:
  echo: {{ http: {{ url: \"http://{}\", operations: {{ post: {{ post: /echo }} }} }} }}
routes:
  mapped:
    from: {{ http: {{ listen: public, post: /mapped, max: 16MiB }} }}
    steps: [ {{ map: {{ a: req.a }} }}, {{ call: echo.post }} ]
  plain: {{ from: {{ http: {{ listen: public, post: /plain }} }}, steps: [ {{ call: echo.post }} ] }}
",
            backend.address
        ),
    )
}

fn post(media_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /mapped HTTP/1.1\r\nHost: h\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_map_that_repeats_a_long_text_is_rejected_at_low_cost() {
    let backend = Backend::start();
    let gateway = Gateway::start(&format!(
        "version: 1
services: {{ echo: {{ http: {{ url: \"http://{}\", operations: {{ post: {{ post: /echo }} }} }} }} }}
routes:
  lines:
    from: {{ http: {{ listen: public, post: /mapped }} }}
    steps:
      - map: {{ lines: {{ each: req.lines, as: line, map: {{ customer: req.customer, sku: line }} }} }}
      - call: echo.post
",
        backend.address
    ));
    let lines = |customer: usize, count: usize| {
        format!("{{\"customer\":\"{}\",\"lines\":[{}]}}", "c".repeat(customer), vec!["1"; count].join(","))
    };
    let send = |body: &str| {
        let (mut replies, _) = exchange(&gateway.public(), &post("application/json", body.as_bytes()), 1);
        replies.remove(0)
    };
    assert_eq!(send(&lines(10, 100)).status, 200);
    let before = gateway.resident_kib();
    let begun = Instant::now();
    let reply = send(&lines(500_000, 99_000));
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert!(reply.body.contains("BODY_TOO_LARGE"), "{}", reply.body);
    println!("rejected after {:?}, {} KiB more", begun.elapsed(), gateway.resident_kib().saturating_sub(before));
    assert!(gateway.resident_kib() < before + 128 * 1024);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn malicious_bodies_are_rejected_at_low_cost() {
    let backend = Backend::start();
    let mut gateway = gateway(&backend);
    let keys: String = (0..1_000_000).map(|number| format!("\"{number}\":0,")).collect();
    let attributes: String = (0..1_000_000).map(|number| format!(" a{number}=\"\"")).collect();
    let entities = "<!DOCTYPE a [<!ENTITY b \"bbbbbbbbbb\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\">]><a>&c;</a>";
    let json = "application/json";
    let xml = "application/xml";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("deep JSON", post(json, "[".repeat(100_000).as_bytes()), "nested deeper than 64 levels"),
        ("deep JSON objects", post(json, "{\"a\":".repeat(100_000).as_bytes()), "nested deeper than 64 levels"),
        ("a million keys", post(json, format!("{{{keys}\"a\":1}}").as_bytes()), "more than 10000 keys"),
        (
            "a million values",
            post(json, format!("[{}0]", "0,".repeat(1_000_000)).as_bytes()),
            "more than 200000 values",
        ),
        (
            "a long namespace on every name",
            post(
                xml,
                format!("<r xmlns:p=\"{}\">{}</r>", "u".repeat(400_000), "<x p:a=\"\"/>".repeat(20_000)).as_bytes(),
            ),
            "a namespace name is longer",
        ),
        ("deep XML", post(xml, "<a>".repeat(100_000).as_bytes()), "nested deeper than 64 levels"),
        ("a million attributes", post(xml, format!("<a{attributes}/>").as_bytes()), "more than 128 attributes"),
        (
            "a million elements",
            post(xml, format!("<a>{}</a>", "<b/>".repeat(1_000_000)).as_bytes()),
            "more than 200000 elements",
        ),
        ("nested entities", post(xml, entities.as_bytes()), "document type"),
        ("invalid UTF-8 in JSON", post(json, b"{\"a\":\"\xff\xfe\"}"), "not valid UTF-8"),
        ("invalid UTF-8 in XML", post(xml, b"<a>\xff</a>"), "encoding must be UTF-8"),
        ("a lone surrogate", post(json, br#"{"a":"\ud800"}"#), "lone surrogate"),
        ("a number out of range", post(json, br#"{"a":1e999}"#), "out of range"),
        ("a duplicate key", post(json, br#"{"a":1,"a":2}"#), "duplicate key"),
        ("bytes after the value", post(json, br#"{"a":1} x"#), "nothing may follow"),
        ("NaN", post(json, br#"{"a":NaN}"#), "expected a value"),
        ("an unsupported media type", post("text/plain", b"a=1"), "has to be JSON or XML"),
    ];
    assert_eq!(call(&gateway.public(), "POST", "/plain", "{}").status, 200);
    for (what, bytes, problem) in cases {
        let begun = Instant::now();
        let (replies, _) = exchange(&gateway.public(), &bytes, 1);
        let reply = replies.first().unwrap_or_else(|| panic!("{what}: no response"));
        assert!(matches!(reply.status, 400 | 415), "{what}: {reply:?}");
        assert!(reply.body.contains(problem), "{what}: {}", reply.body);
        assert!(begun.elapsed() < Duration::from_secs(5), "{what} took {:?}", begun.elapsed());
        assert_eq!(call(&gateway.public(), "POST", "/plain", "{}").status, 200, "{what}: another caller is served");
    }
    assert!(gateway.is_running());
    // Bodies were up to 16 MiB; the limits on values bound their parsed size.
    assert!(gateway.resident_kib() < 200 * 1024, "{} KiB", gateway.resident_kib());
}

#[test]
fn slow_senders_are_disconnected_while_others_are_served() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    // An incomplete head or body: 408. A connection without a request is closed.
    let mut slow_head = Connection::open(&gateway.public());
    slow_head.send(b"GET /plain HTTP/1.1\r\nHost: h\r\nX: ");
    let mut slow_body = Connection::open(&gateway.public());
    slow_body.send(b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{");
    let mut idle = Connection::open(&gateway.public());
    let mut chunks = Connection::open(&gateway.public());
    chunks.send(b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n");
    assert_eq!(call(&gateway.public(), "POST", "/plain", "{}").status, 200);
    let begun = Instant::now();
    assert_eq!(slow_head.receive(false).expect("an answer").status, 408);
    assert!(slow_head.is_closed());
    assert_eq!(slow_body.receive(false).expect("an answer").status, 408);
    assert!(slow_body.is_closed());
    assert!(idle.is_closed());
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn a_body_below_the_minimum_rate_is_rejected() {
    let backend = Backend::start();
    let gateway = Gateway::start_with(
        "public: { http: { bind: \"127.0.0.1:0\", body_timeout: 60s } }",
        &format!(
            "version: 1
services: {{ echo: {{ http: {{ url: \"http://{}\", operations: {{ post: {{ post: /echo }} }} }} }} }}
routes: {{ plain: {{ from: {{ http: {{ listen: public, post: /plain }} }}, steps: [ {{ call: echo.post }} ] }} }}
",
            backend.address
        ),
    );
    let mut slow = Connection::open(&gateway.public());
    slow.send(b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n");
    let begun = Instant::now();
    let reply = slow.receive(false).expect("an answer");
    assert_eq!(reply.status, 408, "{reply:?}");
    assert!(
        (4..9).contains(&begun.elapsed().as_secs()),
        "rejected after the grace period of five seconds, not {:?}",
        begun.elapsed()
    );
}

#[test]
fn early_disconnects_leave_no_request_in_flight() {
    let backend = Backend::start();
    let mut gateway = gateway(&backend);
    for bytes in
        [&b"G"[..], b"POST /plain HTTP/1.1\r\n", b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{"]
    {
        for _ in 0..50 {
            let mut connection = Connection::open(&gateway.public());
            connection.send(bytes);
        }
    }
    until("no request to be in flight", || {
        let routes = gateway.admin_json("/api/v1/routes");
        let routes = routes["routes"].as_array().expect("routes");
        routes.iter().all(|route| route["in_flight"] == 0)
    });
    assert!(gateway.is_running());
    assert_eq!(call(&gateway.public(), "POST", "/plain", "{}").status, 200);
}

#[test]
fn connections_per_address_are_limited_and_released() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("its files").count();
    let before = open_files();
    let held: Vec<Connection> = (0..150).map(|_| Connection::open(&gateway.public())).collect();
    // `before` may include readiness probes that have closed since.
    until("the maximum number of connections", || open_files() >= before + 95);
    until("those above the limit to be closed", || open_files() <= before + 105);
    drop(held);
    until("a free connection for a call", || call(&gateway.public(), "POST", "/plain", "{}").status == 200);
}

#[test]
fn a_caller_that_reads_no_response_is_disconnected() {
    let backend = Backend::start();
    let mut gateway = Gateway::start_with(
        "public: { http: { bind: \"127.0.0.1:0\", write_timeout: 1s } }",
        &format!(
            "version: 1
services: {{ big: {{ http: {{ url: \"http://{}\", operations: {{ get: {{ get: /big }} }}, max: 32MiB }} }} }}
routes: {{ big: {{ from: {{ http: {{ listen: public, get: /big }} }}, steps: [ {{ call: big.get }} ] }} }}
",
            backend.address
        ),
    );
    let mut connection = Connection::open(&gateway.public());
    connection.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the service to be called", || backend.requests() == 1);
    let begun = Instant::now();
    let sockets = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("its files");
        files
            .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let held = sockets();
    until("the connection to be closed", || sockets() < held);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code, Some(0), "the drain is not delayed");
}

#[test]
fn unread_responses_hold_back_pipelined_requests() {
    let backend = Backend::start();
    let gateway = Gateway::start_with(
        "public: { http: { bind: \"127.0.0.1:0\", write_timeout: 1s } }",
        "version: 1\nroutes: { none: { from: { http: { listen: public, get: /n } }, steps: [ { respond: { status: 204, body: none } } ] } }\n",
    );
    let before = gateway.resident_kib();
    let mut connection = Connection::open(&gateway.public());
    let requests = b"GET /n HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    let mut sent = 0;
    // Ends when the gateway closes the connection; before that, it reads no more than fits into the buffers.
    while sent < 4000 && connection.send(&requests) {
        sent += 1;
    }
    assert!(sent < 4000, "the gateway read four million requests without its responses being read");
    assert!(gateway.resident_kib() < before + 20 * 1024, "{} KiB, {before} before", gateway.resident_kib());
    assert_eq!(backend.requests(), 0);
}
