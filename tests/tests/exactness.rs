//! Every part of a request is forwarded or rejected: queries, bodies, repeated headers. Early responses are read.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use crossdock_tests::{Backend, Gateway, Reply, call, call_with, exchange, routes};
use serde_json::Value;

const LISTENERS: &str = "public: { http: { bind: \"127.0.0.1:0\" } }\n  internal: { grpc: { bind: \"127.0.0.1:0\" } }";

fn reason(reply: &Reply) -> (u16, String) {
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    (reply.status, body["reason"].as_str().unwrap_or_default().to_owned())
}

/// The target of the last request to the service.
fn target(backend: &Backend) -> String {
    backend.last_head().split(' ').nth(1).unwrap_or_default().to_owned()
}

fn gateway(backend: &Backend, name: &str) -> Gateway {
    Gateway::start_with(LISTENERS, &routes(name, &[("BACKEND", &backend.address)]))
}

#[test]
fn a_body_is_forwarded_or_rejected_if_the_method_usually_has_none() {
    let backend = Backend::start();
    let gateway = gateway(&backend, "exactness-bodies");
    let public = gateway.public();
    for (method, path) in [("DELETE", "/items/7"), ("GET", "/find")] {
        assert_eq!(call(&public, method, path, "").status, 200, "{method} {path} without a body");
        let before = backend.requests();
        assert_eq!(reason(&call(&public, method, path, "{\"why\":1}")), (400, "NO_PLACE".into()), "{method} {path}");
        assert_eq!(backend.requests(), before, "the service is not called");
    }
    for (method, path) in [("DELETE", "/purge/7"), ("GET", "/search")] {
        assert_eq!(call(&public, method, path, "{\"why\":1}").body, "{\"why\":1}", "{method} {path}");
    }
}

#[test]
fn a_reply_is_not_forwarded_to_an_operation_without_a_body() {
    let backend = Backend::start();
    let gateway = gateway(&backend, "exactness-two-calls");
    assert_eq!(call(&gateway.public(), "GET", "/r", "").status, 200);
    assert_eq!(target(&backend), "/second");
}

#[test]
fn every_query_parameter_is_forwarded_ignored_by_name_or_rejected() {
    let backend = Backend::start();
    let gateway = gateway(&backend, "exactness-query");
    let public = gateway.public();
    for (sent, received) in [
        ("/plain?tag=a&q=x&tag=b%26c", "/plain?q=x&tag=a&tag=b%26c"),
        ("/plain?q=x&utm=campaign", "/plain?q=x"),
        ("/plain", "/plain"),
        ("/brackets?q=x&tag[]=a&tag%5B%5D=b", "/brackets?q=x&tag%5B%5D=a&tag%5B%5D=b"),
        ("/mixed?tag[]=a&tag[]=b", "/plain?tag=a&tag=b"),
        // Unchanged: order, repetition, escapes, empty values.
        ("/all?b=2&a=1&b=3&c&d=&e=%2f+%20", "/all?b=2&a=1&b=3&c&d=&e=%2f+%20"),
    ] {
        let reply = call(&public, "GET", sent, "");
        assert_eq!((reply.status, target(&backend).as_str()), (200, received), "{sent}: {}", reply.body);
    }
    assert_eq!(call(&public, "POST", "/body?x=1&x=2", "{\"a\":1}").body, "{\"a\":1}");
    assert_eq!(target(&backend), "/body?x=1&x=2");
    assert_eq!(call(&public, "POST", "/made", "{\"a\":\"1 2\",\"r\":{\"b\":true},\"l\":[1,2.50]}").status, 200);
    assert_eq!(target(&backend), "/all?a=1%202&r.b=true&l=1&l=2.50");
    let before = backend.requests();
    for (sent, expected) in [
        ("/plain?qq=x", "QUERY_UNKNOWN"),
        ("/plain?tag[]=a", "QUERY_UNKNOWN"),
        ("/plain?q=1&q=2", "QUERY"),
        ("/brackets?tag=a", "QUERY_UNKNOWN"),
        ("/all?bad=1", "REQUIRED"),
    ] {
        let reply = call(&public, "GET", sent, "");
        assert_eq!(reason(&reply), (400, expected.into()), "{sent}: {}", reply.body);
    }
    // A list of records cannot be written to a query.
    assert_eq!(reason(&call(&public, "POST", "/made", "{\"a\":1,\"r\":1,\"l\":[{}]}")), (400, "ADDRESS_FIELD".into()));
    assert_eq!(backend.requests(), before, "the service is not called");
}

const CONTRACT: &str = r#"syntax = "proto3";
package q.v1;
import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
service S { rpc Find(Req) returns (Rep); }
enum Kind { KIND_UNSPECIFIED = 0; RED = 1; BLUE = 2; }
message Inner { string name = 1; repeated int64 sizes = 2; }
message Req {
  string id = 1;
  repeated Kind kinds = 2;
  bytes page_token = 3;
  google.protobuf.FieldMask read_mask = 4;
  Inner filter = 5;
  google.protobuf.Timestamp since = 6;
  map<string, string> labels = 7;
  repeated Inner many = 8;
}
message Rep { string id = 1; }
"#;

