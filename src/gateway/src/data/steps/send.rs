//! `send`.

use crossdock_message::{ConfirmedSends, Fault};
use crossdock_routing::CallPlan;
use crossdock_routing::steps::SendStep;

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
        let service = &self.shards.generation().services[plan.service].plan.name;
        let receiver = format!("{service}.{}", plan.operation_name).into();
        if sends.skip(&receiver, &message) {
            tracing::debug!(%receiver, id = %message.id, "not sent again: an earlier attempt did");
            return Ok(());
        }
        let copy = message.clone();
        self.exchange(plan, message).await?;
        sends.add(&receiver, copy);
        Ok(())
    }
}
