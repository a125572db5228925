//! `split`: one message per item of a list.

use crossdock_message::ByteString;
use crossdock_settings::{FromNode as _, Key, Node, Reader, Spanned};
use serde_json::Value;

use super::nodes::{ExpressionNode, StepsNode};
use super::types::BodyState;
use super::{Block, Flow, Step, StepPlan, StepReader, StepSpec};
use crate::expression::Expression;
use crate::plan::Plan;
use crate::scalars::WholeNumber;

crossdock_settings::settings! {
    /// `split`
    struct SplitSettings {
        /// The list, such as `req.lines`.
        each: ExpressionNode,
        /// The name of the item in expressions.
        r#as: Spanned<String>,
        /// Items that are processed concurrently; 1, the default, keeps their order.
        at_once: WholeNumber<1, 64> = WholeNumber(1),
        /// What is done with each item, which is the current message there.
        steps: StepsNode,
    }
}

/// Follows steps with each item of a list as the message.
#[derive(Debug)]
pub struct SplitStep {
    /// The list.
    pub items: Expression,
    /// The name of the item in expressions.
    pub name: ByteString,
    /// Items processed concurrently; with 1, they keep their order.
    pub at_once: usize,
    /// What is done with each item.
    pub steps: Vec<Step>,
}

impl StepSpec for SplitStep {
    const FORM: &'static str = "split: { each, as, steps, at_once }";
    const SUMMARY: &'static str = "executes the steps once per item of a list, with the item as the message: up to 10 000 items, in order, or up to `at_once` concurrently; the id of an item is that of the message followed by its index. After a failure, no further item is started";

    fn schema() -> Value {
        SplitSettings::schema()
    }

    fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        at.refuse_stream("split", key.span, reader);
        let settings = SplitSettings::from_node(node, reader)?;
        let items = at.expression(&settings.each.0, reader);
        let name = at.new_name(&settings.r#as, reader)?;
        let mut inner = at.nested(node, reader)?;
        inner.state.bound.push(name.clone());
        if items.as_ref().is_some_and(|items| !items.is_of_caller()) {
            inner.state.of_services.push(name.clone());
        }
        inner.state.fields = None;
        inner.state.body = BodyState::Value;
        let steps = inner.branch(&settings.steps, reader);
        at.state.answered = true;
        Some(Self { items: items?, name, at_once: settings.at_once.0, steps: steps? })
    }
}

impl StepPlan for SplitStep {
    fn describe(&self, _: &Plan) -> String {
        format!("{} of {}, {} at once", self.name, self.items.source(), self.at_once)
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Branches(vec![Block { label: None, steps: &self.steps }])
    }
}
