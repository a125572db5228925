//! Whether a route can keep what it promises: every part is asked, and the one that cannot is named.

use std::sync::Arc;

use crossdock_adapter_api::{Capabilities, Delivery, EntrySpec};
use crossdock_settings::{Reader, Span};

use super::Loader;
use crate::plan::Step;

impl Loader<'_> {
    /// Reports every part of a route that cannot keep what the route promises.
    pub(super) fn check_delivery(
        &self,
        delivery: Delivery,
        entries: &[Arc<dyn EntrySpec>],
        steps: &[Step],
        span: Span,
        reader: &mut Reader<'_>,
    ) {
        let promise = delivery.word();
        let mut refuse = |part: &str, why: &str, help: &str| {
            let message = format!("the route cannot be `{promise}`: `{part}` {why}");
            reader.error("delivery", span, message, help.to_owned());
        };
        for entry in entries.iter().filter(|_| delivery != Delivery::AtMostOnce) {
            let name = &entry.address().listener;
            let kind = self.inputs.listeners.iter().find(|(listener, _)| name == listener).map(|(_, kind)| *kind);
            // A caller who waits knows what was taken; a queue has to be told.
            if kind.and_then(|kind| self.row(kind)).is_some_and(|row| !row.replies && !row.acknowledges) {
                refuse(&entry.describe(), "cannot say what it has taken", "take the messages in by another protocol");
            }
            if let Some((why, help)) = entry.may_lose() {
                refuse(&entry.describe(), why, help);
            }
        }
        for call in Step::calls(steps) {
            let service = &self.plan.services[call.service];
            let part = format!("{}.{}", service.name, call.operation_name);
            if delivery == Delivery::EffectivelyOnce && !call.idempotent {
                // What the gateway remembers ends with it; what the service knows again does not.
                let help = format!(
                    "add `idempotent: [{}]` to the service if it knows a message again by its id; a window of `idempotency` is \
                     forgotten when the gateway ends",
                    call.operation_name
                );
                refuse(&part, "may carry a message out twice", &help);
            }
            match delivery {
                Delivery::AtLeastOnce | Delivery::EffectivelyOnce => {
                    if self.row(service.adapter).is_some_and(|row| !row.confirms) {
                        refuse(&part, "does not confirm what it was sent", "send to a service that confirms");
                    }
                    if let Some((why, help)) = call.operation.may_lose() {
                        refuse(&part, why, help);
                    }
                }
                Delivery::AtMostOnce => {
                    if call.retried {
                        let help =
                            "leave `retry` out of the service, or name the operations that it is for in `operations`";
                        refuse(&part, "is tried again", help);
                    }
                }
            }
        }
    }

    pub(super) fn row(&self, adapter: &str) -> Option<Capabilities> {
        self.inputs.adapters.iter().find(|known| known.name() == adapter).map(|known| known.capabilities())
    }
}
