//! Steps of routes: one file per step.
//!
//! Each file declares how its step is written, what the reference says about it, how it is read and checked, and the plan that it
//! becomes; `gateway/src/data/steps/NAME.rs` executes that plan. The list below is the only one: the reader, the JSON Schema, the
//! reference and `crossdock explain` are derived from it.

mod bodies;
mod call;
mod choice;
mod enrich;
mod event;
mod fault;
mod filter;
mod lock;
mod map;
mod multicast;
mod nodes;
mod reader;
mod require;
mod respond;
mod send;
mod set;
mod split;
mod tap;
mod types;

use crossdock_settings::{Key, Node, Reader, described, nearest};
use serde_json::{Map, Value, json};

use crate::plan::{CallPlan, Plan};

pub use call::CallStep;
pub use choice::{Branch, ChoiceStep};
pub use enrich::EnrichStep;
pub use event::EventStep;
pub use fault::FaultStep;
pub use filter::FilterStep;
pub use lock::{LockMode, LockStep};
pub use map::MapStep;
pub use multicast::MulticastStep;
pub use require::RequireStep;
pub use respond::{RespondBody, RespondStep};
pub use send::SendStep;
pub use set::SetStep;
pub use split::SplitStep;
pub use tap::TapStep;

pub(crate) use map::map_schema;
pub(crate) use nodes::{ExpressionNode, TemplateNode};
pub(crate) use reader::{StepReader, template_of_request};

/// A step as it is written in a route file.
trait StepSpec: StepPlan + Sized {
    /// How it is written, for the reference.
    const FORM: &'static str;
    /// What it does: one row of the reference, and the description that editors show.
    const SUMMARY: &'static str;

    /// The JSON Schema of what follows the step's name.
    fn schema() -> Value;

    /// Reads and checks what follows the step's name, and updates what is known after it. `None` if an error was reported.
    fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self>;
}

/// A step as checked.
trait StepPlan {
    /// What it does, on one line after its name.
    fn describe(&self, plan: &Plan) -> String;

    /// How messages continue after it.
    fn flow(&self) -> Flow<'_>;
}

/// How messages continue after a step: what checks of delivery and reachability need to know about it.
#[derive(Debug)]
pub enum Flow<'s> {
    /// The next step follows.
    Continues,
    /// The outcome of the message depends on this call; then the next step follows.
    Calls(&'s CallPlan),
    /// A copy is sent that no outcome depends on; the next step follows at once.
    Copies,
    /// One of these blocks is followed, or none unless the choice is exhaustive; then the next step.
    Chooses {
        /// The blocks.
        blocks: Vec<Block<'s>>,
        /// One of the blocks is always followed.
        is_exhaustive: bool,
    },
    /// All blocks are followed, none of which answers the caller; then the next step.
    Branches(Vec<Block<'s>>),
    /// The route ends.
    Ends,
}

/// Steps nested in a step.
#[derive(Debug)]
pub struct Block<'s> {
    /// What distinguishes it from the other blocks of its step, for people.
    pub label: Option<String>,
    /// Its steps.
    pub steps: &'s [Step],
}

macro_rules! steps {
    ($($name:literal => $variant:ident($step:ty),)*) => {
        /// One step of a route.
        #[derive(Debug)]
        pub enum Step {
            $(
                #[doc = concat!("`", $name, "`; see [`Step::REFERENCE`].")]
                $variant($step),
            )*
        }

        /// The names of all steps, in the order of the reference.
        pub(crate) const STEP_NAMES: &[&str] = &[$($name),*];

        impl Step {
            /// The reference of steps: how each is written, and what it does.
            pub const REFERENCE: &'static [(&'static str, &'static str)] =
                &[$((<$step as StepSpec>::FORM, <$step as StepSpec>::SUMMARY)),*];

            /// Its name in route files.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            fn plan(&self) -> &dyn StepPlan {
                match self {
                    $(Self::$variant(step) => step,)*
                }
            }

            fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                match key.name.as_str() {
                    $($name => <$step as StepSpec>::read(key, node, at, reader).map(Self::$variant),)*
                    other => {
                        report_unknown(other, key, reader);
                        None
                    }
                }
            }
        }

        fn schemas() -> Map<String, Value> {
            let mut schemas = Map::new();
            $(schemas.insert($name.to_owned(), described(<$step as StepSpec>::schema(), <$step as StepSpec>::SUMMARY));)*
            schemas
        }
    };
}

