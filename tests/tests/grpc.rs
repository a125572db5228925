//! gRPC interoperability with third-party clients and servers: Python's grpcio, grpc-go's interop client and server, grpcurl, h2spec.

use std::path::Path;
use std::process::Command;

use crossdock_tests::{Gateway, Peer, abuse, call, peers, repository, run_peer};

const ECHO: &[u8] = include_bytes!("../peers/grpc/python/lab/v1/echo.proto");

/// Starts the Python echo service and a gateway that offers it over gRPC and, with streams, over HTTP.
fn python_echo() -> (Peer, Gateway, std::path::PathBuf) {
    let cache = peers("grpc");
    let script = repository().join("tests/peers/grpc/python/echo_server.py");
    let server = Peer::start(
        Command::new(cache.join("venv/bin/python"))
            .arg(script)
            .args(["--listen", "127.0.0.1:0"])
            .env("PYTHONPATH", cache.join("python")),
    );
    let metadata = "x-echo-initial-a..., x-echo-initial-a-bin, x-echo-initial-b-bin, x-echo-trailing-a, \
                    x-echo-trailing-b-bin..., x-echo-trailing-c-bin, x-plain";
    let routes = format!(
        "version: 1
contracts: {{ lab: {{ proto: echo.proto }} }}
services:
  echo: {{ grpc: {{ url: \"http://{}\", service: lab.v1.Echo, faults: all, max: 16MiB }}, timeout: 30s }}
routes:
  echo:
    from: {{ grpc: {{ listen: internal, max: 16MiB }} }}
    as: lab.v1.Echo
    headers: {{ request: [{metadata}], answer: [{metadata}] }}
    steps: [ {{ call: echo }} ]
  unary:
    from: {{ http: {{ listen: public, post: /v1/unary }} }}
    as: lab.v1.Echo/Unary
    steps: [ {{ call: echo.Unary }} ]
  events:
    from: {{ http: {{ listen: public, post: /v1/events, stream: sse }} }}
    as: lab.v1.Echo/ServerStream
    steps: [ {{ call: echo.ServerStream }} ]
  lines:
    from: {{ http: {{ listen: public, post: /v1/lines, stream: ndjson }} }}
    as: lab.v1.Echo/Bidi
    steps: [ {{ call: echo.Bidi }} ]
",
        server.address
    );
    let listeners = "{ internal: { grpc: { bind: \"127.0.0.1:0\", reflection: true, compression: gzip } }, \
                     public: { http: { bind: \"127.0.0.1:0\" } } }\nmemory: { bodies: 64MiB }";
    let gateway = Gateway::start_with_files(listeners, &routes, &[("echo.proto", ECHO)]);
    (server, gateway, cache)
}

#[test]
#[ignore = "needs gRPC for Python, which tests/run installs"]
fn grpcio_client_and_server_work_through_the_gateway() {
    let (_server, gateway, cache) = python_echo();
    let client = repository().join("tests/peers/grpc/python/echo_client.py");
    let mut command = Command::new("timeout");
    command.arg("120").arg(cache.join("venv/bin/python")).arg(client).arg(gateway.listener("internal"));
    // The skipped check counts bytes on the wire, but the gateway compresses independently.
    command.args(["--skip", "gzip_on_the_wire"]).env("PYTHONPATH", cache.join("python"));
    let (is_success, output) = run_peer(&mut command);
    assert!(is_success && output.contains(" passed, 0 failed"), "{output}");
}

#[test]
#[ignore = "needs gRPC for Python, which tests/run installs"]
fn grpcio_service_survives_http_2_abuse() {
    let (_server, gateway, _) = python_echo();
    // Requests with `body.bytes_value`; the long one asks for 2000 responses of 8 KiB.
    let zeros = |count: usize| "00".repeat(count);
    let short = format!("12eb077ae807{}", zeros(1000));
    let long = format!("0a0338d00f1283407a8040{}", zeros(8192));
    let streams = ["--stream", "/lab.v1.Echo/Bidi", &short, "--answers", "/lab.v1.Echo/ServerStream", &long];
    abuse(&gateway, "internal", &[&["/lab.v1.Echo/Unary", ""], &streams[..]].concat());
}

/// The body of a streamed response.
fn stream(gateway: &Gateway, path: &str, body: &str) -> String {
    let output = Command::new("curl")
        .args(["-sN", "--max-time", "20", "-H", "content-type: application/json", "--data-binary", body])
        .arg(format!("http://{}{path}", gateway.listener("public")))
        .output()
        .expect("curl runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
#[ignore = "needs gRPC for Python, which tests/run installs"]
fn grpcio_services_are_called_with_json() {
    let (_server, gateway, _cache) = python_echo();
    let public = gateway.listener("public");
    let body = r#"{"body":{"int64Value":"9007199254740993","stringValue":"085","color":"COLOR_RED","words":["one"]}}"#;
    let reply = call(&public, "POST", "/v1/unary", body);
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (
            200,
            body.replace("\"color\":\"COLOR_RED\",", "")
                .replace("\"words\"", "\"color\":\"COLOR_RED\",\"words\"")
                .as_str()
        )
    );
    // Every status code is mapped to HTTP, with its message.
    let table = [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
    ];
    for (code, status) in table {
        let reply =
            call(&public, "POST", "/v1/unary", &format!(r#"{{"plan":{{"code":{code},"message":"said {code}"}}}}"#));
        assert_eq!(reply.status, status, "{code}: {reply:?}");
        assert!(reply.body.contains(&format!("said {code}")), "{reply:?}");
    }
    let reply = call(&public, "POST", "/v1/unary", "{\"body\":\n {\"int64Value\":\"a\"}}");
    assert_eq!(reply.status, 400);
    assert!(
        reply.body.contains("line 2, column 16: `body.int64Value`: expected a number (int64), found a string"),
        "{reply:?}"
    );
    assert_eq!(
        stream(&gateway, "/v1/events", r#"{"plan":{"count":2},"body":{"words":["a"]}}"#),
        "data: {\"body\":{\"words\":[\"a\"]}}\n\ndata: {\"body\":{\"words\":[\"a\"]},\"number\":\"1\"}\n\n"
    );
    assert_eq!(
        stream(&gateway, "/v1/lines", "{\"body\":{\"words\":[\"a\"]}}\n\n{\"body\":{\"words\":[\"b\"]}}\n"),
        "{\"body\":{\"words\":[\"a\"]}}\n{\"body\":{\"words\":[\"b\"]},\"number\":\"1\"}\n{\"number\":\"2\",\"closing\":true}\n"
    );
    // In total more than the limit on all bodies, but never at the same time.
    let word = "w".repeat(60_000);
    let long = stream(&gateway, "/v1/events", &format!(r#"{{"plan":{{"count":1200}},"body":{{"words":["{word}"]}}}}"#));
    assert_eq!(long.matches("data: ").count(), 1200, "{}", &long[long.len().saturating_sub(300)..]);
    let broken = stream(&gateway, "/v1/events", r#"{"plan":{"count":3,"code":5,"fail_after":1,"message":"gone"}}"#);
    assert!(broken.contains("event: error\ndata: {") && broken.contains("\"detail\":\"gone\""), "{broken}");
}

fn interop_case(cache: &Path, address: &str, case: &str) -> Result<(), String> {
    let (host, port) = address.split_once(':').expect("an address");
    let mut command = Command::new("timeout");
    command.arg("40").arg(cache.join("interop-client")).args(["--use_tls=false", &format!("--server_host={host}")]);
    command.args([&format!("--server_port={port}"), &format!("--test_case={case}")]);
    if case.starts_with("orca") {
        // The client receives load reports only through the balancer that its tests register.
        command.arg("--service_config_json={\"loadBalancingConfig\":[{\"test_backend_metrics_load_balancer\":{}}]}");
    }
    let (is_success, output) = run_peer(&mut command);
    if is_success { Ok(()) } else { Err(format!("{case}: {}", output.lines().last().unwrap_or(""))) }
}

/// All cases that need no cloud service, except `orca_oob`: it calls another service, for which the gateway has no route.
const INTEROP_CASES: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "pick_first_unary",
    "orca_per_rpc",
    "rpc_soak",
    "channel_soak",
];

#[test]
#[ignore = "needs h2spec, which tests/run builds"]
fn grpc_go_peers_run_h2spec_against_rest() {
    let cache = peers("grpc-go");
    let routes = "version: 1
routes: { rest: { from: { http: { listen: public, get: /here } }, steps: [ { respond: { body: { here: \"true\" } } } ] } }
";
    let gateway = Gateway::start(routes);
    let public = gateway.public();
    let (host, port) = public.split_once(':').expect("an address");
    let mut command = Command::new("timeout");
    command.arg("120").arg(cache.join("h2spec")).args(["-h", host, "-p", port, "-P", "/here", "--timeout", "5"]);
    let (_, output) = run_peer(&mut command);
    let failures = output.split("Failures:").nth(1).unwrap_or(&output);
    // The listener treats an invalid preface as HTTP/1.1 and responds accordingly.
    assert!(failures.contains("2: Sends invalid connection preface"), "{output}");
    assert!(failures.contains("145 tests, 144 passed, 0 skipped, 1 failed"), "{failures}");
}

#[test]
#[ignore = "needs grpc-go, which tests/run builds"]
fn grpc_go_client_and_server_work_through_the_gateway() {
    let cache = peers("grpc-go");
    let server = Peer::start(Command::new(cache.join("interop-server")).args(["-listen", "127.0.0.1:0"]));
    let descriptors = std::fs::read(cache.join("testing.binpb")).expect("the descriptors");
    let metadata = "x-grpc-test-echo-initial, x-grpc-test-echo-trailing-bin, endpoint-load-metrics-bin";
    let routes = |contract: &str| {
        format!(
            "version: 1
contracts: {{ testing: {contract} }}
services:
  interop: {{ grpc: {{ url: \"http://{}\", service: grpc.testing.TestService, faults: all }}, timeout: 30s }}
routes:
  interop:
    from: {{ grpc: {{ listen: public }} }}
    as: grpc.testing.TestService
    headers: {{ request: [{metadata}], answer: [{metadata}] }}
    steps: [ {{ call: interop }} ]
",
            server.address
        )
    };
    let listeners = "public: { grpc: { bind: \"127.0.0.1:0\", reflection: true } }";
    let files = [("testing.binpb", descriptors.as_slice())];
    let gateway = Gateway::start_with_files(listeners, &routes("{ descriptor_set: testing.binpb }"), &files);
    let failed: Vec<String> =
        INTEROP_CASES.iter().filter_map(|case| interop_case(&cache, &gateway.public(), case).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));

    // grpcurl gets the contract from the gateway by reflection.
    let mut command = Command::new(cache.join("grpcurl"));
    command.args(["-plaintext", &gateway.public(), "list"]);
    let (is_success, output) = run_peer(&mut command);
    assert!(is_success && output.contains("grpc.testing.TestService"), "{output}");
    let mut command = Command::new(cache.join("grpcurl"));
    command.args([
        "-plaintext",
        "-d",
        r#"{"responseSize":3}"#,
        &gateway.public(),
        "grpc.testing.TestService/UnaryCall",
    ]);
    let (is_success, output) = run_peer(&mut command);
    assert!(is_success && output.contains("AAAA"), "{output}");

    // The gateway gets the contract from the service by reflection.
    let contract = format!("{{ reflection: \"http://{}\" }}", server.address);
    let gateway = Gateway::start_with(listeners, &routes(&contract));
    assert_eq!(interop_case(&cache, &gateway.public(), "large_unary"), Ok(()));
    // Calls fail once the service is down.
    drop(server);
    assert!(interop_case(&cache, &gateway.public(), "empty_unary").is_err());
}
