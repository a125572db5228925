//! Policies of routes at run time: decisions before the first step of a message and after its last.
//!
//! | hook | called | may |
//! | --- | --- | --- |
//! | [`Policy::head`] | before the body is read | refuse |
//! | [`Policy::arrive`] | in the first poll of the dispatch, before anything is awaited | refuse, and take a position in the order of arrival |
//! | [`Arrived::admit`] | one policy after another, in the order of `crossdock_routing::Policies` | wait, refuse, or answer in place of the steps |
//! | [`Admitted::fence`] | before the first step | have its calls checked against a lock of the cluster |
//! | [`Admitted::reply`] | on a reply, in reverse order | change it |
//! | [`Admitted::end`] | once the outcome is known, in reverse order | release locks, store the outcome |
//!
//! One policy is one file, beside its plan in `routing/src/policies`. A message that was admitted by a policy is processed to its end even
//! if its caller leaves, so that [`Admitted::end`] sees the outcome.

mod idempotency;
mod idempotency_in_cluster;
mod order;
mod ordered;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crossdock_embedded::Engine;
use crossdock_message::{ByteString, Code, Deadline, Fault, Message, RequestContext, Retry};
use crossdock_ports::{Head, LocalFuture, OrderGuard, Outcome};
use crossdock_routing::expression::{Expression, Meter, Request, Scope};
use crossdock_routing::{KeyMemory, RoutePlan};

use self::idempotency::Idempotency;
use self::idempotency_in_cluster::IdempotencyInCluster;
use super::ingress::RouteExchange;
use crate::host::SystemHost;
use crate::process::{Fence, RouteState};
use crate::stats::{Phases, RouteStats};

/// Maximum length of a key in bytes.
const KEY_LEN_MAX: usize = 512;

/// A policy of one route.
pub(crate) trait Policy: Send + Sync {
    /// Decides on the head of a message.
    ///
    /// # Errors
    /// The fault for the caller.
    fn head(&self, head: &Head<'_>) -> Result<(), Fault> {
        let _ = head;
        Ok(())
    }

    /// Decides on a message in the order of arrival. `None` lets it pass.
    ///
    /// # Errors
    /// The fault for the caller.
    fn arrive(&self, arrival: &Arrival<'_>) -> Result<Option<Box<dyn Arrived>>, Fault>;
}

/// A message that waits to be admitted. Dropping it withdraws the message.
pub(crate) trait Arrived {
    /// Admits the message, or answers it without any step.
    fn admit(self: Box<Self>) -> LocalFuture<'static, Result<Option<Box<dyn Admitted>>, Answer>>;
}

/// The outcome of a message that is not processed by steps here.
pub(crate) struct Answer {
    outcome: Outcome,
    /// It is, or was, processed by an instance that counts it.
    is_counted: bool,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, is_counted: false }
    }
}

/// A message that was admitted. Dropping it means that its processing failed unexpectedly.
pub(crate) trait Admitted {
    /// Called with a reply before it is sent.
    fn reply(&mut self, reply: &mut Message) {
        let _ = reply;
    }

    /// The locks of the cluster under which the message is processed. `outer` are those that are held already.
    fn fence(&self, outer: Option<Fence>) -> Option<Fence> {
        outer
    }

    /// Called with the outcome, which is not answered before the returned future has ended.
    fn end(self: Box<Self>, outcome: &mut Outcome) -> Option<LocalFuture<'_, ()>>;
}

/// A message, as policies see it.
pub(crate) struct Arrival<'m> {
    pub(crate) request: &'m Request,
    /// The position of its entry in the route.
    pub(crate) entry: usize,
    /// Keeps its position in the order over several attempts, if its adapter redelivers messages; then no caller waits for a reply.
    pub(crate) guard: Option<&'m Rc<OrderGuard>>,
    /// It comes from the queue of its route: it is its turn in the order over all instances.
    pub(crate) is_in_turn: bool,
    /// The end of the wait; `None` for a redelivered message without a deadline of its own.
    pub(crate) until: Option<Instant>,
    scope: &'m Scope<'m>,
}

impl Arrival<'_> {
    /// The value of a key expression. `policy` names its policy in errors.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it is absent, empty or too long.
    fn key(&self, expression: &Expression, policy: &str) -> Result<ByteString, Fault> {
        let text = expression.evaluate_optional(self.scope)?.and_then(|value| value.scalar_text());
        let problem = match text {
            None => "is absent",
            Some(text) if text.is_empty() => "is empty",
            Some(text) if text.len() > KEY_LEN_MAX => "is longer than 512 bytes",
            // Copy the key: a slice of the body would keep the whole body in memory.
            Some(text) => return Ok(ByteString::from(&*text)),
        };
        let message = format!("the key of `{policy}`, `{}`, {problem}", expression.source());
        Err(Fault::caller(Code::InvalidArgument, "KEY", message))
    }
}

