//! Reload and drain under load, disconnecting callers, services that are overloaded or down.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossdock_tests::{Backend, Connection, Ending, Gateway, call, routes, until};

fn echo_routes(backend: &Backend, generation: usize) -> String {
    routes("resilience", &[("BACKEND", &backend.address), ("GENERATION", &generation)])
}

const REQUEST: &[u8] =
    b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

#[test]
fn reload_under_load_fails_no_request() {
    let backend = Backend::start();
    let gateway = Gateway::start(&echo_routes(&backend, 0));
    let request_count = 50_000;
    let (done, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (address, done, failed) = (gateway.public(), Arc::clone(&done), Arc::clone(&failed));
            std::thread::spawn(move || {
                let mut connection = Connection::open(&address);
                let mut newest = 0;
                while done.fetch_add(1, Ordering::SeqCst) < request_count {
                    connection.send(REQUEST);
                    let reply = connection.receive(false);
                    let generation =
                        reply.as_ref().and_then(|reply| reply.header("x-generation")?.parse::<usize>().ok());
                    match (&reply, generation) {
                        (Some(reply), Some(generation))
                            if reply.status == 200 && reply.body == "{\"a\":1}" && generation >= newest =>
                        {
                            newest = generation;
                        }
                        _ => {
                            failed.lock().expect("the list").push(reply);
                            connection = Connection::open(&address);
                        }
                    }
                }
            })
        })
        .collect();
    let (mut generation, mut rejected) = (0, 0);
    while done.load(Ordering::SeqCst) < request_count {
        if generation % 2 == 0 {
            let before = gateway.admin_json("/readyz")["generation"].as_u64().expect("a number");
            generation += 1;
            gateway.write_routes(&echo_routes(&backend, generation));
            until("the new routes to be active", || {
                gateway.admin_json("/readyz")["generation"].as_u64().expect("a number") > before
            });
        } else {
            generation += 1;
            rejected += 1;
            gateway.write_routes("version: 1\nroutes: { broken: { form: x } }\n");
            until("the routes to be rejected", || gateway.admin_json("/readyz")["last_reload"]["ok"] == false);
        }
    }
    for caller in callers {
        caller.join().expect("a caller");
    }
    let failed = failed.lock().expect("the list");
    println!(
        "{request_count} requests over {generation} reloads, {rejected} of them rejected: {} failed",
        failed.len()
    );
    assert!(generation >= 4 && rejected >= 2, "too few reloads under load: {generation}");
    assert!(failed.is_empty(), "{} failed, the first: {:?}", failed.len(), failed.first());
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    assert!(metrics.contains(&format!("crossdock_reloads_failed_total {rejected}")), "{metrics}");
}

#[test]
fn drain_under_load_loses_no_request() {
    let backend = Backend::start();
    let mut gateway = Gateway::start(&echo_routes(&backend, 0));
    let (answered, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|number| {
            let (address, answered, lost, stop) =
                (gateway.public(), Arc::clone(&answered), Arc::clone(&lost), Arc::clone(&stop));
            std::thread::spawn(move || {
                let target = if number % 2 == 0 { "/plain" } else { "/slow" };
                let request = String::from_utf8_lossy(REQUEST).replace("/plain", target);
                let mut connection = Connection::open(&address);
                while !stop.load(Ordering::SeqCst) {
                    connection.send(request.as_bytes());
                    match connection.receive(false) {
                        Some(reply) if reply.status == 200 => {
                            answered.fetch_add(1, Ordering::SeqCst);
                            if reply.header("connection") == Some("close") {
                                return;
                            }
                        }
                        // The gateway is stopping: not lost, as the caller knows that the request was not executed.
                        Some(reply) if reply.status == 503 => return,
                        Some(reply) => {
                            lost.lock().expect("the list").push(format!("{reply:?}"));
                            return;
                        }
                        // The connection was closed before the request was read. A client would retry; the service's request
                        // count below shows that it was not executed.
                        None => return,
                    }
                }
            })
        })
        .collect();
    until("the load to run", || answered.load(Ordering::SeqCst) > 500);
    let begun = Instant::now();
    gateway.signal("TERM");
    let ending = gateway.wait();
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.join().expect("a caller");
    }
    assert_eq!(ending, Ending { code: Some(0) }, "{:?}", gateway.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let lost = lost.lock().expect("the list");
    assert!(lost.is_empty(), "{lost:?}");
    let (executed, answered) = (backend.requests(), answered.load(Ordering::SeqCst));
    println!("{answered} answered, {executed} executed by the service");
    assert_eq!(executed, answered, "every executed request is answered");
}

