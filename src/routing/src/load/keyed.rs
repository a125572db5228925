//! `order:` and `idempotency:`: what a route does by a key that each message has.

use std::sync::Arc;

use crossdock_adapter_api::{Delivery, EntrySpec};
use crossdock_contract::CallType;
use crossdock_settings::{Duration, Node, Reader, choices, settings};

use super::Loader;
use super::steps::StepReader;
use crate::expression::Expression;
use crate::plan::IdempotencyPlan;

choices! {
    /// Where a promise by key holds.
    pub(crate) enum Scope {
        /// In this instance of the gateway, as long as it runs.
        Instance = "instance",
    }
}

settings! {
    /// an order
    pub(crate) struct OrderSettings {
        /// The key: messages of one key are carried out one after another, as they came.
        pub(crate) by: Node,
        /// Where the order holds.
        pub(crate) scope: Scope = Scope::Instance,
    }

    /// an idempotency
    pub(crate) struct IdempotencySettings {
        /// The key: messages of one key are one message, which is carried out once.
        pub(crate) key: Node,
        /// How long a key is known after its message was carried out.
        pub(crate) window: Duration = Duration(std::time::Duration::from_secs(600)),
        /// Keys that are known at once; where there are more, the oldest is forgotten.
        pub(crate) max: usize = 100_000,
        /// Where a key is known.
        pub(crate) scope: Scope = Scope::Instance,
    }
}

const KEYS_MAX: usize = 10_000_000;

/// What a route is read with.
pub(super) struct Route<'r> {
    pub(super) node: &'r Node,
    pub(super) entries: &'r [Arc<dyn EntrySpec>],
    pub(super) call: Option<&'r Arc<CallType>>,
    pub(super) delivery: Option<Delivery>,
}

impl Loader<'_> {
    /// The key of a route's order.
    pub(super) fn order(
        &self,
        settings: &OrderSettings,
        route: &Route<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Expression> {
        let Scope::Instance = settings.scope;
        let span = route.node.get("order").map_or(route.node.span, |node| node.span);
        if route.delivery == Some(Delivery::AtMostOnce) {
            let help = "write `delivery: at-least-once`, or leave `order` out";
            reader.error("order", span, "what may be carried out not at all has no order", help);
        }
        for entry in route.entries {
            let name = &entry.address().listener;
            let kind = self.inputs.listeners.iter().find(|(listener, _)| name == listener).map(|(_, kind)| *kind);
            // A caller who waits makes an order of its own; a queue has to have one.
            if kind.and_then(|kind| self.row(kind)).is_some_and(|row| row.acknowledges && !row.ordered) {
                let message = format!("`{}` does not give messages in order", entry.describe());
                reader.error("order", span, message, "leave `order` out");
            }
        }
        StepReader::new(self, route.entries, route.call, None, route.node).expression(&settings.by, reader)
    }

    pub(super) fn idempotency(
        &self,
        settings: &IdempotencySettings,
        route: &Route<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<IdempotencyPlan> {
        let Scope::Instance = settings.scope;
        let span = route.node.get("idempotency").map_or(route.node.span, |node| node.span);
        if route.call.is_some_and(|call| call.client_streaming || call.server_streaming) {
            reader.error("stream", span, "a stream cannot be known again", "leave `idempotency` out");
        }
        if settings.window.0.is_zero() {
            reader.error("window", span, "a window has a length", "write such as `window: 10m`");
        }
        if !(1..=KEYS_MAX).contains(&settings.max) {
            reader.error("window", span, format!("{} keys cannot be", settings.max), format!("write 1 to {KEYS_MAX}"));
        }
        let key =
            StepReader::new(self, route.entries, route.call, None, route.node).expression(&settings.key, reader)?;
        Some(IdempotencyPlan { key, window: settings.window.0, keys_max: settings.max })
    }
}
