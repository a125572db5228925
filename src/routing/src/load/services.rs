//! `services:`.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_adapter_api::ServiceSpec;
use crossdock_message::{ByteString, Code};
use crossdock_settings::{Duration, Fields, Key, Node, Reader, Spanned, nearest};

use super::health::{breaker_plan, health_plan};
use super::{BackoffRange, BreakerSettings, HealthSettings, Loader, RetrySettings, check_name};
use crate::plan::{Balance, CallPlan, ServicePlan};
use crate::retry::RetryPlan;

const TIMEOUT_DEFAULT: StdDuration = StdDuration::from_secs(5);
const CONCURRENCY_DEFAULT: usize = 1024;
const CONCURRENCY_MAX: usize = 100_000;

impl Loader<'_> {
    pub(super) fn service(&mut self, key: &Key, node: &Node, reader: &mut Reader<'_>) {
        check_name(key, "service", reader);
        let name = ByteString::from(key.name.as_str());
        if let Some((_, first)) = self.service_spans.iter().find(|(other, _)| *other == name) {
            let place = place_of(*first, reader);
            reader.error(
                "duplicate-name",
                key.span,
                format!("the service `{name}` stands twice"),
                format!("it stands at {place} already"),
            );
            return;
        }
        self.service_spans.push((name.clone(), key.span));
        let Some(mut fields) = reader.fields(node, "a service") else { return };
        let adapter = self.adapter_part(&mut fields, reader);
        let timeout = fields.read_or("timeout", Duration(TIMEOUT_DEFAULT), reader);
        let retry: Option<Option<RetrySettings>> = fields.read("retry", reader);
        let concurrency: Option<Option<Spanned<usize>>> = fields.read("concurrency", reader);
        let balance = fields.read_or("balance", Balance::RoundRobin, reader);
        let idempotent: Option<Vec<Spanned<String>>> = fields.read("idempotent", reader);
        let health: Option<Option<HealthSettings>> = fields.read("health", reader);
        let breaker: Option<Option<BreakerSettings>> = fields.read("breaker", reader);
        let retry_span = node.get("retry").map_or(key.span, |node| node.span);
        fields.finish(reader);
        let (Some((adapter, spec)), Some(idempotent)) = (adapter, idempotent) else { return };
        let endpoints = spec.endpoints();
        if let Some(twice) =
            endpoints.iter().enumerate().find_map(|(at, url)| endpoints[..at].contains(url).then_some(url))
        {
            let message = format!("the address `{twice}` stands twice");
            reader.error(
                "duplicate-address",
                key.span,
                message,
                "write each endpoint once: calls are spread over all of them",
            );
        }
        let idempotent = known_operations(&idempotent, &*spec, &name, reader);
        let retry = retry.flatten().and_then(|settings| retry_plan(&settings, retry_span, &*spec, &idempotent, reader));
        let concurrency = concurrency.flatten().map_or(Some(CONCURRENCY_DEFAULT), |wanted| {
            if (1..=CONCURRENCY_MAX).contains(&wanted.value) {
                return Some(wanted.value);
            }
            reader.error(
                "concurrency",
                wanted.span,
                format!("{} calls at once cannot be", wanted.value),
                format!("write 1 to {CONCURRENCY_MAX}"),
            );
            None
        });
        let health = health.flatten().map_or(Some(None), |settings| health_plan(&settings, &*spec, reader).map(Some));
        let breaker = breaker.flatten().map_or(Some(None), |settings| breaker_plan(&settings, reader).map(Some));
        let (Some(timeout), Some(concurrency), Some(balance)) = (timeout, concurrency, balance) else { return };
        let (Some(health), Some(breaker)) = (health, breaker) else { return };
        let timeout = timeout.0;
        self.plan.services.push(Arc::new(ServicePlan {
            name,
            adapter,
            spec,
            timeout,
            retry,
            concurrency,
            balance,
            idempotent,
            health,
            breaker,
        }));
    }

    /// The one key that names an adapter, read by that adapter.
    fn adapter_part(
        &self,
        fields: &mut Fields<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<(&'static str, Arc<dyn ServiceSpec>)> {
        let mut found = None;
        let mut failed = false;
        for adapter in self.inputs.adapters {
            let Some(node) = fields.take(adapter.name()) else { continue };
            if found.is_some() || failed {
                reader.error("adapter-twice", node.span, "a service is reached in one way", "make it two services");
            }
            match adapter.read_service(node, &self.contracts, reader) {
                Some(spec) => found = Some((adapter.name(), spec)),
                None => failed = true,
            }
        }
        if found.is_none() && !failed {
            let names: Vec<String> =
                self.inputs.adapters.iter().map(|adapter| format!("`{}:`", adapter.name())).collect();
            let help = format!("add {} with the address", names.join(" or "));
            reader.error("adapter-missing", fields.node().span, "the service does not say how it is reached", help);
        }
        found
    }

    /// Finds `service.operation`, or `service` where the service has one operation.
    ///
    /// Where the route is about one method of a whole service, `service` alone means the operation of that name.
    pub(super) fn operation(
        &self,
        reference: &Spanned<String>,
        method: Option<&str>,
        reader: &mut Reader<'_>,
    ) -> Option<CallPlan> {
        let (service_name, operation_name) = match reference.value.split_once('.') {
            Some((service, operation)) => (service, Some(operation)),
            None => (reference.value.as_str(), None),
        };
        let Some(index) = self.plan.services.iter().position(|service| service.name == service_name) else {
            // A service that could not be read was reported already.
            if !self.service_spans.iter().any(|(name, _)| *name == service_name) {
                let names = self.service_spans.iter().map(|(name, _)| &**name);
                let help = match nearest(service_name, names) {
                    Some(meant) => format!("write `{meant}`"),
                    None => format!("add `{service_name}` below `services:`"),
                };
                reader.error("unknown-service", reference.span, format!("there is no service `{service_name}`"), help);
            }
            return None;
        };
        let service = &self.plan.services[index];
        let operations = service.spec.operations();
        let found = match operation_name {
            Some(name) => operations.iter().find(|(other, _)| *other == name),
            None if operations.len() == 1 => operations.first(),
            None => operations.iter().find(|(other, _)| method.is_some_and(|method| *other == method)),
        };
        let Some((operation_name, operation)) = found.cloned() else {
            let names: Vec<String> = operations.iter().map(|(name, _)| format!("{service_name}.{name}")).collect();
            let (message, help) = match operation_name {
                None => (
                    format!("`{service_name}` has more than one operation"),
                    format!("write one of {}", names.join(", ")),
                ),
                Some(wrong) => {
                    let meant = nearest(&reference.value, names.iter().map(String::as_str));
                    let help = meant
                        .map_or_else(|| format!("it has {}", names.join(", ")), |meant| format!("write `{meant}`"));
                    (format!("`{service_name}` has no operation `{wrong}`"), help)
                }
            };
            reader.error("unknown-operation", reference.span, message, help);
            return None;
        };
        let idempotent = operation.is_idempotent() || service.idempotent.contains(&operation_name);
        let retried = service.retry.as_ref().is_some_and(|retry| retry.covers(&operation_name));
        Some(CallPlan { service: index, operation_name, operation, idempotent, retried })
    }
}

