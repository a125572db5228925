//! A service on one data arbiter: the actor that takes calls, and the task that each becomes.

mod in_flight;
mod members;
mod watch;

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler};
use crossdock_message::{Body, ByteString, Code, Deadline, Fault, Message, Origin, Retry};
use crossdock_offload::discard;
use crossdock_ports::{Adapter, AdapterError, OperationSpec};
use crossdock_routing::{RetryBudget, Verdict};
use crossdock_transport::unreachable;
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::picker::{Outstanding, Picker};
use crate::generation::ServiceShare;
use crate::process::health::{Failure, verdict};
use in_flight::InFlight;
use members::{Member, Members};

/// A call as the actor's mailbox carries it.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct TakeCall(pub(crate) Box<Call>);

/// One call on its way to a service. The permit is given back wherever the call ends, panic included.
pub(crate) struct Call {
    /// Where the reply goes; a caller who left does not undo the call, unless it says so.
    pub(crate) reply: oneshot::Sender<Result<Message, Fault>>,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) rest: Asked,
}

/// What is asked of the service.
pub(crate) struct Asked {
    pub(crate) operation: Arc<dyn OperationSpec>,
    pub(crate) idempotent: bool,
    pub(crate) retried: bool,
    /// The work is given up where nobody waits for the reply any more.
    pub(crate) cancels: bool,
    pub(crate) message: Message,
    /// Headers of the reply that are wanted.
    pub(crate) carry: Arc<[ByteString]>,
    pub(crate) deadline: Instant,
}

/// The actor. It decides nothing that could fail: each call becomes a task of its own.
pub(crate) struct ServiceShard {
    state: Rc<ShardState>,
}

/// What the calls of one shard share.
pub(crate) struct ShardState {
    share: ServiceShare,
    members: Members,
    picker: RefCell<Picker>,
    budget: RefCell<RetryBudget>,
    /// Calls that may still be given up because their callers left: each costs the service a connection, or a reset that it may count
    /// against us, and so has to be earned by calls that came to their end.
    cancellations: Cell<u32>,
    following: Cell<Option<AbortOnDropHandle<()>>>,
}

/// What one try came to at its endpoint.
type Tried = Result<(Message, Outstanding), (Fault, Option<Rc<Member>>)>;

/// Calls that may be given up at once, after as many have come to their end.
const CANCELLATIONS_MAX: u32 = 100;

/// Endpoints that one try passes over because they cannot be reached.
const SKIPPED_MAX: usize = 8;

fn breaker_open(service: &str, wait: std::time::Duration) -> Fault {
    let message = format!("the circuit breaker of the service `{service}` is open: too many calls failed");
    Fault::new(Code::Unavailable, "BREAKER_OPEN", message).with_retry(Retry::After(wait))
}

impl ShardState {
    pub(crate) fn open(share: &ServiceShare, adapters: &[Arc<dyn Adapter>]) -> Result<Rc<Self>, AdapterError> {
        let plan = &share.plan;
        let unknown = || AdapterError::Settings(format!("the adapter `{}` is not there", plan.adapter));
        let adapter = adapters.iter().find(|adapter| adapter.name() == plan.adapter).ok_or_else(unknown)?;
        let percent = plan.retry.as_ref().map_or(0, |retry| retry.budget_percent);
        let state = Rc::new(Self {
            members: Members::open(&**adapter, plan, &share.health)?,
            share: share.clone(),
            picker: RefCell::new(Picker::new(plan.balance)),
            budget: RefCell::new(RetryBudget::new(percent)),
            cancellations: Cell::new(CANCELLATIONS_MAX),
            following: Cell::new(None),
        });
        state.follow_endpoints();
        state.start_checks();
        Ok(state)
    }

