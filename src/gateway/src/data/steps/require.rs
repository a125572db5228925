//! `require`.

use crossdock_message::Fault;
use crossdock_routing::expression::Expression;
use crossdock_routing::steps::RequireStep;

use super::Run;

impl Run<'_> {
    pub(super) async fn require(&self, step: &RequireStep) -> Result<(), Fault> {
        if self.evaluate(&step.that, Expression::evaluate_condition).await? {
            return Ok(());
        }
        Err(Box::pin(self.route_fault(step.code, "REQUIRED", &step.message)).await?)
    }
}
