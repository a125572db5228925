//! `lock`: steps that only one message in the cluster executes at a time.

use std::time::Duration as StdDuration;

use crossdock_message::ByteString;
use crossdock_ports::EngineRow;
pub use crossdock_ports::LockMode;
use crossdock_settings::{Duration, FromNode as _, Key, Node, Reader, Spanned, choices};
use serde_json::Value;

use super::nodes::{StepsNode, TemplateNode};
use super::{Block, Flow, Step, StepPlan, StepReader, StepSpec};
use crate::expression::Template;
use crate::load::NO_ENGINE_HELP;
use crate::plan::Plan;
use crate::scalars::WholeNumber;

/// Maximum number of locks that are acquired together.
const NAMES_MAX: usize = 16;
/// Maximum time to wait for a lock, and to hold it.
const TIME_MAX: StdDuration = StdDuration::from_secs(86_400);
/// The name of the lock in expressions.
const VARIABLE: ByteString = ByteString::from_static("lock");

choices! {
    /// How a lock is held.
    enum ModeName {
        /// Alone.
        Exclusive = "exclusive",
        /// Together with others that share it.
        Shared = "shared",
    }
}

crossdock_settings::settings! {
    /// `lock`
    struct LockSettings {
        /// The lock, such as `stock/${req.sku}`.
        name: Option<TemplateNode>,
        /// Several locks, which are acquired together.
        names: Vec<TemplateNode>,
        /// How long to wait for it; not beyond the deadline of the message.
        wait: Duration = Duration(StdDuration::from_secs(10)),
        /// How long it may be held; by default, for as long as the steps take.
        lease: Option<Spanned<Duration>>,
        /// `exclusive`, the default, or `shared`.
        mode: Option<ModeName>,
        /// How many may hold it, instead of one.
        permits: Option<WholeNumber<1, 100_000>>,
        /// What is done while it is held. `lock.token` is its fencing token there.
        steps: StepsNode,
    }
}

/// Follows steps while locks of the cluster are held.
#[derive(Debug)]
pub struct LockStep {
    /// The locks: at least one.
    pub names: Vec<Template>,
    /// How long to wait for them.
    pub wait: StdDuration,
    /// How long they may be held.
    pub lease: Option<StdDuration>,
    /// How they are held.
    pub mode: LockMode,
    /// What is done while they are held.
    pub steps: Vec<Step>,
}

impl StepSpec for LockStep {
    const FORM: &'static str = "lock: { name, wait, lease, mode, permits, steps }";
    const SUMMARY: &'static str = "executes the steps while the lock `name` is held, which all instances of the cluster share: at most one message at a time, several in the `mode: shared`, or as many as `permits`. Up to 16 locks can be acquired together (`names`). `wait` is 10 s by default. Calls carry the fencing token in the header `crossdock-fence`, and `lock.token` has it in expressions: a service that rejects a lower one than it has seen is safe even if the gateway pauses. A lost lock ends the steps";

    fn schema() -> Value {
        LockSettings::schema()
    }

    fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = LockSettings::from_node(node, reader)?;
        if at.locks.is_none() {
            reader.error("no-cluster", key.span, "`lock` needs a cluster", NO_ENGINE_HELP);
        }
        if at.state.bound.contains(&VARIABLE) {
            let help = "acquire all locks with one step: `names: [a, b]`";
            reader.error("nested-lock", key.span, "a lock within a lock can wait for itself", help);
            return None;
        }
        let written = settings.name.as_ref().into_iter().chain(&settings.names).collect::<Vec<_>>();
        if settings.wait.0 > TIME_MAX {
            let span = node.get("wait").map_or(node.span, |node| node.span);
            reader.error("lock-wait", span, "`wait` must be at most 24h", "write for example `wait: 5s`");
        }
        if settings.name.is_some() && !settings.names.is_empty() {
            reader.error("lock-name", node.span, "`name` and `names` exclude each other", "remove one of them");
        }
        if written.is_empty() || written.len() > NAMES_MAX {
            let message = format!("`lock` needs a `name`, or up to {NAMES_MAX} `names`");
            reader.error("missing-key", node.span, message, "write `name: \"stock/${req.sku}\"`");
        }
        let names: Vec<_> = written.iter().map(|TemplateNode(name)| at.template(name, reader)).collect();
        if let Some(lease) = &settings.lease
            && !(StdDuration::from_millis(1)..=TIME_MAX).contains(&lease.value.0)
        {
            reader.error("lease", lease.span, "`lease` must be between 1ms and 24h", "write for example `lease: 30s`");
        }
        let mode = match (settings.mode, settings.permits) {
            (None | Some(ModeName::Exclusive), None) => LockMode::Exclusive,
            (Some(ModeName::Shared), None) => LockMode::Shared,
            (None, Some(WholeNumber(of))) => LockMode::Permit(u32::try_from(of).unwrap_or(u32::MAX)),
            (Some(_), Some(_)) => {
                reader.error("lock-mode", node.span, "`permits` and `mode` exclude each other", "remove one of them");
                return None;
            }
        };
        if let Some(row) = at.locks {
            check_mode(mode, row, node, reader);
        }
        let mut inner = at.nested(node, reader)?;
        inner.state.bound.push(VARIABLE);
        inner.state.of_services.push(VARIABLE);
        let steps = inner.steps(&settings.steps.0, reader);
        if inner.state.streaming && !at.state.streaming {
            let help = "call the service after the lock";
            reader.error("stream", node.span, "a stream outlives the lock under which it begins", help);
        }
        if steps.as_ref().is_some_and(Vec::is_empty) {
            let help = "write `- call: service.operation`";
            reader.error("missing-value", settings.steps.0.span, "`lock` needs at least one step", help);
        }
        // Names that the steps bind end with them.
        let (bound, of_services) = (at.state.bound.clone(), at.state.of_services.clone());
        at.state = super::reader::State { bound, of_services, ..inner.state };
        let names = names.into_iter().collect::<Option<Vec<_>>>()?;
        let (wait, lease) = (settings.wait.0, settings.lease.map(|lease| lease.value.0));
        Some(Self { names, wait, lease, mode, steps: steps? })
    }
}

/// Reports a mode that the engine does not offer.
fn check_mode(mode: LockMode, row: EngineRow, node: &Node, reader: &mut Reader<'_>) {
    let (key, what) = match mode {
        LockMode::Shared if !row.shared => ("mode", "`mode: shared`"),
        LockMode::Permit(_) if !row.permits => ("permits", "`permits`"),
        _ => return,
    };
    let span = node.get(key).map_or(node.span, |node| node.span);
    let message = format!("the engine `{}` does not offer {what}", row.name);
    reader.error("engine", span, message, "remove it, or use the engine embedded (`cluster: {}`), zookeeper or etcd");
}

impl StepPlan for LockStep {
    fn describe(&self, _: &Plan) -> String {
        let names = self.names.iter().map(Template::source).collect::<Vec<_>>().join(", ");
        let mode = match self.mode {
            LockMode::Exclusive => String::new(),
            LockMode::Shared => ", shared".to_owned(),
            LockMode::Permit(of) => format!(", {of} at once"),
        };
        let lease = self.lease.map(|lease| format!(", held for up to {lease:?}")).unwrap_or_default();
        format!("{names}{mode}, waiting up to {:?}{lease}", self.wait)
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Chooses { blocks: vec![Block { label: None, steps: &self.steps }], is_exhaustive: true }
    }
}
