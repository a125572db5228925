//! Checks that every part of a route can keep its delivery guarantee, and names those that cannot.

use std::sync::Arc;

use crossdock_ports::{Delivery, EntrySpec};
use crossdock_settings::{Reader, Span};

use super::Loader;
use crate::steps::Step;

impl Loader<'_> {
    /// The system whose transactions the listener of an entry uses.
    fn transactions(&self, entry: &dyn EntrySpec) -> Option<&str> {
        let listener = &entry.address().listener;
        self.inputs.listeners.iter().find(|info| *listener == *info.name)?.transactions.as_deref()
    }

    /// Reports every part of a route that cannot keep its guarantee.
    pub(super) fn check_delivery(
        &self,
        delivery: Delivery,
        entries: &[Arc<dyn EntrySpec>],
        steps: &[Step],
        has_idempotency: bool,
        span: Span,
        reader: &mut Reader<'_>,
    ) {
        let promise = delivery.word();
        let mut refuse = |part: &str, why: &str, help: &str| {
            let message = format!("the route cannot be `{promise}`: `{part}` {why}");
            reader.error("delivery", span, message, help.to_owned());
        };
        for entry in entries.iter().filter(|_| delivery != Delivery::AtMostOnce) {
            // A caller that waits learns the outcome; a queue needs an acknowledgement.
            let capabilities = entry.capabilities();
            if !capabilities.replies && !capabilities.acknowledges {
                refuse(&entry.describe(), "cannot acknowledge messages", "accept the messages over another protocol");
            }
            if let Some((why, help)) = entry.may_lose() {
                refuse(&entry.describe(), why, help);
            }
        }
        if delivery == Delivery::EffectivelyOnce && has_idempotency {
            for entry in entries.iter().filter(|entry| self.transactions(&***entry).is_some()) {
                // A key would be remembered although the transaction of its message is aborted.
                let help = "remove `idempotency`, or write `delivery: at-least-once`";
                refuse(&entry.describe(), "is processed in transactions, which `idempotency` does not know", help);
            }
        }
        for call in Step::calls(steps) {
            let service = &self.services.plans[call.service];
            let part = format!("{}.{}", service.name, call.operation_name);
            let system = call.operation.transactions();
            let joins = system.is_some() && entries.iter().all(|entry| self.transactions(&**entry) == system);
            if delivery == Delivery::EffectivelyOnce && !call.idempotent && !joins {
                if system.is_some() && entries.iter().any(|entry| self.transactions(&**entry).is_some()) {
                    let help = "give the listener and the service the same `brokers`, `tls` and `sasl`, and the route no other entries";
                    refuse(&part, "cannot join the transactions of its entries", help);
                    continue;
                }
                // The gateway remembers what was finished; the service, what was begun.
                let help = format!(
                    "add `idempotent: [{}]` to the service if it recognizes a message by its id; `idempotency` does not know \
                     what an instance had done that failed while it processed a message",
                    call.operation_name
                );
                refuse(&part, "may execute a message twice", &help);
            }
            match delivery {
                Delivery::AtLeastOnce | Delivery::EffectivelyOnce => {
                    if !call.operation.is_confirmed() {
                        refuse(&part, "does not confirm messages", "send to a service that confirms them");
                    }
                    if let Some((why, help)) = call.operation.may_lose() {
                        refuse(&part, why, help);
                    }
                }
                Delivery::AtMostOnce => {
                    if call.retried {
                        let help = "remove `retry` from the service, or list other operations in its `operations`";
                        refuse(&part, "is retried", help);
                    }
                }
            }
        }
    }
}
