//! `/api/v1/…`: routes and services as JSON.

use std::sync::Arc;
use std::time::Instant;

use crossdock_message::Code;
use crossdock_ports::Adapter;
use crossdock_routing::Step;
use serde_json::{Value, json};

use crate::generation::{Generation, ServiceShare};
use crate::process::Listeners;
use crate::process::health::KnownEndpoint;
use crate::stats::{BOUNDS_US, Stats, get};

fn endpoints_json(service: &ServiceShare, now: Instant) -> Vec<Value> {
    let endpoint_json = |KnownEndpoint { address_index, endpoint }: &KnownEndpoint| {
        let name = service.health.host_name(*address_index);
        json!({
            "service": &*service.plan.name,
            "address": endpoint.address,
            "ip": endpoint.ip,
            "name_problem": name.and_then(|name| name.addresses().problem).as_deref(),
            "state": endpoint.state(now).name(),
            "unreachable": get(&endpoint.unreachable_total),
            "failed": get(&endpoint.failed_total),
            "ejected": get(&endpoint.ejected_total),
            "checks_failed": get(&endpoint.checks_failed_total),
        })
    };
    service.health.endpoints().iter().map(endpoint_json).collect()
}

/// Rounds to three decimal places.
fn rounded(number: f64) -> Value {
    json!((number * 1000.0).round() / 1000.0)
}

/// The body of `/api/v1/routes`.
pub(crate) fn routes_json(stats: &Stats, generation: &Generation, now: Instant) -> Value {
    let routes = generation.plan.routes.iter().zip(&generation.routes).map(|(plan, share)| {
        let route = &share.stats;
        let finished = route.finished();
        let mean_ms = |counter| if finished == 0 { 0.0 } else { get(counter) as f64 / 1e6 / finished as f64 };
        let (request, processing, response) =
            (mean_ms(&route.request_ns), mean_ms(&route.processing_ns), mean_ms(&route.response_ns));
        let services = Step::services(&plan.steps);
        let concurrency = services.iter().map(|service| generation.plan.services[*service].concurrency).min();
        let capacity =
            concurrency.filter(|_| processing > 0.0).map(|concurrency| concurrency as f64 / (processing / 1000.0));
        let availability =
            if finished == 0 { 1.0 } else { 1.0 - route.server_side_failures() as f64 / finished as f64 };
        let failed: serde_json::Map<String, Value> = Code::ALL
            .into_iter()
            .map(|code| (code.name().to_owned(), get(&route.failed[code as usize])))
            .filter(|(_, count)| *count > 0)
            .map(|(code, count)| (code, json!(count)))
            .collect();
        let endpoints = services.iter().flat_map(|service| endpoints_json(&generation.services[*service], now));
        json!({
            "name": &*plan.name,
            "endpoints": endpoints.collect::<Vec<_>>(),
            "from": plan.entries.iter().map(|entry| entry.describe()).collect::<Vec<_>>(),
            "requests": finished,
            "in_flight": get(&route.started).saturating_sub(finished),
            "failed": failed,
            "throughput_per_s": rounded(route.throughput(stats.started, now)),
            "latency_ms": {
                "mean": rounded(request + processing + response),
                "request": rounded(request),
                "processing": rounded(processing),
                "response": rounded(response),
                "p50": route.latency.quantile_ms(0.5),
                "p99": route.latency.quantile_ms(0.99),
                // The last count is that of longer ones.
                "histogram": { "le": BOUNDS_US.map(|bound| bound as f64 / 1000.0), "counts": route.latency.counts() },
            },
            "failed_server_side": route.server_side_failures(),
            "capacity_per_s": capacity.map(rounded),
            "availability": rounded(availability),
        })
    });
    json!({ "generation": generation.number, "routes": routes.collect::<Vec<_>>() })
}

/// The status of each listener; the reason why it is down only `with_problems`.
pub(crate) fn listener_statuses_json(listeners: &Listeners, with_problems: bool) -> Value {
    let statuses = listeners.all().into_iter().map(|(name, listener)| {
        let status = listener.status();
        (name, json!({ "up": status.is_up(), "problem": status.problem().filter(|_| with_problems) }))
    });
    Value::Object(statuses.collect())
}

/// The body of `/api/v1/listeners`.
pub(crate) fn listeners_json(listeners: &Listeners) -> Value {
    let listeners = listeners.all().into_iter().map(|(name, listener)| {
        let status = listener.status();
        let sources = listener.sources().into_iter().map(|source| {
            json!({
                "name": source.name,
                "paused": source.is_paused,
                "unsettled": source.unsettled,
                "lag": source.lag,
            })
        });
        json!({
            "name": name,
            "adapter": listener.adapter,
            "address": listener.address,
            "up": status.is_up(),
            "problem": status.problem(),
            "restarts": listener.restarts,
            "sources": sources.collect::<Vec<_>>(),
        })
    });
    json!({ "listeners": listeners.collect::<Vec<_>>() })
}

/// The body of `/api/v1/services`.
pub(crate) fn services_json(generation: &Generation, adapters: &[Arc<dyn Adapter>], now: Instant) -> Value {
    let services = generation.services.iter().map(|service| {
        let connections = service.connections(adapters).map(
            |(endpoint, status)| json!({ "endpoint": endpoint, "up": status.is_up(), "problem": status.problem() }),
        );
        json!({
            "name": &*service.plan.name,
            "endpoints": endpoints_json(service, now),
            "connections": connections.collect::<Vec<_>>(),
            "breaker": service.plan.breaker.as_ref().map(|_| service.health.breaker.state_name()),
            "calls": get(&service.stats.calls),
            "succeeded": get(&service.stats.succeeded),
            "retries": get(&service.stats.retries),
            "refused": get(&service.stats.refused),
            "in_flight": service.stats.in_flight.load(std::sync::atomic::Ordering::Relaxed),
            "credit": service.permits.available_permits(),
            "concurrency": service.plan.concurrency,
        })
    });
    json!({ "generation": generation.number, "services": services.collect::<Vec<_>>() })
}
