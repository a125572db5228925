//! `tap`.

use std::sync::Arc;

use crossdock_message::Body;
use crossdock_ports::Cancels;
use crossdock_routing::MapPlan;
use crossdock_routing::steps::TapStep;

use super::Run;

impl Run<'_> {
    /// Sends a copy without waiting for the reply; failures are only counted.
    pub(super) async fn tap(&self, step: &TapStep) {
        let stats = Arc::clone(&self.shards.generation().services[step.call.service].stats);
        let message = match &step.with {
            None => Ok(self.outgoing(&step.call)),
            Some(map) => self.evaluate(map, MapPlan::evaluate).await.map(|value| {
                let mut message = self.envelope();
                message.body = Body::Value(value);
                message
            }),
        };
        let prepared = match message {
            Ok(mut message) if Self::is_long_to_prepare(&step.call, &message) => {
                Box::pin(self.prepare(&step.call, &mut message)).await.map(|()| message)
            }
            other => other,
        };
        let sent = prepared.and_then(|mut message| {
            // The transaction ends without waiting for it.
            message.context = message.context.map(|context| context.without_transaction());
            // Nobody waits for it, so it is not under the lock that is held.
            let calling = (Cancels::Never, None);
            self.shards.call(&step.call, message, &self.route.headers.response, self.deadline, calling)
        });
        match sent {
            Ok(answer) => {
                actix_rt::spawn(async move {
                    if !matches!(answer.await, Ok(Ok(_))) {
                        stats.count(|stats| &stats.taps_failed);
                    }
                });
            }
            Err(_) => stats.count(|stats| &stats.taps_failed),
        }
    }
}
