//! Steps with steps inside: `choice`, and `multicast` and `split`, which do not lead to what stands behind them; and `filter`, which
//! leads to nothing at all.

use crossdock_settings::{Key, Kind, Node, Reader, Spanned};

use super::steps::{DEPTH_MAX, StepReader, ends};
use super::types::BodyState;
use crate::plan::{Branch, Step};

/// Branches of one `multicast`.
const BRANCHES_MAX: usize = 16;
/// Items of one `split` at once.
const AT_ONCE_MAX: usize = 64;

impl<'l> StepReader<'l> {
    pub(super) fn choice(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        let Kind::List(items) = &node.kind else {
            reader.wrong_kind(
                node,
                "a list of branches",
                "write `- when: …` and `steps: […]`, and last `- otherwise: […]`",
            );
            return None;
        };
        if self.depth == DEPTH_MAX {
            reader.error("too-deep", node.span, "choices stand too deep inside one another", "make two routes of it");
            return None;
        }
        let mut branches = Vec::new();
        let mut complete = true;
        let (mut called, mut answered, mut sent) = (true, true, true);
        let is_made = |body: &BodyState| matches!(body, BodyState::Made(_) | BodyState::Value);
        let (mut may_reply, mut opaque_reply) = (self.state.may_reply, self.state.opaque_reply);
        let mut made = is_made(&self.state.body);
        for (index, item) in items.iter().enumerate() {
            let mut inner = StepReader { state: self.state.clone(), depth: self.depth + 1, ..*self };
            match self.branch(item, index + 1 == items.len(), &mut inner, reader) {
                Some(branch) => {
                    // A branch that ends the route does not lead to what stands behind the choice.
                    let ends = ends(&branch.steps);
                    called &= inner.state.called || ends;
                    answered &= inner.state.answered || ends;
                    sent &= inner.state.sent || ends;
                    if !ends {
                        may_reply |= inner.state.may_reply;
                        opaque_reply |= inner.state.opaque_reply;
                        made |= is_made(&inner.state.body);
                    }
                    branches.push(branch);
                }
                None => complete = false,
            }
        }
        let decided = branches.last().is_some_and(|branch| branch.when.is_none());
        if branches.is_empty() && complete {
            reader.error(
                "missing-value",
                node.span,
                "a choice has at least one branch",
                "write `- when: …` and `steps: […]`",
            );
        }
        self.state.called |= called && decided;
        self.state.answered |= answered && decided;
        self.state.sent |= sent && decided;
        (self.state.may_reply, self.state.opaque_reply) = (may_reply, opaque_reply);
        self.state.fields = None;
        self.state.body = if made { BodyState::Value } else { BodyState::Unknown };
        self.state.reply = None;
        complete.then_some(Step::Choice(branches))
    }

    fn branch(&self, node: &Node, last: bool, inner: &mut StepReader<'l>, reader: &mut Reader<'_>) -> Option<Branch> {
        let mut fields = reader.fields(node, "a branch of `choice`")?;
        let otherwise = fields.take("otherwise");
        let when = fields.take("when");
        let steps = fields.take("steps");
        fields.finish(reader);
        match (otherwise, when, steps) {
            (Some(steps), None, None) => {
                if !last {
                    reader.error("choice-order", node.span, "nothing is chosen behind `otherwise`", "put it last");
                }
                Some(Branch { when: None, steps: inner.steps(steps, reader)? })
            }
            (None, Some(when), Some(steps)) => {
                let when = self.condition(when, reader);
                let steps = inner.steps(steps, reader);
                Some(Branch { when: Some(when?), steps: steps? })
            }
            _ => {
                let help = "write `{ when: …, steps: […] }` or `{ otherwise: […] }`";
                reader.error("choice-branch", node.span, "a branch has `when` and `steps`, or `otherwise`", help);
                None
            }
        }
    }

    pub(super) fn filter(&self, key: &Key, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        self.refuse_in_stream("filter", key.span, reader);
        self.condition(node, reader).map(Step::Filter)
    }

    /// What is sent more than once has to be there more than once.
    fn refuse_stream(&self, key: &Key, reader: &mut Reader<'_>) {
        if matches!(self.state.body, BodyState::Stream(_)) {
            let message = format!("`{}` cannot work on a stream: it is there only once", key.name);
            reader.error("stream", key.span, message, "hand it on by one `call`");
        }
    }

    /// The steps of a branch, which has what there is here and gives nothing back.
    fn branch_steps(&self, inner: &mut StepReader<'l>, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<Step>> {
        if self.depth == DEPTH_MAX {
            reader.error("too-deep", node.span, "steps stand too deep inside one another", "make two routes of it");
            return None;
        }
        inner.depth = self.depth + 1;
        inner.in_branch = true;
        let steps = inner.steps(node, reader)?;
        if steps.is_empty() {
            reader.error(
                "missing-value",
                node.span,
                "a branch does at least one thing",
                "write `- send: service.operation`",
            );
            return None;
        }
        Some(steps)
    }

    pub(super) fn multicast(&mut self, key: &Key, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        self.refuse_stream(key, reader);
        let help = "write a list of branches, each a list of steps: `- [ { send: a.place } ]`";
        let Kind::List(items) = &node.kind else {
            reader.wrong_kind(node, "a list of branches", help);
            return None;
        };
        if items.is_empty() || items.len() > BRANCHES_MAX {
            reader.error("branches", node.span, format!("`multicast` has 1 to {BRANCHES_MAX} branches"), help);
            return None;
        }
        let branches = items.iter().map(|item| {
            let mut inner = StepReader { state: self.state.clone(), ..*self };
            self.branch_steps(&mut inner, item, reader)
        });
        let branches: Vec<Option<_>> = branches.collect();
        self.state.answered = true;
        Some(Step::Multicast(branches.into_iter().collect::<Option<_>>()?))
    }

    pub(super) fn split(&mut self, key: &Key, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        self.refuse_stream(key, reader);
        let mut fields = reader.fields(node, "`split`")?;
        let help = "write `split: { each: req.lines, as: line, steps: [ { send: orders.line } ] }`";
        let items = Self::needed("each", &mut fields, "`split` needs `each`", help, reader);
        let name: Option<Spanned<String>> = fields.read("as", reader);
        let at_once: Option<Option<Spanned<usize>>> = fields.read("at_once", reader);
        let steps = Self::needed("steps", &mut fields, "`split` needs `steps`", help, reader);
        fields.finish(reader);
        let items = items.and_then(|items| self.expression(items, reader));
        let name = self.new_name(&name?, reader)?;
        let at_once = at_once?.map_or(Some(1), |wanted| {
            let good = (1..=AT_ONCE_MAX).contains(&wanted.value);
            if !good {
                let message = format!("{} items at once cannot be", wanted.value);
                reader.error("at-once", wanted.span, message, format!("write 1 to {AT_ONCE_MAX}"));
            }
            good.then_some(wanted.value)
        });
        let mut state = self.state.clone();
        state.bound.push(name.clone());
        if items.as_ref().is_some_and(|items| !items.is_of_caller()) {
            state.of_services.push(name.clone());
        }
        // Each item is the message that the steps begin with.
        state.fields = None;
        state.body = BodyState::Value;
        let mut inner = StepReader { state, ..*self };
        let steps = self.branch_steps(&mut inner, steps?, reader);
        self.state.answered = true;
        Some(Step::Split { items: items?, name, at_once: at_once?, steps: steps? })
    }
}
