//! `call`.

use crossdock_message::{Event, Fault, Headers, Message};
use crossdock_routing::CallPlan;
use crossdock_routing::steps::CallStep;

use super::{Current, Run};

impl Run<'_> {
    pub(super) async fn call(&mut self, step: &CallStep) -> Result<(), Fault> {
        let reply = self.call_with_current(&step.call).await?;
        self.reply = Some(reply);
        self.current = Current::Reply;
        Ok(())
    }

    /// Calls an operation with the current body and the headers set for it.
    pub(super) async fn call_with_current(&mut self, plan: &CallPlan) -> Result<Message, Fault> {
        let message = self.outgoing(plan);
        self.forget_set();
        self.exchange(plan, message).await
    }

    /// Forgets the headers and attributes that steps have set for one call.
    pub(super) fn forget_set(&mut self) {
        self.set = Headers::new();
        self.set_event = Event::default();
    }
}