#[test]
fn a_second_signal_exits_at_once_with_an_error() {
    let backend = Backend::start();
    let mut gateway = Gateway::start(&echo_routes(&backend, 0).replace("/slow/300", "/slow/5000"));
    let mut connection = Connection::open(&gateway.public());
    connection.send(String::from_utf8_lossy(REQUEST).replace("/plain", "/slow").as_bytes());
    until("the call to be in flight", || backend.requests() == 1);
    gateway.signal("TERM");
    until("the gateway to drain", || gateway.log().iter().any(|line| line.contains("shutdown started")));
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), Ending { code: Some(1) });
}

#[test]
fn ten_thousand_disconnecting_callers_release_all_credit() {
    let backend = Backend::start();
    let mut gateway = Gateway::start_with(
        "public: { http: { bind: \"127.0.0.1:0\", connections: 20000, connections_per_address: 20000 } }",
        &echo_routes(&backend, 0),
    );
    let request = String::from_utf8_lossy(REQUEST).replace("/plain", "/slow");
    let service = |gateway: &Gateway, name: &str| {
        let services = gateway.admin_json("/api/v1/services");
        let found =
            services["services"].as_array().expect("services").iter().find(|service| service["name"] == name).cloned();
        found.expect(name)
    };
    let mut resident = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            let connections: Vec<Connection> = (0..500)
                .map(|_| {
                    let mut connection = Connection::open(&gateway.public());
                    connection.send(request.as_bytes());
                    connection
                })
                .collect();
            drop(connections);
        }
        until("all credit to be released", || {
            let echo = service(&gateway, "echo");
            echo["credit"] == 20_000 && echo["in_flight"] == 0
        });
        until("no request to be in flight", || {
            let routes = gateway.admin_json("/api/v1/routes");
            let routes = routes["routes"].as_array().expect("routes");
            routes.iter().all(|route| route["in_flight"] == 0)
        });
        let open_files = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("its files").count();
        until("connections to be closed", || open_files() < 600);
        resident.push(gateway.resident_kib());
    }
    println!("resident memory after each 10 000 callers, KiB: {resident:?}");
    // A call in flight needs about 17 KiB: up to 200 MiB for 10 000 callers, depending on how many are concurrent. A leak of all
    // 30 000 calls would need 500 MiB.
    assert!(resident[2] < resident[0].max(200 * 1024) * 5 / 4, "memory grows from round to round: {resident:?} KiB");
    assert_eq!(call(&gateway.public(), "POST", "/plain", "{}").status, 200);
    assert!(gateway.is_running());
}

#[test]
fn calls_to_a_full_service_fail_at_once_and_others_are_served() {
    let backend = Backend::start();
    let gateway = Gateway::start(&echo_routes(&backend, 0));
    let request = String::from_utf8_lossy(REQUEST).replace("/plain", "/small");
    let mut held: Vec<Connection> = (0..4)
        .map(|_| {
            let mut connection = Connection::open(&gateway.public());
            connection.send(request.as_bytes());
            connection
        })
        .collect();
    until("the service to be full", || backend.requests() == 4);
    let begun = Instant::now();
    let reply = call(&gateway.public(), "POST", "/small", "{}");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert!(reply.body.contains("resource_exhausted"), "{reply:?}");
    assert_eq!(call(&gateway.public(), "POST", "/plain", "{}").status, 200);
    assert!(begun.elapsed() < Duration::from_millis(400), "rejected only after {:?}", begun.elapsed());
    for connection in &mut held {
        assert_eq!(connection.receive(false).expect("an answer").status, 200);
    }
    assert_eq!(call(&gateway.public(), "POST", "/small", "{}").status, 200);
}

