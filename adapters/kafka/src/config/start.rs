//! Where a group starts that has no offset for a partition.

use crossdock_message::Time;
use crossdock_settings::{FromNode, Node, Reader};
use serde_json::json;

use crate::mapping;

/// Where a group starts that has no offset for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the first record.
    Earliest,
    /// At records that are written after the partition was first assigned.
    Latest,
    /// At the first record with this time or a later one, in milliseconds since 1970.
    At(i64),
}

impl FromNode for Start {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, _) = reader.text(node)?;
        let start = match &*text {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            time => Time::parse(time).and_then(mapping::to_millis).filter(|millis| *millis >= 0).map(Self::At),
        };
        if start.is_none() {
            let help = "write `earliest`, `latest`, or a time such as `2026-01-31T06:00:00Z`";
            reader.error("start", node.span, format!("`{text}` is no point to start at"), help);
        }
        start
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}
