//! Parts of steps that are read later, once it is known which names they may use. Each type carries the JSON Schema of its part.

use crossdock_settings::{FromNode, Node, Reader, Spanned};
use serde_json::json;

macro_rules! nodes {
    ($($(#[doc = $doc:literal])+ $name:ident: $schema:tt)*) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        pub(crate) struct $name(pub(crate) Node);

        impl FromNode for $name {
            fn from_node(node: &Node, _: &mut Reader<'_>) -> Option<Self> {
                Some(Self(node.clone()))
            }

            fn schema() -> serde_json::Value {
                json!($schema)
            }
        }
    )*};
}

nodes! {
    /// An expression.
    ExpressionNode: { "type": ["string", "number", "boolean"] }
    /// A text that may contain expressions in `${…}`.
    TemplateNode: { "type": ["string", "number", "boolean"] }
    /// Texts by header.
    HeadersNode: { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } }
    /// Targets and their expressions.
    MapNode: { "$ref": "#/$defs/map" }
    /// The body of an answer: targets and their expressions, or `none`.
    AnswerBodyNode: { "anyOf": [{ "$ref": "#/$defs/map" }, { "enum": ["none", null] }] }
    /// Nested steps.
    StepsNode: { "$ref": "#/$defs/steps" }
}

/// `service.operation`, or `service` if the service has one operation.
#[derive(Debug, Clone)]
pub(crate) struct OperationName(pub(crate) Spanned<String>);

impl OperationName {
    /// Reads it where `key` is written before it.
    pub(super) fn read_for(node: &Node, key: &str, reader: &mut Reader<'_>) -> Option<Self> {
        if node.text().is_none() {
            reader.wrong_kind(node, "an operation of a service", &format!("write `{key}: service.operation`"));
            return None;
        }
        Spanned::<String>::from_node(node, reader).map(Self)
    }
}

impl FromNode for OperationName {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        Self::read_for(node, "call", reader)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}
