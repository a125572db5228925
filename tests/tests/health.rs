//! Endpoint health: callers do not notice endpoints that are down, flaky or recovering.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossdock_tests::{Backend, Gateway, Recorder, call, free_address, routes, successful_calls, until};
use serde_json::Value;

const LISTENERS: &str = "public: { http: { bind: \"127.0.0.1:0\" } }";
const CONTRACT: &str =
    "syntax = \"proto3\";\npackage q.v1;\nservice S { rpc Find(Req) returns (Req); }\nmessage Req { string id = 1; }\n";
const GET: &[u8] = b"GET /r HTTP/1.1\r\nHost: h\r\n\r\n";

fn endpoints(gateway: &Gateway) -> Vec<Value> {
    let services = gateway.admin_json("/api/v1/services");
    services["services"][0]["endpoints"].as_array().expect("endpoints").clone()
}

fn states(gateway: &Gateway) -> Vec<String> {
    endpoints(gateway).iter().map(|endpoint| endpoint["state"].as_str().expect("a state").to_owned()).collect()
}

fn logged(gateway: &Gateway, phrase: &str) -> usize {
    gateway.log().iter().filter(|line| line.contains(phrase)).count()
}

fn http(urls: &[String], more: &str) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("\"http://{url}\"")).collect();
    routes("health-http", &[("URLS", &urls.join(", ")), ("MORE", &more)])
}

#[test]
fn an_unreachable_endpoint_fails_no_call() {
    let (backend, dead) = (Backend::start(), free_address().to_string());
    for more in [
        "balance: round_robin",
        "balance: round_robin\n    retry: { on: [unavailable], attempts: 2 }",
        "balance: least_outstanding",
    ] {
        let gateway = Gateway::start_with(LISTENERS, &http(&[dead.clone(), backend.address.to_string()], more));
        assert_eq!(successful_calls(&gateway.public(), GET, 8, 250), 2000, "{more}");
        assert_eq!(states(&gateway), ["unreachable", "up"]);
        assert_eq!(logged(&gateway, "endpoint is unreachable"), 1, "the change is logged once");
        let attempts = endpoints(&gateway)[0]["unreachable"].as_u64().expect("a number");
        assert!(attempts < 100, "the unreachable endpoint was tried {attempts} times");
        let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
        let line =
            format!("crossdock_endpoint_state{{service=\"s\",endpoint=\"http://{dead}\",state=\"unreachable\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

/// Starts a gateway that responds to gRPC calls itself.
fn grpc_service() -> Gateway {
    Gateway::start_with_files(
        "internal: { grpc: { bind: \"127.0.0.1:0\" } }",
        &routes("health-grpc-service", &[]),
        &[("q.proto", CONTRACT.as_bytes())],
    )
}

fn grpc(urls: &[String], more: &str) -> Gateway {
    let urls: Vec<String> = urls.iter().map(|url| format!("\"http://{url}\"")).collect();
    let routes = routes("health-grpc", &[("URLS", &urls.join(", ")), ("MORE", &more)]);
    Gateway::start_with_files(LISTENERS, &routes, &[("q.proto", CONTRACT.as_bytes())])
}

#[test]
fn an_unreachable_endpoint_fails_no_grpc_call() {
    let (service, dead) = (grpc_service(), free_address().to_string());
    for more in [
        "balance: round_robin",
        "balance: round_robin\n    idempotent: [Find]\n    retry: { on: [unavailable], attempts: 2 }",
        "balance: least_outstanding",
    ] {
        let gateway = grpc(&[dead.clone(), service.listener("internal")], more);
        assert_eq!(successful_calls(&gateway.public(), GET, 8, 250), 2000, "{more}");
        assert_eq!(states(&gateway), ["unreachable", "up"]);
    }
}

#[test]
fn calls_fail_while_all_endpoints_are_unreachable_and_succeed_when_one_recovers() {
    let (first, second) = (free_address().to_string(), free_address().to_string());
    let gateway = Gateway::start_with(LISTENERS, &http(&[first, second.clone()], "timeout: 1s"));
    assert_eq!(call(&gateway.public(), "GET", "/r", "").status, 503);
    assert_eq!(states(&gateway), ["unreachable", "unreachable"]);
    let listener = TcpListener::bind(&second).expect("the address is free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            use std::io::{Read as _, Write as _};
            let mut head = [0; 4096];
            if stream.read(&mut head).unwrap_or(0) > 0 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
            }
        }
    });
    let recovered = Instant::now();
    until("the endpoint to be reachable", || states(&gateway)[1] == "up");
    assert!(
        recovered.elapsed() < Duration::from_secs(3),
        "reachable after {:?} with one probe per second",
        recovered.elapsed()
    );
    assert_eq!(successful_calls(&gateway.public(), GET, 2, 50), 100);
    assert_eq!(logged(&gateway, "endpoint is reachable again"), 1);
}

#[test]
fn an_endpoint_that_fails_half_of_its_calls_is_ejected_and_readmitted_after_recovery() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&is_broken);
    let half = Recorder::start(move |number, _| {
        (if broken.load(Ordering::Relaxed) && number % 2 == 0 { 503 } else { 200 }, Duration::ZERO)
    });
    let backend = Backend::start();
    let more = "retry: { on: [unavailable], attempts: 2, backoff: 1ms..2ms }";
    let gateway = Gateway::start_with(LISTENERS, &http(&[half.address.to_string(), backend.address.to_string()], more));
    // First until the first ejection, then over several ejections.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        successful_calls(&gateway.public(), GET, 4, 50);
    }
    let (mut calls, mut succeeded) = (0, 0);
    while begun.elapsed() < Duration::from_secs(8) {
        succeeded += successful_calls(&gateway.public(), GET, 4, 50);
        calls += 200;
    }
    println!("{} of {calls} calls failed", calls - succeeded);
    assert!((calls - succeeded) * 50 < calls, "{} of {calls} calls failed", calls - succeeded);
    assert!(logged(&gateway, "endpoint is ejected as an outlier") >= 1);
    is_broken.store(false, Ordering::Relaxed);
    until("the endpoint to be readmitted", || {
        successful_calls(&gateway.public(), GET, 1, 20);
        states(&gateway) == ["up", "up"]
    });
}

