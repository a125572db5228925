//! `send`.

use crossdock_message::Fault;
use crossdock_routing::steps::SendStep;

use super::Run;

impl Run<'_> {
    pub(super) async fn send(&mut self, step: &SendStep) -> Result<(), Fault> {
        self.call_with_current(&step.call).await?;
        self.sent = true;
        Ok(())
    }
}
