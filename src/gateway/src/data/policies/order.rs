//! `order`: messages with the same key are processed one after another.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crossdock_message::Fault;
use crossdock_ports::{Held, LocalFuture, OrderGuard, Outcome};
use crossdock_routing::OrderPolicy;
use crossdock_routing::expression::Expression;

use super::{Admitted, Answer, Arrival, Arrived, Policy, wait_until};
use crate::process::{KeyLock, KeyQueues, RouteState, Ticket, predecessor_redelivered};

pub(super) struct Order {
    by: Expression,
    queues: Arc<KeyQueues>,
}

impl Order {
    pub(super) fn new(plan: &OrderPolicy, state: &RouteState) -> Self {
        Self { by: plan.by.clone(), queues: Arc::clone(&state.order) }
    }
}

impl Policy for Order {
    fn arrive(&self, arrival: &Arrival<'_>) -> Result<Option<Box<dyn Arrived>>, Fault> {
        let key = arrival.key(&self.by, "order")?;
        if arrival.guard.is_some_and(|guard| guard.is_held()) {
            // This is a retry: the lock is still held.
            return Ok(None);
        }
        let ticket = self.queues.join(&key, arrival.guard.map(|guard| guard.source()))?;
        // A queued message waits without a limit: its source bounds the number of waiting messages.
        let until = if arrival.guard.is_some() { None } else { arrival.until };
        Ok(Some(Box::new(Waiting { ticket, guard: arrival.guard.cloned(), until })))
    }
}

struct Waiting {
    ticket: Ticket,
    guard: Option<Rc<OrderGuard>>,
    until: Option<Instant>,
}

impl Arrived for Waiting {
    fn admit(self: Box<Self>) -> LocalFuture<'static, Result<Option<Box<dyn Admitted>>, Answer>> {
        Box::pin(async move {
            let Self { ticket, guard, until } = *self;
            let lock = match wait_until(until, ticket).await {
                Ok(Ok(lock)) => lock,
                Ok(Err(_)) => return Err(Outcome::Failed(predecessor_redelivered()).into()),
                Err(fault) => return Err(Outcome::Failed(fault).into()),
            };
            match guard {
                // The adapter holds the lock until the message is settled, over all attempts.
                Some(guard) => {
                    guard.hold(Box::new(lock));
                    Ok(None)
                }
                None => Ok(Some(Box::new(lock) as Box<dyn Admitted>)),
            }
        })
    }
}

impl Admitted for KeyLock {
    fn end(self: Box<Self>, _: &mut Outcome) -> Option<LocalFuture<'_, ()>> {
        self.settled();
        None
    }
}

impl Held for KeyLock {
    fn release(self: Box<Self>) {
        self.settled();
    }
}