#[test]
fn contract_fields_are_written_to_the_query_in_their_json_form() {
    let backend = Backend::start();
    let text = routes("exactness-typed-query", &[("BACKEND", &backend.address)]);
    let gateway = Gateway::start_with_files(LISTENERS, &text, &[("q.proto", CONTRACT.as_bytes())]);
    let body = r#"{"id":"7","kinds":["RED","BLUE"],"pageToken":"/wA=","readMask":"id,filter.name",
                   "filter":{"name":"a b","sizes":["1","2"]},"since":"2026-01-02T03:04:05Z"}"#;
    let reply = call(&gateway.public(), "POST", "/all", body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(
        target(&backend),
        "/all/7?kinds=RED&kinds=BLUE&pageToken=%2FwA%3D&readMask=id%2Cfilter.name&filter.name=a%20b&filter.sizes=1\
         &filter.sizes=2&since=2026-01-02T03%3A04%3A05Z"
    );
    let reply = call(&gateway.public(), "POST", "/some", r#"{"id":"7","kinds":["BLUE"],"pageToken":"/wA="}"#);
    assert_eq!(
        (reply.status, target(&backend).as_str()),
        (200, "/some/7?page_token=%2FwA%3D&kinds=BLUE"),
        "{}",
        reply.body
    );
    let before = backend.requests();
    for (path, body, field) in [
        ("/all", r#"{"id":"7","many":[{"name":"a"}]}"#, "many"),
        ("/some", r#"{"id":"7","readMask":"id"}"#, "read_mask"),
        ("/some", r#"{"id":"7","labels":{"a":"b"}}"#, "labels"),
    ] {
        let reply = call(&gateway.public(), "POST", path, body);
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(reply.body.contains(field), "{field}: {}", reply.body);
    }
    assert_eq!(backend.requests(), before, "the service is not called");
}

#[test]
fn a_delete_entry_with_a_body_setting_accepts_a_body() {
    let backend = Backend::start();
    let text = routes("exactness-delete", &[("BACKEND", &backend.address)]);
    let gateway = Gateway::start_with_files(LISTENERS, &text, &[("q.proto", CONTRACT.as_bytes())]);
    let reply = call(&gateway.public(), "DELETE", "/items", "{\"id\":\"7\"}");
    assert_eq!((reply.status, reply.body.as_str()), (200, "{\"id\":\"7\"}"));
}

#[test]
fn a_repeated_header_is_rejected_if_the_gateway_reads_it() {
    let backend = Backend::start();
    let gateway = gateway(&backend, "exactness-headers");
    let send = |path: &str, headers: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}content-length: 2\r\n\r\n{{}}"
        );
        let (mut replies, _) = exchange(&gateway.public(), head.as_bytes(), 1);
        replies.remove(0)
    };
    assert_eq!(send("/r", "x-role: user\r\n").status, 200);
    assert_eq!(send("/r", "x-role: admin\r\n").status, 403);
    let rejected = [
        ("/r", "x-role: user\r\nx-role: admin\r\n"),
        ("/r", "x-role: admin\r\nX-Role: user\r\n"),
        ("/r", "X-ROLE: user\r\nx-role: user\r\n"),
        ("/r", "content-type: text/plain\r\n"),
        ("/r", "traceparent: 00-a\r\ntraceparent: 00-b\r\n"),
        ("/r", "crossdock-timeout: 1s\r\ncrossdock-timeout: 9s\r\n"),
        ("/m", "x-kind: a\r\nx-kind: b\r\n"),
        ("/m", "x-kind: b\r\nx-kind: a\r\n"),
    ];
    let before = backend.requests();
    for (path, headers) in rejected {
        assert_eq!(reason(&send(path, headers)), (400, "HEADER_TWICE".into()), "{headers:?}");
    }
    assert_eq!(
        reason(&send("/r", "content-encoding: identity\r\ncontent-encoding: gzip\r\n")),
        (415, "CONTENT_ENCODING".into())
    );
    assert_eq!(backend.requests(), before, "the service is not called");
    assert_eq!(send("/r", "Content-Encoding: Identity, identity\r\n").status, 200);
    // A header that is neither read nor forwarded may be repeated.
    assert_eq!(send("/r", "x-other: 1\r\nx-other: 2\r\n").status, 200);
    let lists =
        "x-tag: a\r\nx-tag: b\r\naccept: application/json\r\naccept: text/plain\r\ncookie: c=1\r\ncookie: d=2\r\n";
    assert_eq!(
        send("/shown", lists).body,
        r#"{"tag":"a, b","accept":"application/json, text/plain","cookie":"c=1; d=2"}"#
    );
    assert_eq!(send("/r", lists).status, 200);
    let head = backend.last_head().to_ascii_lowercase();
    for line in ["x-tag: a\r\n", "x-tag: b\r\n", "cookie: c=1\r\n", "cookie: d=2\r\n"] {
        assert!(head.contains(line), "{line:?} is forwarded: {head}");
    }
}

/// Starts a service that responds as soon as it has read the head of a request, and closes the connection with the body unread.
fn early_responder(answer: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut seen = Vec::new();
            let mut byte = [0];
            while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                seen.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn an_early_response_is_read_while_the_request_is_still_being_sent() {
    let body = vec![b'x'; 4 << 20];
    for (answer, status) in [
        (
            "HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
            413,
        ),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", 401),
        ("HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\r\n", 429),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nfine", 200),
    ] {
        let address = early_responder(answer);
        let text = routes("exactness-early-responses", &[("BACKEND", &address)]);
        let gateway = Gateway::start_with(LISTENERS, &text);
        for method in ["POST", "PUT"] {
            for _ in 0..5 {
                let reply = call_with(&gateway.public(), method, "/up", "application/octet-stream", &body);
                let is_forwarded =
                    reply.body == "fine" || reply.body.contains(&format!("the service responded with status {status}"));
                assert!(is_forwarded, "{method}: {} {}", reply.status, reply.body);
            }
        }
    }
}
