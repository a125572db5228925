//! `map`.

use crossdock_message::Fault;
use crossdock_routing::MapPlan;
use crossdock_routing::steps::MapStep;

use super::{Current, Run};

impl Run<'_> {
    pub(super) async fn map(&mut self, step: &MapStep) -> Result<(), Fault> {
        self.current = Current::Created(self.evaluate(&step.map, MapPlan::evaluate).await?);
        Ok(())
    }
}
