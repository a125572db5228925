//! Two gateways in a chain: HTTP/JSON to gRPC, then gRPC to an HTTP/JSON service. This tests gRPC on the wire in both directions without
//! third-party peers.

use crossdock_tests::{Backend, Gateway, call, routes, until, write_certificates};

const PROTO: &[u8] = b"syntax = \"proto3\";
package chain.v1;
service Chain {
  rpc Echo(Note) returns (Note) { option idempotency_level = IDEMPOTENT; }
  rpc Status(Wanted) returns (Note);
  rpc Slow(Wanted) returns (Note);
}
message Note { string text = 1; int64 number = 2; repeated string list = 3; }
message Wanted { int64 code = 1; }
";

const FILES: &[(&str, &[u8])] = &[("chain.proto", PROTO)];

/// Starts a gateway that accepts gRPC and calls a JSON service.
fn back(backend: &Backend, listener: &str) -> Gateway {
    let routes = routes("grpc-chain-back", &[("BACKEND", &backend.address)]);
    Gateway::start_with_files(&format!("public: {{ grpc: {{ {listener} }} }}"), &routes, FILES)
}

/// Starts a gateway that accepts JSON and calls gRPC at these URLs.
fn front(urls: &str, more: &str) -> Gateway {
    let routes = routes("grpc-chain-front", &[("URLS", &urls), ("MORE", &more)]);
    Gateway::start_with_files("public: { http: { bind: \"127.0.0.1:0\" } }", &routes, FILES)
}

