//! `filter`.

use crossdock_message::Fault;
use crossdock_routing::expression::Expression;
use crossdock_routing::steps::FilterStep;

use super::Run;

impl Run<'_> {
    /// Whether the route ends here.
    pub(super) async fn filter(&self, step: &FilterStep) -> Result<bool, Fault> {
        self.evaluate(&step.that, Expression::evaluate_condition).await.map(|passes| !passes)
    }
}
