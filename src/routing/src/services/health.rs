//! `health`: active checks of a service's endpoints.

use std::time::Duration as StdDuration;

use crossdock_message::ByteString;
use crossdock_ports::ServiceSpec;
use crossdock_settings::{Duration, Reader, Spanned, settings};

use super::bounds::{bounded_count, bounded_time};

settings! {
    /// a health check
    pub(crate) struct HealthSettings {
        /// HTTP: the path, below the service's address, that must answer GET with a status below 300.
        pub(crate) get: Option<Spanned<String>>,
        /// gRPC: the service that `grpc.health.v1.Health` is asked about; `""` is the server as a whole.
        pub(crate) service: Option<Spanned<String>>,
        /// The interval between checks; 5s by default.
        pub(crate) every: Option<Spanned<Duration>>,
        /// The timeout of one check; 2s by default.
        pub(crate) timeout: Option<Spanned<Duration>>,
        /// Consecutive failed checks before an endpoint gets no calls; 2 by default.
        pub(crate) failures: Option<Spanned<u32>>,
    }
}

/// An active health check of each endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPlan {
    /// What is checked, in the adapter's terms: a path, or the name of a gRPC service. `None` checks that a connection can be made.
    pub target: Option<ByteString>,
    /// The interval between checks.
    pub every: StdDuration,
    /// The timeout of one check.
    pub timeout: StdDuration,
    /// Consecutive failed checks before the endpoint gets no calls.
    pub failures: u32,
}

const EVERY: StdDuration = StdDuration::from_secs(5);
const TIMEOUT: StdDuration = StdDuration::from_secs(2);
const FAILURES: u32 = 2;
/// More frequent checks would be a load of their own.
const EVERY_MIN: StdDuration = StdDuration::from_millis(100);

impl HealthSettings {
    /// Checks them; what the target means is up to the adapter. `None` if an error was reported.
    pub(super) fn check(&self, spec: &dyn ServiceSpec, reader: &mut Reader<'_>) -> Option<HealthPlan> {
        let targets = [("get", self.get.as_ref()), ("service", self.service.as_ref())];
        let mut target = None;
        for (key, given) in targets.into_iter().filter_map(|(key, given)| Some((key, given?))) {
            match spec.health_key() {
                Some(known) if known == key => {}
                known => {
                    let help = known.map_or_else(
                        || "remove it: the check makes a connection".to_owned(),
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
        let every = bounded_time(self.every.as_ref(), "every", EVERY, EVERY_MIN, reader)?;
        let timeout = bounded_time(self.timeout.as_ref(), "timeout", TIMEOUT, StdDuration::from_millis(1), reader)?;
        let failures = bounded_count(self.failures.as_ref(), "failures", FAILURES, 100, reader)?;
        Some(HealthPlan { target, every, timeout, failures })
    }
}
