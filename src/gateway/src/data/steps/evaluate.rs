//! Evaluates expressions and maps: short work on the data arbiter, long work on the thread pool.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use crossdock_message::{Body, BodyType, ByteString, Code, Fault, Limits, Message, Value};
use crossdock_offload as offload;
use crossdock_offload::{INLINE_LEN, Priority, discard, offload};
use crossdock_offload::{encode_and_take_body, is_long_to_encode};
use crossdock_routing::CallPlan;
use crossdock_routing::expression::{Host, Meter, NO_NUMBER, Request, Scope, Template};

use super::numbers::Numbers;
use super::{Current, Run};
use crate::host::SystemHost;

/// The remaining budget of a message, shared by all its steps and branches.
pub(crate) struct Budget {
    meter: Meter,
    /// Whether the message holds an intermediate result of long work.
    has_begun: bool,
}

impl Budget {
    pub(crate) fn new(deadline: Instant) -> Self {
        Self { meter: Meter::new(deadline), has_begun: false }
    }
}

/// An owned copy of the scope of expressions, for the thread pool. Bodies are shared.
struct OwnedScope {
    request: Request,
    reply: Option<Message>,
    is_on_reply: bool,
    variables: Vec<(ByteString, Arc<Value>)>,
    limits: Limits,
}

impl OwnedScope {
    fn scope<'s>(&'s self, meter: &'s Meter, host: &'s dyn Host) -> Scope<'s> {
        let current = self.reply.as_ref().filter(|_| self.is_on_reply).unwrap_or(&self.request.message);
        Scope {
            request: &self.request,
            current,
            reply: self.reply.as_ref(),
            variables: &self.variables,
            item: None,
            host,
            meter,
            limits: &self.limits,
        }
    }
}

