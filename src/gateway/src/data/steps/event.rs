//! `event`, and the event that a call sends.

use crossdock_message::{Code, Event, Fault, Value};
use crossdock_routing::expression::Template;
use crossdock_routing::steps::EventStep;

use super::Run;

impl Run<'_> {
    /// Sets attributes of the event that the next call sends.
    pub(super) async fn event(&mut self, step: &EventStep) -> Result<(), Fault> {
        for (name, template) in &step.attributes {
            let value = self.evaluate(template, Template::render).await?;
            self.set_event.set(name.clone(), Value::Text(value)).map_err(|error| {
                let code = if template.is_of_caller() { Code::InvalidArgument } else { Code::Internal };
                Fault::new(code, "EVENT", error.to_string()).with_detail("attribute", name.clone())
            })?;
        }
        Ok(())
    }

    /// The event that was received, with the attributes that steps have set since. The parts of a `split` have ids of their own.
    pub(super) fn event_to_send(&self) -> Option<Event> {
        let received = self.request.message.event.as_ref();
        if received.is_none() && self.set_event.is_empty() {
            return None;
        }
        let mut event = received.cloned().unwrap_or_default();
        let of_part = match (&self.part, event.get("id")) {
            (Some(part), Some(Value::Text(id))) => Some(format!("{id}{part}")),
            _ => None,
        };
        let of_part = of_part.map(|id| ("id".into(), Value::Text(id.into())));
        let set = self.set_event.attributes().iter().map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in of_part.into_iter().chain(set) {
            // All were checked when they were set, and those of an event that is complete only replace some.
            let _ = event.set(name, value);
        }
        Some(event)
    }
}
