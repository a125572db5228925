//! Resource exhaustion: callers that take too many connections, too much memory, time or service capacity do not starve others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossdock_tests::frames::{Http2, kind};
use crossdock_tests::{Backend, Connection, Gateway, Recorder, call, routes, until, until_within};

const GET: &[u8] = b"GET /r HTTP/1.1\r\nHost: h\r\n\r\n";

fn call_routes(backend: &Backend) -> String {
    routes("starving", &[("BACKEND", &backend.address)])
}

/// Waits between the steps of a deliberately slow caller.
fn pause(millis: u64) {
    let (_caller, never) = std::sync::mpsc::sync_channel::<()>(1);
    let _ = never.recv_timeout(Duration::from_millis(millis));
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = call(&gateway.admin(), "GET", "/metrics", "").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn idle_connections_are_shed_and_the_admin_listener_stays_reachable() {
    let backend = Backend::start();
    // The gateway raises the soft limit to the hard limit.
    let gateway = Gateway::start_under(
        &["prlimit", "--nofile=100:400"],
        "public: { http: { bind: \"127.0.0.1:0\", connections_per_address: 400 } }",
        &call_routes(&backend),
    );
    let max = metric(&gateway, "crossdock_connections_max");
    assert_eq!(max, 300, "three quarters of the hard limit");
    assert!(gateway.log().iter().any(|line| line.contains("open file limit is low")));
    let address = gateway.public();
    // Some connections never send a request, others are idle after one.
    let mut idle: Vec<TcpStream> = Vec::new();
    let begun = Instant::now();
    for number in 0..1000 {
        if let Ok(mut stream) = TcpStream::connect(&address) {
            if number % 3 == 0 {
                let _ = stream.write_all(GET);
            }
            idle.push(stream);
        }
        if number % 50 == 0 {
            let called = Instant::now();
            assert_eq!(call(&gateway.admin(), "GET", "/livez", "").status, 200);
            assert!(called.elapsed() < Duration::from_secs(1), "the admin listener took {:?}", called.elapsed());
            pause(20);
        }
    }
    // A new caller is served, as the connections idle for longest are closed.
    until_within(Duration::from_secs(3), "a free connection", || {
        let mut connection = TcpStream::connect(&address).expect("a connection");
        connection.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
        let mut answer = [0; 12];
        connection.write_all(GET).is_ok() && connection.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 200"
    });
    println!("1000 connections in {:?}", begun.elapsed());
    assert!(metric(&gateway, "crossdock_connections") <= max);
    assert!(metric(&gateway, "crossdock_connections_shed_total") > 0);
    drop(idle);
}

#[test]
fn the_memory_of_all_bodies_is_bounded_and_released() {
    let backend = Backend::start();
    let listeners = "public: { http: { bind: \"127.0.0.1:0\" } }\nmemory: { bodies: 8MiB }";
    let gateway = Gateway::start_with(listeners, &call_routes(&backend));
    let head = b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n";
    let mut body = vec![b' '; 1 << 20];
    body[0] = b'1';
    // All but the last byte, so that the gateway holds each body without processing it.
    let mut slow: Vec<TcpStream> = (0..24)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.public()).expect("a connection");
            let _ = stream.write_all(head).and_then(|()| stream.write_all(&body[..body.len() - 1]));
            stream
        })
        .collect();
    until("the memory budget to be exhausted", || metric(&gateway, "crossdock_bodies_refused_total") >= 10);
    assert!(metric(&gateway, "crossdock_body_bytes") <= 8 << 20);
    // Small calls are still served.
    let mut connection = Connection::open(&gateway.public());
    connection.send(GET);
    assert_eq!(connection.receive(false).map(|reply| reply.status), Some(200));
    let mut answers = [0, 0];
    for stream in &mut slow {
        let _ = stream.write_all(b" ");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let mut answer = [0; 12];
        match stream.read_exact(&mut answer).map(|()| &answer[9..]) {
            Ok(b"200") => answers[0] += 1,
            // The 503 may be lost when the gateway closes the connection.
            Ok(b"503") | Err(_) => answers[1] += 1,
            Ok(other) => panic!("status {}", String::from_utf8_lossy(other)),
        }
    }
    println!("{} served, {} rejected", answers[0], answers[1]);
    assert!(answers[0] >= 4 && answers[1] >= 10, "{answers:?}");
    drop(slow);
    until("all memory to be released", || metric(&gateway, "crossdock_body_bytes") == 0);
}

