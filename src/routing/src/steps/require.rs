//! `require`: a condition that the message must meet.

use crossdock_message::Code;
use crossdock_settings::{FromNode as _, Key, Node, Reader};
use serde_json::Value;

use super::nodes::{ExpressionNode, TemplateNode};
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::expression::{Expression, Template};
use crate::plan::Plan;
use crate::scalars::CodeName;

crossdock_settings::settings! {
    /// `require`
    struct RequireSettings {
        /// The condition, such as `req.amount > 0`.
        that: ExpressionNode,
        /// The code of the error if it is not met; `invalid_argument` by default.
        code: CodeName = CodeName(Code::InvalidArgument),
        /// What the caller did wrong; `${…}` contains an expression.
        message: TemplateNode,
    }
}

/// Fails unless a condition is met.
#[derive(Debug)]
pub struct RequireStep {
    /// The condition.
    pub that: Expression,
    /// The code of the fault.
    pub code: Code,
    /// The message of the fault.
    pub message: Template,
}

impl StepSpec for RequireStep {
    const FORM: &'static str = "require: { that, code, message }";
    const SUMMARY: &'static str = "fails with the code (`invalid_argument` by default) unless the condition is true";

    fn schema() -> Value {
        RequireSettings::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = RequireSettings::from_node(node, reader)?;
        let that = at.condition(&settings.that.0, reader);
        let message = at.template(&settings.message.0, reader);
        Some(Self { that: that?, code: settings.code.0, message: message? })
    }
}

impl StepPlan for RequireStep {
    fn describe(&self, _: &Plan) -> String {
        format!("{}, else {}", self.that.source(), self.code)
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Continues
    }
}
