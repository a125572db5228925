//! Delivers the messages of queues to routes, on the instance that holds the slots of their keys: those of `queue` entries, and those that
//! `policies/ordered.rs` accepts for routes with an order over all instances (`order: { scope: cluster }`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_coordination::limits::MESSAGE_BYTES_MAX;
use crossdock_delivery::{RetryPolicy, Settlement, run_on_own_thread, settle};
use crossdock_embedded::{Delivery, Engine, SettleError};
use crossdock_message::{Body, BodyType, ByteString, Code, ConfirmedSends, Fault, Headers, Message};
use crossdock_ports::{AdapterError, EntrySpec, Exchange as _, Outcome, QueueSource};
use crossdock_routing::{ClusterOrder, OrderPolicy, RoutePlan};
use crossdock_stored::{restore, store_outcome};
use futures_util::FutureExt as _;
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tokio_util::sync::CancellationToken;

use super::ingress::{DataArbiter, Opener, RouteExchange};
use super::reply::{encode_reply, stored_within};
use crate::process::Fence;

/// A message whose route this instance does not have, as after a reload, is delivered again after this time.
const NO_ROUTE_DELAY: Duration = Duration::from_secs(1);
/// The most messages whose sends of earlier attempts are remembered.
const SENDS_MAX: usize = 10_000;

/// Delivers messages until `stop` is cancelled, then finishes those in flight.
///
/// # Errors
/// The thread cannot be started, or has panicked.
pub(crate) async fn deliver(opener: Opener, engine: Engine, stop: CancellationToken) -> Result<(), AdapterError> {
    let serve = async move || {
        let deliverer = Deliverer { arbiter: DataArbiter::new(&opener), engine, sends: RefCell::default() };
        Rc::new(deliverer).serve(&opener, stop).await;
        Ok(())
    };
    run_on_own_thread("ordered".to_owned(), serve).await
}

/// A queue whose messages a route processes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    queue: String,
    route: ByteString,
    /// The entry that accepts its messages; `None` for the queue of a route with an order over all instances.
    entry: Option<usize>,
    retry: RetryPolicy,
    concurrency: usize,
}

/// The queues of a route.
fn sources_of(route: &RoutePlan) -> impl Iterator<Item = Source> {
    let ordered = route.policies.order.as_ref().and_then(|order| order.cluster).map(|order| {
        let ClusterOrder { attempts, backoff, backoff_max, concurrency, .. } = order;
        let retry = RetryPolicy { attempts, backoff, backoff_max };
        Source { queue: OrderPolicy::queue(&route.name), route: route.name.clone(), entry: None, retry, concurrency }
    });
    let entries = route.entries.iter().enumerate().filter_map(|(at, entry)| {
        let QueueSource { queue, attempts, backoff, backoff_max, concurrency } = entry.queue().cloned()?;
        let retry = RetryPolicy { attempts, backoff, backoff_max };
        Some(Source { queue, route: route.name.clone(), entry: Some(at), retry, concurrency })
    });
    ordered.into_iter().chain(entries)
}

