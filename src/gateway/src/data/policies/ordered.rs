//! `order: { scope: cluster }`: messages with the same key are processed one after another, whichever instances accept them.
//!
//! A message is accepted by adding it to the queue of its route, which the cluster keeps on a majority of its instances.
//! `data/deliver.rs` processes it, on the instance that holds the slot of its key.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_coordination::Refusal;
use crossdock_embedded::{Engine, EnqueueError, NewMessage, Placed, Watch};
use crossdock_message::{BodyType, ByteString, Code, Fault, Retry};
use crossdock_ports::{EntrySpec, LocalFuture, OrderGuard, Outcome};
use crossdock_routing::expression::Expression;
use crossdock_routing::{ClusterOrder, OrderPolicy, RoutePlan};
use crossdock_stored::{digest, restore_outcome, store};

use super::{Admitted, Answer, Arrival, Arrived, Policy, wait_until};
use crate::process::{KeyQueues, RouteState, Ticket, key_reused, predecessor_redelivered};

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
        let idempotency = plan.policies.idempotency.as_ref().filter(|policy| policy.in_cluster);
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
        let accepted_by = entry.address().to_string();
        let mut message = NewMessage { key: key.to_string(), ..NewMessage::default() };
        if let Some((expression, window)) = &self.idempotency {
            let id = arrival.key(expression, "idempotency")?;
            message.id = Some((id.to_string(), *window));
            message.digest = digest(&accepted_by, &arrival.request.message).map_err(|problem| unstorable(&problem))?;
        }
        message.payload = store(&accepted_by, &arrival.request.message).map_err(|problem| unstorable(&problem))?;
        // A retry still has its place.
        let new_guard = arrival.guard.filter(|guard| !guard.is_held());
        let ticket = new_guard.map(|guard| self.adding.join(&key, Some(guard.source()))).transpose()?;
        Ok(Some(Box::new(Waiting {
            engine,
            queue: Arc::clone(&self.queue),
            message,
            ticket: ticket.zip(new_guard.cloned()),
            until: arrival.until,
            answers_outcome: self.cluster.answers_outcome,
            reply_type: entry.call_type().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>),
        })))
    }
}

fn unstorable(problem: &crossdock_stored::Error) -> Fault {
    Fault::new(Code::Internal, "UNSTORABLE", "the message cannot be stored").with_cause(problem.to_string())
}

struct Waiting {
    engine: Engine,
    queue: Arc<str>,
    message: NewMessage,
    ticket: Option<(Ticket, Rc<OrderGuard>)>,
    until: Option<Instant>,
    answers_outcome: bool,
    reply_type: Option<Arc<dyn BodyType>>,
}

impl Waiting {
    async fn answer(self) -> Answer {
        let Self { engine, queue, message, ticket, until, answers_outcome, reply_type } = self;
        if let Some((ticket, guard)) = ticket {
            match ticket.await {
                Ok(lock) => guard.hold(Box::new(lock)),
                Err(_) => return Outcome::Failed(predecessor_redelivered()).into(),
            }
        }
        let digest = message.digest;
        let adding = add(&engine, &queue, message, answers_outcome);
        let (placed, watch) = match wait_until(until, adding).await {
            Ok(Ok(added)) => added,
            Ok(Err(problem)) => return Outcome::Failed(refused(problem)).into(),
            Err(_) => return Outcome::Failed(refused(EnqueueError::Unknown(TIMED_OUT))).into(),
        };
        if placed.duplicate_of.is_some_and(|other| other != digest) {
            return Outcome::Failed(key_reused()).into();
        }
        let Some(mut watch) = watch else { return Answer { outcome: Outcome::Accepted, is_counted: true } };
        match wait_until(until, watch.finished()).await {
            Ok(Some(finished)) => Answer { outcome: read(finished.result, reply_type), is_counted: true },
            // It is processed all the same.
            Ok(None) => Outcome::Failed(pending("this instance cannot learn its outcome any more")).into(),
            Err(_) => Outcome::Failed(pending("the deadline passed before that")).into(),
        }
    }
}

const TIMED_OUT: crossdock_embedded::CommandError = crossdock_embedded::CommandError::TimedOut;

async fn add(
    engine: &Engine,
    queue: &str,
    message: NewMessage,
    is_watched: bool,
) -> Result<(Placed, Option<Watch>), EnqueueError> {
    if is_watched {
        let (placed, watch) = engine.enqueue_watched(queue, message).await?;
        return Ok((placed, Some(watch)));
    }
    engine.enqueue(queue, message).await.map(|placed| (placed, None))
}

fn read(result: Bytes, reply_type: Option<Arc<dyn BodyType>>) -> Outcome {
    restore_outcome(result, reply_type).unwrap_or_else(|problem| {
        let message = "the message was processed, and its outcome cannot be read";
        Outcome::Failed(Fault::new(Code::Internal, "OUTCOME", message).with_cause(problem.to_string()))
    })
}

/// The message is in the queue, and its caller does not learn what becomes of it.
fn pending(why: &str) -> Fault {
    let message = ByteString::from(format!("the message was accepted and will be processed; {why}"));
    Fault::new(Code::DeadlineExceeded, "ORDER_PENDING", message)
}

fn refused(problem: EnqueueError) -> Fault {
    let fault = match problem {
        EnqueueError::Refused(Refusal::Full) => {
            let fault = Fault::new(Code::ResourceExhausted, "QUEUE_FULL", "the queue of the route is full");
            fault.with_retry(Retry::After(Duration::from_secs(1)))
        }
        EnqueueError::Refused(Refusal::Invalid) => {
            let message = "the message exceeds 1 MiB, the limit of a queue of the cluster";
            Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", message).with_http_status(413)
        }
        EnqueueError::Refused(Refusal::TooMany) => {
            Fault::new(Code::ResourceExhausted, "QUEUES", "the cluster has too many queues")
        }
        EnqueueError::Refused(_) => Fault::new(Code::Internal, "QUEUE", "the queue refused the message"),
        EnqueueError::NotConnected => {
            let message = "the cluster cannot accept messages at the moment";
            Fault::new(Code::Unavailable, "NO_QUORUM", message).with_retry(Retry::Same)
        }
        EnqueueError::Unknown(_) => {
            let message = "it is not known whether the cluster has accepted the message";
            Fault::new(Code::Unavailable, "ORDER_UNKNOWN", message)
        }
    };
    fault.with_cause(problem.to_string())
}

impl Arrived for Waiting {
    fn admit(self: Box<Self>) -> LocalFuture<'static, Result<Option<Box<dyn Admitted>>, Answer>> {
        Box::pin(async move { Err(self.answer().await) })
    }
}
