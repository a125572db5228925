//! `fault`: an error of the route's own.

use crossdock_message::Code;
use crossdock_settings::{FromNode as _, Key, Node, Reader};
use serde_json::Value;

use super::nodes::TemplateNode;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::expression::Template;
use crate::plan::Plan;
use crate::scalars::CodeName;

crossdock_settings::settings! {
    /// `fault`
    struct FaultSettings {
        /// The code of the error.
        code: CodeName,
        /// What went wrong; `${…}` contains an expression.
        message: TemplateNode,
    }
}

/// Ends the route with a fault.
#[derive(Debug)]
pub struct FaultStep {
    /// The code.
    pub code: Code,
    /// The message.
    pub message: Template,
}

impl StepSpec for FaultStep {
    const FORM: &'static str = "fault: { code, message }";
    const SUMMARY: &'static str = "ends the route with an error";

    fn schema() -> Value {
        FaultSettings::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = FaultSettings::from_node(node, reader)?;
        let message = at.template(&settings.message.0, reader)?;
        Some(Self { code: settings.code.0, message })
    }
}

impl StepPlan for FaultStep {
    fn describe(&self, _: &Plan) -> String {
        self.code.to_string()
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Ends
    }
}
