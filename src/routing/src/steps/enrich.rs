//! `enrich`: data from another service for the expressions of later steps.

use crossdock_message::ByteString;
use crossdock_settings::{FromNode as _, Key, Node, Reader, Spanned};
use serde_json::Value;

use super::nodes::{MapNode, OperationName};
use super::types::BodyState;
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::map::MapPlan;
use crate::plan::{CallPlan, Plan};

crossdock_settings::settings! {
    /// `enrich`
    struct EnrichSettings {
        /// The operation that is called.
        call: OperationName,
        /// The body of the call; an empty record by default.
        with: Option<MapNode>,
        /// The name of the reply's body in expressions.
        r#as: Spanned<String>,
    }
}

/// Calls a service and binds the body of its reply to a name; the current message stays the same.
#[derive(Debug)]
pub struct EnrichStep {
    /// The call.
    pub call: CallPlan,
    /// The body of the call.
    pub with: MapPlan,
    /// The name.
    pub name: ByteString,
}

impl StepSpec for EnrichStep {
    const FORM: &'static str = "enrich: { call, with, as }";
    const SUMMARY: &'static str = "calls an operation and makes the body of its reply available to expressions by a name; the message is unchanged";

    fn schema() -> Value {
        EnrichSettings::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EnrichSettings::from_node(node, reader)?;
        let call = at.side_call(&settings.call, &BodyState::Value, reader);
        let with = match &settings.with {
            None => Some(MapPlan::Fields(Vec::new())),
            Some(with) => at.side_body(with, call.as_ref(), &settings.call, reader),
        };
        // Bound even if the call has an error, which would otherwise cause others in later steps.
        let name = at.new_name(&settings.r#as, reader)?;
        at.state.bound.push(name.clone());
        at.state.of_services.push(name.clone());
        Some(Self { call: call?, with: with?, name })
    }
}

impl StepPlan for EnrichStep {
    fn describe(&self, plan: &Plan) -> String {
        format!("{} from {}", self.name, self.call.describe(plan))
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Calls(&self.call)
    }
}
