//! A service on one data arbiter: the actor that takes calls, and the task that each becomes.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler};
use crossdock_adapter_api::{Adapter, AdapterError, OperationSpec, Outbound};
use crossdock_message::{ByteString, Code, Deadline, Fault, Message, Origin};
use crossdock_routing::{RetryBudget, Verdict};
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::picker::Picker;
use crate::generation::ServiceShare;

/// A call as the actor's mailbox carries it.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct TakeCall(pub(crate) Box<Call>);

/// One call on its way to a service. The permit is given back wherever the call ends, panic included.
pub(crate) struct Call {
    pub(crate) operation: Arc<dyn OperationSpec>,
    pub(crate) idempotent: bool,
    pub(crate) retried: bool,
    pub(crate) message: Message,
    /// Headers of the reply that are wanted.
    pub(crate) carry: Arc<[ByteString]>,
    pub(crate) deadline: Instant,
    pub(crate) permit: OwnedSemaphorePermit,
    /// Where the reply goes; a caller who left does not undo the call.
    pub(crate) reply: oneshot::Sender<Result<Message, Fault>>,
}

/// The actor. It decides nothing that could fail: each call becomes a task of its own.
pub(crate) struct ServiceShard {
    state: Rc<ShardState>,
}

/// What the calls of one shard share.
pub(crate) struct ShardState {
    share: ServiceShare,
    ports: Vec<Rc<dyn Outbound>>,
    picker: RefCell<Picker>,
    budget: RefCell<RetryBudget>,
}

impl ShardState {
    pub(crate) fn open(share: &ServiceShare, adapters: &[Arc<dyn Adapter>]) -> Result<Rc<Self>, AdapterError> {
        let plan = &share.plan;
        let unknown = || AdapterError::Settings(format!("the adapter `{}` is not there", plan.adapter));
        let adapter = adapters.iter().find(|adapter| adapter.name() == plan.adapter).ok_or_else(unknown)?;
        let endpoints = plan.spec.endpoints().len();
        let ports = (0..endpoints).map(|endpoint| adapter.open_outbound(&*plan.spec, endpoint));
        let percent = plan.retry.as_ref().map_or(0, |retry| retry.budget_percent);
        Ok(Rc::new(Self {
            ports: ports.collect::<Result<_, _>>()?,
            share: share.clone(),
            picker: RefCell::new(Picker::new(plan.balance, endpoints)),
            budget: RefCell::new(RetryBudget::new(percent)),
        }))
    }

    async fn serve(self: Rc<Self>, mut call: Box<Call>) {
        let stats = Arc::clone(&self.share.stats);
        let started = Instant::now();
        stats.begin();
        let tries = self.tries(&mut call, started);
        let result = AssertUnwindSafe(tries).catch_unwind().await.unwrap_or_else(|_| {
            stats.count(|stats| &stats.panics);
            tracing::error!(service = %self.share.plan.name, "a call panicked; its caller got INTERNAL");
            Err(Fault::new(Code::Internal, "PANIC", "the gateway failed on this call"))
        });
        stats.finish(result.as_ref().err().map(|fault| fault.code), started.elapsed());
        let Call { permit, reply, .. } = *call;
        drop(permit);
        // A caller who left does not want it any more.
        let _ = reply.send(result);
    }

    async fn tries(&self, call: &mut Call, started: Instant) -> Result<Message, Fault> {
        let plan = &self.share.plan;
        self.budget.borrow_mut().earn();
        let mut now = started;
        for attempt in 1.. {
            let fault = match self.attempt(call, now).await {
                Ok(reply) => return Ok(reply),
                Err(fault) => self.named(fault),
            };
            let Some(retry) = plan.retry.as_ref().filter(|_| call.retried) else { return Err(fault) };
            let left = call.deadline.saturating_duration_since(Instant::now());
            match retry.decide(&fault, attempt, call.idempotent, left, rand::random()) {
                Verdict::GiveUp => return Err(fault),
                Verdict::After(_) if !self.budget.borrow_mut().spend() => return Err(fault),
                Verdict::After(wait) => tokio::time::sleep(wait).await,
            }
            self.share.stats.count(|stats| &stats.retries);
            now = Instant::now();
        }
        unreachable!("the tries of a call are bounded by its plan");
    }

    async fn attempt(&self, call: &mut Call, now: Instant) -> Result<Message, Fault> {
        if call.deadline <= now {
            return Err(Fault::new(
                Code::DeadlineExceeded,
                "DEADLINE",
                "the time was spent before the service was called",
            ));
        }
        let until = call.deadline.min(now + self.share.plan.timeout);
        call.message.deadline = Some(Deadline::at(until));
        let outstanding = Outstanding::begin(&self.picker);
        let answer = self.ports[outstanding.endpoint].call(&*call.operation, &call.message, &call.carry);
        match tokio::time::timeout_at(until.into(), answer).await {
            Ok(result) => result,
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

/// A call under way; it ends when this is dropped.
struct Outstanding<'a> {
    picker: &'a RefCell<Picker>,
    endpoint: usize,
}

impl<'a> Outstanding<'a> {
    fn begin(picker: &'a RefCell<Picker>) -> Self {
        Self { endpoint: picker.borrow_mut().begin(), picker }
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.picker.borrow_mut().end(self.endpoint);
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
        actix_rt::spawn(Rc::clone(&self.state).serve(call));
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