/// The policies of a route that have state at run time, in the order of execution.
pub(crate) fn policies_of(
    plan: &RoutePlan,
    state: &Arc<RouteState>,
    stats: &Arc<RouteStats>,
    coordination: Option<&Engine>,
) -> Vec<Box<dyn Policy>> {
    let mut policies: Vec<Box<dyn Policy>> = Vec::new();
    if let Some(order) = &plan.policies.order {
        policies.push(match &order.cluster {
            None => Box::new(order::Order::new(order, state)),
            Some(cluster) => Box::new(ordered::Ordered::new(plan, order, *cluster, state, coordination)),
        });
    }
    if let Some(idempotency) = &plan.policies.idempotency {
        match idempotency.memory {
            KeyMemory::Instance => policies.push(Box::new(Idempotency::new(idempotency, state, stats))),
            KeyMemory::Cluster => {
                policies.push(Box::new(IdempotencyInCluster::new(plan, idempotency, stats, coordination)));
            }
            // The queue of the route recognizes them.
            KeyMemory::Queue => {}
        }
    }
    policies
}

impl RouteExchange {
    /// Processes a message of a route with policies. All policies see its arrival before anything is awaited.
    pub(super) async fn dispatch_by_policies(
        mut self: Box<Self>,
        message: Message,
        guard: Option<Rc<OrderGuard>>,
    ) -> Outcome {
        let context = message.context.clone();
        let (message, arrived) = match self.arrive(message, guard.as_ref()) {
            Ok(arrived) => arrived,
            Err(fault) => return self.without_steps(Outcome::Failed(fault), context),
        };
        let mut admitted = Vec::with_capacity(arrived.len());
        for policy in arrived {
            match policy.admit().await {
                Ok(policy) => admitted.extend(policy),
                Err(Answer { outcome, is_counted }) => {
                    let mut outcome = if is_counted { outcome } else { self.without_steps(outcome, context) };
                    end(admitted, &mut outcome).await;
                    return outcome;
                }
            }
        }
        if admitted.is_empty() {
            return self.follow(message).await;
        }
        self.fence = admitted.iter().fold(self.fence.take(), |outer, policy| policy.fence(outer));
        let processing = actix_rt::spawn(async move {
            let mut outcome = self.follow(message).await;
            if let Outcome::Replied(reply) = &mut outcome {
                admitted.iter_mut().rev().for_each(|policy| policy.reply(reply));
            }
            // Calls that still run hold the locks that they need.
            self.fence = None;
            end(admitted, &mut outcome).await;
            outcome
        });
        processing.await.unwrap_or_else(|_| {
            let message = "the gateway failed to process the message";
            Outcome::Failed(Fault::new(Code::Internal, "PANIC", message))
        })
    }

    /// Passes an arriving message to all policies and sets its deadline.
    fn arrive(
        &self,
        message: Message,
        guard: Option<&Rc<OrderGuard>>,
    ) -> Result<(Message, Vec<Box<dyn Arrived>>), Fault> {
        let generation = self.shards.generation();
        let route = self.route();
        let mut request = Request { message, binding: Arc::clone(route.entries[self.entry].binding()) };
        let latest = route.policies.deadline.of(&request.message, Instant::now());
        if guard.is_none() {
            // The deadline of a caller includes the wait; that of a queued message starts when it is admitted.
            request.message.deadline = Some(Deadline::at(latest));
        }
        let until = request.message.deadline.map(Deadline::instant);
        let meter = Meter::new(latest);
        let arrived = {
            let scope = Scope {
                request: &request,
                current: &request.message,
                reply: None,
                variables: &[],
                item: None,
                host: &SystemHost,
                meter: &meter,
                limits: &generation.limits,
            };
            let is_in_turn = self.is_in_turn;
            let arrival = Arrival { request: &request, entry: self.entry, guard, is_in_turn, until, scope: &scope };
            let policies = &generation.routes[self.route].policies;
            policies.iter().filter_map(|policy| policy.arrive(&arrival).transpose()).collect::<Result<_, _>>()?
        };
        Ok((request.message, arrived))
    }

    /// Counts the outcome of a message that is not processed by steps.
    fn without_steps(&self, outcome: Outcome, context: Option<Arc<RequestContext>>) -> Outcome {
        self.count(context).finish(outcome, Phases::default())
    }
}

async fn end(admitted: Vec<Box<dyn Admitted>>, outcome: &mut Outcome) {
    for policy in admitted.into_iter().rev() {
        if let Some(end) = policy.end(outcome) {
            end.await;
        }
    }
}

/// The fault of a message whose deadline passed before its turn came.
fn turn_timeout() -> Fault {
    let message = "the deadline passed while the message waited for its predecessors";
    Fault::new(Code::DeadlineExceeded, "TURN", message).with_retry(Retry::Same)
}

/// Waits until an instant, if there is one.
///
/// # Errors
/// DEADLINE_EXCEEDED at that instant.
async fn wait_until<T>(until: Option<Instant>, wait: impl Future<Output = T>) -> Result<T, Fault> {
    match until {
        None => Ok(wait.await),
        Some(until) => tokio::time::timeout_at(until.into(), wait).await.map_err(|_| turn_timeout()),
    }
}
