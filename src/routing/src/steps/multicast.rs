//! `multicast`: several branches at the same time, each with the message as it is.

use crossdock_settings::{FromNode as _, Key, Kind, Node, Reader};
use serde_json::{Value, json};

use super::nodes::StepsNode;
use super::{Block, Flow, Step, StepPlan, StepReader, StepSpec};
use crate::plan::Plan;

/// Branches of one step.
const BRANCHES_MAX: usize = 16;

/// Follows all branches concurrently, to the end of each.
#[derive(Debug)]
pub struct MulticastStep {
    /// The steps of each branch.
    pub branches: Vec<Vec<Step>>,
}

impl StepSpec for MulticastStep {
    const FORM: &'static str = "multicast: [ [steps], … ]";
    const SUMMARY: &'static str = "executes all branches concurrently, each with its own copy of the message, and waits for all of them; fails with the error of the first failed branch";

    fn schema() -> Value {
        json!({ "type": "array", "items": StepsNode::schema(), "minItems": 1, "maxItems": BRANCHES_MAX })
    }

    fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        at.refuse_stream("multicast", key.span, reader);
        let help = "write a list of branches, each a list of steps: `- [ { send: service.operation } ]`";
        let Kind::List(items) = &node.kind else {
            reader.wrong_kind(node, "a list of branches", help);
            return None;
        };
        if items.is_empty() || items.len() > BRANCHES_MAX {
            let message = format!("the number of branches must be between 1 and {BRANCHES_MAX}");
            reader.error("branches", node.span, message, help);
            return None;
        }
        let branches = items.iter().map(|item| at.nested(item, reader)?.branch(&StepsNode(item.clone()), reader));
        // All branches are read before the first failure counts, so that all errors are reported.
        let branches: Vec<Option<_>> = branches.collect();
        at.state.answered = true;
        branches.into_iter().collect::<Option<_>>().map(|branches| Self { branches })
    }
}

impl StepPlan for MulticastStep {
    fn describe(&self, _: &Plan) -> String {
        String::new()
    }

    fn flow(&self) -> Flow<'_> {
        let block = |steps| Block { label: Some("branch".to_owned()), steps };
        Flow::Branches(self.branches.iter().map(|steps| block(&**steps)).collect())
    }
}
