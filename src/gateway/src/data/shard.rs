//! A service on one data arbiter: the actor that receives calls, and the task that executes each.

mod in_flight;
mod members;
mod watch;

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler};
use crossdock_message::{Body, ByteString, Code, Deadline, EndpointVerdict, Fault, Message, Origin, Retry};
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
use crate::process::Fence;
use crate::process::health::{Failure, verdict};
use in_flight::InFlight;
use members::{Member, Members};

/// The message of the actor that starts a call.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct DispatchCall(pub(crate) Box<Call>);

/// A call to a service. The permit is released however the call ends, including by a panic.
pub(crate) struct Call {
    /// Receives the reply. If the receiver is dropped, the call is cancelled only if [`CallRequest::cancels`].
    pub(crate) reply: oneshot::Sender<Result<Message, Fault>>,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) request: CallRequest,
}

/// The request of a call.
pub(crate) struct CallRequest {
    pub(crate) operation: Arc<dyn OperationSpec>,
    pub(crate) idempotent: bool,
    pub(crate) retried: bool,
    /// Whether the call is cancelled if the caller disconnects.
    pub(crate) cancels: bool,
    pub(crate) message: Message,
    /// The reply headers to return.
    pub(crate) carry: Arc<[ByteString]>,
    pub(crate) deadline: Instant,
    /// The lock under which it is made, which is held until it has ended.
    pub(crate) fence: Option<Fence>,
}

/// The actor. It only spawns a task per call, so that a failing call does not affect it.
pub(crate) struct ServiceShard {
    state: Rc<ShardState>,
}

/// The state shared by the calls of one shard.
pub(crate) struct ShardState {
    share: ServiceShare,
    members: Members,
    picker: RefCell<Picker>,
    budget: RefCell<RetryBudget>,
    /// Remaining cancellations. A cancelled call costs the service a connection or a stream reset, which it may limit, so that each has to be
    /// earned by a completed call.
    cancellations: Cell<u32>,
    following: Cell<Option<AbortOnDropHandle<()>>>,
}

/// The result of one attempt, with the endpoint that failed.
type AttemptResult = Result<(Message, Outstanding), (Fault, Option<Rc<Member>>)>;

/// The maximum number of earned cancellations.
const CANCELLATIONS_MAX: u32 = 100;

/// The maximum number of unreachable endpoints that one attempt skips.
const SKIPPED_MAX: usize = 8;

fn breaker_open(service: &str, wait: std::time::Duration) -> Fault {
    let message = format!("the circuit breaker of the service `{service}` is open: too many calls failed");
    Fault::new(Code::Unavailable, "BREAKER_OPEN", message)
        .with_retry(Retry::After(wait))
        .with_endpoint_verdict(EndpointVerdict::None)
}

