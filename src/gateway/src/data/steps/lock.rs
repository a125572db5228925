//! `lock`.

use std::sync::Arc;
use std::time::Instant;

use crossdock_coordination::{Claim, Mode, Refusal, Token};
use crossdock_embedded::{AcquireError, CommandError, Engine, Held, LockRequest, Wait};
use crossdock_message::{ByteString, Code, Fault, Record, Retry, Value};
use crossdock_ports::Outcome;
use crossdock_routing::expression::Template;
use crossdock_routing::steps::{LockMode, LockStep};

use super::Run;
use crate::process::{Fence, lost, not_granted};

impl Run<'_> {
    /// Executes the steps while the locks are held. The outcome of the message if it was decided by one of them.
    pub(super) async fn lock(&mut self, step: &LockStep) -> Result<Option<Outcome>, Fault> {
        let Some(engine) = self.shards.generation().coordination.clone() else {
            return Err(Fault::new(Code::Internal, "NO_CLUSTER", "the instance is not a member of a cluster"));
        };
        let held = Arc::new(self.acquire(&engine, step).await?);
        let mut validity = held.validity();
        let token = held.token();
        let bound = self.variables.len();
        self.variables.push((ByteString::from_static("lock"), Arc::new(lock_value(token))));
        self.fence = Some(Fence::new(&held, self.fence.take()));
        let ended = {
            // If they are dropped, a call under way ends as if the caller had disconnected, and holds the lock until then.
            let steps = self.block(&step.steps);
            tokio::select! {
                biased;
                loss = validity.lost() => Err(lost(&loss)),
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

    async fn acquire(&self, engine: &Engine, step: &LockStep) -> Result<Held, Fault> {
        let mode = match step.mode {
            LockMode::Exclusive => Mode::Exclusive,
            LockMode::Shared => Mode::Shared,
            LockMode::Permit(of) => Mode::Permit { of },
        };
        let mut claims: Vec<Claim> = Vec::with_capacity(step.names.len());
        for name in &step.names {
            let lock = self.evaluate(name, Template::render).await?;
            if claims.iter().all(|claim| *claim.lock != *lock) {
                claims.push(Claim { lock: Arc::from(&*lock), mode });
            }
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let wait = if step.wait.is_zero() { Wait::Try } else { Wait::For(step.wait.min(left)) };
        let request = LockRequest {
            claims,
            wait,
            hold: step.lease,
            delay: std::time::Duration::ZERO,
            metadata: format!("route {}", self.route.name),
            reentrant_owner: None,
            steal: None,
        };
        let acquired = tokio::time::timeout_at(self.deadline.into(), engine.acquire(&request)).await;
        let is_of_caller = step.names.iter().all(Template::is_of_caller);
        // Otherwise, the engine would have said that it is held by others.
        let no_answer = AcquireError::Command(CommandError::TimedOut);
        acquired.unwrap_or(Err(no_answer)).map_err(|problem| refused(&problem, is_of_caller))
    }
}

fn lock_value(token: Token) -> Value {
    let mut record = Record::new();
    record.set("token", Value::from(token.0));
    Value::Record(record)
}

fn refused(problem: &AcquireError, is_of_caller: bool) -> Fault {
    match problem {
        AcquireError::NotAvailable | AcquireError::TimedOut => {
            let message = "another message holds the lock";
            Fault::new(Code::Unavailable, "LOCK_TIMEOUT", message).with_retry(Retry::Same)
        }
        AcquireError::Command(CommandError::Refused(Refusal::Invalid)) => {
            let code = if is_of_caller { Code::InvalidArgument } else { Code::Internal };
            Fault::new(code, "LOCK_NAME", "the name of a lock must have between 1 and 255 bytes")
        }
        AcquireError::Command(CommandError::Refused(Refusal::OtherKind)) => {
            let message = "the lock is in use with another number of permits";
            Fault::new(Code::Internal, "LOCK_KIND", message)
        }
        problem => not_granted(problem),
    }
}
