//! `health:` and `breaker:` of a service.

use std::time::Duration as StdDuration;

use crossdock_adapter_api::ServiceSpec;
use crossdock_settings::{Duration, Reader, Spanned};

use super::{BreakerSettings, HealthSettings};
use crate::health::{BreakerPlan, HealthPlan};

const EVERY: StdDuration = StdDuration::from_secs(5);
const TIMEOUT: StdDuration = StdDuration::from_secs(2);
const FAILURES: u32 = 2;
/// More often, checks would be a load of their own.
const EVERY_MIN: StdDuration = StdDuration::from_millis(100);
const TIME_MAX: StdDuration = StdDuration::from_secs(3600);

fn time(
    given: Option<&Spanned<Duration>>,
    name: &str,
    usual: StdDuration,
    min: StdDuration,
    reader: &mut Reader<'_>,
) -> Option<StdDuration> {
    let Some(given) = given else { return Some(usual) };
    if (min..=TIME_MAX).contains(&given.value.0) {
        return Some(given.value.0);
    }
    reader.error("duration", given.span, format!("`{name}` must be between {min:?} and 1h"), "");
    None
}

fn count(given: Option<&Spanned<u32>>, name: &str, usual: u32, max: u32, reader: &mut Reader<'_>) -> Option<u32> {
    let Some(given) = given else { return Some(usual) };
    if (1..=max).contains(&given.value) {
        return Some(given.value);
    }
    reader.error("number", given.span, format!("`{name}` must be between 1 and {max}"), "");
    None
}

/// Checks `health:`; what is asked for is the adapter's to understand.
pub(super) fn health_plan(
    settings: &HealthSettings,
    spec: &dyn ServiceSpec,
    reader: &mut Reader<'_>,
) -> Option<HealthPlan> {
    let targets = [("get", settings.get.as_ref()), ("service", settings.service.as_ref())];
    let mut target = None;
    for (key, given) in targets.into_iter().filter_map(|(key, given)| Some((key, given?))) {
        match spec.health_key() {
            Some(known) if known == key => {}
            known => {
                let help = known.map_or_else(
                    || "leave it out: a connection is made to check it".to_owned(),
                    |known| format!("write `{known}:`, or nothing, which makes a connection"),
                );
                reader.error("health", given.span, format!("this service cannot be checked by `{key}`"), help);
                return None;
            }
        }
        if key == "get" && !given.value.starts_with('/') {
            reader.error("health", given.span, "`get` must be a path that starts with `/`", "");
            return None;
        }
        target = Some(given.value.as_str().into());
    }
    let every = time(settings.every.as_ref(), "every", EVERY, EVERY_MIN, reader)?;
    let timeout = time(settings.timeout.as_ref(), "timeout", TIMEOUT, StdDuration::from_millis(1), reader)?;
    let failures = count(settings.failures.as_ref(), "failures", FAILURES, 100, reader)?;
    Some(HealthPlan { target, every, timeout, failures })
}

/// Checks `breaker:`.
pub(super) fn breaker_plan(settings: &BreakerSettings, reader: &mut Reader<'_>) -> Option<BreakerPlan> {
    let min = StdDuration::from_millis(100);
    Some(BreakerPlan {
        failures_percent: count(settings.failures_percent.as_ref(), "failures_percent", 50, 100, reader)?,
        calls_min: count(settings.calls.as_ref(), "calls", 20, 1_000_000, reader)?,
        window: time(settings.window.as_ref(), "window", StdDuration::from_secs(10), min, reader)?,
        open: time(settings.open.as_ref(), "open", StdDuration::from_secs(5), min, reader)?,
        probes: count(settings.probes.as_ref(), "probes", 1, 1000, reader)?,
    })
}
