//! `send`.

mod digest;

use std::sync::Arc;

use crossdock_message::{Body, ConfirmedSends, Fault};
use crossdock_offload::{INLINE_LEN, Priority, offload};
use crossdock_routing::CallPlan;
use crossdock_routing::steps::SendStep;

use self::digest::digest;
use super::Run;

impl Run<'_> {
    pub(super) async fn send(&mut self, step: &SendStep) -> Result<(), Fault> {
        self.sent = true;
        let sends = self.request.message.context.as_ref().and_then(|context| context.sends.as_ref());
        let Some(sends) = sends.filter(|_| self.route.fans_out) else {
            return self.call_with_current(&step.call).await.map(drop);
        };
        Box::pin(self.send_once(&step.call, sends)).await
    }

    /// Sends the current body, unless an earlier attempt to process the message did.
    async fn send_once(&mut self, plan: &CallPlan, sends: &ConfirmedSends) -> Result<(), Fault> {
        let message = self.outgoing(plan);
        self.forget_set();
        let service = &self.shards.generation().services[plan.service].plan;
        let is_long = match &message.body {
            Body::Raw { chunks, .. } => chunks.len() > INLINE_LEN,
            Body::Value(value) => value.written_len(INLINE_LEN + 1) > INLINE_LEN,
            _ => false,
        };
        let digest = if is_long {
            let (service, plan, message) = (Arc::clone(service), plan.clone(), message.clone());
            offload(Priority::New, move || digest(&service, &plan, &message)).await
        } else {
            digest(service, plan, &message)
        };
        if sends.skip(digest) {
            let (service, operation) = (&service.name, &plan.operation_name);
            tracing::debug!(%service, %operation, id = %message.id, "not sent again: an earlier attempt did");
            return Ok(());
        }
        self.exchange(plan, message).await?;
        sends.add(digest);
        Ok(())
    }
}
