//! `order: { scope: cluster }`: messages with the same key are processed one after another, whichever instances accept them.
//!
//! A message is accepted by adding it to the queue of its route, which the cluster keeps on a majority of its instances.
//! `data/deliver.rs` processes it, on the instance that holds the slot of its key.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_embedded::{Engine, Watch};
use crossdock_message::{Body, BodyType, ByteString, Code, Fault};
use crossdock_ports::{Enqueue as _, EntrySpec, LocalFuture, OrderGuard, Outcome, QueueMessage};
use crossdock_routing::expression::Expression;
use crossdock_routing::{ClusterOrder, KeyMemory, OrderPolicy, RoutePlan};
use crossdock_stored::{digest, restore_outcome, store};

use super::{Admitted, Answer, Arrival, Arrived, Policy, wait_until};
use crate::process::{KeyQueues, Queues, RouteState, Ticket, predecessor_redelivered, unknown};

pub(super) struct Ordered {
    by: Expression,
    cluster: ClusterOrder,
    queue: Arc<str>,
    /// The key by which duplicates are recognized, and for how long.
    idempotency: Option<(Expression, Duration)>,
    entries: Vec<Arc<dyn EntrySpec>>,
    /// Messages that an adapter redelivers are added in their order: one that failed is not overtaken.
    adding: Arc<KeyQueues>,
    engine: Option<Engine>,
}

impl Ordered {
    pub(super) fn new(
        plan: &RoutePlan,
        order: &OrderPolicy,
        cluster: ClusterOrder,
        state: &RouteState,
        engine: Option<&Engine>,
    ) -> Self {
        let idempotency = plan.policies.idempotency.as_ref().filter(|policy| policy.memory == KeyMemory::Queue);
        Self {
            by: order.by.clone(),
            cluster,
            queue: OrderPolicy::queue(&plan.name).into(),
            idempotency: idempotency.map(|policy| (policy.key.clone(), policy.window)),
            entries: plan.entries.clone(),
            adding: Arc::clone(&state.order),
            engine: engine.cloned(),
        }
    }
}

impl Policy for Ordered {
    fn arrive(&self, arrival: &Arrival<'_>) -> Result<Option<Box<dyn Arrived>>, Fault> {
        if arrival.is_in_turn {
            return Ok(None);
        }
        let Some(engine) = self.engine.clone() else {
            return Err(Fault::new(Code::Internal, "NO_CLUSTER", "the instance is not a member of a cluster"));
        };
        let key = arrival.key(&self.by, "order")?;
        let entry = &self.entries[arrival.entry];
        let request_type = entry.call_type().map(|call| call.request.name());
        if let Body::Raw { of_type: Some(of_type), .. } = &arrival.request.message.body
            && request_type != Some(of_type.name())
        {
            // Only types of contracts are known when it is read again.
            return Err(unstorable(&crossdock_stored::Error::OtherType(of_type.name().to_owned())));
        }
        let accepted_by = entry.address().to_string();
        let mut message = QueueMessage { key: key.clone(), ..QueueMessage::default() };
        if let Some((expression, window)) = &self.idempotency {
            let id = arrival.key(expression, "idempotency")?;
            message.id = Some((id, *window));
            message.digest = digest(&accepted_by, &arrival.request.message).map_err(|problem| unstorable(&problem))?;
        }
        message.payload = store(&accepted_by, &arrival.request.message).map_err(|problem| unstorable(&problem))?;
        // A retry still has its place.
        let new_guard = arrival.guard.filter(|guard| !guard.is_held());
        let ticket = new_guard.map(|guard| self.adding.join(&key, Some(guard.source()))).transpose()?;
        Ok(Some(Box::new(Waiting {
            queues: Queues(engine),
            queue: Arc::clone(&self.queue),
            message,
            ticket: ticket.zip(new_guard.cloned()),
            until: arrival.until,
            // A request of a broker, whose sender waits for its reply, is not redelivered.
            answers_outcome: self.cluster.answers_outcome
                || arrival.guard.is_none() && entry.capabilities().acknowledges,
            reply_type: entry.call_type().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>),
        })))
    }
}

fn unstorable(problem: &crossdock_stored::Error) -> Fault {
    Fault::new(Code::Internal, "UNSTORABLE", "the message cannot be stored").with_cause(problem.to_string())
}

struct Waiting {
    queues: Queues,
    queue: Arc<str>,
    message: QueueMessage,
    ticket: Option<(Ticket, Rc<OrderGuard>)>,
    until: Option<Instant>,
    answers_outcome: bool,
    reply_type: Option<Arc<dyn BodyType>>,
}

impl Waiting {
    async fn answer(self) -> Answer {
        let Self { queues, queue, message, ticket, until, answers_outcome, reply_type } = self;
        if let Some((ticket, guard)) = ticket {
            match ticket.await {
                Ok(lock) => guard.hold(Box::new(lock)),
                Err(_) => return Outcome::Failed(predecessor_redelivered()).into(),
            }
        }
        let adding = add(&queues, &queue, message, answers_outcome);
        let watch = match wait_until(until, adding).await {
            Ok(Ok(watch)) => watch,
            Ok(Err(fault)) => return Outcome::Failed(fault).into(),
            Err(_) => return Outcome::Failed(unknown()).into(),
        };
        let Some(mut watch) = watch else { return Answer { outcome: Outcome::Accepted, is_counted: true } };
        match wait_until(until, watch.finished()).await {
            Ok(Some(finished)) if finished.is_dead && finished.result.is_empty() => {
                let message = "an operator removed the message from the queue; it was not processed";
                Outcome::Failed(Fault::new(Code::Aborted, "REMOVED", message)).into()
            }
            Ok(Some(finished)) => Answer { outcome: read(finished.result, reply_type), is_counted: true },
            // It is processed all the same.
            Ok(None) => Outcome::Failed(pending("this instance cannot learn its outcome any more")).into(),
            Err(_) => Outcome::Failed(pending("the deadline passed before that")).into(),
        }
    }
}

async fn add(queues: &Queues, queue: &str, message: QueueMessage, is_watched: bool) -> Result<Option<Watch>, Fault> {
    if is_watched {
        return queues.enqueue_watched(queue, message).await.map(Some);
    }
    queues.enqueue(queue, message).await.map(|()| None)
}

fn read(result: Bytes, reply_type: Option<Arc<dyn BodyType>>) -> Outcome {
    restore_outcome(result, reply_type).unwrap_or_else(|problem| {
        let message = "the message was processed, and its outcome cannot be read";
        Outcome::Failed(Fault::new(Code::Internal, "OUTCOME", message).with_cause(problem.to_string()))
    })
}

/// The message is in the queue, and its caller does not get its result.
fn pending(why: &str) -> Fault {
    let message = ByteString::from(format!("the message was accepted and will be processed; {why}"));
    Fault::new(Code::DeadlineExceeded, "ORDER_PENDING", message)
}

impl Arrived for Waiting {
    fn admit(self: Box<Self>) -> LocalFuture<'static, Result<Option<Box<dyn Admitted>>, Answer>> {
        Box::pin(async move { Err(self.answer().await) })
    }
}
