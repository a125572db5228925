//! Processes the messages of routes with an order over all instances (`order: { scope: cluster }`), on the instance that holds the
//! slots of their keys. `policies/ordered.rs` accepts them.

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
use crossdock_message::{Body, BodyType, ByteString, Code, ConfirmedSends, Fault, Message};
use crossdock_offload::encode_and_take_body;
use crossdock_ports::{AdapterError, EntrySpec, Exchange as _, Outcome, WriteFormat};
use crossdock_routing::{ClusterOrder, OrderPolicy};
use crossdock_stored::{restore, store_outcome};
use futures_util::FutureExt as _;
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tokio_util::sync::CancellationToken;

use super::ingress::{DataArbiter, Opener, RouteExchange};
use crate::generation::Generation;
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

/// Delivers the messages of a route.
struct Running {
    concurrency: usize,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Deliverer {
    arbiter: DataArbiter,
    engine: Engine,
    /// What was sent for messages in earlier attempts on this instance, by position.
    sends: RefCell<HashMap<u64, Arc<ConfirmedSends>>>,
}

/// The routes with an order over all instances.
fn routes_of(generation: &Generation) -> HashMap<ByteString, usize> {
    let concurrency = |order: &OrderPolicy| order.cluster.map(|cluster| cluster.concurrency);
    let routes = generation.plan.routes.iter();
    routes
        .filter_map(|route| Some((route.name.clone(), route.policies.order.as_ref().and_then(concurrency)?)))
        .collect()
}

impl Deliverer {
    async fn serve(self: Rc<Self>, opener: &Opener, stop: CancellationToken) {
        let mut published = opener.current.published();
        let mut running: HashMap<ByteString, Running> = HashMap::new();
        loop {
            published.borrow_and_update();
            let routes = routes_of(&opener.current.load());
            let is_outdated = |name: &ByteString, of: &mut Running| routes.get(name) != Some(&of.concurrency);
            for (_, old) in running.extract_if(is_outdated) {
                old.stop.cancel();
                // A new one may overlap with it: they share the consumer of this instance.
                drop(old.task);
            }
            for (name, concurrency) in routes {
                running.entry(name.clone()).or_insert_with(|| {
                    let stop = stop.child_token();
                    let task = spawn_local(Rc::clone(&self).consume(name, concurrency, stop.clone()));
                    Running { concurrency, stop, task }
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = published.changed() => if changed.is_err() { break },
            }
        }
        for (_, Running { stop, task, .. }) in running {
            stop.cancel();
            let _ = task.await;
        }
    }

    /// Delivers the messages of a route until it is stopped.
    async fn consume(self: Rc<Self>, route: ByteString, concurrency: usize, stop: CancellationToken) {
        let consumer = self.engine.consume(&OrderPolicy::queue(&route));
        let mut in_flight = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = in_flight.join_next(), if !in_flight.is_empty() => {}
                delivery = consumer.next(), if in_flight.len() < concurrency => match delivery {
                    Some(delivery) => {
                        in_flight.spawn_local(Rc::clone(&self).process(route.clone(), delivery));
                    }
                    None => break,
                },
            }
        }
        while in_flight.join_next().await.is_some() {}
    }

    /// Processes a message, and settles it.
    async fn process(self: Rc<Self>, route: ByteString, delivery: Delivery) {
        let position = delivery.place().position;
        let settled = match self.attempt(&route, &delivery).await {
            None => delivery.retry(NO_ROUTE_DELAY, false).await,
            Some(Attempt { order, entry, outcome }) if order.answers_outcome && entry.is_some() => {
                self.sends.borrow_mut().remove(&position);
                delivery.done(result_of(outcome, entry).await).await
            }
            Some(Attempt { order, outcome, .. }) => self.settle(&route, delivery, order, outcome).await,
        };
        if settled == Err(SettleError::Lost) {
            self.sends.borrow_mut().remove(&position);
            tracing::warn!(%route, position, "message is delivered again by another instance: this one lost its slot");
        }
    }

