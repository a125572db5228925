//! `multicast`, and the parts shared with `split`: runs of nested steps without a result.

use std::time::Instant;

use crossdock_message::Fault;
use crossdock_ports::Outcome;
use crossdock_routing::Step;
use crossdock_routing::steps::MulticastStep;
use futures_util::future::{LocalBoxFuture, join_all};

use super::Run;

impl<'a> Run<'a> {
    /// Executes all branches concurrently, each to its end; returns the first failure in the order of the branches.
    pub(super) async fn multicast(&mut self, step: &MulticastStep) -> Result<(), Fault> {
        let started = Instant::now();
        let ended = join_all(step.branches.iter().map(|steps| self.branch().run_branch(steps))).await;
        self.finish_branches(started);
        ended.into_iter().collect()
    }

    /// A run that starts with the current state.
    fn branch(&self) -> Self {
        Self {
            current: self.current.clone(),
            reply: self.reply.clone(),
            variables: self.variables.clone(),
            set: self.set.clone(),
            set_event: self.set_event.clone(),
            part: self.part.clone(),
            fence: self.fence.clone(),
            ..*self
        }
    }

    /// Executes nested steps and discards their outcome.
    pub(super) fn run_branch<'b>(mut self, steps: &'b [Step]) -> LocalBoxFuture<'b, Result<(), Fault>>
    where
        'a: 'b,
    {
        Box::pin(async move { self.follow(steps).await.map(|_: Outcome| ()) })
    }

    pub(super) fn finish_branches(&mut self, started: Instant) {
        self.first_call.get_or_insert(started);
        self.processing += started.elapsed();
        self.sent = true;
    }
}
