//! `tap`: a copy of the message for another service.

use crossdock_settings::{FromNode as _, Key, Node, Reader};
use serde_json::Value;

use super::nodes::{MapNode, OperationName};
use super::types::BodyState;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::map::MapPlan;
use crate::plan::{CallPlan, Plan};

crossdock_settings::settings! {
    /// `tap`
    struct TapSettings {
        /// The operation that the copy is sent to.
        send: OperationName,
        /// The body of the copy; the current body by default.
        with: Option<MapNode>,
    }
}

/// Sends a copy that nobody waits for; failures are only counted.
#[derive(Debug)]
pub struct TapStep {
    /// The call.
    pub call: CallPlan,
    /// The body of the copy; `None` for the current body.
    pub with: Option<MapPlan>,
}

impl StepSpec for TapStep {
    const FORM: &'static str = "tap: { send, with }";
    const SUMMARY: &'static str = "sends a copy to an operation without waiting for it; failures are only counted";

    fn schema() -> Value {
        TapSettings::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = TapSettings::from_node(node, reader)?;
        let body = if settings.with.is_some() { BodyState::Value } else { at.state.body.clone() };
        let call = at.side_call(&settings.send, &body, reader);
        let with = match &settings.with {
            None => None,
            Some(with) => Some(at.side_body(with, call.as_ref(), &settings.send, reader)?),
        };
        Some(Self { call: call?, with })
    }
}

impl StepPlan for TapStep {
    fn describe(&self, plan: &Plan) -> String {
        self.call.describe(plan)
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Copies
    }
}