/// Delivers the messages of a queue.
struct Running {
    source: Rc<Source>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Deliverer {
    arbiter: DataArbiter,
    engine: Engine,
    /// What was sent for messages in earlier attempts on this instance, by position.
    sends: RefCell<HashMap<u64, Arc<ConfirmedSends>>>,
}

impl Deliverer {
    async fn serve(self: Rc<Self>, opener: &Opener, stop: CancellationToken) {
        let mut published = opener.current.published();
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut ending = JoinSet::new();
        loop {
            published.borrow_and_update();
            let sources: Vec<_> =
                opener.current.load().plan.routes.iter().flat_map(|route| sources_of(route)).collect();
            let is_outdated = |_: &String, of: &mut Running| !sources.contains(&of.source);
            for (_, old) in running.extract_if(is_outdated) {
                // A new one may overlap with it: they share the consumer of this instance.
                old.stop.cancel();
                ending.spawn_local(old.task);
            }
            for source in sources {
                running.entry(source.queue.clone()).or_insert_with(|| {
                    let (source, stop) = (Rc::new(source), stop.child_token());
                    let task = spawn_local(Rc::clone(&self).consume(Rc::clone(&source), stop.clone()));
                    Running { source, stop, task }
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = ending.join_next(), if !ending.is_empty() => {}
                changed = published.changed() => if changed.is_err() { break },
            }
        }
        for (_, Running { stop, task, .. }) in running {
            stop.cancel();
            ending.spawn_local(task);
        }
        while ending.join_next().await.is_some() {}
    }

    /// Delivers the messages of a queue until it is stopped, then finishes those in flight.
    async fn consume(self: Rc<Self>, source: Rc<Source>, stop: CancellationToken) {
        let consumer = self.engine.consume(&source.queue);
        let mut in_flight = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = in_flight.join_next(), if !in_flight.is_empty() => {}
                delivery = consumer.next(), if in_flight.len() < source.concurrency => match delivery {
                    Some(delivery) => {
                        in_flight.spawn_local(Rc::clone(&self).process(Rc::clone(&source), delivery));
                    }
                    None => break,
                },
            }
        }
        while in_flight.join_next().await.is_some() {}
    }

    /// Processes a message, and settles it.
    async fn process(self: Rc<Self>, source: Rc<Source>, delivery: Delivery) {
        let (position, queue) = (delivery.place().position, &source.queue);
        let settled = match self.attempt(&source, &delivery).await {
            None => delivery.retry(NO_ROUTE_DELAY, false).await,
            // The caller waits for the outcome, so a failure is its answer. The route may have been another one when it was accepted.
            Some(Attempt { entry: Some(entry), outcome }) if delivery.message().watcher.is_some() => {
                self.sends.borrow_mut().remove(&position);
                delivery.done(result_of(outcome, &*entry).await).await
            }
            Some(Attempt { outcome, .. }) => self.settle(&source, delivery, outcome).await,
        };
        if settled == Err(SettleError::Lost) {
            self.sends.borrow_mut().remove(&position);
            tracing::warn!(queue, position, "message is delivered again by another instance: this one lost its slot");
        }
    }

    /// Processes a message once; `None` if the routes do not have its source any more.
    async fn attempt(&self, source: &Source, delivery: &Delivery) -> Option<Attempt> {
        let generation = self.arbiter.generation();
        let index = generation.plan.routes.iter().position(|plan| plan.name == source.route)?;
        let plan = &generation.plan.routes[index];
        if sources_of(plan).all(|of| of != *source) {
            return None;
        }
        let unreadable = |cause: String| {
            // A code that is not retried: another attempt would fail as well.
            let fault = Fault::new(Code::FailedPrecondition, "UNREADABLE", "the message in the queue cannot be read");
            Some(Attempt { entry: None, outcome: Outcome::Failed(fault.with_cause(cause)) })
        };
        let stored = match restore(delivery.message().payload.clone()) {
            Ok(stored) => stored,
            Err(problem) => return unreadable(problem.to_string()),
        };
        let accepted_by = |entry: &Arc<dyn EntrySpec>| entry.address().to_string() == stored.entry;
        let Some(entry) = source.entry.or_else(|| plan.entries.iter().position(accepted_by)) else {
            return unreadable(format!("the route has no entry `{}` any more", stored.entry));
        };
        let spec = Arc::clone(&plan.entries[entry]);
        let request_type = spec.call_type().map(|call| Arc::clone(&call.request) as Arc<dyn BodyType>);
        let sends = self.sends_of(delivery.place().position);
        sends.begin_attempt();
        let mut message = match stored.into_message(request_type.clone(), Some(sends)) {
            Ok(message) => message,
            Err(problem) => return unreadable(problem.to_string()),
        };
        if source.entry.is_some() {
            receive(&mut message, request_type, &plan.headers.request);
        }
        let shards = match self.arbiter.shards(&generation) {
            Ok(shards) => shards,
            Err(fault) => return Some(Attempt { entry: Some(spec), outcome: Outcome::Failed(fault) }),
        };
        let fence = Some(Fence::of_slot(delivery.validity()));
        let is_in_turn = source.entry.is_none();
        let exchange = Box::new(RouteExchange { shards, route: index, entry, fence, is_in_turn });
        let dispatched = AssertUnwindSafe(exchange.dispatch(message)).catch_unwind().await;
        let outcome = dispatched.unwrap_or_else(|_| {
            tracing::error!(route = %source.route, "route panicked");
            Outcome::Failed(Fault::new(Code::Internal, "PANIC", "the gateway failed to process the message"))
        });
        Some(Attempt { entry: Some(spec), outcome })
    }

