//! `services`: what routes call, and how. One file per policy of calls.

mod bounds;
mod breaker;
mod health;
mod retry;

use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_contract::Contracts;
use crossdock_message::ByteString;
use crossdock_ports::{Adapter, ServiceSpec};
use crossdock_settings::{Duration, Fields, Key, Node, Reader, Settings as _, Spanned, choices, nearest, settings};
use serde_json::{Map, Value};

use crate::scalars::WholeNumber;

pub use breaker::BreakerPlan;
pub use health::HealthPlan;
pub use retry::{RetryBudget, RetryPlan, Verdict};

choices! {
    /// How a call selects one of a service's endpoints.
    pub enum Balance {
        /// In turn.
        RoundRobin = "round_robin",
        /// The one with the fewest calls in flight; in turn among equals.
        LeastOutstanding = "least_outstanding",
    }
}

settings! {
    /// a service
    struct ServiceSettings {
        /// The timeout of one attempt; 5s by default.
        timeout: Duration = Duration(StdDuration::from_secs(5)),
        /// When failed calls are attempted again; never by default.
        retry: Option<retry::RetrySettings>,
        /// Concurrent calls in the whole process; more are refused. 1024 by default.
        concurrency: WholeNumber<1, 100_000> = WholeNumber(1024),
        /// How a call selects one of the endpoints; `round_robin` by default.
        balance: Balance = Balance::RoundRobin,
        /// Operations that can be executed twice without harm, besides those that are idempotent by their protocol.
        idempotent: Vec<Spanned<String>>,
        /// Active checks of the endpoints.
        health: Option<health::HealthSettings>,
        /// Calls fail at once while too many of them fail.
        breaker: Option<breaker::BreakerSettings>,
    }
}

/// A service.
#[derive(Debug)]
pub struct ServicePlan {
    /// Its name.
    pub name: ByteString,
    /// The adapter that reaches it.
    pub adapter: &'static str,
    /// The settings of the adapter.
    pub spec: Arc<dyn ServiceSpec>,
    /// The timeout of one attempt.
    pub timeout: StdDuration,
    /// When failed calls are attempted again.
    pub retry: Option<RetryPlan>,
    /// Concurrent calls in the whole process.
    pub concurrency: usize,
    /// How an endpoint is selected.
    pub balance: Balance,
    /// Operations that are declared idempotent.
    pub idempotent: Vec<ByteString>,
    /// How its endpoints are checked.
    pub health: Option<HealthPlan>,
    /// When its calls fail at once.
    pub breaker: Option<BreakerPlan>,
}

impl ServicePlan {
    /// Reads and checks a service; `None` if an error was reported.
    pub(crate) fn read(
        key: &Key,
        node: &Node,
        adapters: &[Arc<dyn Adapter>],
        contracts: &Contracts,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let name = ByteString::from(key.name.as_str());
        let mut fields = reader.fields(node, "a service")?;
        let adapter = adapter_part(&mut fields, adapters, contracts, reader);
        let settings = ServiceSettings::read_fields(&mut fields, reader);
        fields.finish(reader);
        let (adapter, spec) = adapter?;
        check_endpoints(&*spec, key, reader);
        let settings = settings?;
        let idempotent = known_operations(&settings.idempotent, &*spec, &name, reader);
        let retry_span = node.get("retry").map_or(key.span, |node| node.span);
        let retry = settings.retry.and_then(|retry| retry.check(retry_span, &*spec, &idempotent, reader));
        let health = settings.health.map_or(Some(None), |health| health.check(&*spec, reader).map(Some));
        let breaker = settings.breaker.map_or(Some(None), |breaker| breaker.check(reader).map(Some));
        Some(Self {
            name,
            adapter,
            spec,
            timeout: settings.timeout.0,
            retry,
            concurrency: settings.concurrency.0,
            balance: settings.balance,
            idempotent,
            health: health?,
            breaker: breaker?,
        })
    }
}

/// The JSON Schemas of a service's keys, besides those of adapters.
pub(crate) fn service_properties() -> Map<String, Value> {
    ServiceSettings::properties()
}

/// The one key that names an adapter, read by that adapter.
fn adapter_part(
    fields: &mut Fields<'_>,
    adapters: &[Arc<dyn Adapter>],
    contracts: &Contracts,
    reader: &mut Reader<'_>,
) -> Option<(&'static str, Arc<dyn ServiceSpec>)> {
    let mut found = None;
    let mut failed = false;
    for adapter in adapters {
        let Some(node) = fields.take(adapter.name()) else { continue };
        if found.is_some() || failed {
            let help = "declare two services";
            reader.error("adapter-twice", node.span, "a service has exactly one adapter", help);
        }
        match adapter.read_service(node, contracts, reader) {
            Some(spec) => found = Some((adapter.name(), spec)),
            None => failed = true,
        }
    }
    if found.is_none() && !failed {
        let names: Vec<String> = adapters.iter().map(|adapter| format!("`{}:`", adapter.name())).collect();
        let help = format!("add {} with its address", names.join(" or "));
        reader.error("adapter-missing", fields.node().span, "the service has no adapter", help);
    }
    found
}

fn check_endpoints(spec: &dyn ServiceSpec, key: &Key, reader: &mut Reader<'_>) {
    let endpoints = spec.endpoints();
    let is_repeated = |(at, url): &(usize, &String)| endpoints[..*at].contains(url);
    if let Some((_, url)) = endpoints.iter().enumerate().find(is_repeated) {
        let message = format!("the address `{url}` is listed twice");
        reader.error(
            "duplicate-address",
            key.span,
            message,
            "list each endpoint once: calls are spread over all of them",
        );
    }
}

/// Those of the names that are operations of the service; the others are reported.
fn known_operations(
    names: &[Spanned<String>],
    spec: &dyn ServiceSpec,
    service: &str,
    reader: &mut Reader<'_>,
) -> Vec<ByteString> {
    let operations = spec.operations();
    let mut known = Vec::new();
    for name in names {
        if operations.iter().any(|(operation, _)| *operation == name.value) {
            known.push(ByteString::from(name.value.as_str()));
            continue;
        }
        let help = match nearest(name, operations.iter().map(|(operation, _)| &**operation)) {
            Some(meant) => format!("write `{meant}`"),
            None => "name an operation of this service".to_owned(),
        };
        reader.error("unknown-operation", name.span, format!("`{service}` has no operation `{}`", name.value), help);
    }
    known
}
