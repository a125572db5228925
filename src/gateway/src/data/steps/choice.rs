//! `choice`.

use crossdock_message::Fault;
use crossdock_routing::Step;
use crossdock_routing::expression::Expression;
use crossdock_routing::steps::ChoiceStep;

use super::Run;

impl Run<'_> {
    /// The steps of the first branch whose condition is true; `None` if there is none.
    pub(super) async fn choose<'s>(&self, step: &'s ChoiceStep) -> Result<Option<&'s [Step]>, Fault> {
        for branch in &step.branches {
            let is_taken = match &branch.when {
                Some(when) => self.evaluate(when, Expression::evaluate_condition).await?,
                None => true,
            };
            if is_taken {
                return Ok(Some(&branch.steps));
            }
        }
        Ok(None)
    }
}
