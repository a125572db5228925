//! `send`: one-way messages.

use crossdock_settings::{FromNode as _, Key, Node, Reader};
use serde_json::Value;

use super::nodes::OperationName;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::plan::{CallPlan, Plan};

/// Sends to a service and waits for its confirmation only.
#[derive(Debug)]
pub struct SendStep {
    /// The call.
    pub call: CallPlan,
}

impl StepSpec for SendStep {
    const FORM: &'static str = "send: service.operation";
    const SUMMARY: &'static str =
        "sends to an operation and waits only for its confirmation; a route without calls replies with 202";

    fn schema() -> Value {
        OperationName::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        at.state.answered = true;
        at.state.sent = true;
        at.call_with_body(node, "send", reader).map(|call| Self { call })
    }
}

impl StepPlan for SendStep {
    fn describe(&self, plan: &Plan) -> String {
        self.call.describe(plan)
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Calls(&self.call)
    }
}
