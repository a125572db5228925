//! Executes the steps of a route: one file per step, beside its plan in `routing/src/steps`.

mod call;
mod choice;
mod enrich;
mod evaluate;
mod event;
mod fault;
mod filter;
mod lock;
mod map;
mod multicast;
mod numbers;
mod require;
mod respond;
mod send;
mod set;
mod split;
mod tap;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_message::{Body, ByteString, Code, Deadline, Event, Fault, Headers, Limits, Message, Value};
use crossdock_ports::{Cancels, Outcome};
use crossdock_routing::expression::{Host, Meter, Request, Scope, Template};
use crossdock_routing::{CallPlan, RoutePlan, Step};

use futures_util::future::LocalBoxFuture;
use tokio::sync::Mutex;
use tracing::Instrument as _;

pub(crate) use self::evaluate::Budget;
use super::shards::Shards;
use crate::process::Fence;
use crate::stats::Phases;

/// The current body.
#[derive(Clone)]
enum Current {
    /// The body of the request.
    Request,
    /// The body of the last reply.
    Reply,
    /// A body created by a step.
    Created(Value),
}

/// What to execute after a step.
#[expect(clippy::large_enum_variant, reason = "returned once per step and never stored")]
enum Next<'s> {
    /// The next step.
    Step,
    /// These nested steps, then the next step.
    Enter(&'s [Step]),
    /// Nothing: the route ends with this outcome.
    End(Outcome),
}

