//! `set`: headers of the next call, or of the answer.

use crossdock_message::ByteString;
use crossdock_settings::{FromNode as _, Key, Node, Reader};
use serde_json::Value;

use super::nodes::HeadersNode;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::expression::Template;
use crate::plan::Plan;

/// Sets headers.
#[derive(Debug)]
pub struct SetStep {
    /// Lower-case names and their values, in the order of the file.
    pub headers: Vec<(ByteString, Template)>,
}

impl StepSpec for SetStep {
    const FORM: &'static str = "set: { header: text }";
    const SUMMARY: &'static str =
        "sets headers of the next call, or of the reply if no call follows; `${…}` contains an expression";

    fn schema() -> Value {
        HeadersNode::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        at.headers(&HeadersNode(node.clone()), reader).map(|headers| Self { headers })
    }
}

impl StepPlan for SetStep {
    fn describe(&self, _: &Plan) -> String {
        self.headers.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ")
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Continues
    }
}