steps! {
    "map" => Map(MapStep),
    "set" => Set(SetStep),
    "event" => Event(EventStep),
    "require" => Require(RequireStep),
    "call" => Call(CallStep),
    "send" => Send(SendStep),
    "filter" => Filter(FilterStep),
    "multicast" => Multicast(MulticastStep),
    "split" => Split(SplitStep),
    "choice" => Choice(ChoiceStep),
    "enrich" => Enrich(EnrichStep),
    "lock" => Lock(LockStep),
    "tap" => Tap(TapStep),
    "respond" => Respond(RespondStep),
    "fault" => Fault(FaultStep),
}

impl Step {
    /// What it does, on one line after its name.
    #[must_use]
    pub fn describe(&self, plan: &Plan) -> String {
        self.plan().describe(plan)
    }

    /// How messages continue after it.
    #[must_use]
    pub fn flow(&self) -> Flow<'_> {
        self.plan().flow()
    }

    /// Whether no message continues after it.
    fn ends_route(&self) -> bool {
        match self.flow() {
            Flow::Ends => true,
            Flow::Chooses { blocks, is_exhaustive } => {
                is_exhaustive && blocks.iter().all(|block| end_route(block.steps))
            }
            Flow::Continues | Flow::Calls(_) | Flow::Copies | Flow::Branches(_) => false,
        }
    }

    /// The calls of these steps, nested ones included, that the outcome of a message depends on.
    #[must_use]
    pub fn calls(steps: &[Self]) -> Vec<&CallPlan> {
        let mut found = Vec::new();
        let mut open = vec![steps];
        while let Some(steps) = open.pop() {
            for step in steps {
                match step.flow() {
                    Flow::Calls(call) => found.push(call),
                    Flow::Chooses { blocks, .. } | Flow::Branches(blocks) => {
                        open.extend(blocks.into_iter().map(|block| block.steps));
                    }
                    Flow::Continues | Flow::Copies | Flow::Ends => {}
                }
            }
        }
        found
    }

    /// Whether a message that follows these steps may be sent more than once.
    #[must_use]
    pub fn fan_out(steps: &[Self]) -> bool {
        Self::calls(steps).len() > 1 || Self::has_branches(steps)
    }

    /// Whether some of these steps, nested ones included, are followed concurrently, or once for each part.
    fn has_branches(steps: &[Self]) -> bool {
        steps.iter().any(|step| match step.flow() {
            Flow::Branches(_) => true,
            Flow::Chooses { blocks, .. } => blocks.iter().any(|block| Self::has_branches(block.steps)),
            Flow::Continues | Flow::Calls(_) | Flow::Copies | Flow::Ends => false,
        })
    }

    /// The services that these steps call and wait for, each once, by position in the plan.
    #[must_use]
    pub fn services(steps: &[Self]) -> Vec<usize> {
        let mut services: Vec<usize> = Self::calls(steps).into_iter().map(|call| call.service).collect();
        services.sort_unstable();
        services.dedup();
        services
    }
}

/// Whether no message gets past these steps.
fn end_route(steps: &[Step]) -> bool {
    steps.last().is_some_and(Step::ends_route)
}

fn report_unknown(name: &str, key: &Key, reader: &mut Reader<'_>) {
    let help = match nearest(name, STEP_NAMES.iter().copied()) {
        Some(meant) => format!("write `{meant}`"),
        None => format!("steps are {}", STEP_NAMES.join(", ")),
    };
    reader.error("unknown-step", key.span, format!("there is no step `{name}`"), help);
}

/// The JSON Schema of a list of steps.
pub(crate) fn steps_schema() -> Value {
    json!({ "type": "array", "items": {
        "type": "object", "properties": schemas(), "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_step_in_the_order_of_the_reference() {
        let rows = Step::REFERENCE.iter().map(|(form, summary)| format!("| `{form}` | {summary} |\n"));
        let table = format!("| step | does |\n| --- | --- |\n{}\n", rows.collect::<String>());
        let readme = include_str!("../README.md");
        assert!(readme.contains(&table), "README.md must contain this table:\n{table}");
    }

    #[test]
    fn a_split_under_a_lock_fans_out() {
        let names = crate::expression::Names::default();
        let items = crate::expression::Expression::compile("[1, 2]", &names).expect("an expression");
        let split = SplitStep { items, name: "item".into(), at_once: 1, steps: Vec::new() };
        let mode = LockMode::Exclusive;
        let wait = std::time::Duration::ZERO;
        let lock = LockStep { names: Vec::new(), wait, lease: None, mode, steps: vec![Step::Split(split)] };
        assert!(Step::fan_out(&[Step::Lock(lock)]), "an attempt after a failure must recognize what was sent");
    }
}
