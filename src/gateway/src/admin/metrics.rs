//! `/metrics`: OpenMetrics text (version 1.0.0).
//!
//! Labels are names of routes, services and endpoints, codes and states: the settings bound their number.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix_web::web::Data;
use crossdock_message::Code;
use crossdock_ports::{Adapter, SourceStatus};
use crossdock_transport::names::Names;
use crossdock_transport::{bodies, descriptors};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::AdminState;
use super::cluster::cluster_metrics;
use super::families::{Buckets, Families, Labels, NONE};
use super::locks::{engine_metrics, lock_metrics};
use super::queues::queue_metrics;
use crate::generation::Generation;
use crate::process::Listeners;
use crate::process::health::Endpoint;
use crate::stats::{BOUNDS_US, Histogram, ServiceStats, Stats, get};

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The current values of all metrics.
pub(super) fn openmetrics(state: Data<AdminState>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(state)));
    let mut text = String::with_capacity(8192);
    encode(&mut text, &registry)?;
    Ok(text)
}

struct Metrics(Data<AdminState>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = &self.0;
        let generation = state.current.load();
        let out = &mut Families(encoder);
        process(out, &state.stats, &generation, !state.current.is_draining())?;
        listeners(out, &state.process.listeners)?;
        routes(out, &state.stats)?;
        services(out, &state.stats, &generation)?;
        endpoints(out, &generation)?;
        connections(out, &generation, &state.adapters)?;
        breakers(out, &generation)?;
        names(out, &state.process.health.names)?;
        if let Some(locks) = &state.process.locks {
            engine_metrics(out, &**locks, &state.process.singletons)?;
        }
        if let Some(engine) = &state.process.coordination {
            lock_metrics(out, engine)?;
            queue_metrics(out, engine)?;
        }
        if let Some(api) = &state.api {
            api_metrics(out, api)?;
        }
        state.cluster.as_ref().map_or(Ok(()), |cluster| cluster_metrics(out, cluster))
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn process(out: &mut Families<'_>, stats: &Stats, generation: &Generation, ready: bool) -> fmt::Result {
    let (long_work, long_work_waiting) = crossdock_offload::counts();
    let (body_bytes, body_bytes_max, bodies_refused) = bodies::usage();
    let gauges = [
        ("crossdock_ready", "1 while requests are accepted.", u64::from(ready)),
        ("crossdock_generation", "The current generation of the routes.", generation.number),
        ("crossdock_long_work_waiting", "Tasks for large messages waiting for a thread.", long_work_waiting),
        ("crossdock_connections", "Inbound connections.", number(descriptors::callers())),
        ("crossdock_connections_max", "Maximum number of inbound connections.", number(descriptors::callers_max())),
        ("crossdock_body_bytes", "Memory used by bodies in flight.", number(body_bytes)),
        ("crossdock_body_bytes_max", "Maximum memory for bodies in flight.", number(body_bytes_max)),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, [(NONE, value)])?;
    }
    let counters = [
        ("crossdock_reloads", "Successful reloads.", get(&stats.reloads)),
        ("crossdock_reloads_failed", "Rejected reloads.", get(&stats.reloads_failed)),
        ("crossdock_refused", "Requests rejected before a route was matched.", get(&stats.refused)),
        ("crossdock_unmatched", "Requests that match no route.", get(&stats.unmatched)),
        ("crossdock_long_work", "Tasks for large messages run on the thread pool.", long_work),
        ("crossdock_connections_refused", "Connections rejected because of the limit.", descriptors::refused()),
        ("crossdock_connections_shed", "Idle connections closed to free capacity.", number(descriptors::shed())),
        ("crossdock_bodies_refused", "Bodies rejected because of the memory limit.", bodies_refused),
    ];
    for (name, help, value) in counters {
        out.counter(name, help, [(NONE, value)])?;
    }
    Ok(())
}

fn api_metrics(out: &mut Families<'_>, api: &crossdock_api_server::Counts) -> fmt::Result {
    out.gauge("crossdock_api_connections", "Connections of clients of the API.", [(NONE, api.connections())])?;
    let calls = api.calls().into_iter().map(|(method, code, count)| (vec![("method", method), ("code", code)], count));
    out.counter("crossdock_api_calls", "Calls of the API by method and code.", calls)
}

