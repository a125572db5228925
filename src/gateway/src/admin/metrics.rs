//! `/metrics`: Prometheus text (exposition format 0.0.4).

use std::fmt::Write as _;
use std::time::Instant;

use crossdock_message::Code;
use crossdock_offload as offload;
use crossdock_transport::names::Names;
use crossdock_transport::{bodies, descriptors};

use crate::generation::Generation;
use crate::process::health::{Endpoint, EndpointSet};
use crate::stats::{BOUNDS_US, Histogram, ServiceStats, Stats, get};

/// The body of `/metrics`. Labels are names of routes and services, and codes: the settings bound their number.
pub(crate) fn prometheus(stats: &Stats, generation: &Generation, host_names: &Names, ready: bool) -> String {
    let mut out = String::with_capacity(8192);
    let mut gauge = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    gauge("crossdock_ready", "gauge", "1 while requests are accepted.", u64::from(ready));
    gauge("crossdock_generation", "gauge", "The current generation of the routes.", generation.number);
    gauge("crossdock_reloads_total", "counter", "Successful reloads.", get(&stats.reloads));
    gauge("crossdock_reloads_failed_total", "counter", "Rejected reloads.", get(&stats.reloads_failed));
    gauge("crossdock_refused_total", "counter", "Requests rejected before a route was matched.", get(&stats.refused));
    gauge("crossdock_unmatched_total", "counter", "Requests that match no route.", get(&stats.unmatched));
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (long_work, long_work_waiting) = offload::counts();
    gauge("crossdock_long_work_total", "counter", "Tasks for large messages run on the thread pool.", long_work);
    gauge("crossdock_long_work_waiting", "gauge", "Tasks for large messages waiting for a thread.", long_work_waiting);
    gauge("crossdock_connections", "gauge", "Inbound connections.", number(descriptors::callers()));
    gauge(
        "crossdock_connections_max",
        "gauge",
        "Maximum number of inbound connections.",
        number(descriptors::callers_max()),
    );
    gauge(
        "crossdock_connections_refused_total",
        "counter",
        "Connections rejected because of the limit.",
        descriptors::refused(),
    );
    gauge(
        "crossdock_connections_shed_total",
        "counter",
        "Idle connections closed to free capacity.",
        number(descriptors::shed()),
    );
    let (used, max, refused) = bodies::usage();
    gauge("crossdock_body_bytes", "gauge", "Memory used by bodies in flight.", number(used));
    gauge("crossdock_body_bytes_max", "gauge", "Maximum memory for bodies in flight.", number(max));
    gauge("crossdock_bodies_refused_total", "counter", "Bodies rejected because of the memory limit.", refused);
    let routes = stats.routes();
    let services = stats.services();
    head(&mut out, "crossdock_route_requests_total", "counter", "Requests by route and outcome.");
    for (name, route) in &routes {
        by_code(&mut out, "crossdock_route_requests_total", "route", name, get(&route.succeeded), &route.failed);
    }
    head(&mut out, "crossdock_route_phase_seconds_total", "counter", "Duration of requests by phase.");
    for (name, route) in &routes {
        let phases =
            [("request", &route.request_ns), ("processing", &route.processing_ns), ("response", &route.response_ns)];
        for (phase, time) in phases {
            let seconds = get(time) as f64 / 1e9;
            let _ =
                writeln!(out, "crossdock_route_phase_seconds_total{{route=\"{name}\",phase=\"{phase}\"}} {seconds}");
        }
    }
    head(&mut out, "crossdock_route_latency_seconds", "histogram", "Duration of requests.");
    for (name, route) in &routes {
        buckets(&mut out, "crossdock_route_latency_seconds", "route", name, &route.latency);
    }
    head(&mut out, "crossdock_service_calls_total", "counter", "Calls by service and outcome.");
    for (name, service) in &services {
        by_code(&mut out, "crossdock_service_calls_total", "service", name, get(&service.succeeded), &service.failed);
    }
    let counters: [(&str, &str, fn(&ServiceStats) -> u64); 7] = [
        ("crossdock_service_retries_total", "Retried calls.", |service| get(&service.retries)),
        ("crossdock_service_refused_total", "Calls rejected because of the concurrency limit.", |service| {
            get(&service.refused)
        }),
        ("crossdock_service_panics_total", "Calls that panicked.", |service| get(&service.panics)),
        ("crossdock_service_restarts_total", "Service actors restarted after a failure.", |service| {
            get(&service.restarts)
        }),
        ("crossdock_service_skipped_total", "Endpoints skipped as unreachable.", |service| get(&service.skipped)),
        ("crossdock_service_broken_total", "Calls rejected by the circuit breaker.", |service| get(&service.broken)),
        ("crossdock_service_taps_failed_total", "Failed wire taps.", |service| get(&service.taps_failed)),
    ];
    for (metric, help, count) in counters {
        head(&mut out, metric, "counter", help);
        for (name, service) in &services {
            let _ = writeln!(out, "{metric}{{service=\"{name}\"}} {}", count(service));
        }
    }
    head(&mut out, "crossdock_service_in_flight", "gauge", "Calls in flight.");
    for (name, service) in &services {
        let in_flight = service.in_flight.load(std::sync::atomic::Ordering::Relaxed);
        let _ = writeln!(out, "crossdock_service_in_flight{{service=\"{name}\"}} {in_flight}");
    }
    head(&mut out, "crossdock_service_credit", "gauge", "Available permits for calls.");
    for service in &generation.services {
        let credit = service.permits.available_permits();
        let _ = writeln!(out, "crossdock_service_credit{{service=\"{}\"}} {credit}", service.plan.name);
    }
    endpoints(&mut out, generation);
    names(&mut out, host_names);
    head(&mut out, "crossdock_service_latency_seconds", "histogram", "Duration of calls.");
    for (name, service) in &services {
        buckets(&mut out, "crossdock_service_latency_seconds", "service", name, &service.latency);
    }
    out
}

