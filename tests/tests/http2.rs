//! REST over HTTP/2: the same responses as over HTTP/1.1 on the same listener, tested with curl and with hand-made frames.

use std::process::Command;
use std::time::Duration;

use crossdock_tests::frames::{Http2, kind};
use crossdock_tests::{Backend, Gateway, abuse, call, routes, until, write_certificates};

const LISTENER: &str = "bind: \"127.0.0.1:0\"";

fn gateway(backend: &Backend, listener: &str) -> Gateway {
    let routes = routes("http2", &[("BACKEND", &backend.address)]);
    Gateway::start_with(&format!("public: {{ http: {{ {listener} }} }}"), &routes)
}

/// Runs curl; returns the body, followed by status and HTTP version.
fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--write-out", " %{http_code} %{http_version}"]);
    let output = command.args(arguments).output().expect("curl runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn both_http_versions_give_the_same_responses_on_one_listener() {
    let backend = Backend::start();
    let gateway = gateway(&backend, LISTENER);
    let url = |path: &str| format!("http://{}{path}", gateway.public());
    let body = r#"{"n":12345678901234567890.10,"list":["one"]}"#;
    for (version, shown) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let output = curl(&[version, "--data-binary", body, "-H", "content-type: application/json", &url("/echo")]);
        assert_eq!(output, format!("{body} 200 {shown}"));
        assert_eq!(curl(&[version, &url("/names/caf%C3%A9")]), format!("{{\"name\":\"caf\u{e9}\"}} 200 {shown}"));
        let output = curl(&[version, "--head", &url("/names/x")]);
        assert!(output.contains("content-length: 12\r\n") && output.contains("date: "), "{output}");
        assert!(output.ends_with(&format!(" 200 {shown}")), "{output}");
        for (arguments, status, problem) in [
            (&["-X", "DELETE", &url("/names/x")][..], 405, "METHOD"),
            (&[&url("/nobody")], 404, "NO_ROUTE"),
            (&[&url("/names/a%2Fb")], 400, "a path must not contain an escaped"),
            (&["-H", "x_y: a", &url("/names/x")], 400, "REQUEST_REFUSED"),
            (&["-d", &"x".repeat(65 * 1024), &url("/echo")], 413, "the route's limit of 65536 bytes"),
            (
                &["-d", &"x".repeat(100 * 1024), "-H", "transfer-encoding: chunked", &url("/echo")],
                413,
                "the body exceeds the route's limit",
            ),
            (&["-d", "x", "-H", "content-encoding: gzip", &url("/echo")], 415, "compressed"),
        ] {
            let output = curl(&[&[version], arguments].concat());
            assert!(
                output.contains(problem) && output.ends_with(&format!(" {status} {shown}")),
                "{arguments:?}: {output}"
            );
        }
    }
    let output = curl(&["--http2-prior-knowledge", "--output", "/dev/null", "-w", "%{size_download}", &url("/big")]);
    assert!(output.starts_with("20971520"), "a long response is complete: {output}");
}

#[test]
fn repeated_cookies_are_joined_and_only_listed_headers_forwarded() {
    let backend = Backend::start();
    let gateway = gateway(&backend, LISTENER);
    let mut connection = Http2::open(&gateway.public(), 65_535);
    let fields = [("cookie", "a=1"), ("x-tenant", "t"), ("cookie", "b=2"), ("x-other", "o")];
    connection.request(1, "POST", "/echo", &fields, true);
    let frames = connection.frames_until(Duration::from_secs(5), |frame| frame.flags & 1 == 1 && frame.stream == 1);
    assert_eq!(frames.last().map(|frame| frame.stream), Some(1), "{frames:?}");
    let head = backend.last_head().to_ascii_lowercase();
    assert!(head.contains("\r\ncookie: a=1; b=2\r\n") && head.contains("\r\nx-tenant: t\r\n"), "{head}");
    assert!(!head.contains("x-other"), "{head}");
}

#[test]
fn alpn_selects_the_http_version() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!("{LISTENER}, tls: {{ cert: \"{}\", key: \"{}\" }}", at("server.pem"), at("server.key"));
    let backend = Backend::start();
    let both = gateway(&backend, &tls);
    let old = gateway(&backend, &format!("{tls}, http2: false"));
    for (gateway, version, shown) in
        [(&both, "--http2", "2"), (&both, "--http1.1", "1.1"), (&old, "--http2", "1.1"), (&old, "--http1.1", "1.1")]
    {
        let port = gateway.public().rsplit(':').next().expect("a port").to_owned();
        let output = curl(&[version, "--cacert", &at("ca.pem"), &format!("https://localhost:{port}/names/x")]);
        assert_eq!(output, format!("{{\"name\":\"x\"}} 200 {shown}"));
    }
}

