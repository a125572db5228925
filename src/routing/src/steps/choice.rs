//! `choice`: one of several branches.

use crossdock_settings::{FromNode as _, Key, Kind, Node, Reader};
use serde_json::{Value, json};

use super::nodes::{ExpressionNode, StepsNode};
use super::reader::EventState;
use super::types::BodyState;
use super::{Block, Flow, Step, StepPlan, StepReader, StepSpec, end_route};
use crate::expression::Expression;
use crate::plan::Plan;

crossdock_settings::settings! {
    /// a branch of `choice`
    struct BranchSettings {
        /// The condition of the branch.
        when: Option<ExpressionNode>,
        /// The steps of the branch if the condition is true.
        steps: Option<StepsNode>,
        /// The steps of the last branch, which is taken if no condition is true.
        otherwise: Option<StepsNode>,
    }
}

/// Follows the first branch whose condition is met.
#[derive(Debug)]
pub struct ChoiceStep {
    /// The branches, in the order of the file.
    pub branches: Vec<Branch>,
}

/// A branch of a [`ChoiceStep`].
#[derive(Debug)]
pub struct Branch {
    /// The condition; `None` for `otherwise`.
    pub when: Option<Expression>,
    /// The steps.
    pub steps: Vec<Step>,
}

const FORM_OF_BRANCHES: &str = "write `- when: …` and `steps: […]`, and last `- otherwise: […]`";

/// What is known after all branches.
struct Joined {
    called: bool,
    answered: bool,
    sent: bool,
    event: EventState,
    may_reply: bool,
    opaque_reply: bool,
    made: bool,
}

fn is_made(body: &BodyState) -> bool {
    matches!(body, BodyState::Made(_) | BodyState::Value)
}

impl Joined {
    fn before(at: &StepReader<'_>) -> Self {
        Self {
            called: true,
            answered: true,
            sent: true,
            event: EventState::all(true),
            may_reply: at.state.may_reply,
            opaque_reply: at.state.opaque_reply,
            made: is_made(&at.state.body),
        }
    }

    /// Adds a branch. One that ends the route does not lead to the steps after the choice.
    fn add(&mut self, branch: &Branch, inner: &StepReader<'_>) {
        if end_route(&branch.steps) {
            return;
        }
        self.called &= inner.state.called;
        self.answered &= inner.state.answered;
        self.sent &= inner.state.sent;
        self.event.has_source &= inner.state.event.has_source;
        self.event.has_type &= inner.state.event.has_type;
        self.may_reply |= inner.state.may_reply;
        self.opaque_reply |= inner.state.opaque_reply;
        self.made |= is_made(&inner.state.body);
    }

    fn apply(&self, has_otherwise: bool, at: &mut StepReader<'_>) {
        at.state.called |= self.called && has_otherwise;
        at.state.answered |= self.answered && has_otherwise;
        at.state.sent |= self.sent && has_otherwise;
        let before = at.state.event;
        at.state.event = EventState {
            has_source: self.event.has_source && (before.has_source || has_otherwise),
            has_type: self.event.has_type && (before.has_type || has_otherwise),
        };
        at.state.may_reply = self.may_reply;
        at.state.opaque_reply = self.opaque_reply;
        at.state.fields = None;
        at.state.body = if self.made { BodyState::Value } else { BodyState::Unknown };
        at.state.reply = None;
    }
}

impl StepSpec for ChoiceStep {
    const FORM: &'static str = "choice: [ { when, steps }, …, { otherwise } ]";
    const SUMMARY: &'static str = "executes the first branch whose condition is true";

    fn schema() -> Value {
        json!({ "type": "array", "items": BranchSettings::schema(), "minItems": 1 })
    }

    fn read(_: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::List(items) = &node.kind else {
            reader.wrong_kind(node, "a list of branches", FORM_OF_BRANCHES);
            return None;
        };
        if items.is_empty() {
            reader.error("missing-value", node.span, "`choice` needs at least one branch", FORM_OF_BRANCHES);
        }
        let mut branches = Vec::new();
        let mut complete = true;
        let mut joined = Joined::before(at);
        for (index, item) in items.iter().enumerate() {
            let mut inner = at.nested(node, reader)?;
            match read_branch(item, index + 1 == items.len(), &mut inner, reader) {
                Some(branch) => {
                    joined.add(&branch, &inner);
                    branches.push(branch);
                }
                None => complete = false,
            }
        }
        joined.apply(branches.last().is_some_and(|branch| branch.when.is_none()), at);
        complete.then_some(Self { branches })
    }
}

fn read_branch(node: &Node, is_last: bool, inner: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Branch> {
    let settings = BranchSettings::from_node(node, reader)?;
    match (settings.otherwise, settings.when, settings.steps) {
        (Some(steps), None, None) => {
            if !is_last {
                reader.error("choice-order", node.span, "no branch after `otherwise` is ever taken", "put it last");
            }
            Some(Branch { when: None, steps: inner.steps(&steps.0, reader)? })
        }
        (None, Some(when), Some(steps)) => {
            let when = inner.condition(&when.0, reader);
            let steps = inner.steps(&steps.0, reader);
            Some(Branch { when: Some(when?), steps: steps? })
        }
        _ => {
            let help = "write `{ when: …, steps: […] }` or `{ otherwise: […] }`";
            reader.error("choice-branch", node.span, "a branch has either `when` and `steps`, or `otherwise`", help);
            None
        }
    }
}

impl StepPlan for ChoiceStep {
    fn describe(&self, _: &Plan) -> String {
        String::new()
    }

    fn flow(&self) -> Flow<'_> {
        let blocks = self.branches.iter().map(|Branch { when, steps }| {
            let label = when.as_ref().map_or_else(|| "otherwise".to_owned(), |when| format!("when {}", when.source()));
            Block { label: Some(label), steps }
        });
        let is_exhaustive = self.branches.last().is_some_and(|branch| branch.when.is_none());
        Flow::Chooses { blocks: blocks.collect(), is_exhaustive }
    }
}
