//! `order`: messages of one key are processed one after another.

use std::time::Duration as StdDuration;

use crossdock_ports::Delivery;
use crossdock_settings::{Duration, Reader, choices, settings};

use super::{Policy, PolicyContext, Scope};
use crate::expression::Expression;
use crate::steps::ExpressionNode;

choices! {
    /// When a message is answered that is processed in order over all instances.
    pub(crate) enum OrderAnswer {
        /// Once a majority of the cluster has it: nothing is lost from then on.
        Accepted = "accepted",
        /// Once it was processed, with its outcome.
        Delivered = "delivered",
    }
}

settings! {
    /// an order
    pub(crate) struct OrderSettings {
        /// The key: messages with the same key are processed one after another, in the order in which they arrive.
        pub(crate) by: ExpressionNode,
        /// Where the order holds.
        pub(crate) scope: Scope = Scope::Instance,
        /// When a message is answered, with `scope: cluster`: `accepted` for entries that consume from a broker, otherwise `delivered`.
        pub(crate) answer: Option<OrderAnswer>,
        /// The maximum number of attempts after a failure that may be temporary, with `answer: accepted`; there is no limit while the service is
        /// unreachable. The default is 5.
        pub(crate) attempts: Option<u32>,
        /// The delay before the second attempt; it doubles with each attempt. The default is 200ms.
        pub(crate) backoff: Option<Duration>,
        /// The longest delay between two attempts. The default is 30s.
        pub(crate) backoff_max: Option<Duration>,
        /// How many messages of different keys each instance processes at the same time, with `scope: cluster`. The default is 64.
        pub(crate) concurrency: Option<usize>,
    }
}

const ATTEMPTS: u32 = 5;
const BACKOFF: StdDuration = StdDuration::from_millis(200);
const BACKOFF_MAX: StdDuration = StdDuration::from_secs(30);
const CONCURRENCY: usize = 64;
const CONCURRENCY_MAX: usize = 10_000;

/// The order of a route's messages.
#[derive(Debug)]
pub struct OrderPolicy {
    /// The key.
    pub by: Expression,
    /// The order holds over all instances of the cluster.
    pub cluster: Option<ClusterOrder>,
}

/// How messages are processed in order over all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterOrder {
    /// A message is answered with its outcome; otherwise once it is accepted.
    pub answers_outcome: bool,
    /// The maximum number of attempts that count, the first one included. Without effect if the outcome is the answer.
    pub attempts: u32,
    /// The delay before the second attempt.
    pub backoff: StdDuration,
    /// The longest delay between two attempts.
    pub backoff_max: StdDuration,
    /// How many messages each instance processes at the same time.
    pub concurrency: usize,
}

impl OrderPolicy {
    /// The queue of a route with an order over all instances.
    #[must_use]
    pub fn queue(route: &str) -> String {
        format!("route {route}")
    }
}

impl Policy for OrderPolicy {
    type Settings = OrderSettings;
    type Plan = Option<Self>;

    const KEY: &'static str = "order";
    const SUMMARY: &'static str =
        "Messages with the same key are processed one after another, in the order in which they arrive.";

    fn check(
        settings: Option<OrderSettings>,
        route: &PolicyContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Option<Self>> {
        let Some(settings) = settings else { return Some(None) };
        let span = route.span(Self::KEY);
        if route.delivery == Some(Delivery::AtMostOnce) {
            let help = "write `delivery: at-least-once`, or remove `order`";
            reader.error("order", span, "`order` cannot be combined with `delivery: at-most-once`", help);
        }
        for entry in route.entries {
            // A caller that waits for its reply decides its own order; a queue must deliver in order.
            let capabilities = entry.capabilities();
            if capabilities.acknowledges && !capabilities.ordered {
                let message = format!("`{}` does not deliver messages in order", entry.describe());
                reader.error("order", span, message, "remove `order`");
            }
        }
        let cluster = match settings.scope {
            Scope::Cluster => Some(cluster_order(&settings, route, reader)),
            Scope::Instance => {
                let OrderSettings { answer, attempts, backoff, backoff_max, concurrency, .. } = &settings;
                let is_set = answer.is_some() || attempts.is_some() || concurrency.is_some();
                if is_set || backoff.is_some() || backoff_max.is_some() {
                    let message =
                        "`answer`, `attempts`, `backoff`, `backoff_max` and `concurrency` need `scope: cluster`";
                    reader.error("order", span, message, "add `scope: cluster`, or remove them");
                }
                None
            }
        };
        route.expression(&settings.by.0, reader).map(|by| Some(Self { by, cluster }))
    }

    fn describe(plan: &Option<Self>) -> Option<String> {
        let plan = plan.as_ref()?;
        let by = plan.by.source();
        Some(match &plan.cluster {
            None => format!("by {by}, in this instance"),
            Some(cluster) => {
                let answered = if cluster.answers_outcome { "with the outcome" } else { "once accepted" };
                format!("by {by}, over all instances of the cluster, answered {answered}")
            }
        })
    }
}

fn cluster_order(settings: &OrderSettings, route: &PolicyContext<'_>, reader: &mut Reader<'_>) -> ClusterOrder {
    let span = route.span(OrderPolicy::KEY);
    route.require_cluster(OrderPolicy::KEY, reader);
    if route.is_streaming() {
        reader.error("stream", span, "`scope: cluster` cannot be combined with a stream", "remove `order`");
    }
    if route.delivery == Some(Delivery::EffectivelyOnce) {
        let message =
            "the queue of `scope: cluster` delivers a message again if an instance fails while it processes it";
        reader.error("delivery", span, message, "write `delivery: at-least-once`");
    }
    if let Some(entry) = route.entries.iter().find(|entry| entry.has_own_types()) {
        let message = format!(
            "the queue of `scope: cluster` cannot keep the types of a schema registry that `{}` has",
            entry.describe()
        );
        reader.error("order", span, message, "remove the schema from the entry, or write `scope: instance`");
    }
    let consumed = route.entries.iter().find(|entry| entry.capabilities().acknowledges);
    let answers_outcome = match settings.answer {
        None => consumed.is_none(),
        Some(OrderAnswer::Accepted) => false,
        Some(OrderAnswer::Delivered) => {
            if let Some(entry) = consumed {
                let message = format!("`{}` has to acknowledge a message once it is accepted", entry.describe());
                reader.error("order", span, message, "write `answer: accepted`");
            }
            true
        }
    };
    if answers_outcome && (settings.attempts.is_some() || settings.backoff.is_some() || settings.backoff_max.is_some())
    {
        let message = "a failure is the answer, and not retried, with `answer: delivered`";
        reader.error(
            "order",
            span,
            message,
            "remove `attempts`, `backoff` and `backoff_max`, or write `answer: accepted`",
        );
    }
    let (attempts, concurrency) = (settings.attempts.unwrap_or(ATTEMPTS), settings.concurrency.unwrap_or(CONCURRENCY));
    if attempts == 0 {
        reader.error("number", span, "`attempts` must be at least 1", "");
    }
    if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
        reader.error("number", span, format!("`concurrency` must be between 1 and {CONCURRENCY_MAX}"), "");
    }
    let backoff = settings.backoff.map_or(BACKOFF, |backoff| backoff.0);
    let backoff_max = settings.backoff_max.map_or(BACKOFF_MAX, |max| max.0).max(backoff);
    ClusterOrder { answers_outcome, attempts, backoff, backoff_max, concurrency }
}
