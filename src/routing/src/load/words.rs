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

    /// a deadline
    pub(crate) struct DeadlineSettings {
        /// For callers who set none.
        pub(crate) default: Option<Duration>,
        /// The longest that a caller gets.
        pub(crate) max: Option<Duration>,
    }
}