#[test]
fn at_most_half_of_the_endpoints_are_ejected() {
    let failing = || Recorder::start(|_, _| (500, Duration::ZERO));
    let (one, two, three) = (failing(), failing(), failing());
    let urls = [&one, &two, &three].map(|service| service.address.to_string());
    let gateway = Gateway::start_with(LISTENERS, &http(&urls, "balance: round_robin"));
    assert_eq!(successful_calls(&gateway.public(), GET, 4, 100), 0);
    assert_eq!(states(&gateway).iter().filter(|state| *state == "ejected").count(), 1);
}

#[test]
fn an_endpoint_that_fails_its_health_check_gets_no_calls_until_it_passes() {
    let is_healthy = Arc::new(AtomicBool::new(true));
    let (healthy, calls) = (Arc::clone(&is_healthy), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    // The recorder sees only bodies: health checks have none, calls do.
    let checked = Recorder::start(move |_, body| {
        if body.is_empty() {
            return (if healthy.load(Ordering::Relaxed) { 200 } else { 503 }, Duration::ZERO);
        }
        counted.fetch_add(1, Ordering::Relaxed);
        (200, Duration::ZERO)
    });
    let backend = Backend::start();
    let routes = routes("health-checked", &[("CHECKED", &checked.address), ("OTHER", &backend.address)]);
    let gateway = Gateway::start_with(LISTENERS, &routes);
    let post = b"POST /r HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(successful_calls(&gateway.public(), post, 1, 10), 10);
    assert!(calls.load(Ordering::Relaxed) > 0);
    is_healthy.store(false, Ordering::Relaxed);
    until("the check to fail", || states(&gateway) == ["unhealthy", "up"]);
    let before = calls.load(Ordering::Relaxed);
    assert_eq!(successful_calls(&gateway.public(), post, 4, 50), 200);
    assert_eq!(calls.load(Ordering::Relaxed), before, "an unhealthy endpoint gets no calls");
    is_healthy.store(true, Ordering::Relaxed);
    let healthy_since = Instant::now();
    until("the check to pass", || states(&gateway) == ["up", "up"]);
    assert!(healthy_since.elapsed() < Duration::from_secs(1), "healthy after {:?}", healthy_since.elapsed());
    assert_eq!(successful_calls(&gateway.public(), post, 1, 10), 10);
    assert!(calls.load(Ordering::Relaxed) > before, "it gets calls again");
    assert_eq!(
        (
            logged(&gateway, "endpoint fails its health check"),
            logged(&gateway, "endpoint passes its health check again")
        ),
        (1, 1)
    );
}

#[test]
fn grpc_endpoints_are_probed_with_the_health_checking_protocol() {
    let service = grpc_service();
    let other = Backend::start();
    let gateway = grpc(
        &[service.listener("internal"), other.address.to_string()],
        "health: { service: q.v1.S, every: 200ms, failures: 1 }",
    );
    assert_eq!(call(&gateway.public(), "GET", "/r", "").status, 200);
    until("the HTTP service to become unhealthy", || states(&gateway) == ["up", "unhealthy"]);
    assert_eq!(successful_calls(&gateway.public(), GET, 4, 50), 200);
    let unknown =
        grpc(&[service.listener("internal")], "health: { service: other.Service, every: 200ms, failures: 1 }");
    let _ = call(&unknown.public(), "GET", "/r", "");
    until("the unknown service name to be reported", || states(&unknown) == ["unhealthy"]);
}

#[test]
fn a_circuit_breaker_opens_and_closes_after_successful_probes() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let (broken, requests) = (Arc::clone(&is_broken), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&requests);
    let service = Recorder::start(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        (if broken.load(Ordering::Relaxed) { 503 } else { 200 }, Duration::ZERO)
    });
    let more = "breaker: { failures_percent: 50, calls: 10, window: 5s, open: 500ms, probes: 1 }";
    let gateway = Gateway::start_with(LISTENERS, &http(&[service.address.to_string()], more));
    assert_eq!(successful_calls(&gateway.public(), GET, 1, 10), 0);
    let open = call(&gateway.public(), "GET", "/r", "");
    assert_eq!(open.status, 503);
    assert!(open.body.contains("BREAKER_OPEN") && open.header("retry-after").is_some(), "{}", open.body);
    let before = requests.load(Ordering::Relaxed);
    successful_calls(&gateway.public(), GET, 4, 50);
    let sent = requests.load(Ordering::Relaxed) - before;
    assert!(sent <= 2, "{sent} calls were sent while the breaker was open");
    assert!(
        call(&gateway.admin(), "GET", "/metrics", "").body.contains("crossdock_breaker_state{service=\"s\",state=\"")
    );
    is_broken.store(false, Ordering::Relaxed);
    until("the breaker to close", || call(&gateway.public(), "GET", "/r", "").status == 200);
    assert_eq!(successful_calls(&gateway.public(), GET, 4, 50), 200);
    assert_eq!(logged(&gateway, "circuit breaker is closed"), 1);
}
