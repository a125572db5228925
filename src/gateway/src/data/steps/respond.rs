//! `respond`, and the reply of a route that ends without it.

use crossdock_message::{Body, Fault, Message};
use crossdock_ports::Outcome;
use crossdock_routing::MapPlan;
use crossdock_routing::steps::{RespondBody, RespondStep};

use super::{Current, Run};

impl Run<'_> {
    pub(super) async fn respond(&mut self, step: &RespondStep) -> Result<Outcome, Fault> {
        self.set_headers(&step.headers).await?;
        match &step.body {
            RespondBody::Current => {}
            RespondBody::Empty => return Ok(self.replied(step.status, Body::Empty)),
            RespondBody::Map(map) => self.current = Current::Created(self.evaluate(map, MapPlan::evaluate).await?),
        }
        Ok(self.reply_current(step.status))
    }

    /// Ends the route with the current body.
    pub(super) fn reply_current(&mut self, status: Option<u16>) -> Outcome {
        let body = match std::mem::replace(&mut self.current, Current::Request) {
            Current::Created(value) => Body::Value(value),
            Current::Reply => match &mut self.reply {
                Some(reply) => std::mem::replace(&mut reply.body, Body::Empty),
                None => Body::Empty,
            },
            Current::Request => {
                // The media type stays that of the request.
                let request = &self.request.message;
                let reply = self.reply.get_or_insert_with(|| Message::new(request.id.clone(), request.source.clone()));
                reply.content_type.clone_from(&request.content_type);
                request.body.clone()
            }
        };
        self.replied(status, body)
    }

    fn replied(&mut self, status: Option<u16>, body: Body) -> Outcome {
        let request = &self.request.message;
        let mut message = self.reply.take().unwrap_or_else(|| Message::new(request.id.clone(), request.source.clone()));
        // A 204 response has no body (RFC 9110 §15.3.5).
        let kept = message.status.filter(|status| *status != 204 || body.is_empty());
        message.status = status.or(kept);
        message.body = body;
        for (name, value) in self.set.iter() {
            let _ = message.headers.set(name.clone(), value.clone());
        }
        Outcome::Replied(message)
    }
}
