//! Settings that are one word or a few.

use crossdock_message::Code;
use crossdock_settings::{Duration, FromNode, Node, Reader, Spanned, nearest};
use serde_json::json;

/// A canonical code by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeName(pub(crate) Code);

impl FromNode for CodeName {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, _) = reader.text(node)?;
        let found = Code::from_name(&text);
        if found.is_none() {
            let names = Code::ALL.map(Code::name);
            let help = match nearest(&text, names) {
                Some(meant) => format!("write `{meant}`"),
                None => format!("codes are {}", names.join(", ")),
            };
            reader.error("code", node.span, format!("there is no code `{text}`"), help);
        }
        found.map(Self)
    }

    fn schema() -> serde_json::Value {
        json!({ "enum": Code::ALL.map(Code::name) })
    }
}

/// The waits between tries: `200ms..2s`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackoffRange {
    pub(crate) min: std::time::Duration,
    pub(crate) max: std::time::Duration,
}

impl FromNode for BackoffRange {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, _) = reader.text(node)?;
        let parts =
            text.split_once("..").and_then(|(min, max)| Some((Duration::parse(min)?.0, Duration::parse(max)?.0)));
        match parts {
            Some((min, max)) if min <= max && !min.is_zero() => Some(Self { min, max }),
            _ => {
                let message = format!("`{text}` is not a range of waits");
                reader.error("backoff", node.span, message, "write the shortest and the longest wait: `200ms..2s`");
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        let pattern = "^[0-9]+ ?(ms|s|m|h)\\.\\.[0-9]+ ?(ms|s|m|h)$";
        crossdock_settings::or_placeholder(&json!({ "type": "string", "pattern": pattern }))
    }
}

crossdock_settings::settings! {
    /// a retry
    pub(crate) struct RetrySettings {
        /// Codes that are tried again.
        pub(crate) on: Vec<CodeName>,
        /// Tries in all, the first included; 2 or 3.
        pub(crate) attempts: Option<Spanned<u32>>,
        /// The shortest and the longest wait between tries.
        pub(crate) backoff: Option<BackoffRange>,
        /// Retries per hundred calls; at most 20.
        pub(crate) budget_percent: Option<Spanned<u32>>,
        /// Only these operations; all where nothing is said.
        pub(crate) operations: Vec<Spanned<String>>,
    }

    /// a health check
    pub(crate) struct HealthSettings {
        /// HTTP: the path, below the service's address, that has to answer GET with a status below 300.
        pub(crate) get: Option<Spanned<String>>,
        /// gRPC: the service that `grpc.health.v1.Health` is asked about; `""` is the server as a whole.
        pub(crate) service: Option<Spanned<String>>,
        /// From one check to the next.
        pub(crate) every: Option<Spanned<Duration>>,
        /// For one check.
        pub(crate) timeout: Option<Spanned<Duration>>,
        /// Checks that fail in a row before an endpoint gets no calls; 2 where nothing is said.
        pub(crate) failures: Option<Spanned<u32>>,
    }

    /// a circuit breaker
    pub(crate) struct BreakerSettings {
        /// Failed calls per hundred from which on it opens; 50 where nothing is said.
        pub(crate) failures_percent: Option<Spanned<u32>>,
        /// Calls within the window below which it does not open; 20 where nothing is said.
        pub(crate) calls: Option<Spanned<u32>>,
        /// The window over which calls are counted; 10s where nothing is said.
        pub(crate) window: Option<Spanned<Duration>>,
        /// How long calls fail at once before some are let through to probe the service; 5s where nothing is said.
        pub(crate) open: Option<Spanned<Duration>>,
        /// Probing calls at once, all of which have to succeed before it closes; 1 where nothing is said.
        pub(crate) probes: Option<Spanned<u32>>,
    }

    /// a deadline
    pub(crate) struct DeadlineSettings {
        /// For callers who set none.
        pub(crate) default: Option<Duration>,
        /// The longest that a caller gets.
        pub(crate) max: Option<Duration>,
    }
}
