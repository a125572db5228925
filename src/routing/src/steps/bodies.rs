//! Checks that a body can be sent where a step sends it.

use std::sync::Arc;

use crossdock_message::ByteString;
use crossdock_ports::{OperationSpec, WriteFormat};
use crossdock_settings::{Reader, Span, nearest};

use super::StepReader;
use super::nodes::{MapNode, OperationName};
use super::types::{BodyState, check_body, check_opaque};
use crate::map::MapPlan;
use crate::plan::CallPlan;

impl StepReader<'_> {
    /// Finds the operation of a call on the side, which gets this body.
    pub(super) fn side_call(
        &self,
        operation: &OperationName,
        body: &BodyState,
        reader: &mut Reader<'_>,
    ) -> Option<CallPlan> {
        let OperationName(reference) = operation;
        let call = self.services.operation(reference, self.method, reader)?;
        if call.operation.call_type().is_none() {
            Self::check_untyped(&call, body, reference.span, reader);
        }
        self.check_event(&call, reference.span, reader);
        Some(call)
    }

    /// Reads the body of a call on the side.
    pub(super) fn side_body(
        &self,
        body: &MapNode,
        call: Option<&CallPlan>,
        operation: &OperationName,
        reader: &mut Reader<'_>,
    ) -> Option<MapPlan> {
        let map = self.map(&body.0, reader)?;
        if let Some(call) = call {
            Self::check_params(call, map.top_names().as_deref(), true, operation.0.span, reader);
        }
        Some(map)
    }

    /// Checks what the caller gets at the end of the steps.
    pub(super) fn check_answer(&self, span: Span, reader: &mut Reader<'_>) {
        if self.state.sent && !self.state.may_reply {
            // The answer is that it was sent.
            return;
        }
        let body = &self.state.body;
        self.check_opaque_answer(body, span, reader);
        let Some(call) = self.call else { return };
        match (call.server_streaming, body) {
            (true, BodyState::Stream(given)) if given.type_ref().name() == call.reply.type_ref().name() => {}
            (true, _) => {
                let message = format!("`{}` returns a stream of `{}`", call.name, call.reply.type_ref().name());
                reader.error("body-type", span, message, "end with a `call` of a method that returns such a stream");
            }
            // Reported at the call that returns the stream.
            (false, BodyState::Stream(_)) => {}
            (false, _) => check_body(body, &call.reply, &format!("the answer of `{}`", call.name), span, reader),
        }
    }

    /// Checks an answer against the formats of the entries without a contract.
    pub(super) fn check_opaque_answer(&self, body: &BodyState, span: Span, reader: &mut Reader<'_>) {
        for entry in self.entries.iter().filter(|entry| entry.call_type().is_none()) {
            if let Some(format) = entry.answer() {
                let what = format!("the answer of `{}`", entry.describe());
                check_opaque(body, format, &what, span, reader);
            }
        }
    }

    /// Checks that an operation accepts the current body.
    pub(super) fn check_request(&self, call: &CallPlan, what: &str, span: Span, reader: &mut Reader<'_>) {
        let Some(taken) = call.operation.call_type() else {
            Self::check_untyped(call, &self.state.body, span, reader);
            if let BodyState::Stream(_) = self.state.body {
                let message =
                    format!("`{}` accepts a single message, but the body is a stream", call.operation.describe());
                reader.error("body-type", span, message, "call a method that accepts a stream");
            }
            return;
        };
        if taken.server_streaming && !(what == "call" && self.call.is_some_and(|own| own.server_streaming)) {
            let message = format!("`{}` returns a stream, which only a route that streams can answer with", taken.name);
            let help = format!("write `as: {}` and an entry of gRPC, or one of HTTP with `stream: sse`", taken.name);
            reader.error("stream", span, message, help);
        }
        match (&self.state.body, taken.client_streaming) {
            (BodyState::Stream(given), true) if given.type_ref().name() == taken.request.type_ref().name() => {}
            (_, true) => {
                let message = format!("`{}` accepts a stream of `{}`", taken.name, taken.request.type_ref().name());
                reader.error("body-type", span, message, "call it from a route whose request is such a stream");
            }
            (body, false) => {
                check_body(body, &taken.request, &format!("the request of `{}`", taken.name), span, reader);
            }
        }
    }

    /// Checks that an operation without a contract accepts a body.
    pub(super) fn check_untyped(call: &CallPlan, body: &BodyState, span: Span, reader: &mut Reader<'_>) {
        if let Some(format) = call.operation.body() {
            check_opaque(body, format, &format!("the request of `{}`", call.operation.describe()), span, reader);
        }
    }

    /// Updates what is known after a call.
    pub(super) fn replied(&mut self, call: Option<&CallPlan>) {
        let taken = call.and_then(|call| call.operation.call_type());
        self.state.reply = taken.filter(|taken| !taken.server_streaming).map(|taken| Arc::clone(&taken.reply));
        let operation = call.map(|call| &call.operation);
        let opaque = |operation: &Arc<dyn OperationSpec>| operation.body().is_some_and(WriteFormat::needs_contract);
        self.state.opaque_reply = taken.is_none() && operation.is_some_and(opaque);
        self.state.body = match taken {
            None if self.state.opaque_reply => BodyState::Opaque,
            None => BodyState::Unknown,
            Some(taken) if taken.server_streaming => {
                self.state.streaming = true;
                BodyState::Stream(Arc::clone(&taken.reply))
            }
            Some(taken) => BodyState::Typed(Arc::clone(&taken.reply)),
        };
    }

    /// Checks the fields of a body against the operation: one that its address needs must be present, and it must have a place for each
    /// field of a body that a step makes.
    pub(super) fn check_params(
        call: &CallPlan,
        fields: Option<&[ByteString]>,
        is_made: bool,
        span: Span,
        reader: &mut Reader<'_>,
    ) {
        let Some(fields) = fields else { return };
        for field in fields.iter().filter(|field| is_made && !call.operation.has_place_for(field)) {
            let message = format!("`{}` has no place for the field `{field}`", call.operation.describe());
            let help = format!(
                "add `query: [{field}]` to the operation, write `format: json` there if it has a body, or remove the field"
            );
            reader.error("no-place", span, message, help);
        }
        for param in call.operation.params() {
            if !fields.contains(param) {
                let message = format!("`{}` needs the field `{param}`, which is missing", call.operation.describe());
                let known: Vec<&str> = fields.iter().map(|field| &**field).collect();
                let help = match nearest(param, known.iter().copied()) {
                    Some(meant) => format!("map it from `{meant}`, or use one name for both"),
                    None => format!("add `{param}: …` to the map before it"),
                };
                reader.error("missing-param", span, message, help);
            }
        }
    }
}
