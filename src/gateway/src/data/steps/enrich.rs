//! `enrich`.

use std::sync::Arc;

use crossdock_message::{Body, Code, Fault, Record, Value};
use crossdock_offload::INLINE_LEN;
use crossdock_routing::MapPlan;
use crossdock_routing::steps::EnrichStep;

use super::Run;

impl Run<'_> {
    pub(super) async fn enrich(&mut self, step: &EnrichStep) -> Result<(), Fault> {
        let mut message = self.envelope();
        message.body = Body::Value(self.evaluate(&step.with, MapPlan::evaluate).await?);
        let reply = self.exchange(&step.call, message).await?;
        let unreadable = |fault: Fault| match fault.code {
            Code::DeadlineExceeded => fault,
            _ => Fault::new(
                Code::Internal,
                "REPLY_UNREADABLE",
                "the reply of the service called by `enrich` is malformed",
            ),
        };
        if reply.body.unread_len() > INLINE_LEN {
            Box::pin(self.read(&reply.body)).await.map_err(unreadable)?;
        }
        let value = reply.body.value(self.limits).map_err(unreadable)?;
        let value = value.cloned().unwrap_or(Value::Record(Record::new()));
        self.variables.push((step.name.clone(), Arc::new(value)));
        Ok(())
    }
}