pub(super) fn place_of(span: crossdock_settings::Span, reader: &Reader<'_>) -> String {
    let (line, _) = reader.diagnostics.line_column(span);
    format!("{}:{line}", reader.diagnostics.name(span.source))
}

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

fn retry_plan(
    settings: &RetrySettings,
    span: crossdock_settings::Span,
    spec: &dyn ServiceSpec,
    idempotent: &[ByteString],
    reader: &mut Reader<'_>,
) -> Option<RetryPlan> {
    let attempts = settings.attempts.as_ref().map_or(Some(RetryPlan::ATTEMPTS_MAX), |attempts| {
        if (2..=RetryPlan::ATTEMPTS_MAX).contains(&attempts.value) {
            return Some(attempts.value);
        }
        let message = format!("{} tries cannot be", attempts.value);
        reader.error("retry-attempts", attempts.span, message, "write 2 or 3: the first try is counted");
        None
    })?;
    let budget_percent = settings.budget_percent.as_ref().map_or(Some(20), |percent| {
        if percent.value <= 20 {
            return Some(percent.value);
        }
        reader.error("retry-budget", percent.span, "retries are at most 20 of 100 calls", "write 20 or less");
        None
    })?;
    let wanted: Vec<&str> = settings.operations.iter().map(|name| name.value.as_str()).collect();
    known_operations(&settings.operations, spec, "the service", reader);
    for (name, operation) in spec.operations() {
        let covered = wanted.is_empty() || wanted.contains(&&*name);
        if covered && !operation.is_idempotent() && !idempotent.contains(&name) {
            let message =
                format!("`{name}` ({}) may not be carried out twice, so it cannot be retried", operation.describe());
            let help = format!(
                "add `idempotent: [{name}]` to the service if carrying it out twice does no harm, or list what may be retried in `operations:`"
            );
            reader.error("retry-not-idempotent", span, message, help);
            return None;
        }
    }
    let BackoffRange { min, max } =
        settings.backoff.unwrap_or(BackoffRange { min: StdDuration::from_millis(50), max: StdDuration::from_secs(1) });
    let on: Vec<Code> = settings.on.iter().map(|code| code.0).collect();
    let on = if on.is_empty() { vec![Code::Unavailable] } else { on };
    let operations = wanted.iter().map(|name| ByteString::from(*name)).collect();
    Some(RetryPlan { on, attempts, backoff_min: min, backoff_max: max, budget_percent, operations })
}
