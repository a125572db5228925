//! `fault`.

use crossdock_message::Fault;
use crossdock_routing::steps::FaultStep;

use super::Run;

impl Run<'_> {
    /// The fault that ends the route.
    ///
    /// # Errors
    /// If its message cannot be rendered.
    pub(super) async fn fault(&self, step: &FaultStep) -> Result<Fault, Fault> {
        self.route_fault(step.code, "ROUTE_FAULT", &step.message).await
    }
}