#[test]
fn deadlines_are_enforced_and_propagated() {
    let backend = Backend::start();
    let gateway = Gateway::start(&echo_routes(&backend, 0));
    let mut connection = Connection::open(&gateway.public());
    let begun = Instant::now();
    connection.send(b"POST /slow HTTP/1.1\r\nHost: h\r\nCrossdock-Timeout: 50ms\r\nContent-Length: 0\r\n\r\n");
    let reply = connection.receive(false).expect("an answer");
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(begun.elapsed() < Duration::from_millis(290), "{:?}", begun.elapsed());
    let head = backend.last_head().to_lowercase();
    let left = head
        .lines()
        .find_map(|line| line.strip_prefix("crossdock-timeout: "))
        .expect("the remaining time")
        .trim_end_matches("ms");
    assert!((1..=50).contains(&left.parse::<u64>().expect("a number")), "{left}");
    connection.send(b"POST /slow HTTP/1.1\r\nHost: h\r\nCrossdock-Timeout: soon\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(connection.receive(false).expect("an answer").status, 400);
}

#[test]
fn calls_are_spread_over_endpoints_and_skip_an_unreachable_one() {
    let (first, second) = (Backend::start(), Backend::start());
    // No service listens on port 1.
    let gateway =
        Gateway::start(&routes("resilience-endpoints", &[("FIRST", &first.address), ("SECOND", &second.address)]));
    for _ in 0..40 {
        assert_eq!(call(&gateway.public(), "POST", "/two", "{}").status, 200);
    }
    assert!(first.requests() >= 15 && second.requests() >= 15, "{} and {}", first.requests(), second.requests());
    for _ in 0..10 {
        assert_eq!(call(&gateway.public(), "POST", "/half", "{}").status, 200);
    }
}

#[test]
fn a_pooled_connection_closed_by_the_service_fails_no_call() {
    let backend = Backend::start();
    let gateway = Gateway::start(&routes("resilience-leaves", &[("BACKEND", &backend.address)]));
    for number in 1..=30 {
        let begun = Instant::now();
        assert_eq!(call(&gateway.public(), "POST", "/leaves", "{}").status, 200, "call {number}");
        assert!(begun.elapsed() < Duration::from_secs(1), "call {number} took {:?}", begun.elapsed());
        until("the service to close the connection", || backend.closed() == number);
    }
}

#[test]
fn a_request_that_may_have_been_executed_is_not_retried() {
    let backend = Backend::start();
    let gateway = Gateway::start(&routes("resilience-retries", &[("BACKEND", &backend.address)]));
    assert_eq!(call(&gateway.public(), "POST", "/busy", "{}").status, 503);
    assert_eq!(backend.requests(), 1, "the service may have placed the order");
    assert_eq!(call(&gateway.public(), "GET", "/busy", "").status, 503);
    assert_eq!(backend.requests(), 4, "an idempotent operation is attempted three times");
}

#[test]
fn credit_is_preserved_across_reloads() {
    let backend = Backend::start();
    let gateway = Gateway::start(&echo_routes(&backend, 0));
    let request = String::from_utf8_lossy(REQUEST).replace("/plain", "/small");
    let start_calls = |count: usize| -> Vec<Connection> {
        let start_call = |_| {
            let mut connection = Connection::open(&gateway.public());
            connection.send(request.as_bytes());
            connection
        };
        (0..count).map(start_call).collect()
    };
    let mut first = start_calls(4);
    until("the service to be full", || backend.requests() == 4);
    gateway.write_routes(&echo_routes(&backend, 1));
    until("the new routes to be active", || gateway.admin_json("/readyz")["generation"] == 2);
    let mut second = start_calls(4);
    for connection in &mut second {
        assert_eq!(connection.receive(false).expect("an answer").status, 503);
    }
    for connection in &mut first {
        assert_eq!(connection.receive(false).expect("an answer").status, 200);
    }
}

#[test]
fn sighup_reloads_and_a_comment_in_the_settings_changes_no_listener() {
    let backend = Backend::start();
    let gateway = Gateway::start(&echo_routes(&backend, 0));
    gateway.signal("HUP");
    until("the routes to be reloaded", || gateway.admin_json("/readyz")["generation"] == 2);
    gateway.prepend_comment("a line that shifts all others");
    until("the settings to be reloaded", || gateway.admin_json("/readyz")["generation"] == 3);
    assert_eq!(gateway.admin_json("/readyz")["last_reload"]["ok"], true);
    assert_eq!(call(&gateway.public(), "POST", "/plain", "{}").status, 200);
}

#[test]
fn only_changes_of_referenced_files_trigger_a_reload() {
    let proto = |field: &str| {
        format!(
            "syntax = \"proto3\"; package p; service S {{ rpc M(A) returns (A); }} message A {{ string {field} = 1; }}"
        )
    };
    let routes = "version: 1
contracts: { p: { proto: p.proto } }
routes: { r: { from: { http: { listen: public, post: /r } }, as: p.S/M, steps: [ { map: { one: req.one } } ] } }
";
    let listeners = "public: { http: { bind: \"127.0.0.1:0\" } }";
    let gateway = Gateway::start_with_files(listeners, routes, &[("p.proto", proto("one").as_bytes())]);
    let generation = || gateway.admin_json("/readyz")["generation"].as_u64().expect("a number");
    assert_eq!(generation(), 1);
    // A log file next to the settings changes for longer than the debounce interval.
    for line in 0..30 {
        gateway.write_file("gateway.log", format!("line {line}\n").as_bytes());
        std::thread::park_timeout(std::time::Duration::from_millis(40));
    }
    // A change of a referenced file triggers the first reload.
    gateway.write_file("p.proto", proto("one").replace("= 1; }", "= 1; string two = 2; }").as_bytes());
    until("the contract to be reloaded", || generation() >= 2);
    assert_eq!(generation(), 2, "{}", gateway.log().join("\n"));
    // While the settings are invalid, any file may be the missing one.
    gateway.write_file("p.proto", b"import \"q.proto\"; syntax = \"proto3\";");
    until("the routes to be rejected", || gateway.admin_json("/readyz")["last_reload"]["ok"] == false);
    gateway.write_file("p.proto", proto("one").as_bytes());
    until("the valid contract to be loaded", || gateway.admin_json("/readyz")["last_reload"]["ok"] == true);
}
