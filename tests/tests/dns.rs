//! Host names in the addresses of services: each address of a name is an endpoint, and changes are followed. dnsmasq answers, in a network
//! namespace of its own. Needs root, `ip` and `dnsmasq`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossdock_tests::{
    Backend, Gateway, IPV6, NameServer, call, crossdock, good_calls, until, until_within, write_certificates,
};
use serde_json::Value;

const PORT: u16 = 8000;
const GET: &[u8] = b"GET /r HTTP/1.1\r\nHost: h\r\n\r\n";
const PUBLIC: &str = "public: { http: { bind: \"127.0.0.1:0\" } }";
const CONTRACT: &str =
    "syntax = \"proto3\";\npackage q.v1;\nservice S { rpc Find(Req) returns (Req); }\nmessage Req { string id = 1; }\n";
const NAME: &str = "orders.test";

fn enter(seconds: u32) -> NameServer {
    // Nothing can be downloaded for it in there.
    let _ = crossdock();
    NameServer::enter(seconds)
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

/// The addresses of the endpoints, as text; empty for one that stands for a whole name.
fn ips(gateway: &Gateway) -> Vec<String> {
    endpoints(gateway).iter().map(|endpoint| endpoint["ip"].as_str().unwrap_or_default().to_owned()).collect()
}

fn state(gateway: &Gateway, ip: &str) -> String {
    let all = endpoints(gateway);
    let found = all.iter().find(|endpoint| endpoint["ip"] == ip);
    found.map(|endpoint| endpoint["state"].as_str().expect("a state").to_owned()).unwrap_or_default()
}

/// How many of so many calls, over so many connections, were answered well.
fn good(gateway: &Gateway, callers: usize, calls: usize) -> usize {
    good_calls(&gateway.public(), GET, callers, calls)
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
    assert_eq!(good(&gateway, 3, 100), 300);
    let after = backends.each_ref().map(Backend::requests);
    // Each data arbiter goes round on its own.
    for (before, after) in before.iter().zip(after) {
        assert!((80..=120).contains(&(after - before)), "calls are spread over all: {after}");
    }
    for backend in &backends {
        assert!(backend.last_head().to_ascii_lowercase().contains("host: orders.test:8000\r\n"));
    }
    let labels = format!("service=\"s\",endpoint=\"http://{NAME}:{PORT}\",ip=\"{}\",state=\"up\"", IPV6[0]);
    assert_eq!(metric(&gateway, &format!("crossdock_endpoint_state{{{labels}}}")), 1);
    assert_eq!(metric(&gateway, &format!("crossdock_name_addresses{{name=\"{NAME}\"}}")), 3);
    // A name that no route uses any more is forgotten, also where no message comes.
    gateway.write_routes(&http_routes("http", "", "").replace(NAME, "127.1.0.1"));
    until("the name to be forgotten", || !call(&gateway.admin(), "GET", "/metrics", "").body.contains(NAME));
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_addresses_are_followed_when_their_time_is_over() {
    let mut names = enter(2);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    let (first, second, third) = (backend("127.1.0.1"), backend("127.1.0.2"), backend(IPV6[1]));
    let gateway = gateway(&names, "");
    until("the name to be known", || ips(&gateway) == ["127.1.0.1"]);
    let (stopped, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                failed.fetch_add(50 - good(&gateway, 1, 50), Ordering::Relaxed);
            }
        });
        let changes: [(&[&str], [&Backend; 2]); 3] =
            [(&["127.1.0.2"], [&second, &first]), (&[IPV6[1]], [&third, &second]), (&["127.1.0.1"], [&first, &third])];
        for (addresses, [used, unused]) in changes {
            names.set(&[(NAME, addresses)]);
            let begun = Instant::now();
            until("the change to be followed", || ips(&gateway) == addresses);
            assert!(begun.elapsed() < Duration::from_secs(4), "it lives for 2 s, and took {:?}", begun.elapsed());
            let (at_used, at_unused) = (used.requests(), unused.requests());
            until("calls to the new address", || used.requests() > at_used + 100);
            // One call per data arbiter may have been on its way.
            assert!(unused.requests() <= at_unused + 4, "calls still go to the old address");
        }
        stopped.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert!(second.closed() > 0 && third.closed() > 0, "unused connections are closed");
    assert_eq!(logged(&gateway, "addresses of a name changed"), 4);
    // Nothing is asked more often than the answers' lives say.
    let before = metric(&gateway, "crossdock_name_lookups_total");
    let begun = Instant::now();
    until("four seconds to be over", || begun.elapsed() > Duration::from_secs(4));
    let asked = metric(&gateway, "crossdock_name_lookups_total") - before;
    assert!((1..=2).contains(&asked), "{asked} lookups in 4 s");
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_a_dead_address_fails_no_call() {
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
        assert_eq!(good(&gateway, 8, 250), 2000, "{more}");
        assert_eq!((state(&gateway, "127.1.0.1"), state(&gateway, "127.1.0.9")), ("up".into(), "unreachable".into()));
        assert_eq!(logged(&gateway, "endpoint is unreachable"), 1, "one line for the change");
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
    assert_eq!(good(&gateway, 8, 250), 2000);
    let answered = |ip: &str| call(&gateway.public(), "GET", "/r", "").body.contains(ip);
    until("an answer of the first", || answered("127.1.0.1"));
    until("an answer of the second", || answered("127.1.0.2"));
    names.set(&[(NAME, &["127.1.0.2"])]);
    until("the change to be followed", || ips(&gateway) == ["127.1.0.2"]);
    // A data arbiter hears of it a moment later.
    until("calls to the new address alone", || (0..20).all(|_| answered("127.1.0.2")));
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_failures_keep_the_last_answer() {
    let mut names = enter(1);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    let (_first, second) = (backend("127.1.0.1"), backend("127.1.0.2"));
    let gateway = gateway(&names, "");
    until("the name to be known", || ips(&gateway) == ["127.1.0.1"]);
    let failed = format!("crossdock_name_lookups_total{{name=\"{NAME}\",result=\"failed\"}}");
    // The name does not exist.
    names.set(&[]);
    until("a failure", || metric(&gateway, &failed) > 0);
    assert_eq!((ips(&gateway), good(&gateway, 2, 50)), (vec!["127.1.0.1".to_owned()], 100));
    assert_eq!(endpoints(&gateway)[0]["name_problem"], "the name does not exist");
    assert_eq!(logged(&gateway, "name cannot be resolved"), 1);
    // Nobody answers.
    names.stop();
    let told = || endpoints(&gateway)[0]["name_problem"].as_str().unwrap_or_default().to_owned();
    until_within(Duration::from_secs(20), "another problem", || told() != "the name does not exist");
    assert_eq!((ips(&gateway), good(&gateway, 2, 50)), (vec!["127.1.0.1".to_owned()], 100));
    let shown = std::process::Command::new(crossdock()).args(["routes", "--admin", &gateway.admin()]).output();
    let shown = String::from_utf8(shown.expect("it runs").stdout).expect("text");
    assert!(shown.contains("(127.1.0.1)") && shown.contains("name cannot be resolved"), "{shown}");
    // Failures are retried ever later, up to half a minute.
    names.set(&[(NAME, &["127.1.0.2"])]);
    names.start();
    until_within(Duration::from_secs(35), "an answer", || ips(&gateway) == ["127.1.0.2"]);
    // A data arbiter hears of it a moment later.
    until("a call to the new address", || good(&gateway, 1, 1) == 1 && second.requests() > 0);
    assert_eq!(good(&gateway, 2, 50), 100);
    assert_eq!(endpoints(&gateway)[0]["name_problem"], Value::Null);
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_a_gateway_starts_without_a_name_server() {
    let mut names = enter(1);
    let (_backend, _by_file) = (backend("127.1.0.1"), backend("127.1.0.5"));
    let gateway = gateway(&names, "timeout: 3s");
    let reply = call(&gateway.public(), "GET", "/r", "");
    assert_eq!((reply.status, reply.body.contains("UNREACHABLE")), (503, true), "{}", reply.body);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    until_within(Duration::from_secs(35), "the name to be known", || ips(&gateway) == ["127.1.0.1"]);
    assert_eq!(good(&gateway, 2, 50), 100);
    // The file is asked first, without a restart.
    names.set_hosts_file("127.1.0.5 orders.test\n");
    until("the file to be read", || ips(&gateway) == ["127.1.0.5"]);
    assert_eq!(good(&gateway, 2, 50), 100);
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_a_service_that_has_moved_is_found_before_its_old_address_expires() {
    let mut names = enter(600);
    names.set(&[(NAME, &["127.1.0.1"])]);
    names.start();
    // Nobody listens there any more.
    let gateway = gateway(&names, "");
    until("the name to be known", || ips(&gateway) == ["127.1.0.1"]);
    let moved = backend("127.1.0.2");
    names.set(&[(NAME, &["127.1.0.2"])]);
    let begun = Instant::now();
    until("calls at its new address", || call(&gateway.public(), "GET", "/r", "").status == 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "an unreachable address is looked up again at once");
    assert!(moved.requests() > 0);
}

#[test]
#[ignore = "needs dnsmasq and network namespaces"]
fn dnsmasq_certificates_are_those_of_the_name_and_answers_may_be_long() {
    let mut names = enter(60);
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let dir = folder.path().display();
    // More than fit into one datagram of DNS (RFC 1035 §4.2.1): it is asked for over TCP. Nobody listens at most of them.
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
    let calling = |ca: &str| {
        let routes = http_routes("https", &format!(", tls: {{ ca: \"{dir}/{ca}\" }}"), "");
        Gateway::start_under(&names.command(), PUBLIC, &routes)
    };
    let trusting = calling("ca.pem");
    until("as many endpoints as a name may have", || ips(&trusting).len() == 64);
    assert_eq!(good(&trusting, 2, 100), 200);
    assert_eq!(logged(&trusting, "name has more than 64 addresses"), 1);
    let distrusting = calling("other-ca.pem");
    until("endpoints", || ips(&distrusting).len() == 64);
    assert_eq!(call(&distrusting.public(), "GET", "/r", "").status, 503);
}
