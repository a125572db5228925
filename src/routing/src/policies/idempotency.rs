//! `idempotency`: messages of one key are processed once.

use std::time::Duration as StdDuration;

use crossdock_settings::{Duration, Reader, settings};

use super::{Policy, PolicyContext, Scope};
use crate::expression::Expression;
use crate::steps::ExpressionNode;

settings! {
    /// an idempotency
    pub(crate) struct IdempotencySettings {
        /// The key: messages with the same key are the same message, which is processed once.
        pub(crate) key: ExpressionNode,
        /// How long a key is remembered after its message was processed; on a route that answers once a queue of the cluster has a message,
        /// after it was accepted, whatever becomes of it.
        pub(crate) window: Duration = Duration(StdDuration::from_secs(600)),
        /// The number of keys that are remembered; beyond it, the oldest is forgotten. Keys of a queue of the cluster are limited by its size.
        pub(crate) max: usize = 100_000,
        /// Where a key is remembered.
        pub(crate) scope: Scope = Scope::Instance,
    }
}

const KEYS_MAX: usize = 10_000_000;
/// The longest window of a queue of the cluster.
const WINDOW_MAX: StdDuration = StdDuration::from_secs(30 * 86_400);

/// Where keys are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMemory {
    /// In this instance.
    Instance,
    /// With the messages of the route's queue, by all instances.
    Queue,
    /// With the answers of the messages, by all instances.
    Cluster,
}

/// How duplicates of a message are recognized.
#[derive(Debug)]
pub struct IdempotencyPolicy {
    /// The key.
    pub key: Expression,
    /// How long a key is remembered after its message was processed, or accepted by the queue of the route.
    pub window: StdDuration,
    /// The number of keys that are remembered.
    pub keys_max: usize,
    /// Where they are remembered.
    pub memory: KeyMemory,
}

impl Policy for IdempotencyPolicy {
    type Settings = IdempotencySettings;
    type Plan = Option<Self>;

    const KEY: &'static str = "idempotency";
    const SUMMARY: &'static str = "Messages with the same key are processed once; duplicates get the same answer.";

    fn check(
        settings: Option<IdempotencySettings>,
        route: &PolicyContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Option<Self>> {
        let Some(IdempotencySettings { key, window, max, scope }) = settings else { return Some(None) };
        let span = route.span(Self::KEY);
        let memory = match scope {
            Scope::Instance => KeyMemory::Instance,
            Scope::Cluster if route.accepts_in_cluster() => KeyMemory::Queue,
            Scope::Cluster => KeyMemory::Cluster,
        };
        if memory == KeyMemory::Cluster {
            route.require_cluster(Self::KEY, reader);
        }
        if memory != KeyMemory::Instance && window.0 > WINDOW_MAX {
            reader.error("window", span, "`window` can be at most 30 days", "write for example `window: 24h`");
        }
        if route.is_streaming() {
            let message = "`idempotency` cannot be combined with a stream";
            reader.error("stream", span, message, "remove `idempotency`");
        }
        if window.0.is_zero() {
            reader.error("window", span, "`window` must be greater than zero", "write for example `window: 10m`");
        }
        if !(1..=KEYS_MAX).contains(&max) {
            reader.error("window", span, format!("`max` must be between 1 and {KEYS_MAX}"), "");
        }
        let key = route.expression(&key.0, reader)?;
        Some(Some(Self { key, window: window.0, keys_max: max, memory }))
    }

    fn describe(plan: &Option<Self>) -> Option<String> {
        let plan = plan.as_ref()?;
        let (key, window, max) = (plan.key.source(), plan.window, plan.keys_max);
        Some(match plan.memory {
            KeyMemory::Instance => format!("by {key}, remembered for {window:?} or {max} keys, in this instance"),
            KeyMemory::Queue => format!("by {key}, remembered for {window:?}, over all instances of the cluster"),
            KeyMemory::Cluster => {
                format!("by {key}, remembered for {window:?} or {max} keys, over all instances of the cluster")
            }
        })
    }
}