#[test]
fn json_survives_a_round_trip_over_grpc() {
    let backend = Backend::start();
    let back = back(&backend, "bind: \"127.0.0.1:0\"");
    let front = front(&format!("\"http://{}\"", back.public()), "compression: gzip");
    let long = format!(r#"{{"text":"{}","number":"-9007199254740993","list":["one"]}}"#, "x".repeat(20_000));
    for body in
        ["{}", r#"{"text":"085"}"#, r#"{"text":"é\u0001","number":"9223372036854775807","list":["",""]}"#, &long]
    {
        let reply = call(&front.public(), "POST", "/echo", body);
        assert_eq!((reply.status, reply.body.as_str()), (200, body), "{reply:?}");
    }
    for (body, problem) in [
        (r#"{"number":"x"}"#, "`number`: expected a number (int64), found a string"),
        (r#"{"txt":"a"}"#, "has no field `txt`; did you mean `text`?"),
        ("[]", "expected an object, found a list"),
        ("", ""),
    ] {
        let reply = call(&front.public(), "POST", "/echo", body);
        assert_eq!(reply.status, if body.is_empty() { 200 } else { 400 }, "{reply:?}");
        assert!(reply.body.contains(problem), "{reply:?}");
    }
    // A message above the limit of the second gateway.
    let too_long = format!(r#"{{"text":"{}"}}"#, "x".repeat(65_536));
    let reply = call(&front.public(), "POST", "/echo", &too_long);
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.body.contains("a decompressed message exceeds the limit"), "{reply:?}");
}

#[test]
fn every_http_status_is_mapped_to_grpc_and_back() {
    let backend = Backend::start();
    let back = back(&backend, "bind: \"127.0.0.1:0\"");
    let front = front(&format!("\"http://{}\"", back.public()), "max: 1MiB");
    // The status of the service, and the status that the caller receives.
    let table = [
        (400, 400),
        (401, 401),
        (403, 403),
        (404, 404),
        (405, 501),
        (408, 504),
        (409, 409),
        (410, 404),
        (412, 400),
        (413, 400),
        (422, 400),
        (429, 429),
        (499, 499),
        (500, 500),
        (501, 501),
        (502, 503),
        (503, 503),
        (504, 504),
        (302, 500),
        (418, 500),
    ];
    for (service, caller) in table {
        let reply = call(&front.public(), "GET", &format!("/status/{service}"), "");
        assert_eq!(reply.status, caller, "{service}: {reply:?}");
        assert!(!reply.body.contains("stack trace"), "internal details of the service are not disclosed: {reply:?}");
    }
}

#[test]
fn the_remaining_deadline_is_propagated_over_grpc() {
    let backend = Backend::start();
    let back = back(&backend, "bind: \"127.0.0.1:0\"");
    let front = front(&format!("\"http://{}\"", back.public()), "max: 1MiB");
    assert_eq!(call(&front.public(), "GET", "/slow/1", "").body, r#"{"text":"late"}"#);
    let head = format!("GET /slow/3000 HTTP/1.1\r\nHost: {}\r\ncrossdock-timeout: 200ms\r\n\r\n", front.public());
    let begun = std::time::Instant::now();
    let (replies, _) = crossdock_tests::exchange(&front.public(), head.as_bytes(), 1);
    assert_eq!(replies[0].status, 504, "{replies:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "the call ends at its deadline");
    let sent = backend.last_head().to_ascii_lowercase();
    let left = sent.lines().find_map(|line| line.strip_prefix("crossdock-timeout: ")?.strip_suffix("ms")?.parse().ok());
    assert!(left.is_some_and(|left: u64| (1..=200).contains(&left)), "{sent}");
}

#[test]
fn grpc_client_and_server_authenticate_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let backend = Backend::start();
    let listener = format!(
        "bind: \"127.0.0.1:0\", tls: {{ cert: \"{}\", key: \"{}\", client_ca: \"{}\" }}",
        at("server.pem"),
        at("server.key"),
        at("ca.pem")
    );
    let back = back(&backend, &listener);
    let port = back.public().rsplit(':').next().expect("a port").to_owned();
    let url = format!("\"https://localhost:{port}\"");
    let identity =
        |name: &str| format!("cert: \"{}\", key: \"{}\"", at(&format!("{name}.pem")), at(&format!("{name}.key")));
    let good = front(&url, &format!("tls: {{ ca: \"{}\", {} }}", at("ca.pem"), identity("client")));
    assert_eq!(call(&good.public(), "POST", "/echo", r#"{"text":"a"}"#).body, r#"{"text":"a"}"#);
    let requests = backend.requests();
    for tls in [
        format!("ca: \"{}\"", at("ca.pem")),
        format!("ca: \"{}\", {}", at("ca.pem"), identity("stranger")),
        format!("ca: \"{}\", {}", at("other-ca.pem"), identity("client")),
        format!("ca: \"{}\", {}, server_name: another.example", at("ca.pem"), identity("client")),
    ] {
        let front = front(&url, &format!("tls: {{ {tls} }}"));
        assert_eq!(call(&front.public(), "POST", "/echo", "{}").status, 503, "{tls}");
    }
    assert_eq!(backend.requests(), requests, "no request passes without a valid certificate");
}

#[test]
fn calls_are_balanced_over_endpoints_and_survive_the_loss_of_one() {
    let (one, two) = (Backend::start(), Backend::start());
    let (first, second) = (back(&one, "bind: \"127.0.0.1:0\""), back(&two, "bind: \"127.0.0.1:0\""));
    let front = front(&format!("[\"http://{}\", \"http://{}\"]", first.public(), second.public()), "max: 1MiB");
    for _ in 0..10 {
        assert_eq!(call(&front.public(), "POST", "/echo", "{}").status, 200);
    }
    // Each data arbiter has its own round robin.
    let shares = (one.requests(), two.requests());
    assert!(
        shares.0 >= 3 && shares.1 >= 3 && shares.0 + shares.1 == 10,
        "calls, not connections, are balanced: {shares:?}"
    );
    drop(first);
    let before = two.requests();
    for _ in 0..20 {
        assert_eq!(
            call(&front.public(), "POST", "/echo", "{}").status,
            200,
            "an idempotent call is retried at another endpoint"
        );
    }
    assert_eq!(two.requests() - before, 20);
}

#[test]
fn a_low_stream_limit_is_met_with_more_connections() {
    let backend = Backend::start();
    let back = back(&backend, "bind: \"127.0.0.1:0\", streams: 1");
    let front = front(&format!("\"http://{}\"", back.public()), "max: 1MiB");
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let address = front.public();
            std::thread::spawn(move || call(&address, "GET", "/slow/1500", "").status)
        })
        .collect();
    until("all slow calls to be in flight", || backend.requests() == 4);
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(call(&front.public(), "POST", "/echo", "{}").status, 200);
    }
    assert!(begun.elapsed() < std::time::Duration::from_millis(1000), "quick calls waited: {:?}", begun.elapsed());
    for slow in slow {
        assert_eq!(slow.join().expect("an answer"), 200);
    }
}

#[test]
fn a_silent_service_is_unreachable_after_the_connect_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address");
    let front = front(&format!("\"http://{address}\""), "connect_timeout: 300ms, max: 1MiB");
    let begun = std::time::Instant::now();
    let answer = call(&front.public(), "POST", "/echo", "{}");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no HTTP/2 SETTINGS received in time"), "{}", answer.body);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn a_stopping_gateway_finishes_its_calls() {
    let backend = Backend::start();
    let mut back = back(&backend, "bind: \"127.0.0.1:0\"");
    let front = front(&format!("\"http://{}\"", back.public()), "max: 1MiB");
    let address = front.public();
    let slow = std::thread::spawn(move || call(&address, "GET", "/slow/700", ""));
    until("the call to be in flight", || backend.requests() == 1);
    back.signal("TERM");
    assert_eq!(back.wait().code, Some(0));
    assert_eq!(slow.join().expect("an answer").body, r#"{"text":"late"}"#);
    assert_eq!(call(&front.public(), "GET", "/slow/1", "").status, 503, "no call is accepted afterwards");
}