impl Run<'_> {
    /// Evaluates a part of the plan. Work that exceeds a slice restarts on the thread pool.
    ///
    /// # Errors
    /// Those of `evaluate`; DEADLINE_EXCEEDED at the deadline.
    pub(super) async fn evaluate<P, T>(
        &self,
        part: &P,
        evaluate: impl Fn(&P, &Scope<'_>) -> Result<T, Fault> + Send + Clone + 'static,
    ) -> Result<T, Fault>
    where
        P: Clone + Send + 'static,
        T: Send + 'static,
    {
        let result = self.evaluate_with(part, &evaluate, None).await;
        match result {
            // Boxed, so that the future of the common case stays small.
            Err(fault) if fault.reason == NO_NUMBER => Box::pin(self.evaluate_with_numbers(part, evaluate)).await,
            result => result,
        }
    }

    /// Evaluates a part of the plan that needs numbers of sequences.
    async fn evaluate_with_numbers<P, T>(
        &self,
        part: &P,
        evaluate: impl Fn(&P, &Scope<'_>) -> Result<T, Fault> + Send + Clone + 'static,
    ) -> Result<T, Fault>
    where
        P: Clone + Send + 'static,
        T: Send + 'static,
    {
        let engine = self.shards.generation().locks.as_deref();
        let numbers = Arc::new(Numbers::default());
        loop {
            match self.evaluate_with(part, &evaluate, Some(&numbers)).await {
                Err(fault) if fault.reason == NO_NUMBER => self.before_deadline(numbers.request(engine)).await??,
                result => return result,
            }
        }
    }

    async fn evaluate_with<P, T>(
        &self,
        part: &P,
        evaluate: &(impl Fn(&P, &Scope<'_>) -> Result<T, Fault> + Send + Clone + 'static),
        numbers: Option<&Arc<Numbers>>,
    ) -> Result<T, Fault>
    where
        P: Clone + Send + 'static,
        T: Send + 'static,
    {
        // Branches of one message share its budget, so they evaluate one at a time.
        let mut budget = self.budget.lock().await;
        let meter = &budget.meter;
        let host = numbers.map_or(&SystemHost as &dyn Host, |numbers| &**numbers);
        if let Some(result) = meter.in_slice(|| evaluate(part, &self.scope(meter, host))) {
            return result;
        }
        if let Some(numbers) = numbers {
            numbers.rewind();
        }
        // Boxed, so that the future of the common short case stays small.
        Box::pin(self.evaluate_on_pool(part.clone(), evaluate.clone(), numbers.cloned(), &mut budget)).await
    }

    async fn evaluate_on_pool<P, T>(
        &self,
        part: P,
        evaluate: impl Fn(&P, &Scope<'_>) -> Result<T, Fault> + Send + 'static,
        numbers: Option<Arc<Numbers>>,
        budget: &mut Budget,
    ) -> Result<T, Fault>
    where
        P: Send + 'static,
        T: Send + 'static,
    {
        let priority = if budget.has_begun { Priority::Begun } else { Priority::New };
        let meter = std::mem::replace(&mut budget.meter, Meter::exhausted(self.deadline));
        let owned_scope = self.owned_scope();
        let work = offload(priority, move || {
            let host = numbers.as_ref().map_or(&SystemHost as &dyn Host, |numbers| &**numbers);
            let result = evaluate(&part, &owned_scope.scope(&meter, host));
            (result, meter, owned_scope)
        });
        let (result, meter, owned_scope) = self.before_deadline(work).await?;
        *budget = Budget { meter, has_begun: true };
        self.request.message.body.adopt_reading(&owned_scope.request.message.body);
        if let (Some(reply), Some(copy)) = (&self.reply, &owned_scope.reply) {
            reply.body.adopt_reading(&copy.body);
        }
        result
    }

    async fn before_deadline<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::time::timeout_at(self.deadline.into(), work).await.map_err(|_| {
            let message = "the deadline expired before the message was processed";
            Fault::new(Code::DeadlineExceeded, "DEADLINE", message)
        })
    }

    fn owned_scope(&self) -> OwnedScope {
        let message = self.request.message.clone();
        OwnedScope {
            request: Request { message, binding: Arc::clone(&self.request.binding) },
            reply: self.reply.clone(),
            is_on_reply: self.is_on_reply(),
            variables: self.variables.clone(),
            limits: self.limits.clone(),
        }
    }

    /// Whether [`Run::prepare`] is necessary.
    pub(super) fn is_long_to_prepare(plan: &CallPlan, message: &Message) -> bool {
        let operation = &*plan.operation;
        let Some(format) = operation.body().filter(|_| !operation.encodes_late()) else {
            return Self::is_long_typed(message);
        };
        let of_type = operation.call_type().map(|call| &*call.request as &dyn BodyType);
        is_long_to_encode(&message.body, format, of_type)
    }

    /// Whether a large typed body has not been decoded yet.
    fn is_long_typed(message: &Message) -> bool {
        matches!(&message.body, Body::Raw { of_type: Some(_), .. }) && message.body.unread_len() > INLINE_LEN
    }

    /// Decodes or encodes a large message on the thread pool, before the timeout of the service starts.
    ///
    /// # Errors
    /// Those of encoding or decoding the body; RESOURCE_EXHAUSTED if the service has no permit available; DEADLINE_EXCEEDED at the deadline.
    pub(super) async fn prepare(&self, plan: &CallPlan, message: &mut Message) -> Result<(), Fault> {
        if let Some(refused) = self.shards.refusal(plan) {
            return Err(refused);
        }
        let operation = &*plan.operation;
        let Some(format) = operation.body().filter(|_| !operation.encodes_late()) else {
            return self.read(&message.body).await;
        };
        let of_type = operation.call_type().map(|call| Arc::clone(&call.request) as Arc<dyn BodyType>);
        let written = self.before_deadline(encode_and_take_body(message, format, of_type.as_ref())).await??;
        written.put_into(message, format, of_type);
        Ok(())
    }

    /// Decodes a body on the thread pool.
    pub(super) async fn read(&self, body: &Body) -> Result<(), Fault> {
        self.before_deadline(offload::read(body, self.limits, Priority::Begun)).await?
    }

    /// Renders an error message, also after the deadline; `None` if rendering fails.
    pub(super) async fn error_text(&self, text: &Template) -> Option<ByteString> {
        let meter = Meter::new(Instant::now() + ERROR_TEXT_TIME);
        let short = meter.in_slice(|| text.render(&self.scope(&meter, &SystemHost)));
        match short {
            Some(rendered) => rendered.ok(),
            None => self.evaluate(text, Template::render).await.ok(),
        }
    }

    /// Drops intermediate results, large ones on a separate thread.
    pub(crate) fn discard(self) {
        if let Current::Created(value) = self.current {
            discard(Body::Value(value));
        }
        if let Some(reply) = self.reply {
            discard(reply.body);
        }
    }
}

/// Deadline for rendering an error message; the slice is the actual bound.
const ERROR_TEXT_TIME: std::time::Duration = std::time::Duration::from_secs(1);