    /// What was sent for a message in earlier attempts.
    fn sends_of(&self, position: u64) -> Arc<ConfirmedSends> {
        let mut all = self.sends.borrow_mut();
        if all.len() >= SENDS_MAX {
            all.clear();
        }
        Arc::clone(all.entry(position).or_default())
    }

    /// Settles a message whose producer does not wait for its outcome.
    async fn settle(&self, source: &Source, delivery: Delivery, outcome: Outcome) -> Result<(), SettleError> {
        let (position, queue) = (delivery.place().position, &source.queue);
        let failures = delivery.message().failures.saturating_add(1);
        let attempts = delivery.message().attempts.saturating_add(1);
        match settle(outcome, &source.retry, failures, attempts) {
            Settlement::Retry { delay, counts, .. } => delivery.retry(delay, counts).await,
            Settlement::Acknowledge => {
                self.sends.borrow_mut().remove(&position);
                delivery.done(Bytes::new()).await
            }
            Settlement::Reject(fault) => {
                self.sends.borrow_mut().remove(&position);
                let (reason, cause) =
                    (fault.reason.as_str(), fault.cause.as_deref().and_then(|cause| cause.text.as_deref()));
                tracing::warn!(queue, position, reason, cause, attempts, "message becomes a dead letter");
                let result = store_outcome(&Outcome::Failed(fault.clone())).unwrap_or_default();
                delivery.reject(&format!("{reason}: {}", fault.message), result).await
            }
        }
    }
}

/// An attempt to process a message.
struct Attempt {
    /// The entry that accepted the message; `None` if it cannot be read.
    entry: Option<Arc<dyn EntrySpec>>,
    outcome: Outcome,
}

/// Makes a message of a queue what the route receives: with the type of its contract, and the headers that it forwards.
fn receive(message: &mut Message, request_type: Option<Arc<dyn BodyType>>, listed: &[ByteString]) {
    let mut headers = Headers::new();
    for (name, value) in message.headers.iter().filter(|(name, _)| listed.contains(name)) {
        // It was valid when it was stored.
        let _ = headers.append(name.clone(), value.clone());
    }
    message.headers = headers;
    if let (Body::Raw { of_type, .. }, Some(request_type)) = (&mut message.body, request_type) {
        *of_type = Some(request_type);
    }
}

/// The outcome as bytes, for the instance whose caller waits. Its reply is encoded as the entry encodes it.
async fn result_of(mut outcome: Outcome, entry: &dyn EntrySpec) -> Bytes {
    encode_reply(&mut outcome, entry).await;
    stored_within(&outcome, MESSAGE_BYTES_MAX).unwrap_or_else(|problem| {
        tracing::error!(entry = entry.describe(), problem, "reply cannot pass the queue");
        let message = "the message was processed, and its reply is too large for the queue of the route";
        store_outcome(&Outcome::Failed(Fault::new(Code::Internal, "REPLY_TOO_LARGE", message))).unwrap_or_default()
    })
}