#[test]
fn a_response_that_is_read_too_slowly_is_aborted() {
    let backend = Backend::start();
    let listeners = "public: { http: { bind: \"127.0.0.1:0\", write_timeout: 3s } }";
    let gateway = Gateway::start_with(listeners, &call_routes(&backend));
    let mut slow = TcpStream::connect(gateway.public()).expect("a connection");
    slow.write_all(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    slow.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let begun = Instant::now();
    // 400 bytes per second: continuous progress.
    let mut piece = [0; 40];
    until_within(Duration::from_secs(30), "the connection to be closed", || {
        pause(100);
        let _ = slow.read(&mut piece);
        metric(&gateway, "crossdock_connections") == 0
    });
    println!("closed after {:?}", begun.elapsed());
    // A caller that reads normally gets the same response in full.
    let reply = call(&gateway.public(), "GET", "/big", "");
    assert_eq!((reply.status, reply.body.len()), (200, 20 << 20));
}

#[test]
fn stream_resets_are_limited_and_do_not_affect_other_callers() {
    let service = Recorder::start(|_, _| (200, Duration::from_millis(300)));
    let text = routes("starving-resets", &[("BACKEND", &service.address)]);
    let gateway = Gateway::start_with("public: { http: { bind: \"127.0.0.1:0\" } }", &text);
    let begun = Instant::now();
    let (mut sent, mut connections) = (0_u32, 0_u32);
    let mut statuses = Vec::new();
    while begun.elapsed() < Duration::from_secs(3) {
        let mut attacker = Http2::open(&gateway.public(), 65_535);
        connections += 1;
        let mut stream = 1;
        // Until the gateway sends GOAWAY.
        while begun.elapsed() < Duration::from_secs(3) {
            let first = stream;
            for _ in 0..50 {
                attacker.request(stream, "POST", "/r", &[("content-type", "application/json")], true);
                stream += 2;
                sent += 1;
            }
            let _ = attacker.frames_until(Duration::from_millis(20), |_| false);
            for reset in (first..stream).step_by(2) {
                attacker.send(kind::RST_STREAM, 0, reset, &8_u32.to_be_bytes());
            }
            let frames = attacker.frames_until(Duration::from_millis(1), |frame| frame.kind == kind::GOAWAY);
            if frames.last().is_some_and(|frame| frame.kind == kind::GOAWAY) {
                break;
            }
        }
        statuses.push(call(&gateway.public(), "POST", "/r", "{}").status);
    }
    let executed = service.requests();
    println!("{sent} requests over {connections} connections, {executed} reached the service");
    assert!(executed < 1200, "{executed} of {sent} reached the service");
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[test]
fn idempotent_calls_are_cancelled_with_their_caller_and_others_are_not() {
    let service =
        Recorder::start(|_, body| (200, if body.is_empty() { Duration::ZERO } else { Duration::from_millis(600) }));
    let text = routes("starving-cancellation", &[("BACKEND", &service.address)]);
    let gateway = Gateway::start_with("public: { http: { bind: \"127.0.0.1:0\" } }", &text);
    let released_after = |path: &str| {
        let mut caller = TcpStream::connect(gateway.public()).expect("a connection");
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        caller.write_all(head.as_bytes()).expect("sent");
        let in_flight = || gateway.admin_json("/api/v1/services")["services"][0]["in_flight"].as_i64();
        until("the call to be in flight", || in_flight() == Some(1));
        drop(caller);
        let disconnected = Instant::now();
        until("its credit to be released", || in_flight() == Some(0));
        disconnected.elapsed()
    };
    assert!(released_after("put") < Duration::from_millis(300));
    assert!(released_after("post") > Duration::from_millis(300));
    assert!(released_after("kept") > Duration::from_millis(300));
}