/// The execution of a route's steps for one message.
pub(crate) struct Run<'a> {
    shards: &'a Shards,
    route: &'a RoutePlan,
    request: &'a Request,
    limits: &'a Limits,
    /// Which calls are cancelled if the caller disconnects.
    cancels: Cancels,
    deadline: Instant,
    current: Current,
    reply: Option<Message>,
    budget: &'a Mutex<Budget>,
    variables: Vec<(ByteString, Arc<Value>)>,
    /// Headers that steps have set since the last call.
    set: Headers,
    /// Attributes of the event that steps have set since the last call.
    set_event: Event,
    /// The suffix of the message id in a `split`.
    part: Option<ByteString>,
    /// The lock that is held.
    fence: Option<Fence>,
    sent: bool,
    started: Instant,
    first_call: Option<Instant>,
    processing: Duration,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        shards: &'a Shards,
        route: &'a RoutePlan,
        request: &'a Request,
        cancels: Cancels,
        budget: &'a Mutex<Budget>,
        deadline: Instant,
        now: Instant,
    ) -> Self {
        Self {
            shards,
            route,
            request,
            limits: &shards.generation().limits,
            cancels,
            deadline,
            current: Current::Request,
            reply: None,
            budget,
            variables: Vec::new(),
            set: Headers::new(),
            set_event: Event::default(),
            part: None,
            fence: None,
            sent: false,
            started: now,
            first_call: None,
            processing: Duration::ZERO,
        }
    }

    /// Executes it under a lock.
    pub(crate) fn under(&mut self, fence: Option<Fence>) {
        self.fence = fence;
    }

    /// The durations of the phases.
    pub(crate) fn phases(&self, now: Instant) -> Phases {
        let before = self.first_call.unwrap_or(now).saturating_duration_since(self.started);
        let all = now.saturating_duration_since(self.started);
        Phases { request: before, processing: self.processing, response: all.saturating_sub(before + self.processing) }
    }

    /// Executes all steps, and applies the error rules of the route to a fault.
    pub(crate) async fn execute(&mut self) -> Outcome {
        match self.follow(&self.route.steps).await {
            Ok(outcome) => outcome,
            Err(fault) => Outcome::Failed(Box::pin(self.apply_error_rules(fault)).await),
        }
    }

    async fn follow(&mut self, steps: &[Step]) -> Result<Outcome, Fault> {
        if let Some(outcome) = self.execute_all(steps).await? {
            return Ok(outcome);
        }
        if self.sent && self.reply.is_none() {
            return Ok(Outcome::Accepted);
        }
        Ok(self.reply_current(None))
    }

    /// Executes nested steps. The outcome of the message if one of them decides it.
    fn block<'b>(&'b mut self, steps: &'b [Step]) -> LocalBoxFuture<'b, Result<Option<Outcome>, Fault>> {
        Box::pin(self.execute_all(steps))
    }

    async fn execute_all(&mut self, steps: &[Step]) -> Result<Option<Outcome>, Fault> {
        let mut open = vec![steps.iter()];
        while let Some(steps) = open.last_mut() {
            let Some(step) = steps.next() else {
                open.pop();
                continue;
            };
            let span = tracing::debug_span!("step", name = step.name());
            let next = if span.is_disabled() {
                self.step(step).await?
            } else {
                // Boxed, to keep the future of the common case small.
                Box::pin(self.step(step).instrument(span)).await?
            };
            match next {
                Next::Step => {}
                Next::Enter(steps) => open.push(steps.iter()),
                Next::End(outcome) => return Ok(Some(outcome)),
            }
        }
        Ok(None)
    }

    async fn step<'s>(&mut self, step: &'s Step) -> Result<Next<'s>, Fault> {
        match step {
            Step::Map(step) => self.map(step).await?,
            Step::Set(step) => self.set(step).await?,
            Step::Event(step) => Box::pin(self.event(step)).await?,
            Step::Require(step) => self.require(step).await?,
            Step::Filter(step) if self.filter(step).await? => return Ok(Next::End(Outcome::Accepted)),
            Step::Filter(_) => {}
            Step::Call(step) => self.call(step).await?,
            Step::Send(step) => self.send(step).await?,
            Step::Choice(step) => return Ok(self.choose(step).await?.map_or(Next::Step, Next::Enter)),
            Step::Multicast(step) => self.multicast(step).await?,
            Step::Split(step) => self.split(step).await?,
            Step::Enrich(step) => self.enrich(step).await?,
            Step::Lock(step) => return Ok(Box::pin(self.lock(step)).await?.map_or(Next::Step, Next::End)),
            Step::Tap(step) => self.tap(step).await,
            Step::Respond(step) => return self.respond(step).await.map(Next::End),
            Step::Fault(step) => return Err(Box::pin(self.fault(step)).await?),
        }
        Ok(Next::Step)
    }

    /// Whether `header` and `msg` in expressions refer to the reply.
    fn is_on_reply(&self) -> bool {
        matches!(self.current, Current::Reply | Current::Created(_)) && self.reply.is_some()
    }

    fn scope<'s>(&'s self, meter: &'s Meter, host: &'s dyn Host) -> Scope<'s> {
        let current = self.reply.as_ref().filter(|_| self.is_on_reply()).unwrap_or(&self.request.message);
        Scope {
            request: self.request,
            current,
            reply: self.reply.as_ref(),
            variables: &self.variables,
            item: None,
            host,
            meter,
            limits: self.limits,
        }
    }

    /// A message to a service without a body: with the context, key and time of the request and the headers that the route forwards or sets, but
    /// nothing from replies.
    fn envelope(&self) -> Message {
        let request = &self.request.message;
        let id = match &self.part {
            None => request.id.clone(),
            Some(part) => format!("{}{part}", request.id).into(),
        };
        let mut message = Message::new(id, request.source.clone());
        message.deadline = Some(Deadline::at(self.deadline));
        message.context.clone_from(&request.context);
        message.work.clone_from(&request.work);
        message.key.clone_from(&request.key);
        message.time = request.time;
        message.event = self.event_to_send();
        message.headers = request.headers.clone();
        for (name, value) in self.set.iter() {
            // Both were validated when they were set.
            let _ = message.headers.set(name.clone(), value.clone());
        }
        message
    }

    fn outgoing(&self, plan: &CallPlan) -> Message {
        let mut message = self.envelope();
        match (&self.current, &self.reply) {
            (Current::Created(value), _) => message.body = Body::Value(value.clone()),
            // An operation without a body does not get a previous reply; fields of a typed reply may be needed for its address.
            (Current::Reply, Some(Message { body: Body::Raw { of_type: None, .. }, .. }))
                if plan.operation.body().is_none() => {}
            (Current::Reply, Some(reply)) => {
                message.body = reply.body.clone();
                message.content_type.clone_from(&reply.content_type);
            }
            _ => {
                message.body = self.request.message.body.clone();
                message.content_type.clone_from(&self.request.message.content_type);
                message.params = self.request.message.params.clone();
                message.query.clone_from(&self.request.message.query);
            }
        }
        message
    }

    async fn exchange(&mut self, plan: &CallPlan, mut message: Message) -> Result<Message, Fault> {
        if Self::is_long_to_prepare(plan, &message) {
            // Boxed, to keep the future of the common short case small.
            Box::pin(self.prepare(plan, &mut message)).await?;
        }
        // Not before: it is another token in each attempt to process the message, which must be recognized.
        if let Some(fence) = &self.fence {
            fence.mark(&mut message);
        }
        let started = Instant::now();
        self.first_call.get_or_insert(started);
        // A service may go on with a cancelled call, beside the next holder of the lock.
        let cancels = if self.fence.is_some() { Cancels::Never } else { self.cancels };
        let calling = (cancels, self.fence.clone());
        let answer = self.shards.call(plan, message, &self.route.headers.response, self.deadline, calling)?;
        let result = answer.await;
        self.processing += started.elapsed();
        // The sender is dropped only if the actor panicked before it started a task for the call.
        result.unwrap_or_else(|_| Err(Fault::new(Code::Internal, "PANIC", "the gateway failed to process the call")))
    }

    /// Applies the first matching error rule to a fault.
    async fn apply_error_rules(&self, fault: Fault) -> Fault {
        let Some(rule) = self.route.errors.iter().find(|rule| rule.applies_to(&fault)) else { return fault };
        let mut mapped = fault;
        if let Some(code) = rule.code {
            mapped.code = code;
            mapped.http_status = None;
        }
        if let Some(message) = &rule.message {
            let text = self.error_text(message).await;
            mapped.message = text.unwrap_or(ByteString::from_static("the request failed"));
        }
        mapped
    }

    /// A fault defined by the route.
    async fn route_fault(&self, code: Code, reason: &'static str, message: &Template) -> Result<Fault, Fault> {
        Ok(Fault::caller(code, reason, self.evaluate(message, Template::render).await?))
    }
}
