//! `order`: messages of one key are processed one after another.

use crossdock_ports::Delivery;
use crossdock_settings::{Reader, settings};

use super::{Policy, PolicyContext, Scope};
use crate::expression::Expression;
use crate::steps::ExpressionNode;

settings! {
    /// an order
    pub(crate) struct OrderSettings {
        /// The key: messages with the same key are processed one after another, in the order in which they arrive.
        pub(crate) by: ExpressionNode,
        /// Where the order holds.
        pub(crate) scope: Scope = Scope::Instance,
    }
}

/// The order of a route's messages.
#[derive(Debug)]
pub struct OrderPolicy {
    /// The key.
    pub by: Expression,
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
        let Some(OrderSettings { by, scope: Scope::Instance }) = settings else { return Some(None) };
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
        route.expression(&by.0, reader).map(|by| Some(Self { by }))
    }

    fn describe(plan: &Option<Self>) -> Option<String> {
        plan.as_ref().map(|plan| format!("by {}, in this instance", plan.by.source()))
    }
}
