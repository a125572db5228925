//! `call`: request and reply.

use crossdock_settings::{FromNode as _, Key, Node, Reader};
use serde_json::Value;

use super::nodes::OperationName;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::plan::{CallPlan, Plan};

/// Calls a service; its reply becomes the current message.
#[derive(Debug)]
pub struct CallStep {
    /// The call.
    pub call: CallPlan,
}

impl StepSpec for CallStep {
    const FORM: &'static str = "call: service.operation";
    const SUMMARY: &'static str = "calls an operation; the following steps process its reply";

    fn schema() -> Value {
        OperationName::schema()
    }

    fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        at.refuse_in_stream("call", key.span, reader);
        let call = at.call_with_body(node, "call", reader);
        at.state.called = true;
        at.state.may_reply = true;
        at.state.answered = true;
        at.state.fields = None;
        at.replied(call.as_ref());
        call.map(|call| Self { call })
    }
}

impl StepPlan for CallStep {
    fn describe(&self, plan: &Plan) -> String {
        self.call.describe(plan)
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Calls(&self.call)
    }
}
