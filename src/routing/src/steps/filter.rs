//! `filter`: messages that do not meet a condition go no further.

use crossdock_settings::{FromNode as _, Key, Node, Reader};
use serde_json::Value;

use super::nodes::ExpressionNode;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::expression::Expression;
use crate::plan::Plan;

/// Ends the route without an answer unless a condition is met.
#[derive(Debug)]
pub struct FilterStep {
    /// The condition.
    pub that: Expression,
}

impl StepSpec for FilterStep {
    const FORM: &'static str = "filter: condition";
    const SUMMARY: &'static str =
        "ends the route without a reply unless the condition is true; a message of a queue is acknowledged";

    fn schema() -> Value {
        ExpressionNode::schema()
    }

    fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        at.refuse_in_stream("filter", key.span, reader);
        at.condition(node, reader).map(|that| Self { that })
    }
}

impl StepPlan for FilterStep {
    fn describe(&self, _: &Plan) -> String {
        format!("{}, else the route ends", self.that.source())
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Continues
    }
}
