//! `respond`: an answer of the route's own.

use crossdock_message::ByteString;
use crossdock_settings::{FromNode as _, Key, Node, Reader, Spanned};
use serde_json::Value;

use super::nodes::{AnswerBodyNode, HeadersNode};
use super::types::{BodyState, Made, check_body};
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::expression::Template;
use crate::map::MapPlan;
use crate::plan::Plan;

crossdock_settings::settings! {
    /// `respond`
    struct RespondSettings {
        /// The status, from 200 to 299; that of the last reply, or 200, by default.
        status: Option<Spanned<u16>>,
        /// Headers of the answer.
        headers: Option<HeadersNode>,
        /// The body: a map, or `none`; the current body by default.
        body: Option<AnswerBodyNode>,
    }
}

/// Ends the route with an answer.
#[derive(Debug)]
pub struct RespondStep {
    /// The status, 200 to 299.
    pub status: Option<u16>,
    /// Headers of the answer.
    pub headers: Vec<(ByteString, Template)>,
    /// The body.
    pub body: RespondBody,
}

/// The body of a [`RespondStep`].
#[derive(Debug)]
pub enum RespondBody {
    /// The current body.
    Current,
    /// No body.
    Empty,
    /// A new one.
    Map(MapPlan),
}

impl StepSpec for RespondStep {
    const FORM: &'static str = "respond: { status, headers, body }";
    const SUMMARY: &'static str =
        "ends the route with a reply; `body` is a map or `none`, and the current body by default";

    fn schema() -> Value {
        RespondSettings::schema()
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if at.in_branch {
            let help = "put it after the `multicast` or `split`";
            let message = "a branch of `multicast` or `split` cannot answer the caller";
            reader.error("respond", node.span, message, help);
            return None;
        }
        let settings = RespondSettings::from_node(node, reader)?;
        let headers = settings.headers.map_or(Some(Vec::new()), |headers| at.headers(&headers, reader));
        at.refuse_in_stream("respond", node.span, reader);
        let body = read_body(settings.body.as_ref(), node, at, reader);
        if let Some(status) = settings.status.as_ref().filter(|status| !(200..=299).contains(&status.value)) {
            let help = "use the step `fault` for an error";
            reader.error("status", status.span, "`status` must be between 200 and 299", help);
            return None;
        }
        Some(Self { status: settings.status.map(|status| status.value), headers: headers?, body: body? })
    }
}

fn read_body(
    body: Option<&AnswerBodyNode>,
    step: &Node,
    at: &StepReader<'_>,
    reader: &mut Reader<'_>,
) -> Option<RespondBody> {
    let Some(AnswerBodyNode(node)) = body else {
        at.check_opaque_answer(&at.state.body, step.span, reader);
        return Some(RespondBody::Current);
    };
    if node.is_null() || node.text() == Some("none") {
        return Some(RespondBody::Empty);
    }
    let map = at.map(node, reader)?;
    let made = BodyState::Made(Made { map: map.clone(), node: node.clone(), types: at.types() });
    at.check_opaque_answer(&made, node.span, reader);
    if let Some(call) = at.call.filter(|call| !call.server_streaming) {
        check_body(&made, &call.reply, "the answer", node.span, reader);
    }
    Some(RespondBody::Map(map))
}

impl StepPlan for RespondStep {
    fn describe(&self, _: &Plan) -> String {
        format!("status {}", self.status.unwrap_or(200))
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Ends
    }
}