/// The state of endpoints and circuit breakers. The label of an endpoint is its configured address.
fn endpoints(out: &mut String, generation: &Generation) {
    let now = Instant::now();
    let current: Vec<(&str, EndpointSet)> =
        generation.services.iter().map(|service| (&*service.plan.name, service.health.endpoints())).collect();
    let all = || current.iter().flat_map(|(service, known)| known.iter().map(move |known| (service, &*known.endpoint)));
    head(out, "crossdock_endpoint_state", "gauge", "1 for the current state of an endpoint.");
    for (service, endpoint) in all() {
        let (state, labels) = (endpoint.state(now).name(), endpoint_labels(service, endpoint));
        let _ = writeln!(out, "crossdock_endpoint_state{{{labels},state=\"{state}\"}} 1");
    }
    let counters: [(&str, &str, fn(&Endpoint) -> u64); 4] = [
        ("crossdock_endpoint_unreachable_total", "Failed connection attempts.", |endpoint| {
            get(&endpoint.unreachable_total)
        }),
        ("crossdock_endpoint_failed_total", "Calls that failed on the server side.", |endpoint| {
            get(&endpoint.failed_total)
        }),
        ("crossdock_endpoint_ejected_total", "Ejections as an outlier.", |endpoint| get(&endpoint.ejected_total)),
        ("crossdock_endpoint_checks_failed_total", "Failed health checks.", |endpoint| {
            get(&endpoint.checks_failed_total)
        }),
    ];
    for (metric, help, count) in counters {
        head(out, metric, "counter", help);
        for (service, endpoint) in all() {
            let _ = writeln!(out, "{metric}{{{}}} {}", endpoint_labels(service, endpoint), count(endpoint));
        }
    }
    let with_breaker = || generation.services.iter().filter(|service| service.plan.breaker.is_some());
    head(out, "crossdock_breaker_state", "gauge", "1 for the current state of a circuit breaker.");
    for service in with_breaker() {
        let (name, state) = (&service.plan.name, service.health.breaker.state_name());
        let _ = writeln!(out, "crossdock_breaker_state{{service=\"{name}\",state=\"{state}\"}} 1");
    }
    head(out, "crossdock_breaker_opened_total", "counter", "Times that a circuit breaker opened.");
    for service in with_breaker() {
        let (name, opened) = (&service.plan.name, get(&service.health.breaker.opened_total));
        let _ = writeln!(out, "crossdock_breaker_opened_total{{service=\"{name}\"}} {opened}");
    }
}

/// The labels of an endpoint: its configured address and its resolved address.
fn endpoint_labels(service: &str, endpoint: &Endpoint) -> String {
    let ip = endpoint.ip.map(|ip| format!(",ip=\"{ip}\"")).unwrap_or_default();
    format!("service=\"{service}\",endpoint=\"{}\"{ip}", escape_label(&endpoint.address))
}

/// The host names whose resolved addresses are endpoints.
fn names(out: &mut String, names: &Names) {
    let all = names.all();
    head(out, "crossdock_name_addresses", "gauge", "Resolved addresses of a host name.");
    for name in &all {
        let (host, count) = (escape_label(name.host()), name.addresses().list.len());
        let _ = writeln!(out, "crossdock_name_addresses{{name=\"{host}\"}} {count}");
    }
    head(out, "crossdock_name_lookups_total", "counter", "Lookups of a host name.");
    for name in &all {
        let (host, (succeeded, failed)) = (escape_label(name.host()), name.lookups());
        let _ = writeln!(out, "crossdock_name_lookups_total{{name=\"{host}\",result=\"ok\"}} {succeeded}");
        let _ = writeln!(out, "crossdock_name_lookups_total{{name=\"{host}\",result=\"failed\"}} {failed}");
    }
}

/// Escapes the value of a label.
fn escape_label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn by_code(
    out: &mut String,
    metric: &str,
    label: &str,
    name: &str,
    ok: u64,
    failed: &[std::sync::atomic::AtomicU64; 17],
) {
    let _ = writeln!(out, "{metric}{{{label}=\"{name}\",code=\"ok\"}} {ok}");
    for code in Code::ALL {
        let count = get(&failed[code as usize]);
        if count > 0 {
            let _ = writeln!(out, "{metric}{{{label}=\"{name}\",code=\"{code}\"}} {count}");
        }
    }
}

fn buckets(out: &mut String, metric: &str, label: &str, name: &str, histogram: &Histogram) {
    let counts = histogram.counts();
    let mut seen = 0;
    for (bound, count) in BOUNDS_US.iter().zip(counts) {
        seen += count;
        let seconds = *bound as f64 / 1e6;
        let _ = writeln!(out, "{metric}_bucket{{{label}=\"{name}\",le=\"{seconds}\"}} {seen}");
    }
    let total: u64 = counts.iter().sum();
    let sum = histogram.sum_us() as f64 / 1e6;
    let _ = writeln!(out, "{metric}_bucket{{{label}=\"{name}\",le=\"+Inf\"}} {total}");
    let _ = writeln!(out, "{metric}_sum{{{label}=\"{name}\"}} {sum}\n{metric}_count{{{label}=\"{name}\"}} {total}");
}
