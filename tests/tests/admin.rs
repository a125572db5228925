//! The admin listener with clients of others.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crossdock_tests::{Backend, Gateway, call, peers, repository, routes};

#[test]
#[ignore = "needs Prometheus' Python client, which tests/run installs"]
fn the_metrics_are_openmetrics_for_prometheus() {
    let backend = Backend::start();
    let gateway = Gateway::start(&routes("resilience-leaves", &[("BACKEND", &backend.address)]));
    assert_eq!(["/nowhere", "/leaves"].map(|path| call(&gateway.public(), "POST", path, "{}").status), [404, 200]);
    let metrics = call(&gateway.admin(), "GET", "/metrics", "");
    assert_eq!(metrics.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let mut parser = Command::new(peers("grpc").join("venv/bin/python"))
        .arg(repository().join("tests/peers/grpc/python/openmetrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    parser.stdin.take().expect("its input").write_all(metrics.body.as_bytes()).expect("it reads");
    let output = parser.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the parser rejects:\n{}", metrics.body);
    let families = String::from_utf8(output.stdout).expect("names");
    for family in ["crossdock_ready", "crossdock_listener_up", "crossdock_route_latency_seconds", "crossdock_unmatched"]
    {
        assert!(families.lines().any(|name| name == family), "{family} in:\n{families}");
    }
}
