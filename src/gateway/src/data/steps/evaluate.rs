//! Evaluating the expressions of steps: short work on the data arbiter, long work apart.

use std::sync::Arc;

use crossdock_adapter_api::offload::{discard, offload};
use crossdock_message::{Body, ByteString, Code, Fault, Limits, Message, Value};
use crossdock_routing::expression::{Meter, Request, Scope};

use super::{Current, Run};

/// What expressions see, where they are evaluated apart. Bodies are shared.
struct Copied {
    request: Request,
    reply: Option<Message>,
    is_on_reply: bool,
    variables: Vec<(ByteString, Arc<Value>)>,
    limits: Limits,
}

impl Copied {
    fn scope<'s>(&'s self, meter: &'s Meter) -> Scope<'s> {
        let current = self.reply.as_ref().filter(|_| self.is_on_reply).unwrap_or(&self.request.message);
        Scope {
            request: &self.request,
            current,
            reply: self.reply.as_ref(),
            variables: &self.variables,
            item: None,
            meter,
            limits: &self.limits,
        }
    }
}

impl Run<'_> {
    /// The result of `evaluate` for a part of the plan. Work that does not fit into a slice is begun anew on a thread for long work.
    ///
    /// # Errors
    /// Those of `evaluate`; DEADLINE_EXCEEDED where the deadline comes first.
    pub(super) async fn evaluate<P, T>(
        &self,
        part: &P,
        evaluate: impl Fn(&P, &Scope<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault>
    where
        P: Clone + Send + 'static,
        T: Send + 'static,
    {
        // Branches of one message share what is left for it, and take turns.
        let mut held = self.meter.lock().await;
        if let Some(result) = held.in_slice(|| evaluate(part, &self.scope(&held))) {
            return result;
        }
        // In a box, so that the futures of the many that are short stay small.
        Box::pin(self.evaluate_apart(part.clone(), evaluate, &mut held)).await
    }

    async fn evaluate_apart<P, T>(
        &self,
        part: P,
        evaluate: impl Fn(&P, &Scope<'_>) -> Result<T, Fault> + Send + 'static,
        held: &mut Meter,
    ) -> Result<T, Fault>
    where
        P: Send + 'static,
        T: Send + 'static,
    {
        let meter = std::mem::replace(held, Meter::spent(self.deadline));
        let copied = self.copied();
        let work = offload(move || {
            let result = evaluate(&part, &copied.scope(&meter));
            (result, meter, copied)
        });
        let Ok((result, meter, copied)) = tokio::time::timeout_at(self.deadline.into(), work).await else {
            let message = "the time was spent before the message was processed";
            return Err(Fault::new(Code::DeadlineExceeded, "DEADLINE", message));
        };
        *held = meter;
        self.request.message.body.adopt_reading(&copied.request.message.body);
        if let (Some(reply), Some(copy)) = (&self.reply, &copied.reply) {
            reply.body.adopt_reading(&copy.body);
        }
        result
    }

    fn copied(&self) -> Copied {
        let message = self.request.message.clone();
        Copied {
            request: Request { message, binding: Arc::clone(&self.request.binding) },
            reply: self.reply.clone(),
            is_on_reply: self.is_on_reply(),
            variables: self.variables.clone(),
            limits: self.limits.clone(),
        }
    }

    /// Drops what steps have made, apart where that takes long.
    pub(crate) fn discard(self) {
        if let Current::Made(value) = self.current {
            discard(Body::Value(value));
        }
        if let Some(reply) = self.reply {
            discard(reply.body);
        }
    }
}
