//! Which partitions of a topic of replies an instance uses.

use crossdock_settings::{FromNode, Kind, Node, Reader};
use serde_json::json;

/// Which partitions of a topic of replies an instance uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ReplyPartitions {
    /// It reads all of them, and requests name none.
    All,
    /// These, which are not empty: requests name them in turn.
    Listed(Vec<i32>),
    /// One that no other instance of the cluster uses, as long as there are enough.
    Claimed,
}

impl FromNode for ReplyPartitions {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::List(_)) {
            let (text, _) = reader.text(node)?;
            if text == "cluster" {
                return Some(Self::Claimed);
            }
            let help = "write a list such as `[0, 1]`, or `cluster` for one that no other instance uses";
            reader.error("partitions", node.span, format!("`{text}` is no list of partitions"), help);
            return None;
        }
        let mut partitions = Vec::<i32>::from_node(node, reader)?;
        partitions.sort_unstable();
        partitions.dedup();
        if partitions.first().is_some_and(|partition| *partition < 0) {
            reader.error("number", node.span, "a partition must be at least 0", "");
            return None;
        }
        Some(if partitions.is_empty() { Self::All } else { Self::Listed(partitions) })
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [Vec::<i32>::schema(), { "enum": ["cluster"] }] })
    }
}
