//! `fault`.

use crossdock_message::Fault;
use crossdock_routing::steps::FaultStep;

use super::Run;

impl Run<'_> {
    /// The fault that the route ends with; the error is that of its message.
    pub(super) async fn fault(&self, step: &FaultStep) -> Result<Fault, Fault> {
        self.route_fault(step.code, "ROUTE_FAULT", &step.message).await
    }
}