fn listeners(out: &mut Families<'_>, listeners: &Listeners) -> fmt::Result {
    let all = listeners.all();
    let label = |name: &str| vec![("listener", name.to_owned())];
    let up = all
        .iter()
        .map(|(name, listener)| (and(label(name), "adapter", listener.adapter), u64::from(listener.status().is_up())));
    out.gauge("crossdock_listener_up", "1 while messages can arrive at a listener.", up)?;
    let restarts = all.iter().map(|(name, listener)| (label(name), listener.restarts));
    out.counter("crossdock_listener_restarts", "Restarts of a listener after a failure.", restarts)?;
    let events = all.iter().flat_map(|(name, listener)| {
        listener.events().into_iter().map(|(event, count)| (and(label(name), "event", event), count))
    });
    out.counter("crossdock_listener_events", "Events of a listener's protocol, such as rebalances.", events)?;
    let times = all.iter().flat_map(|(name, listener)| {
        listener.times().into_iter().map(|(work, time)| (and(label(name), "work", work), time.as_secs_f64()))
    });
    out.counter("crossdock_listener_work_seconds", "Time that a listener spent on work of its protocol.", times)?;
    let sources: Vec<_> = all
        .iter()
        .flat_map(|(name, listener)| {
            listener.sources().into_iter().map(|source| (and(label(name), "source", &source.name), source))
        })
        .collect();
    let values = |value: fn(&SourceStatus) -> Option<u64>| {
        sources.iter().filter_map(move |(labels, source)| Some((labels.clone(), value(source)?))).collect::<Vec<_>>()
    };
    let lags = values(|source| source.lag);
    out.gauge("crossdock_source_lag", "Messages of a partition that are not settled.", lags)?;
    let unsettled = values(|source| Some(number(source.unsettled)));
    out.gauge("crossdock_source_unsettled", "Messages of a partition that were read and are not settled.", unsettled)?;
    let paused = values(|source| Some(u64::from(source.is_paused)));
    out.gauge("crossdock_source_paused", "1 while a partition is not read as too many messages are unsettled.", paused)
}

fn routes(out: &mut Families<'_>, stats: &Stats) -> fmt::Result {
    let routes = stats.routes();
    let label = |name: &str| vec![("route", name.to_owned())];
    let requests = routes.iter().flat_map(|(name, route)| by_code(label(name), &route.succeeded, &route.failed));
    out.counter("crossdock_route_requests", "Requests by route and outcome.", requests)?;
    let phases = routes.iter().flat_map(|(name, route)| {
        let phases =
            [("request", &route.request_ns), ("processing", &route.processing_ns), ("response", &route.response_ns)];
        phases.map(|(phase, time)| (and(label(name), "phase", phase), get(time) as f64 / 1e9))
    });
    out.counter("crossdock_route_phase_seconds", "Duration of requests by phase.", phases)?;
    let duplicates = routes.iter().map(|(name, route)| (label(name), get(&route.duplicates)));
    out.counter("crossdock_route_duplicates", "Messages with a key that `idempotency` remembers.", duplicates)?;
    let forgotten = routes.iter().map(|(name, route)| (label(name), get(&route.forgotten)));
    let help = "Processed messages whose `idempotency` key could not be remembered by the cluster.";
    out.counter("crossdock_route_keys_lost", help, forgotten)?;
    let latencies = routes.iter().map(|(name, route)| (label(name), buckets(&route.latency)));
    out.histogram("crossdock_route_latency_seconds", "Duration of requests.", latencies)
}

fn services(out: &mut Families<'_>, stats: &Stats, generation: &Generation) -> fmt::Result {
    let services = stats.services();
    let label = |name: &str| vec![("service", name.to_owned())];
    let calls = services.iter().flat_map(|(name, service)| by_code(label(name), &service.succeeded, &service.failed));
    out.counter("crossdock_service_calls", "Calls by service and outcome.", calls)?;
    let counters: [(&str, &str, fn(&ServiceStats) -> &AtomicU64); 7] = [
        ("crossdock_service_retries", "Retried calls.", |service| &service.retries),
        ("crossdock_service_refused", "Calls rejected because of the concurrency limit.", |service| &service.refused),
        ("crossdock_service_panics", "Calls that panicked.", |service| &service.panics),
        ("crossdock_service_restarts", "Service actors restarted after a failure.", |service| &service.restarts),
        ("crossdock_service_skipped", "Endpoints skipped as unreachable.", |service| &service.skipped),
        ("crossdock_service_broken", "Calls rejected by the circuit breaker.", |service| &service.broken),
        ("crossdock_service_taps_failed", "Failed wire taps.", |service| &service.taps_failed),
    ];
    for (metric, help, count) in counters {
        out.counter(metric, help, services.iter().map(|(name, service)| (label(name), get(count(service)))))?;
    }
    let in_flight = services.iter().map(|(name, service)| (label(name), service.in_flight.load(Ordering::Relaxed)));
    out.gauge("crossdock_service_in_flight", "Calls in flight.", in_flight)?;
    let available = generation
        .services
        .iter()
        .map(|service| (label(&service.plan.name), number(service.permits.available_permits())));
    out.gauge("crossdock_service_credit", "Available permits for calls.", available)?;
    let latencies = services.iter().map(|(name, service)| (label(name), buckets(&service.latency)));
    out.histogram("crossdock_service_latency_seconds", "Duration of calls.", latencies)
}

