//! Steps with steps inside that do not lead to what stands behind them: `multicast` and `split`; and `filter`, which leads to
//! nothing at all.

use crossdock_settings::{Key, Kind, Node, Reader, Spanned};

use super::steps::{DEPTH_MAX, StepReader};
use super::types::BodyState;
use crate::plan::Step;

/// Branches of one `multicast`.
const BRANCHES_MAX: usize = 16;
/// Items of one `split` at once.
const AT_ONCE_MAX: usize = 64;

impl<'l> StepReader<'l> {
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
        state.body = BodyState::Unknown;
        let mut inner = StepReader { state, ..*self };
        let steps = self.branch_steps(&mut inner, steps?, reader);
        self.state.answered = true;
        Some(Step::Split { items: items?, name, at_once: at_once?, steps: steps? })
    }
}
