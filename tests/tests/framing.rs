//! HTTP/1.1 framing rules: malformed and ambiguous requests as raw bytes, each with its required response. Rejected requests never reach a
//! service.

use crossdock_tests::{Backend, Connection, Gateway, call, exchange, routes};

fn echo_gateway(backend: &Backend) -> Gateway {
    Gateway::start(&routes("framing", &[("BACKEND", &backend.address)]))
}

fn post(head: &str, body: &str) -> Vec<u8> {
    format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{head}\r\n{body}").into_bytes()
}

#[test]
fn ambiguous_requests_are_rejected_and_the_connection_is_closed() {
    let backend = Backend::start();
    let mut gateway = echo_gateway(&backend);
    let long = "x".repeat(70_000);
    let smuggled = "GET /echo/smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (
            "length and chunks",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}")),
            &[400],
        ),
        ("two equal lengths", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), &[400]),
        ("two different lengths", post("Content-Length: 2\r\nContent-Length: 40\r\n", "{}"), &[400]),
        ("a length with a sign", post("Content-Length: +2\r\n", "{}"), &[400]),
        ("a length in hexadecimal", post("Content-Length: 0x2\r\n", "{}"), &[400]),
        ("a list of lengths", post("Content-Length: 2, 2\r\n", "{}"), &[400]),
        ("an empty length", post("Content-Length: \r\n", "{}"), &[400]),
        ("an unsupported coding", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), &[400, 501]),
        ("chunked is not the final coding", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), &[400, 501]),
        (
            "whitespace before the colon of Transfer-Encoding",
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            &[400],
        ),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), &[400]),
        ("chunks in HTTP/1.0", b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), &[400]),
        ("a bad chunk size", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("a chunk size with 0x", post("Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("a huge chunk size", post("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("a bare line feed in chunks", post("Transfer-Encoding: chunked\r\n", "2\n{}\r\n0\r\n\r\n"), &[400]),
        ("a chunk longer than its size", post("Transfer-Encoding: chunked\r\n", "2\r\n{}x\r\n0\r\n\r\n"), &[400]),
        (
            "a long chunk extension",
            post("Transfer-Encoding: chunked\r\n", &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "e".repeat(300))),
            &[400],
        ),
        (
            "more framing than body bytes",
            post("Transfer-Encoding: chunked\r\n", &format!("1;{}\r\n1\r\n", "e".repeat(250)).repeat(600)),
            &[400],
        ),
        ("a bare line feed in the head", b"GET /echo/1 HTTP/1.1\nHost: h\r\n\r\n".to_vec(), &[400]),
        ("a bare line feed between headers", b"GET /echo/1 HTTP/1.1\r\nHost: h\nX: y\r\n\r\n".to_vec(), &[400]),
        ("a bare carriage return", b"GET /echo/1 HTTP/1.1\r\nHost: h\rX: y\r\n\r\n".to_vec(), &[400]),
        ("a folded header", b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n".to_vec(), &[400]),
        ("whitespace before the colon", b"GET /echo/1 HTTP/1.1\r\nHost : h\r\n\r\n".to_vec(), &[400]),
        ("a control character in a name", b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nX\x01: a\r\n\r\n".to_vec(), &[400]),
        ("an 8-bit byte in a name", b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nX\xe9: a\r\n\r\n".to_vec(), &[400]),
        ("an underscore in a name", b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nX_Forwarded_For: a\r\n\r\n".to_vec(), &[400]),
        ("NUL in a value", b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n".to_vec(), &[400]),
        ("no Host", b"GET /echo/1 HTTP/1.1\r\n\r\n".to_vec(), &[400]),
        ("two Hosts", b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n".to_vec(), &[400]),
        ("TRACE", b"TRACE /echo/1 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), &[405]),
        ("CONNECT", b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), &[405]),
        (
            "Upgrade",
            b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(),
            &[405],
        ),
        ("an unknown expectation", post("Expect: 200-ok\r\nContent-Length: 2\r\n", "{}"), &[417]),
        ("an unsupported version", b"GET /echo/1 HTTP/2.0\r\nHost: h\r\n\r\n".to_vec(), &[505]),
        ("a long target", format!("GET /echo/{long} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes(), &[414]),
        ("a long head", format!("GET /echo/1 HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n").into_bytes(), &[431]),
        (
            "many headers",
            format!("GET /echo/1 HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(100)).into_bytes(),
            &[431],
        ),
        ("a fragment in the target", b"GET /echo/1#2 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), &[400]),
        ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400]),
    ];
    for (what, bytes, statuses) in cases {
        let (replies, closed) = exchange(&gateway.public(), &bytes, 2);
        assert_eq!(replies.len(), 1, "{what}: one response, not {replies:?}");
        assert!(statuses.contains(&replies[0].status), "{what}: {:?}", replies[0]);
        assert!(closed, "{what}: the connection is closed");
        assert!(replies[0].body.starts_with('{'), "{what}: a problem document, not {:?}", replies[0].body);
    }
    assert_eq!(backend.requests(), 0, "rejected requests never reach the service");
    assert!(gateway.is_running());
    assert_eq!(call(&gateway.public(), "GET", "/echo/1", "").status, 200);
}

#[test]
fn ambiguous_paths_are_rejected_and_others_are_normalized() {
    let backend = Backend::start();
    let gateway = echo_gateway(&backend);
    for path in [
        "/files/a%2fb",
        "/files/a%5Cb",
        "/files/a%00",
        "/files/a%23",
        "/..",
        "/files/../../x",
        "/files/%zz",
        "/files/a\\b",
    ] {
        let reply = call(&gateway.public(), "GET", path, "");
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
    }
    assert_eq!(backend.requests(), 0);
    for (path, seen) in [
        ("/files/a/./b/../c", "/echo/a/c"),
        ("/files//a//b", "/echo/a/b"),
        ("/files/%61;x=1", "/echo/a%3Bx%3D1"),
        ("/nothing/../echo/%37", "/echo/7"),
        ("/files/%C3%A9%20", "/echo/%C3%A9%20"),
    ] {
        let reply = call(&gateway.public(), "GET", path, "");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let target = backend.last_head().split(' ').nth(1).expect("a target").to_owned();
        assert_eq!(target, seen, "{path}");
    }
}

#[test]
fn the_authority_of_an_absolute_target_replaces_the_host() {
    let backend = Backend::start();
    let gateway = echo_gateway(&backend);
    let (replies, _) = exchange(&gateway.public(), b"GET http://real.example/host HTTP/1.1\r\nHost: other\r\n\r\n", 1);
    assert_eq!(replies[0].status, 200, "{replies:?}");
    let (replies, _) = exchange(&gateway.public(), b"GET /host HTTP/1.1\r\nHost: other\r\n\r\n", 1);
    assert_eq!(replies[0].status, 404, "{replies:?}");
    // The request to the service is in origin form, with the service's host.
    let (replies, _) = exchange(&gateway.public(), b"GET http://elsewhere/echo/1 HTTP/1.1\r\nHost: other\r\n\r\n", 1);
    assert_eq!(replies[0].status, 200, "{replies:?}");
    let head = backend.last_head();
    assert!(head.starts_with("GET /echo/1 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains(&format!("host: {}\r\n", backend.address)), "{head}");
}

#[test]
fn pipelined_requests_are_answered_in_order_each_with_its_own_framing() {
    let backend = Backend::start();
    let gateway = echo_gateway(&backend);
    let mut connection = Connection::open(&gateway.public());
    let mut bytes = b"HEAD /echo/1 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
    bytes.extend_from_slice(&post("Content-Length: 7\r\n", "{\"a\":1}"));
    bytes.extend_from_slice(&post("Transfer-Encoding: chunked\r\n", "3\r\n{\"b\r\n4\r\n\":2}\r\n0\r\n\r\n"));
    bytes.extend_from_slice(b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /echo/2 HTTP/1.1\r\nHost: h\r\n\r\n");
    connection.send(&bytes);
    let head = connection.receive(true).expect("the response to HEAD");
    assert_eq!((head.status, head.header("content-length")), (200, Some("2")), "{head:?}");
    for body in ["{\"a\":1}", "{\"b\":2}"] {
        let reply = connection.receive(false).expect("an answer");
        assert_eq!((reply.status, reply.body.as_str()), (200, body));
    }
    assert_eq!(connection.receive(false).expect("an answer").status, 404);
    assert_eq!(connection.receive(false).expect("an answer").status, 200);
}

#[test]
fn requests_may_arrive_byte_by_byte() {
    let backend = Backend::start();
    let gateway = echo_gateway(&backend);
    let mut connection = Connection::open(&gateway.public());
    for byte in post("Transfer-Encoding: chunked\r\n", "2;x=y\r\n{}\r\n0\r\nT: t\r\n\r\n") {
        assert!(connection.send(&[byte]));
    }
    assert_eq!(connection.receive(false).expect("an answer").body, "{}");
}

#[test]
fn expect_is_handled_by_the_gateway_and_never_forwarded() {
    let backend = Backend::start();
    let gateway = echo_gateway(&backend);
    let mut connection = Connection::open(&gateway.public());
    connection.send(&post("Content-Length: 2\r\nExpect: 100-continue\r\n", ""));
    assert_eq!(connection.receive(false).expect("an interim response").status, 100);
    connection.send(b"{}");
    assert_eq!(connection.receive(false).expect("an answer").status, 200);
    assert!(!backend.last_head().to_lowercase().contains("expect"), "{}", backend.last_head());
    // Too large: rejected before the caller sends the body.
    let mut connection = Connection::open(&gateway.public());
    connection.send(&post("Content-Length: 100000\r\nExpect: 100-continue\r\n", ""));
    assert_eq!(connection.receive(false).expect("an answer").status, 413);
    assert!(connection.is_closed());
}

#[test]
fn body_limits_are_exact_with_and_without_a_content_length() {
    let backend = Backend::start();
    let gateway = echo_gateway(&backend);
    let limit = 64 * 1024;
    for (len, status) in [(limit - 1, 200), (limit, 200), (limit + 1, 413)] {
        let body = format!("\"{}\"", "x".repeat(len - 2));
        let by_length = post(&format!("Content-Length: {len}\r\n"), &body);
        let by_count = post("Transfer-Encoding: chunked\r\n", &format!("{len:x}\r\n{body}\r\n0\r\n\r\n"));
        for bytes in [by_length, by_count] {
            let (replies, _) = exchange(&gateway.public(), &bytes, 1);
            assert_eq!(replies[0].status, status, "{len} bytes: {}", replies[0].head);
        }
    }
}

#[test]
fn only_listed_headers_are_forwarded_and_never_hop_by_hop_ones() {
    let backend = Backend::start();
    let gateway = Gateway::start(&routes("framing-headers", &[("BACKEND", &backend.address)]));
    let request = b"GET /h HTTP/1.1\r\nHost: h\r\nX-Tenant: t1\r\nX-Tenant: t2\r\nCookie: c\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: x-mine, close\r\n\
        X-Mine: m\r\nX-Request-Id: forged\r\nCrossdock-Anything: x\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    let (replies, _) = exchange(&gateway.public(), request, 1);
    let reply = &replies[0];
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("etag"), Some("\"v1\""));
    for name in ["x-inside", "x-hop", "keep-alive", "x-added"] {
        assert_eq!(reply.header(name), None, "{name} is not forwarded to the caller");
    }
    let head = backend.last_head().to_lowercase();
    for line in [
        "x-tenant: t1\r\n",
        "x-tenant: t2\r\n",
        "x-static: fixed\r\n",
        "x-added: by public\r\n",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    ] {
        assert!(head.contains(line), "{line:?} is not in {head}");
    }
    for name in ["cookie", "x-forwarded-for", "x-mine", "connection", "forged", "crossdock-anything"] {
        assert!(!head.contains(name), "{name} is in {head}");
    }
}

#[test]
fn a_misbehaving_service_causes_faults_but_never_mixes_up_responses() {
    let backend = Backend::start();
    let gateway = Gateway::start(&routes("framing-misbehaving-service", &[("BACKEND", &backend.address)]));
    for number in 0..50 {
        let body = format!("{{\"n\":{number}}}");
        let reply = call(&gateway.public(), "POST", "/surplus", &body);
        assert_eq!((reply.status, reply.body), (200, body));
    }
    assert_eq!(call(&gateway.public(), "POST", "/close", "{}").status, 503);
    assert_eq!(call(&gateway.public(), "POST", "/half", "{}").status, 503);
    assert_eq!(call(&gateway.public(), "POST", "/big", "{}").status, 500);
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
        (422, 400),
        (429, 429),
        (500, 500),
        (501, 501),
        (502, 503),
        (503, 503),
        (504, 504),
        (302, 500),
        (418, 500),
    ];
    for (service, caller) in table {
        let reply = call(&gateway.public(), "GET", &format!("/status/{service}"), "");
        assert_eq!(reply.status, caller, "service status {service}: {reply:?}");
        assert!(!reply.body.contains("stack trace"), "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
}
