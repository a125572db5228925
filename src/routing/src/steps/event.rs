//! `event`: attributes of the event that is sent next.

use crossdock_message::{ByteString, Event, EventError, Value as Constant};
use crossdock_settings::{FromNode as _, Key, Kind, Node, Reader};
use serde_json::Value;

use super::nodes::HeadersNode;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::expression::Template;
use crate::plan::Plan;

/// Sets attributes of CloudEvents.
#[derive(Debug)]
pub struct EventStep {
    /// Their names and values, in the order of the file.
    pub attributes: Vec<(ByteString, Template)>,
}

impl StepSpec for EventStep {
    const FORM: &'static str = "event: { attribute: text }";
    const SUMMARY: &'static str = "sets attributes of the event that is sent next, to an operation with an `envelope` of CloudEvents: `source` and `type` at \
         least, unless an event was received; `${…}` contains an expression";

    fn schema() -> Value {
        HeadersNode::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::Map(_)) {
            reader.wrong_kind(node, "a map from attributes to texts", "write `type: order.placed`");
            return None;
        }
        let (mut attributes, mut event, mut is_complete) = (Vec::new(), Event::default(), true);
        for (key, value) in node.entries() {
            let Some(template) = at.template(value, reader) else {
                is_complete = false;
                continue;
            };
            // What is not constant is checked when it is known.
            let constant = template.constant().unwrap_or(if key.name == "time" { "1970-01-01T00:00:00Z" } else { "-" });
            if let Err(error) = event.set(key.name.as_str(), Constant::Text(constant.into())) {
                let span = if matches!(error, EventError::Value(..)) { value.span } else { key.span };
                let help = match key.name.as_str() {
                    "datacontenttype" | "data" | "data_base64" => {
                        "remove it: the body is the data, and has its media type"
                    }
                    "specversion" => "remove it: the version is 1.0",
                    "time" => "write a time such as `2026-01-31T06:00:00Z`",
                    _ => "",
                };
                reader.error("event-attribute", span, error.to_string(), help);
                is_complete = false;
            }
            attributes.push((key.name.as_str().into(), template));
        }
        at.state.event.has_source |= event.get("source").is_some();
        at.state.event.has_type |= event.get("type").is_some();
        is_complete.then_some(Self { attributes })
    }
}

impl StepPlan for EventStep {
    fn describe(&self, _: &Plan) -> String {
        self.attributes.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ")
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Continues
    }
}
