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

    /// The attributes that steps have set, for one part of a `split`, which has an id of its own.
    pub(super) fn set_event_of_part(&self, index: usize) -> Event {
        let mut event = self.set_event.clone();
        if let Some(Value::Text(id)) = event.get("id") {
            let id = Value::Text(format!("{id}.{index}").into());
            let _ = event.set("id", id);
        }
        event
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
        if let Some(id) = of_part {
            // It replaces one.
            let _ = event.set("id", Value::Text(id.into()));
        }
        event.extend(&self.set_event);
        Some(event)
    }
}