impl ShardState {
    pub(crate) fn open(share: &ServiceShare, adapters: &[Arc<dyn Adapter>]) -> Result<Rc<Self>, AdapterError> {
        let plan = &share.plan;
        let unknown = || AdapterError::Settings(format!("there is no adapter `{}`", plan.adapter));
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
        let Call { mut reply, permit, mut request } = *call;
        let (cancels, deadline) = (request.cancels, request.deadline);
        let attempts = AssertUnwindSafe(self.attempts(&mut request, started)).catch_unwind();
        let caller_left = async {
            if cancels {
                reply.closed().await;
                if let Some(left) = self.cancellations.get().checked_sub(1) {
                    self.cancellations.set(left);
                    return;
                }
            }
            // The call completes, and holds its permit until then.
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            biased;
            result = attempts => result.unwrap_or_else(|_| {
                stats.count(|stats| &stats.panics);
                tracing::error!(service = %self.share.plan.name, "call panicked");
                Err(Fault::new(Code::Internal, "PANIC", "the gateway failed to process the call"))
            }),
            // Dropping the attempts cancels the call at the service.
            () = caller_left => Err(Fault::new(Code::Cancelled, "CALLER_LEFT", "the caller disconnected")),
        };
        let failed = result.as_ref().err().map(|fault| fault.code);
        if failed != Some(Code::Cancelled) {
            self.cancellations.set((self.cancellations.get() + 1).min(CANCELLATIONS_MAX));
        }
        let result = match result {
            // The call is in flight, and holds its permit, until its stream ends.
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
        discard(request.message.body);
        // The caller may have disconnected.
        let _ = reply.send(result);
    }

    async fn attempts(
        self: &Rc<Self>,
        call: &mut CallRequest,
        started: Instant,
    ) -> Result<(Message, Outstanding), Fault> {
        let plan = &self.share.plan;
        self.budget.borrow_mut().earn();
        let admitted = match &plan.breaker {
            None => None,
            Some(breaker) => match self.share.health.breaker.admit(breaker, started) {
                Ok(admitted) => Some((admitted, breaker)),
                Err(wait) => {
                    self.share.stats.count(|stats| &stats.broken);
                    return Err(self.with_service_name(breaker_open(&plan.name, wait)));
                }
            },
        };
        let result = self.admitted_attempts(call, started).await;
        if let Some((admitted, breaker)) = admitted
            && let Some(verdict) = verdict(&result)
        {
            admitted.finish(verdict.is_err(), breaker, Instant::now());
        }
        result
    }

    async fn admitted_attempts(
        self: &Rc<Self>,
        call: &mut CallRequest,
        started: Instant,
    ) -> Result<(Message, Outstanding), Fault> {
        let plan = &self.share.plan;
        let mut now = started;
        let mut failed_at = None;
        let mut last_fault: Option<Fault> = None;
        for attempt in 1.. {
            if call.deadline <= now {
                // The fault of the previous attempt is more specific than an expired deadline.
                let message = "the deadline expired before the service was called";
                return Err(last_fault.unwrap_or_else(|| {
                    self.with_service_name(Fault::new(Code::DeadlineExceeded, "DEADLINE", message))
                }));
            }
            if let Some(fence) = &call.fence {
                fence.check()?;
            }
            let fault = match self.attempt(call, failed_at.as_ref(), now).await {
                Ok(reply) => return Ok(reply),
                Err((fault, member)) => {
                    failed_at = member;
                    self.with_service_name(fault)
                }
            };
            // A request stream that was read from cannot be sent again.
            let is_started = matches!(&call.message.body, Body::Stream(stream) if stream.is_taken());
            let Some(retry) = plan.retry.as_ref().filter(|_| call.retried && !is_started) else { return Err(fault) };
            let left = call.deadline.saturating_duration_since(Instant::now());
            match retry.decide(&fault, attempt, call.idempotent, left, rand::random()) {
                Verdict::GiveUp => return Err(fault),
                Verdict::After(_) if !self.budget.borrow_mut().spend() => return Err(fault),
                Verdict::After(wait) => tokio::time::sleep(wait).await,
            }
            self.share.stats.count(|stats| &stats.retries);
            last_fault = Some(fault);
            now = Instant::now();
        }
        unreachable!("the plan bounds the attempts of a call");
    }

    /// One attempt, at the first reachable endpoint. Skipping an unreachable one is not a retry, since nothing was sent.
    async fn attempt(
        self: &Rc<Self>,
        call: &mut CallRequest,
        avoided: Option<&Rc<Member>>,
        mut now: Instant,
    ) -> AttemptResult {
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
            let result = self.at_endpoint(call, member, now).await;
            now = Instant::now();
            let verdict = verdict(&result);
            let fault = match result {
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
                    let is_started = matches!(&call.message.body, Body::Stream(stream) if stream.is_taken());
                    if !is_last && !is_started && now < call.deadline {
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
        call: &mut CallRequest,
        member: &Member,
        now: Instant,
    ) -> Result<(Message, Outstanding), Fault> {
        let streams = call.operation.call_type().is_some_and(|call| call.client_streaming || call.server_streaming);
        // The first message of a stream may take longer than the timeout, so that only the deadline applies.
        let until = if streams { call.deadline } else { call.deadline.min(now + self.share.plan.timeout) };
        call.message.deadline = Some(Deadline::at(until));
        let outstanding = member.load.begin();
        let answer = member.port.call(&*call.operation, &call.message, &call.carry);
        match tokio::time::timeout_at(until.into(), answer).await {
            Ok(Ok(reply)) => Ok((reply, outstanding)),
            Ok(Err(fault)) => Err(fault.at_endpoint(&*member.health.address)),
            // Distinguish the deadline of the caller from the timeout of the service.
            Err(_) if until == call.deadline && until < now + self.share.plan.timeout => {
                Err(Fault::new(Code::DeadlineExceeded, "DEADLINE", "the service did not reply before the deadline"))
            }
            Err(_) => Err(Fault::new(
                Code::DeadlineExceeded,
                "SERVICE_TIMEOUT",
                "the service did not reply within its timeout",
            )
            .with_endpoint_verdict(EndpointVerdict::Failed)),
        }
    }

    /// Sets the origin of a fault to the name of the service in route files.
    fn with_service_name(&self, fault: Fault) -> Fault {
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

impl Handler<DispatchCall> for ServiceShard {
    type Result = ();

    fn handle(&mut self, DispatchCall(call): DispatchCall, _: &mut Context<Self>) {
        let span = match &call.request.message.context {
            Some(context) if !context.span.is_disabled() => {
                let (service, operation) = (&self.state.share.plan.name, call.request.operation.describe());
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

/// Makes the actor panic, to test that it is restarted.
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
