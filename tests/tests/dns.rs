//! Host names in service URLs: each address of a name is an endpoint, and changes are picked up. dnsmasq serves the names in a separate
//! network namespace. Needs root, `ip` and `dnsmasq`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossdock_tests::{
    Backend, Gateway, IPV6, NameServer, call, crossdock, successful_calls, until, until_within, write_certificates,
};
use serde_json::Value;

const PORT: u16 = 8000;
const GET: &[u8] = b"GET /r HTTP/1.1\r\nHost: h\r\n\r\n";
const PUBLIC: &str = "public: { http: { bind: \"127.0.0.1:0\" } }";
const CONTRACT: &str =
    "syntax = \"proto3\";\npackage q.v1;\nservice S { rpc Find(Req) returns (Req); }\nmessage Req { string id = 1; }\n";
const NAME: &str = "orders.test";

fn enter(ttl_s: u32) -> NameServer {
    // Built before, as the namespace has no access to the internet.
    let _ = crossdock();
    NameServer::enter(ttl_s)
}

fn backend(ip: &str) -> Backend {
    Backend::start_at(SocketAddr::new(ip.parse().expect("an address"), PORT))
}

fn http_routes(scheme: &str, tls: &str, more: &str) -> String {
    format!(
        "version: 1
services:
  s:
    http: {{ url: \"{scheme}://{NAME}:{PORT}\"{tls}, connect_timeout: 1s, operations: {{ get: {{ get: /echo }} }} }}
    {more}
routes:
  r: {{ from: {{ http: {{ listen: public, get: /r }} }}, steps: [ {{ call: s.get }} ] }}
"
    )
}

fn gateway(names: &NameServer, more: &str) -> Gateway {
    Gateway::start_under(&names.command(), PUBLIC, &http_routes("http", "", more))
}

fn endpoints(gateway: &Gateway) -> Vec<Value> {
    let services = gateway.admin_json("/api/v1/services");
    services["services"][0]["endpoints"].as_array().expect("endpoints").clone()
}

/// The IP addresses of the endpoints; empty for an endpoint whose name is not resolved.
fn ips(gateway: &Gateway) -> Vec<String> {
    endpoints(gateway).iter().map(|endpoint| endpoint["ip"].as_str().unwrap_or_default().to_owned()).collect()
}

fn state(gateway: &Gateway, ip: &str) -> String {
    let all = endpoints(gateway);
    let found = all.iter().find(|endpoint| endpoint["ip"] == ip);
    found.map(|endpoint| endpoint["state"].as_str().expect("a state").to_owned()).unwrap_or_default()
}

/// The number of successful calls of `calls` on each of `callers` connections.
fn successes(gateway: &Gateway, callers: usize, calls: usize) -> usize {
    successful_calls(&gateway.public(), GET, callers, calls)
}

fn logged(gateway: &Gateway, phrase: &str) -> usize {
    gateway.log().iter().filter(|line| line.contains(phrase)).count()
}

fn metric(gateway: &Gateway, start: &str) -> u64 {
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    let line = metrics.lines().find(|line| line.starts_with(start));
    let value = line.unwrap_or_else(|| panic!("{start} in:\n{metrics}")).rsplit(' ').next().expect("a value");
    value.parse().expect("a number")
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_every_address_of_a_name_is_an_endpoint() {
    let mut names = enter(60);
    names.set(&[(NAME, &["127.1.0.1", "127.1.0.2", IPV6[0]])]);
    names.start();
    let backends = [backend("127.1.0.1"), backend("127.1.0.2"), backend(IPV6[0])];
    let gateway = gateway(&names, "");
    until("three endpoints", || ips(&gateway) == ["127.1.0.1", "127.1.0.2", IPV6[0]]);
    let before = backends.each_ref().map(Backend::requests);
    assert_eq!(successes(&gateway, 3, 100), 300);
    let after = backends.each_ref().map(Backend::requests);
    // Each data arbiter has its own round robin.
    for (before, after) in before.iter().zip(after) {
        assert!((80..=120).contains(&(after - before)), "calls are spread over all endpoints: {after}");
    }
    for backend in &backends {
        assert!(backend.last_head().to_ascii_lowercase().contains("host: orders.test:8000\r\n"));
    }
    let labels = format!("service=\"s\",endpoint=\"http://{NAME}:{PORT}\",ip=\"{}\",state=\"up\"", IPV6[0]);
    assert_eq!(metric(&gateway, &format!("crossdock_endpoint_state{{{labels}}}")), 1);
    assert_eq!(metric(&gateway, &format!("crossdock_name_addresses{{name=\"{NAME}\"}}")), 3);
    // A name that no route uses any longer is forgotten, even without traffic.
    gateway.write_routes(&http_routes("http", "", "").replace(NAME, "127.1.0.1"));
    until("the name to be forgotten", || !call(&gateway.admin(), "GET", "/metrics", "").body.contains(NAME));
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_address_changes_are_picked_up_when_the_ttl_expires() {
    let mut names = enter(2);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    let (first, second, third) = (backend("127.1.0.1"), backend("127.1.0.2"), backend(IPV6[1]));
    let gateway = gateway(&names, "");
    until("the name to be resolved", || ips(&gateway) == ["127.1.0.1"]);
    let (is_stopped, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_stopped.load(Ordering::Relaxed) {
                failed.fetch_add(50 - successes(&gateway, 1, 50), Ordering::Relaxed);
            }
        });
        let changes: [(&[&str], [&Backend; 2]); 3] =
            [(&["127.1.0.2"], [&second, &first]), (&[IPV6[1]], [&third, &second]), (&["127.1.0.1"], [&first, &third])];
        for (addresses, [used, unused]) in changes {
            names.set(&[(NAME, addresses)]);
            let begun = Instant::now();
            until("the change to be picked up", || ips(&gateway) == addresses);
            assert!(
                begun.elapsed() < Duration::from_secs(4),
                "picked up after {:?} with a TTL of 2 s",
                begun.elapsed()
            );
            let (at_used, at_unused) = (used.requests(), unused.requests());
            until("calls to the new address", || used.requests() > at_used + 100);
            // One call per data arbiter may have been in flight.
            assert!(unused.requests() <= at_unused + 4, "calls still go to the old address");
        }
        is_stopped.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert!(second.closed() > 0 && third.closed() > 0, "unused connections are closed");
    assert_eq!(logged(&gateway, "addresses of a name changed"), 4);
    // Names are not looked up more often than their TTL requires.
    let before = metric(&gateway, "crossdock_name_lookups_total");
    let begun = Instant::now();
    until("four seconds to be over", || begun.elapsed() > Duration::from_secs(4));
    let lookups = metric(&gateway, "crossdock_name_lookups_total") - before;
    assert!((1..=2).contains(&lookups), "{lookups} lookups in 4 s");
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_an_unreachable_address_fails_no_call() {
    let mut names = enter(60);
    names.set(&[(NAME, &["127.1.0.1", "127.1.0.9"])]);
    names.start();
    let _backend = backend("127.1.0.1");
    for more in [
        "balance: round_robin",
        "balance: round_robin\n    retry: { on: [unavailable], attempts: 2 }",
        "balance: least_outstanding",
    ] {
        let gateway = gateway(&names, more);
        until("two endpoints", || ips(&gateway).len() == 2);
        assert_eq!(successes(&gateway, 8, 250), 2000, "{more}");
        assert_eq!((state(&gateway, "127.1.0.1"), state(&gateway, "127.1.0.9")), ("up".into(), "unreachable".into()));
        assert_eq!(logged(&gateway, "endpoint is unreachable"), 1, "the change is logged once");
        assert_eq!(logged(&gateway, "orders.test:8000 (127.1.0.9)"), 1);
    }
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_grpc_calls_go_to_every_address() {
    let mut names = enter(2);
    names.set(&[(NAME, &["127.1.0.1", "127.1.0.2", "127.1.0.9"])]);
    names.start();
    let files: &[(&str, &[u8])] = &[("q.proto", CONTRACT.as_bytes())];
    let service = |ip: &str| {
        let listener = format!("internal: {{ grpc: {{ bind: \"{ip}:{PORT}\" }} }}");
        let routes = format!(
            "version: 1
contracts: {{ q: {{ proto: q.proto }} }}
routes:
  find: {{ from: {{ grpc: {{ listen: internal }} }}, as: q.v1.S/Find, steps: [ {{ map: {{ id: \"'{ip}'\" }} }}, {{ respond: {{}} }} ] }}
"
        );
        Gateway::start_under_with_files(&names.command(), &listener, &routes, files)
    };
    let _services = [service("127.1.0.1"), service("127.1.0.2")];
    let routes = format!(
        "version: 1
contracts: {{ q: {{ proto: q.proto }} }}
services:
  s: {{ grpc: {{ url: \"http://{NAME}:{PORT}\", service: q.v1.S, connect_timeout: 1s }} }}
routes:
  r: {{ from: {{ http: {{ listen: public, get: /r }} }}, as: q.v1.S/Find, steps: [ {{ call: s }} ] }}
"
    );
    let gateway = Gateway::start_under_with_files(&names.command(), PUBLIC, &routes, files);
    until("three endpoints", || ips(&gateway).len() == 3);
    assert_eq!(successes(&gateway, 8, 250), 2000);
    let is_answered_by = |ip: &str| call(&gateway.public(), "GET", "/r", "").body.contains(ip);
    until("a response of the first service", || is_answered_by("127.1.0.1"));
    until("a response of the second service", || is_answered_by("127.1.0.2"));
    names.set(&[(NAME, &["127.1.0.2"])]);
    until("the change to be picked up", || ips(&gateway) == ["127.1.0.2"]);
    // Data arbiters are updated slightly later.
    until("calls to the new address alone", || (0..20).all(|_| is_answered_by("127.1.0.2")));
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_lookup_failures_keep_the_last_addresses() {
    let mut names = enter(1);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    let (_first, second) = (backend("127.1.0.1"), backend("127.1.0.2"));
    let gateway = gateway(&names, "");
    until("the name to be resolved", || ips(&gateway) == ["127.1.0.1"]);
    let failed = format!("crossdock_name_lookups_total{{name=\"{NAME}\",result=\"failed\"}}");
    // The name does not exist.
    names.set(&[]);
    until("a failure", || metric(&gateway, &failed) > 0);
    assert_eq!((ips(&gateway), successes(&gateway, 2, 50)), (vec!["127.1.0.1".to_owned()], 100));
    assert_eq!(endpoints(&gateway)[0]["name_problem"], "the name does not exist");
    assert_eq!(logged(&gateway, "name cannot be resolved"), 1);
    // The server does not answer.
    names.stop();
    let problem = || endpoints(&gateway)[0]["name_problem"].as_str().unwrap_or_default().to_owned();
    until_within(Duration::from_secs(20), "another problem", || problem() != "the name does not exist");
    assert_eq!((ips(&gateway), successes(&gateway, 2, 50)), (vec!["127.1.0.1".to_owned()], 100));
    let shown = std::process::Command::new(crossdock()).args(["routes", "--admin", &gateway.admin()]).output();
    let shown = String::from_utf8(shown.expect("it runs").stdout).expect("text");
    assert!(shown.contains("(127.1.0.1)") && shown.contains("name cannot be resolved"), "{shown}");
    // Failed lookups are retried with a backoff of up to half a minute.
    names.set(&[(NAME, &["127.1.0.2"])]);
    names.start();
    until_within(Duration::from_secs(35), "an answer", || ips(&gateway) == ["127.1.0.2"]);
    // Data arbiters are updated slightly later.
    until("a call to the new address", || successes(&gateway, 1, 1) == 1 && second.requests() > 0);
    assert_eq!(successes(&gateway, 2, 50), 100);
    assert_eq!(endpoints(&gateway)[0]["name_problem"], Value::Null);
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_a_gateway_starts_without_a_name_server() {
    let mut names = enter(1);
    let (_backend, _hosts_backend) = (backend("127.1.0.1"), backend("127.1.0.5"));
    let gateway = gateway(&names, "timeout: 3s");
    let reply = call(&gateway.public(), "GET", "/r", "");
    assert_eq!((reply.status, reply.body.contains("UNREACHABLE")), (503, true), "{}", reply.body);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    until_within(Duration::from_secs(35), "the name to be resolved", || ips(&gateway) == ["127.1.0.1"]);
    assert_eq!(successes(&gateway, 2, 50), 100);
    // The hosts file takes precedence, also without a restart.
    names.set_hosts_file("127.1.0.5 orders.test\n");
    until("the hosts file to be read", || ips(&gateway) == ["127.1.0.5"]);
    assert_eq!(successes(&gateway, 2, 50), 100);
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_an_unreachable_address_is_looked_up_again_before_its_ttl_expires() {
    let mut names = enter(600);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    // No service listens there.
    let gateway = gateway(&names, "");
    until("the name to be resolved", || ips(&gateway) == ["127.1.0.1"]);
    let moved = backend("127.1.0.2");
    names.set(&[(NAME, &["127.1.0.2"])]);
    let begun = Instant::now();
    until("a call to the new address", || call(&gateway.public(), "GET", "/r", "").status == 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "an unreachable address is looked up again at once");
    assert!(moved.requests() > 0);
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_certificates_are_verified_against_the_name_and_long_answers_are_read() {
    let mut names = enter(60);
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let dir = folder.path().display();
    // Too many for one UDP response (RFC 1035 §4.2.1), so the lookup falls back to TCP.
    let addresses: Vec<String> = (1..=80).map(|last| format!("127.1.1.{last}")).collect();
    names.set(&[(NAME, &addresses.iter().map(String::as_str).collect::<Vec<_>>())]);
    names.start();
    let listener = format!(
        "public: {{ http: {{ bind: \"0.0.0.0:{PORT}\", tls: {{ cert: \"{dir}/named.pem\", key: \"{dir}/named.key\" }} }} }}"
    );
    let routes = "version: 1
routes:
  echo: { from: { http: { listen: public, get: /echo } }, steps: [ { map: { ok: \"true\" } }, { respond: {} } ] }
";
    let _service = Gateway::start_under(&names.command(), &listener, routes);
    let gateway_trusting = |ca: &str| {
        let routes = http_routes("https", &format!(", tls: {{ ca: \"{dir}/{ca}\" }}"), "");
        Gateway::start_under(&names.command(), PUBLIC, &routes)
    };
    let trusting = gateway_trusting("ca.pem");
    until("the maximum number of endpoints", || ips(&trusting).len() == 64);
    assert_eq!(successes(&trusting, 2, 100), 200);
    assert_eq!(logged(&trusting, "name has more than 64 addresses"), 1);
    let distrusting = gateway_trusting("other-ca.pem");
    until("endpoints", || ips(&distrusting).len() == 64);
    assert_eq!(call(&distrusting.public(), "GET", "/r", "").status, 503);
}