#[test]
fn the_http_2_preface_is_rejected_if_http_2_is_disabled() {
    let backend = Backend::start();
    let gateway = gateway(&backend, &format!("{LISTENER}, http2: false"));
    let (replies, _) = crossdock_tests::exchange(&gateway.public(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1);
    assert_eq!(replies[0].status, 505, "{replies:?}");
}

#[test]
fn a_slow_body_is_rejected_and_its_connection_stays_open() {
    let backend = Backend::start();
    let gateway = gateway(&backend, &format!("{LISTENER}, body_timeout: 500ms"));
    let mut connection = Http2::open(&gateway.public(), 65_535);
    connection.request(1, "POST", "/echo", &[("content-length", "10")], false);
    connection.send(kind::DATA, 0, 1, b"{\"a\"");
    let frames = connection.frames_until(Duration::from_secs(5), |frame| frame.flags & 1 == 1 && frame.stream == 1);
    let body = String::from_utf8_lossy(&frames.last().expect("a response").payload).into_owned();
    assert!(body.contains("BODY_TOO_SLOW") && body.contains("408"), "{body}");
    connection.request(3, "GET", "/names/x", &[], true);
    let frames = connection.frames_until(Duration::from_secs(5), |frame| frame.flags & 1 == 1 && frame.stream == 3);
    assert_eq!(frames.last().expect("an answer").payload, b"{\"name\":\"x\"}");
}

#[test]
fn unread_responses_are_reset_without_affecting_other_streams() {
    let backend = Backend::start();
    let gateway = gateway(&backend, &format!("{LISTENER}, write_timeout: 1s"));
    let before = gateway.resident_kib();
    // Without a flow-control window, only headers are sent.
    let mut connection = Http2::open(&gateway.public(), 0);
    connection.request(1, "GET", "/big", &[], true);
    let frames = connection.frames_until(Duration::from_secs(8), |frame| frame.kind == kind::RST_STREAM);
    assert_eq!(frames.last().map(|frame| frame.stream), Some(1), "the unread response is reset: {frames:?}");
    until("the memory of the response to be released", || gateway.resident_kib() < before + 64 * 1024);
    connection.request(3, "HEAD", "/names/x", &[], true);
    let frames = connection.frames_until(Duration::from_secs(5), |frame| frame.flags & 1 == 1 && frame.stream == 3);
    assert_eq!(frames.last().map(|frame| frame.kind), Some(kind::HEADERS), "the connection stays open: {frames:?}");
    assert_eq!(call(&gateway.public(), "GET", "/names/x", "").status, 200);
}

#[test]
fn draining_sends_goaway_and_finishes_calls_in_flight() {
    let backend = Backend::start();
    let mut gateway = gateway(&backend, LISTENER);
    let mut idle = Http2::open(&gateway.public(), 65_535);
    let mut silent = std::net::TcpStream::connect(gateway.public()).expect("a connection");
    let mut busy = Http2::open(&gateway.public(), 65_535);
    busy.request(1, "POST", "/slow/700", &[], true);
    until("the call to be in flight", || backend.requests() == 1);
    gateway.signal("TERM");
    let frames = busy.frames_until(Duration::from_secs(5), |frame| frame.flags & 1 == 1 && frame.stream == 1);
    assert_eq!(frames.last().expect("an answer").payload, b"{}", "{frames:?}");
    assert!(frames.iter().any(|frame| frame.kind == kind::GOAWAY), "{frames:?}");
    assert!(idle.is_closed_within(Duration::from_secs(8)));
    silent.set_read_timeout(Some(Duration::from_secs(8))).expect("a socket");
    assert_eq!(std::io::Read::read(&mut silent, &mut [0; 8]).expect("an end"), 0);
    assert_eq!(gateway.wait().code, Some(0));
}

#[test]
fn draining_waits_for_slow_readers() {
    let backend = Backend::start();
    let mut gateway = gateway(&backend, LISTENER);
    let mut connection = Http2::open(&gateway.public(), 10_000);
    let fields = [("content-length", "60000"), ("content-type", "application/json")];
    connection.request(1, "POST", "/echo", &fields, false);
    for part in 1..=4 {
        connection.send(kind::DATA, u8::from(part == 4), 1, &[b'x'; 15_000]);
    }
    let mut received = 0;
    let mut has_ended = false;
    for second in 0..6 {
        // The first window arrives at once; each further one a second later.
        let frames = connection.frames_until(Duration::from_secs(1), |frame| frame.flags & 1 == 1 && frame.stream == 1);
        received +=
            frames.iter().filter(|frame| frame.kind == kind::DATA).map(|frame| frame.payload.len()).sum::<usize>();
        has_ended |= frames.iter().any(|frame| frame.flags & 1 == 1 && frame.stream == 1);
        if second == 0 {
            gateway.signal("TERM");
        }
        connection.send(kind::WINDOW_UPDATE, 0, 1, &10_000_u32.to_be_bytes());
    }
    assert_eq!((received, has_ended), (60_000, true), "a drain does not truncate responses");
    assert_eq!(gateway.wait().code, Some(0));
}

#[test]
fn http_2_abuse_of_a_rest_listener_costs_little_and_affects_no_other_caller() {
    let backend = Backend::start();
    abuse(&gateway(&backend, LISTENER), "public", &["/echo", "{}", "--rest"]);
}
