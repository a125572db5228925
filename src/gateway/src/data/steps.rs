//! Following a route's steps.

mod branches;
mod evaluate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_adapter_api::offload::INLINE_LEN;
use crossdock_adapter_api::{Cancels, Outcome};
use crossdock_message::{Body, ByteString, Code, Deadline, Fault, Headers, Limits, Message, Origin, Record, Value};
use crossdock_routing::expression::{Expression, Meter, Request, Scope, Template};
use crossdock_routing::{CallPlan, ErrorRule, MapPlan, RespondBody, RoutePlan, Step};

use tokio::sync::Mutex;

pub(crate) use self::evaluate::Budget;
use super::shards::Shards;
use crate::host::SystemHost;
use crate::stats::Phases;

/// What the next step works on.
#[derive(Clone)]
enum Current {
    /// The caller's message.
    Request,
    /// The last reply.
    Reply,
    /// A body that a step made.
    Made(Value),
}

/// One message on its way through a route.
pub(crate) struct Run<'a> {
    shards: &'a Shards,
    route: &'a RoutePlan,
    request: &'a Request,
    limits: &'a Limits,
    /// Whether the work is given up where the caller leaves.
    cancels: Cancels,
    deadline: Instant,
    current: Current,
    reply: Option<Message>,
    budget: &'a Mutex<Budget>,
    variables: Vec<(ByteString, Arc<Value>)>,
    /// Headers that steps have set since the last call.
    set: Headers,
    /// What a part's identity has behind that of the whole message.
    part: Option<ByteString>,
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
            part: None,
            sent: false,
            started: now,
            first_call: None,
            processing: Duration::ZERO,
        }
    }

    /// Where the time went.
    pub(crate) fn phases(&self, now: Instant) -> Phases {
        let before = self.first_call.unwrap_or(now).saturating_duration_since(self.started);
        let all = now.saturating_duration_since(self.started);
        Phases { request: before, processing: self.processing, response: all.saturating_sub(before + self.processing) }
    }

    /// Follows the steps to their end. A fault is answered by the route's own rules where one fits.
    pub(crate) async fn follow_to_end(&mut self) -> Outcome {
        match self.follow(&self.route.steps).await {
            Ok(outcome) => outcome,
            Err(fault) => Outcome::Failed(Box::pin(self.answered(fault)).await),
        }
    }

    async fn follow(&mut self, steps: &[Step]) -> Result<Outcome, Fault> {
        let mut open = vec![steps.iter()];
        while let Some(steps) = open.last_mut() {
            let Some(step) = steps.next() else {
                open.pop();
                continue;
            };
            match step {
                Step::Map(map) => self.current = Current::Made(self.evaluate(map, MapPlan::evaluate).await?),
                Step::Set(headers) => self.set_headers(headers).await?,
                Step::Require { that, code, message } => {
                    if !self.evaluate(that, Expression::evaluate_condition).await? {
                        return Err(Box::pin(self.own_fault(*code, "REQUIRED", message)).await?);
                    }
                }
                Step::Filter(that) => {
                    if !self.evaluate(that, Expression::evaluate_condition).await? {
                        return Ok(Outcome::Accepted);
                    }
                }
                Step::Multicast(branches) => self.multicast(branches).await?,
                Step::Split { items, name, at_once, steps } => self.split(items, name, *at_once, steps).await?,
                Step::Call(call) => {
                    let reply = self.call(call).await?;
                    self.reply = Some(reply);
                    self.current = Current::Reply;
                }
                Step::Send(call) => {
                    self.call(call).await?;
                    self.sent = true;
                }
                Step::Choice(branches) => {
                    for branch in branches {
                        let taken = match &branch.when {
                            Some(when) => self.evaluate(when, Expression::evaluate_condition).await?,
                            None => true,
                        };
                        if taken {
                            open.push(branch.steps.iter());
                            break;
                        }
                    }
                }
                Step::Enrich { call, with, name } => {
                    let value = self.enrich(call, with).await?;
                    self.variables.push((name.clone(), Arc::new(value)));
                }
                Step::Tap { call, with } => self.tap(call, with.as_ref()).await,
                Step::Respond { status, headers, body } => {
                    self.set_headers(headers).await?;
                    match body {
                        RespondBody::Current => {}
                        RespondBody::Empty => return Ok(self.replied(*status, Body::Empty)),
                        RespondBody::Map(map) => {
                            self.current = Current::Made(self.evaluate(map, MapPlan::evaluate).await?);
                        }
                    }
                    return Ok(self.reply_current(*status));
                }
                Step::Fault { code, message } => {
                    return Err(Box::pin(self.own_fault(*code, "ROUTE_FAULT", message)).await?);
                }
            }
        }
        if self.sent && self.reply.is_none() {
            return Ok(Outcome::Accepted);
        }
        Ok(self.reply_current(None))
    }

    /// Whether `header` and `msg` are those of the reply.
    fn is_on_reply(&self) -> bool {
        matches!(self.current, Current::Reply | Current::Made(_)) && self.reply.is_some()
    }

    fn scope<'s>(&'s self, meter: &'s Meter) -> Scope<'s> {
        let current = self.reply.as_ref().filter(|_| self.is_on_reply()).unwrap_or(&self.request.message);
        Scope {
            request: self.request,
            current,
            reply: self.reply.as_ref(),
            variables: &self.variables,
            item: None,
            host: &SystemHost,
            meter,
            limits: self.limits,
        }
    }

    async fn set_headers(&mut self, headers: &[(ByteString, Template)]) -> Result<(), Fault> {
        for (name, template) in headers {
            let value = self.evaluate(template, Template::render).await?;
            self.set.set(name.clone(), value).map_err(|error| {
                let code = if template.is_of_caller() { Code::InvalidArgument } else { Code::Internal };
                Fault::new(code, "HEADER", error.to_string()).with_detail("header", name.clone())
            })?;
        }
        Ok(())
    }

    async fn own_fault(&self, code: Code, reason: &'static str, message: &Template) -> Result<Fault, Fault> {
        Ok(Fault::caller(code, reason, self.evaluate(message, Template::render).await?))
    }

    /// The envelope of a call: who asked and what the route carries on, never what a service sent back.
    fn envelope(&self) -> Message {
        let asked = &self.request.message;
        let id = match &self.part {
            None => asked.id.clone(),
            Some(part) => format!("{}{part}", asked.id).into(),
        };
        let mut message = Message::new(id, asked.source.clone());
        message.deadline = Some(Deadline::at(self.deadline));
        message.trace.clone_from(&asked.trace);
        message.work.clone_from(&asked.work);
        message.headers = asked.headers.clone();
        for (name, value) in self.set.iter() {
            // Both were checked when they were set.
            let _ = message.headers.set(name.clone(), value.clone());
        }
        message
    }

    fn outgoing(&self, plan: &CallPlan) -> Message {
        let mut message = self.envelope();
        match (&self.current, &self.reply) {
            (Current::Made(value), _) => message.body = Body::Value(value.clone()),
            // Nobody sends what a service said before to one that takes no body; fields of a typed reply are for its address.
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

    async fn call(&mut self, plan: &CallPlan) -> Result<Message, Fault> {
        let message = self.outgoing(plan);
        self.set = Headers::new();
        self.exchange(plan, message).await
    }

    async fn enrich(&mut self, plan: &CallPlan, with: &MapPlan) -> Result<Value, Fault> {
        let mut message = self.envelope();
        message.body = Body::Value(self.evaluate(with, MapPlan::evaluate).await?);
        let reply = self.exchange(plan, message).await?;
        let unreadable = |fault: Fault| match fault.code {
            Code::DeadlineExceeded => fault,
            _ => Fault::new(Code::Internal, "REPLY_UNREADABLE", "the reply of a service on the side cannot be read"),
        };
        if reply.body.unread_len() > INLINE_LEN {
            Box::pin(self.read(&reply.body)).await.map_err(unreadable)?;
        }
        let value = reply.body.value(self.limits).map_err(unreadable)?;
        Ok(value.cloned().unwrap_or(Value::Record(Record::new())))
    }

    async fn exchange(&mut self, plan: &CallPlan, mut message: Message) -> Result<Message, Fault> {
        if Self::is_long_to_prepare(plan, &message) {
            // Boxed, so that the future of the common short case stays small.
            Box::pin(self.prepare(plan, &mut message)).await?;
        }
        let begun = Instant::now();
        self.first_call.get_or_insert(begun);
        let answer = self.shards.call(plan, message, &self.route.carry_back, self.deadline, self.cancels)?;
        let result = answer.await;
        self.processing += begun.elapsed();
        // The port is only dropped where the actor panicked before it made a task of the call.
        result.unwrap_or_else(|_| Err(Fault::new(Code::Internal, "PANIC", "the gateway failed on this call")))
    }

    /// Nobody waits for the answer; a failure is only counted.
    async fn tap(&self, plan: &CallPlan, with: Option<&MapPlan>) {
        let stats = Arc::clone(&self.shards.generation().services[plan.service].stats);
        let message = match with {
            None => Ok(self.outgoing(plan)),
            Some(map) => self.evaluate(map, MapPlan::evaluate).await.map(|value| {
                let mut message = self.envelope();
                message.body = Body::Value(value);
                message
            }),
        };
        let prepared = match message {
            Ok(mut message) if Self::is_long_to_prepare(plan, &message) => {
                Box::pin(self.prepare(plan, &mut message)).await.map(|()| message)
            }
            other => other,
        };
        let sent = prepared
            .and_then(|message| self.shards.call(plan, message, &self.route.carry_back, self.deadline, Cancels::Never));
        match sent {
            Ok(answer) => {
                actix_rt::spawn(async move {
                    if !matches!(answer.await, Ok(Ok(_))) {
                        stats.count(|stats| &stats.taps_failed);
                    }
                });
            }
            Err(_) => stats.count(|stats| &stats.taps_failed),
        }
    }

    fn reply_current(&mut self, status: Option<u16>) -> Outcome {
        let body = match std::mem::replace(&mut self.current, Current::Request) {
            Current::Made(value) => Body::Value(value),
            Current::Reply => match &mut self.reply {
                Some(reply) => std::mem::replace(&mut reply.body, Body::Empty),
                None => Body::Empty,
            },
            Current::Request => {
                // What its sender called it, it stays.
                let asked = &self.request.message;
                let reply = self.reply.get_or_insert_with(|| Message::new(asked.id.clone(), asked.source.clone()));
                reply.content_type.clone_from(&asked.content_type);
                asked.body.clone()
            }
        };
        self.replied(status, body)
    }

    fn replied(&mut self, status: Option<u16>, body: Body) -> Outcome {
        let asked = &self.request.message;
        let mut message = self.reply.take().unwrap_or_else(|| Message::new(asked.id.clone(), asked.source.clone()));
        // The status of a reply without a body does not go with one that has one.
        let kept = message.status.filter(|status| *status != 204 || body.is_empty());
        message.status = status.or(kept);
        message.body = body;
        for (name, value) in self.set.iter() {
            let _ = message.headers.set(name.clone(), value.clone());
        }
        Outcome::Replied(message)
    }

    /// The fault as the first rule that fits it wants it told.
    async fn answered(&self, fault: Fault) -> Fault {
        let fits = |rule: &&ErrorRule| {
            let code = rule.on.is_empty() || rule.on.contains(&fault.code);
            let service = match &fault.origin {
                Origin::Service(name) => rule.services.is_empty() || rule.services.contains(name),
                Origin::Caller | Origin::Gateway => rule.services.is_empty(),
            };
            code && service
        };
        let Some(rule) = self.route.errors.iter().find(fits) else { return fault };
        let mut told = fault;
        if let Some(code) = rule.code {
            told.code = code;
            told.http_status = None;
        }
        if let Some(message) = &rule.message {
            let text = self.error_text(message).await;
            told.message = text.unwrap_or(ByteString::from_static("the request failed"));
        }
        told
    }
}

/// When the exchange of a message has to end.
pub(crate) fn deadline_of(route: &RoutePlan, message: &Message, now: Instant) -> Instant {
    let longest = now + route.deadline_max;
    message.deadline.map_or(now + route.deadline_default, |deadline| deadline.instant().min(longest))
}

/// The services that steps call and wait for, each once.
pub(crate) fn services_of(steps: &[Step]) -> Vec<usize> {
    let mut services: Vec<usize> = Step::calls(steps).into_iter().map(|call| call.service).collect();
    services.sort_unstable();
    services.dedup();
    services
}
