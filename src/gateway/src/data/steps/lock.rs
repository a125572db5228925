//! `lock`.

use std::sync::Arc;
use std::time::Instant;

use crossdock_message::{ByteString, Code, Fault, Record, Retry, Value};
use crossdock_ports::{LockEngine, LockError, LockGrant, LockRequest, LockWait, Outcome};
use crossdock_routing::expression::Template;
use crossdock_routing::steps::LockStep;

use super::Run;
use crate::process::{Fence, lost, not_granted};

impl Run<'_> {
    /// Executes the steps while the locks are held. The outcome of the message if it was decided by one of them.
    pub(super) async fn lock(&mut self, step: &LockStep) -> Result<Option<Outcome>, Fault> {
        let Some(engine) = self.shards.generation().locks.clone() else {
            return Err(Fault::new(Code::Internal, "NO_CLUSTER", "the instance has no engine for locks"));
        };
        let held = self.acquire(&*engine, step).await?;
        let token = held.token();
        let bound = self.variables.len();
        self.variables.push((ByteString::from_static("lock"), Arc::new(lock_value(token))));
        self.fence = Some(Fence::new(Arc::clone(&held), self.fence.take()));
        let ended = {
            // If they are dropped, a call under way ends as if the caller had disconnected, and holds the lock until then.
            let steps = self.block(&step.steps);
            tokio::select! {
                biased;
                loss = held.lost() => Err(lost(&loss)),
                ended = steps => ended,
            }
        };
        self.variables.truncate(bound);
        // What was done without the lock, or after its end, is not reported as a success.
        let ended = match (ended, self.fence.take()) {
            (Ok(outcome), Some(fence)) => {
                let checked = fence.check();
                self.fence = fence.into_outer();
                checked.map(|()| outcome)
            }
            (ended, fence) => {
                self.fence = fence.and_then(Fence::into_outer);
                ended
            }
        };
        // It is released without waiting for that, with what calls under way still hold of it.
        drop(held);
        ended
    }

    async fn acquire(&self, engine: &dyn LockEngine, step: &LockStep) -> Result<Arc<dyn LockGrant>, Fault> {
        let mut names: Vec<Arc<str>> = Vec::with_capacity(step.names.len());
        for name in &step.names {
            let lock = self.evaluate(name, Template::render).await?;
            if names.iter().all(|name| **name != *lock) {
                names.push(Arc::from(&*lock));
            }
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let wait = if step.wait.is_zero() { LockWait::Try } else { LockWait::For(step.wait.min(left)) };
        let metadata = format!("route {}", self.route.name);
        let request = LockRequest { names, mode: step.mode, wait, hold: step.lease, metadata };
        let acquired = tokio::time::timeout_at(self.deadline.into(), engine.acquire(request)).await;
        let is_of_caller = step.names.iter().all(Template::is_of_caller);
        // Otherwise, the engine would have said that it is held by others.
        let no_answer = LockError::Unavailable("the engine does not answer in time".to_owned());
        acquired.unwrap_or(Err(no_answer)).map_err(|problem| refused(&problem, is_of_caller))
    }
}

fn lock_value(token: u64) -> Value {
    let mut record = Record::new();
    record.set("token", Value::from(token));
    Value::Record(record)
}

fn refused(problem: &LockError, is_of_caller: bool) -> Fault {
    match problem {
        LockError::TimedOut => {
            let message = "another message holds the lock";
            Fault::new(Code::Unavailable, "LOCK_TIMEOUT", message).with_retry(Retry::Same)
        }
        LockError::InvalidName => {
            let code = if is_of_caller { Code::InvalidArgument } else { Code::Internal };
            Fault::new(code, "LOCK_NAME", "the name of a lock must have between 1 and 255 bytes")
        }
        LockError::OtherKind => {
            let message = "the lock is in use with another number of permits";
            Fault::new(Code::Internal, "LOCK_KIND", message)
        }
        problem => not_granted(problem),
    }
}