    async fn serve(self: Rc<Self>, call: Box<Call>) {
        let stats = Arc::clone(&self.share.stats);
        let started = Instant::now();
        stats.begin();
        let Call { mut reply, permit, mut rest } = *call;
        let (cancels, deadline) = (rest.cancels, rest.deadline);
        let tries = AssertUnwindSafe(self.tries(&mut rest, started)).catch_unwind();
        let left = async {
            if cancels {
                reply.closed().await;
                if let Some(left) = self.cancellations.get().checked_sub(1) {
                    self.cancellations.set(left);
                    return;
                }
            }
            // It comes to its end, and holds its credit until then.
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            biased;
            result = tries => result.unwrap_or_else(|_| {
                stats.count(|stats| &stats.panics);
                tracing::error!(service = %self.share.plan.name, "a call panicked; its caller got INTERNAL");
                Err(Fault::new(Code::Internal, "PANIC", "the gateway failed on this call"))
            }),
            // Dropping the call cancels it at the service.
            () = left => Err(Fault::new(Code::Cancelled, "CALLER_LEFT", "the caller left")),
        };
        let failed = result.as_ref().err().map(|fault| fault.code);
        if failed != Some(Code::Cancelled) {
            self.cancellations.set((self.cancellations.get() + 1).min(CANCELLATIONS_MAX));
        }
        let result = match result {
            // A call lasts as long as its stream, and so does its credit.
            Ok((mut message, outstanding)) if matches!(message.body, Body::Stream(_)) => {
                let counted = InFlight::new(stats, permit, started, outstanding);
                message.body = counted.wrap_body(message.body, deadline, self.share.plan.name.clone());
                let _ = reply.send(Ok(message));
                return;
            }
            other => other.map(|(message, _)| message),
        };
        stats.finish(failed, started.elapsed());
        drop(permit);
        discard(rest.message.body);
        // A caller who left does not want it any more.
        let _ = reply.send(result);
    }

    async fn tries(self: &Rc<Self>, call: &mut Asked, started: Instant) -> Result<(Message, Outstanding), Fault> {
        let plan = &self.share.plan;
        self.budget.borrow_mut().earn();
        let admitted = match &plan.breaker {
            None => None,
            Some(breaker) => match self.share.health.breaker.admit(breaker, started) {
                Ok(admitted) => Some((admitted, breaker)),
                Err(wait) => {
                    self.share.stats.count(|stats| &stats.broken);
                    return Err(self.named(breaker_open(&plan.name, wait)));
                }
            },
        };
        let result = self.admitted_tries(call, started).await;
        if let Some((admitted, breaker)) = admitted
            && let Some(verdict) = verdict(&result)
        {
            admitted.finish(verdict.is_err(), breaker, Instant::now());
        }
        result
    }

    async fn admitted_tries(
        self: &Rc<Self>,
        call: &mut Asked,
        started: Instant,
    ) -> Result<(Message, Outstanding), Fault> {
        let plan = &self.share.plan;
        let mut now = started;
        let mut failed_at = None;
        let mut before: Option<Fault> = None;
        for attempt in 1.. {
            if call.deadline <= now {
                // Why the try before failed says more than that there is no time for another.
                let message = "the time was spent before the service was called";
                return Err(
                    before.unwrap_or_else(|| self.named(Fault::new(Code::DeadlineExceeded, "DEADLINE", message)))
                );
            }
            let fault = match self.attempt(call, failed_at.as_ref(), now).await {
                Ok(reply) => return Ok(reply),
                Err((fault, member)) => {
                    failed_at = member;
                    self.named(fault)
                }
            };
            // A stream that was begun is gone: its beginning cannot be sent again.
            let begun = matches!(&call.message.body, Body::Stream(stream) if stream.is_taken());
            let Some(retry) = plan.retry.as_ref().filter(|_| call.retried && !begun) else { return Err(fault) };
            let left = call.deadline.saturating_duration_since(Instant::now());
            match retry.decide(&fault, attempt, call.idempotent, left, rand::random()) {
                Verdict::GiveUp => return Err(fault),
                Verdict::After(_) if !self.budget.borrow_mut().spend() => return Err(fault),
                Verdict::After(wait) => tokio::time::sleep(wait).await,
            }
            self.share.stats.count(|stats| &stats.retries);
            before = Some(fault);
            now = Instant::now();
        }
        unreachable!("the tries of a call are bounded by its plan");
    }