    /// Processes a message once; `None` if its route does not exist here.
    async fn attempt(&self, route: &ByteString, delivery: &Delivery) -> Option<Attempt> {
        let generation = self.arbiter.generation();
        let index = generation.plan.routes.iter().position(|plan| plan.name == *route)?;
        let plan = &generation.plan.routes[index];
        let order = plan.policies.order.as_ref()?.cluster?;
        let unreadable = |message: String| {
            let fault = Fault::new(Code::DataLoss, "UNREADABLE", "the message in the queue cannot be read");
            Some(Attempt { order, entry: None, outcome: Outcome::Failed(fault.with_cause(message)) })
        };
        let stored = match restore(delivery.message().payload.clone()) {
            Ok(stored) => stored,
            Err(problem) => return unreadable(problem.to_string()),
        };
        let Some(entry) = plan.entries.iter().position(|entry| entry.address().to_string() == stored.entry) else {
            return unreadable(format!("the route has no entry `{}` any more", stored.entry));
        };
        let spec = Arc::clone(&plan.entries[entry]);
        let request_type = spec.call_type().map(|call| Arc::clone(&call.request) as Arc<dyn BodyType>);
        let sends = self.sends_of(delivery.place().position);
        sends.begin_attempt();
        let message = match stored.into_message(request_type, Some(sends)) {
            Ok(message) => message,
            Err(problem) => return unreadable(problem.to_string()),
        };
        let shards = match self.arbiter.shards(&generation) {
            Ok(shards) => shards,
            Err(fault) => return Some(Attempt { order, entry: Some(spec), outcome: Outcome::Failed(fault) }),
        };
        let fence = Some(Fence::of_slot(delivery.validity()));
        let exchange = Box::new(RouteExchange { shards, route: index, entry, fence, is_in_turn: true });
        let dispatched = AssertUnwindSafe(exchange.dispatch(message)).catch_unwind().await;
        let outcome = dispatched.unwrap_or_else(|_| {
            tracing::error!(%route, "route panicked");
            Outcome::Failed(Fault::new(Code::Internal, "PANIC", "the gateway failed to process the message"))
        });
        Some(Attempt { order, entry: Some(spec), outcome })
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
    async fn settle(
        &self,
        route: &ByteString,
        delivery: Delivery,
        order: ClusterOrder,
        outcome: Outcome,
    ) -> Result<(), SettleError> {
        let ClusterOrder { attempts, backoff, backoff_max, .. } = order;
        let policy = RetryPolicy { attempts, backoff, backoff_max };
        let (place, message) = (delivery.place().clone(), Arc::clone(delivery.message()));
        let (failures, attempts) = (message.failures.saturating_add(1), message.attempts.saturating_add(1));
        match settle(outcome, &policy, failures, attempts) {
            Settlement::Retry { delay, counts, .. } => delivery.retry(delay, counts).await,
            Settlement::Acknowledge => {
                self.sends.borrow_mut().remove(&place.position);
                delivery.done(Bytes::new()).await
            }
            Settlement::Reject(fault) => {
                self.sends.borrow_mut().remove(&place.position);
                let reason = fault.reason.as_str();
                tracing::warn!(%route, position = place.position, reason, attempts, "message becomes a dead letter");
                let result = store_outcome(&Outcome::Failed(fault.clone())).unwrap_or_default();
                delivery.reject(&format!("{reason}: {}", fault.message), result).await
            }
        }
    }
}

/// An attempt to process a message.
struct Attempt {
    order: ClusterOrder,
    /// The entry that accepted the message; `None` if it cannot be read.
    entry: Option<Arc<dyn EntrySpec>>,
    outcome: Outcome,
}

/// The outcome as bytes, for the instance whose caller waits. Its reply is encoded as the entry encodes it.
async fn result_of(mut outcome: Outcome, entry: Option<Arc<dyn EntrySpec>>) -> Bytes {
    if let (Outcome::Replied(reply), Some(entry)) = (&mut outcome, &entry)
        && let Some(format) = entry.answer()
        && let Err(fault) = encode(reply, format, &**entry).await
    {
        // A reply that cannot be encoded is an internal error, not the caller's.
        outcome = Outcome::Failed(Fault { code: Code::Internal, ..fault });
    }
    let stored = store_outcome(&outcome).map_err(|problem| problem.to_string());
    let fits = |result: &Bytes| result.len() <= MESSAGE_BYTES_MAX;
    match stored {
        Ok(result) if fits(&result) => result,
        problem => {
            let cause = problem.err().unwrap_or_else(|| "it exceeds 1 MiB".to_owned());
            let message = "the message was processed, and its reply cannot pass the queue";
            let fault = Fault::new(Code::Internal, "REPLY_UNSTORABLE", message).with_cause(cause);
            tracing::error!(problem = fault.cause.as_ref().and_then(|cause| cause.text.as_deref()), "reply is lost");
            store_outcome(&Outcome::Failed(fault)).unwrap_or_default()
        }
    }
}

/// Encodes a body that a step made, or that has a type.
async fn encode(reply: &mut Message, format: &WriteFormat, entry: &dyn EntrySpec) -> Result<(), Fault> {
    if matches!(reply.body, Body::Empty | Body::Null | Body::Raw { of_type: None, .. }) {
        return Ok(());
    }
    let of_type = entry.call_type().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
    encode_and_take_body(reply, format, of_type.as_ref()).await?.put_into(reply, format, of_type);
    Ok(())
}
