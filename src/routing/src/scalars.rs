//! Scalars of route files: codes, ranges and bounded numbers.

use crossdock_message::Code;
use crossdock_settings::{Duration, FromNode, Node, Reader, nearest};
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

/// A whole number between `MIN` and `MAX`, inclusive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeNumber<const MIN: usize, const MAX: usize>(pub(crate) usize);

impl<const MIN: usize, const MAX: usize> FromNode for WholeNumber<MIN, MAX> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let number = usize::from_node(node, reader)?;
        if (MIN..=MAX).contains(&number) {
            return Some(Self(number));
        }
        reader.error("number", node.span, format!("the number must be between {MIN} and {MAX}"), "");
        None
    }

    fn schema() -> serde_json::Value {
        crossdock_settings::or_placeholder(&json!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }
}

/// The shortest and the longest wait between attempts: `200ms..2s`.
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
                let message = format!("`{text}` is not a range of durations");
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