    /// One try, at the first endpoint that can be reached: nothing was sent to one that cannot, and it costs no retry.
    async fn attempt(self: &Rc<Self>, call: &mut Asked, avoided: Option<&Rc<Member>>, mut now: Instant) -> Tried {
        let members = self.members.current();
        let mut skipped: Vec<usize> = Vec::new();
        loop {
            let rank = |at: usize| {
                let is_avoided = avoided.is_some_and(|avoided| Rc::ptr_eq(avoided, &members[at]));
                (!skipped.contains(&at)).then(|| (members[at].health.state(now), is_avoided))
            };
            let picked = self.picker.borrow_mut().pick(members.len(), rank, |at| &members[at].load);
            let Some(at) = picked else {
                return Err((unreachable("the service has no endpoint"), None));
            };
            let member = &members[at];
            let tried = self.at_endpoint(call, member, now).await;
            now = Instant::now();
            let verdict = verdict(&tried);
            let fault = match tried {
                Ok(reply) => {
                    member.health.succeeded();
                    return Ok(reply);
                }
                Err(fault) => fault,
            };
            match verdict {
                None => {}
                Some(Ok(())) => member.health.succeeded(),
                Some(Err(Failure::Call)) => member.health.failed(now, || self.share.health.may_eject(now)),
                Some(Err(Failure::Unreachable)) => {
                    self.unreachable(member, &fault, now);
                    skipped.push(at);
                    let is_last = skipped.len() == members.len() || skipped.len() == SKIPPED_MAX;
                    let is_begun = matches!(&call.message.body, Body::Stream(stream) if stream.is_taken());
                    if !is_last && !is_begun && now < call.deadline {
                        self.share.stats.count(|stats| &stats.skipped);
                        continue;
                    }
                }
            }
            return Err((fault, Some(Rc::clone(member))));
        }
    }

    async fn at_endpoint(
        &self,
        call: &mut Asked,
        member: &Member,
        now: Instant,
    ) -> Result<(Message, Outstanding), Fault> {
        let streams = call.operation.call_type().is_some_and(|call| call.client_streaming || call.server_streaming);
        // A service may let its first message wait; a stream is bounded by its deadline.
        let until = if streams { call.deadline } else { call.deadline.min(now + self.share.plan.timeout) };
        call.message.deadline = Some(Deadline::at(until));
        let outstanding = member.load.begin();
        let answer = member.port.call(&*call.operation, &call.message, &call.carry);
        match tokio::time::timeout_at(until.into(), answer).await {
            Ok(Ok(reply)) => Ok((reply, outstanding)),
            Ok(Err(fault)) => Err(fault.at_endpoint(&*member.health.address)),
            // The time was the caller's, or the service's own.
            Err(_) if until == call.deadline && until < now + self.share.plan.timeout => {
                Err(Fault::new(Code::DeadlineExceeded, "DEADLINE", "the service did not answer before the deadline"))
            }
            Err(_) => Err(Fault::new(Code::DeadlineExceeded, "SERVICE_TIMEOUT", "the service did not answer in time")),
        }
    }

    /// The fault with the service's name as route files know it.
    fn named(&self, fault: Fault) -> Fault {
        match fault.origin {
            Origin::Caller => fault,
            Origin::Gateway | Origin::Service(_) => fault.with_origin(Origin::Service(self.share.plan.name.clone())),
        }
    }
}

impl ServiceShard {
    pub(crate) fn new(state: Rc<ShardState>) -> Self {
        Self { state }
    }
}

impl Actor for ServiceShard {
    type Context = Context<Self>;
}

impl Handler<TakeCall> for ServiceShard {
    type Result = ();

    fn handle(&mut self, TakeCall(call): TakeCall, _: &mut Context<Self>) {
        let span = match &call.rest.message.context {
            Some(context) if !context.span.is_disabled() => {
                let (service, operation) = (&self.state.share.plan.name, call.rest.operation.describe());
                tracing::debug_span!(parent: &context.span, "call", %service, operation)
            }
            _ => tracing::Span::none(),
        };
        let serving = Rc::clone(&self.state).serve(call);
        if span.is_disabled() {
            actix_rt::spawn(serving);
        } else {
            actix_rt::spawn(serving.instrument(span));
        }
    }
}

/// Makes the actor panic, to show that it is replaced.
#[cfg(test)]
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Crash;

#[cfg(test)]
impl Handler<Crash> for ServiceShard {
    type Result = ();

    fn handle(&mut self, _: Crash, _: &mut Context<Self>) {
        panic!("on purpose");
    }
}