/// The label of an endpoint is its configured address, and the resolved address if there is one.
fn endpoints(out: &mut Families<'_>, generation: &Generation) -> fmt::Result {
    let now = Instant::now();
    let label = |service: &str, endpoint: &Endpoint| {
        let labels = vec![("service", service.to_owned()), ("endpoint", endpoint.address.clone())];
        match endpoint.ip {
            Some(ip) => and(labels, "ip", &ip.to_string()),
            None => labels,
        }
    };
    let sets: Vec<_> =
        generation.services.iter().map(|service| (&service.plan.name, service.health.endpoints())).collect();
    let all = || sets.iter().flat_map(|(service, set)| set.iter().map(move |known| (*service, &*known.endpoint)));
    let states = all().map(|(service, endpoint)| {
        let state = endpoint.state(now).name();
        (and(label(service, endpoint), "state", state), 1_u64)
    });
    out.gauge("crossdock_endpoint_state", "1 for the current state of an endpoint.", states)?;
    let counters: [(&str, &str, fn(&Endpoint) -> &AtomicU64); 4] = [
        ("crossdock_endpoint_unreachable", "Failed connection attempts.", |endpoint| &endpoint.unreachable_total),
        ("crossdock_endpoint_failed", "Calls that failed on the server side.", |endpoint| &endpoint.failed_total),
        ("crossdock_endpoint_ejected", "Ejections as an outlier.", |endpoint| &endpoint.ejected_total),
        ("crossdock_endpoint_checks_failed", "Failed health checks.", |endpoint| &endpoint.checks_failed_total),
    ];
    for (metric, help, count) in counters {
        let samples = all().map(|(service, endpoint)| (label(service, endpoint), get(count(endpoint))));
        out.counter(metric, help, samples)?;
    }
    Ok(())
}

/// The connections to endpoints that all data arbiters share, such as those to brokers.
fn connections(out: &mut Families<'_>, generation: &Generation, adapters: &[Arc<dyn Adapter>]) -> fmt::Result {
    let up = generation.services.iter().flat_map(|service| {
        service.connections(adapters).map(|(endpoint, status)| {
            let labels = vec![("service", service.plan.name.to_string()), ("endpoint", endpoint.to_owned())];
            (labels, u64::from(status.is_up()))
        })
    });
    out.gauge("crossdock_connection_up", "1 unless the connection to an endpoint is down.", up)
}

fn breakers(out: &mut Families<'_>, generation: &Generation) -> fmt::Result {
    let label = |name: &str| vec![("service", name.to_owned())];
    let with_breaker = || generation.services.iter().filter(|service| service.plan.breaker.is_some());
    let states = with_breaker()
        .map(|service| (and(label(&service.plan.name), "state", service.health.breaker.state_name()), 1_u64));
    out.gauge("crossdock_breaker_state", "1 for the current state of a circuit breaker.", states)?;
    let opened = with_breaker().map(|service| (label(&service.plan.name), get(&service.health.breaker.opened_total)));
    out.counter("crossdock_breaker_opened", "Times that a circuit breaker opened.", opened)
}

/// The host names whose resolved addresses are endpoints.
fn names(out: &mut Families<'_>, names: &Names) -> fmt::Result {
    let all = names.all();
    let addresses =
        all.iter().map(|name| (vec![("name", name.host().to_owned())], number(name.addresses().list.len())));
    out.gauge("crossdock_name_addresses", "Resolved addresses of a host name.", addresses)?;
    let lookups = all.iter().flat_map(|name| {
        let (succeeded, failed) = name.lookups();
        let labels = |result| vec![("name", name.host().to_owned()), ("result", String::from(result))];
        [(labels("ok"), succeeded), (labels("failed"), failed)]
    });
    out.counter("crossdock_name_lookups", "Lookups of a host name.", lookups)
}

fn and(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}

/// A sample for success, and one for each code that occurred.
fn by_code(labels: Labels, succeeded: &AtomicU64, failed: &[AtomicU64; 17]) -> Vec<(Labels, u64)> {
    let occurred = Code::ALL.iter().map(|code| (code, get(&failed[*code as usize]))).filter(|(_, count)| *count > 0);
    let mut samples: Vec<_> =
        occurred.map(|(code, count)| (and(labels.clone(), "code", &code.to_string()), count)).collect();
    samples.insert(0, (and(labels, "code", "ok"), get(succeeded)));
    samples
}

fn buckets(histogram: &Histogram) -> Buckets {
    let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
    Buckets { sum: histogram.sum_us() as f64 / 1e6, counts: bounds.zip(histogram.counts()).collect() }
}
