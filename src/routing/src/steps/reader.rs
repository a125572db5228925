//! Reads steps in their order, with what is known before each: names, types and the state of the body.

use std::sync::Arc;

use crossdock_contract::{CallType, Typed};
use crossdock_message::ByteString;
use crossdock_ports::{BodyBinding, EngineRow, EntrySpec, WriteFormat};
use crossdock_settings::{Kind, Node, Reader, Span, Spanned, nearest};

use super::nodes::{HeadersNode, OperationName, StepsNode};
use super::types::{BodyState, check_condition};
use super::{STEP_NAMES, Step, end_route};
use crate::catalog::ServiceCatalog;
use crate::expression::{Expression, ExpressionError, Names, Template};
use crate::headers::{check_header_value, header_name, headers_of_route};
use crate::plan::CallPlan;

/// Levels of nested steps.
const DEPTH_MAX: usize = 8;
/// The function that needs a cluster, and time to ask it.
const SEQUENCE: &str = "sequence";
const IN_STEPS: &str = "use it in a step, such as `map`";

/// Names that a step cannot bind.
const RESERVED_NAMES: &[&str] =
    &["req", "res", "header", "msg", "event", "auth", "peer", "lock", "true", "false", "null", "in"];

/// What is known before a step.
#[derive(Clone)]
pub(super) struct State {
    /// A service was called on every path to here.
    pub(super) called: bool,
    /// Names that steps have bound.
    pub(super) bound: Vec<ByteString>,
    /// Those of them that hold data of services.
    pub(super) of_services: Vec<ByteString>,
    /// The caller has an answer on every path to here: a reply, a new body, or a send.
    pub(super) answered: bool,
    /// The top-level fields of body and address, if they are known.
    pub(super) fields: Option<Vec<ByteString>>,
    /// What is known about the body.
    pub(super) body: BodyState,
    /// The type of the last reply.
    pub(super) reply: Option<Arc<Typed>>,
    /// A service was called on some path to here.
    pub(super) may_reply: bool,
    /// A `send` was made on every path to here.
    pub(super) sent: bool,
    /// What events that are sent have on every path to here.
    pub(super) event: EventState,
    /// The last reply is protobuf without a contract.
    pub(super) opaque_reply: bool,
    /// The reply is a stream: steps can only forward it.
    pub(super) streaming: bool,
    /// The headers that messages may have.
    pub(super) headers: Arc<[ByteString]>,
}

/// Attributes that every event needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventState {
    pub(super) has_source: bool,
    pub(super) has_type: bool,
}

impl EventState {
    pub(super) fn all(holds: bool) -> Self {
        Self { has_source: holds, has_type: holds }
    }
}

/// Reads the steps of one route, or of one block of them.
pub(crate) struct StepReader<'l> {
    pub(super) services: &'l ServiceCatalog,
    /// The call of the contract that the route serves.
    pub(super) call: Option<&'l Arc<CallType>>,
    /// The operation that the name of a service alone refers to.
    pub(super) method: Option<&'l str>,
    pub(super) state: State,
    pub(super) depth: usize,
    /// These steps are a branch of `multicast` or `split`, which cannot answer the caller.
    pub(super) in_branch: bool,
    /// The entries of the route.
    pub(super) entries: &'l [Arc<dyn EntrySpec>],
    /// Whether the instance is a member of a cluster.
    pub(crate) locks: Option<EngineRow>,
    /// What to do instead of using `sequence`, if its expressions cannot.
    pub(crate) no_sequence: Option<&'static str>,
}

/// Whether messages of an entry are protobuf without a contract.
fn is_opaque(entry: &Arc<dyn EntrySpec>) -> bool {
    entry.call_type().is_none() && entry.answer().is_some_and(WriteFormat::needs_contract)
}

/// Whether every message of these entries is an event.
fn receive_events(entries: &[Arc<dyn EntrySpec>]) -> bool {
    !entries.is_empty() && entries.iter().all(|entry| entry.receives_events())
}

/// Reports the errors of an expression. After placeholders were replaced, positions in the text are not positions in the file.
fn report(node: &Node, resolved: bool, errors: Vec<ExpressionError>, reader: &mut Reader<'_>) {
    for error in errors {
        let span = if resolved { node.span } else { node.span_of(error.range) };
        reader.error("expression", span, error.problem, error.help);
    }
}

fn template(node: &Node, names: &Names, reader: &mut Reader<'_>) -> Option<Template> {
    let (text, resolved) = reader.text(node)?;
    Template::compile(&text, names).map_err(|errors| report(node, resolved, errors, reader)).ok()
}

/// Reads a text with expressions that see the request only, such as that of an error rule.
pub(crate) fn template_of_request(node: &Node, reader: &mut Reader<'_>) -> Option<Template> {
    let unbound = [("res", "an error has no reply; use `req`"), (SEQUENCE, IN_STEPS)];
    let names = Names {
        variables: ["req", "header", "msg", "auth", "peer"].map(ByteString::from_static).to_vec(),
        unbound: unbound.map(|(name, help)| (ByteString::from_static(name), help)).to_vec(),
        ..Names::default()
    };
    template(node, &names, reader)
}

impl<'l> StepReader<'l> {
    /// A reader at the start of a route. `route` is its whole node, which says which headers its messages may have.
    pub(crate) fn new(
        services: &'l ServiceCatalog,
        entries: &'l [Arc<dyn EntrySpec>],
        call: Option<&'l Arc<CallType>>,
        method: Option<&'l str>,
        route: &Node,
    ) -> Self {
        let body = match call {
            None if !entries.is_empty() && entries.iter().all(is_opaque) => BodyState::Opaque,
            None => BodyState::Unknown,
            Some(call) if call.client_streaming => BodyState::Stream(Arc::clone(&call.request)),
            Some(call) => BodyState::Typed(Arc::clone(&call.request)),
        };
        // The fields of a typed request are those of its type.
        let fields = if call.is_some() { None } else { request_fields(entries) };
        let state = State {
            called: false,
            bound: Vec::new(),
            of_services: Vec::new(),
            answered: false,
            fields,
            body,
            reply: None,
            may_reply: false,
            sent: false,
            event: EventState::all(receive_events(entries)),
            opaque_reply: false,
            streaming: false,
            headers: headers_of_route(route).into(),
        };
        Self {
            services,
            call,
            method,
            state,
            depth: 0,
            in_branch: false,
            entries,
            locks: None,
            no_sequence: Some(IN_STEPS),
        }
    }

    /// Reads all steps of a route.
    pub(crate) fn route(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<Step>> {
        let steps = self.steps(node, reader)?;
        if steps.is_empty() {
            let help = "write `- call: service.operation`";
            reader.error("missing-value", node.span, "a route needs at least one step", help);
        } else if !self.state.answered && !end_route(&steps) {
            let help = "call a service, make a body with `map`, or end with `respond`; a `choice` may need `otherwise`";
            reader.error("no-answer", node.span, "a message can reach the end of the route without an answer", help);
        } else if !end_route(&steps) {
            self.check_answer(span_of_last(node), reader);
        }
        Some(steps)
    }

    /// Reads a list of steps.
    pub(super) fn steps(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<Step>> {
        let Kind::List(items) = &node.kind else {
            let help = "write one step per line after a dash: `- call: service.operation`";
            reader.wrong_kind(node, "a list of steps", help);
            return None;
        };
        let mut steps = Vec::with_capacity(items.len());
        let mut complete = true;
        let mut ended = false;
        for item in items {
            if ended {
                let help = "remove the step, or move it before `respond` or `fault`";
                reader.error("unreachable", item.span, "no message reaches this step", help);
                break;
            }
            match self.step(item, reader) {
                Some(step) => {
                    ended = matches!(step, Step::Respond(_) | Step::Fault(_));
                    steps.push(step);
                }
                None => complete = false,
            }
        }
        complete.then_some(steps)
    }

    fn step(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        let [(key, value)] = node.entries() else {
            let help = format!("write one of {} after each dash", STEP_NAMES.join(", "));
            reader.error("step", node.span, "a step is a map with one key", help);
            return None;
        };
        Step::read(key, value, self, reader)
    }

    /// A reader of a block nested in the current step, which starts with what is known here. `None` if it would be nested too deeply.
    pub(super) fn nested(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if self.depth == DEPTH_MAX {
            let message = format!("steps can be nested {DEPTH_MAX} levels deep");
            reader.error("too-deep", node.span, message, "split the route into two");
            return None;
        }
        Some(Self { state: self.state.clone(), depth: self.depth + 1, ..*self })
    }

    /// Reads the steps of a branch that cannot answer the caller.
    pub(super) fn branch(&mut self, node: &StepsNode, reader: &mut Reader<'_>) -> Option<Vec<Step>> {
        self.in_branch = true;
        let steps = self.steps(&node.0, reader)?;
        if steps.is_empty() {
            let help = "write `- send: service.operation`";
            reader.error("missing-value", node.0.span, "a branch needs at least one step", help);
            return None;
        }
        Some(steps)
    }

    fn names(&self) -> Names {
        let mut variables: Vec<ByteString> = ["header", "msg", "auth", "peer"].map(ByteString::from_static).to_vec();
        let mut unbound: Vec<(ByteString, &'static str)> = Vec::new();
        if self.call.is_some_and(|call| call.client_streaming) {
            unbound.push(("req".into(), "the request is a stream of messages; forward it with a `call`"));
        } else if self.entries.iter().any(is_opaque) {
            unbound.push(("req".into(), "the request is protobuf without a contract; use `header` or `msg`"));
        } else {
            variables.insert(0, "req".into());
        }
        if self.state.called && self.state.streaming {
            unbound.push(("res".into(), "the reply is a stream of messages, which is forwarded unchanged"));
        } else if self.state.called && self.state.opaque_reply {
            unbound.push(("res".into(), "the reply is protobuf without a contract; use `header` or `msg`"));
        } else if self.state.called {
            variables.push("res".into());
        } else {
            unbound.push(("res".into(), "put a `call` step before this one on every path to it"));
        }
        if self.entries.iter().any(|entry| entry.receives_events()) {
            variables.push("event".into());
        } else {
            unbound.push(("event".into(), "write `envelope: cloudevents` in the entry that receives events"));
        }
        variables.extend(self.state.bound.iter().cloned());
        let mut of_services = self.state.of_services.clone();
        if self.state.called {
            // After a call the current message is the reply.
            of_services.extend(["res", "header", "msg"].map(ByteString::from_static));
        }
        unbound.extend(self.no_sequence.map(|instead| (SEQUENCE.into(), instead)));
        Names { variables, unbound, types: self.types(), of_services }
    }

    /// The types that contracts give to names.
    pub(super) fn types(&self) -> Vec<(ByteString, Arc<Typed>)> {
        let request = self.call.map(|call| (ByteString::from_static("req"), Arc::clone(&call.request)));
        let reply = self.state.reply.clone().map(|reply| (ByteString::from_static("res"), reply));
        request.into_iter().chain(reply).collect()
    }

    /// Reads an expression over the names that are bound here.
    pub(crate) fn expression(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Expression> {
        let (text, resolved) = reader.text(node)?;
        let shown = node.text().unwrap_or(&text);
        let compiled = Expression::compile_shown(&text, shown, &self.names());
        let expression = compiled.map_err(|errors| report(node, resolved, errors, reader)).ok()?;
        if let Some(range) = expression.quadratic_loop() {
            let span = if resolved { node.span } else { node.span_of(range) };
            let message = "this loops over the message for each part of it: the work grows with the square of its size";
            let help = "a large message is refused; build a list or map to search in an earlier step, or use `groupBy`";
            reader.diagnostics.warning("dear-expression", span, message, Some(help.to_owned()));
        }
        self.check_headers(expression.inputs(), node, reader);
        Some(expression)
    }

    /// Reads an expression that must be true or false.
    pub(super) fn condition(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Expression> {
        let condition = self.expression(node, reader)?;
        check_condition(&condition, &self.names().types, node.span, reader);
        Some(condition)
    }

    /// Reads a text with expressions in it.
    pub(super) fn template(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Template> {
        let template = template(node, &self.names(), reader)?;
        self.check_headers(template.expressions().flat_map(Expression::inputs), node, reader);
        Some(template)
    }

    /// Reads texts by header.
    pub(super) fn headers(&self, node: &HeadersNode, reader: &mut Reader<'_>) -> Option<Vec<(ByteString, Template)>> {
        let HeadersNode(node) = node;
        if !matches!(node.kind, Kind::Map(_)) {
            reader.wrong_kind(node, "a map from headers to texts", "write `x-tenant: \"${req.tenant}\"`");
            return None;
        }
        let mut headers = Vec::new();
        let mut complete = true;
        for (key, value) in node.entries() {
            let name = header_name(&key.name, key.span, reader);
            match (name, self.template(value, reader)) {
                (Some(name), Some(template)) => {
                    if let Some(text) = template.constant() {
                        check_header_value(&name, text, value.span, reader);
                    }
                    headers.push((name, template));
                }
                _ => complete = false,
            }
        }
        complete.then_some(headers)
    }

    /// A header that no message of this route has is rarely what is meant.
    fn check_headers<'i>(
        &self,
        inputs: impl Iterator<Item = (&'i ByteString, Option<&'i ByteString>)>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) {
        let names = inputs.filter(|(variable, _)| **variable == "header").filter_map(|(_, name)| name);
        for name in names.filter(|name| !self.state.headers.contains(name)) {
            let message = format!("`{name}` is never present: only headers that the route forwards or sets are");
            let help = match nearest(name, self.state.headers.iter().map(|header| &**header)) {
                Some(meant) => format!("write `{meant}`, or add `headers: {{ request: [{name}] }}` to the route"),
                None => format!("add `headers: {{ request: [{name}] }}` to the route"),
            };
            reader.diagnostics.warning("unlisted-header", node.span, message, Some(help));
        }
    }

    /// Binds the name of a step for the steps after it.
    pub(super) fn new_name(&self, name: &Spanned<String>, reader: &mut Reader<'_>) -> Option<ByteString> {
        let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let is_taken =
            RESERVED_NAMES.contains(&name.value.as_str()) || self.state.bound.iter().any(|bound| *bound == name.value);
        if is_taken || !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let message = format!("`{}` cannot be bound here", name.value);
            let help = "use a new name of lower-case letters, digits and `_`";
            reader.error("name", name.span, message, help);
            return None;
        }
        Some(name.value.as_str().into())
    }

    /// Finds the operation that a step sends the current body to, and checks that it accepts that body.
    pub(super) fn call_with_body(&mut self, node: &Node, step: &str, reader: &mut Reader<'_>) -> Option<CallPlan> {
        let OperationName(reference) = OperationName::read_for(node, step, reader)?;
        let call = self.services.operation(&reference, self.method, reader)?;
        let is_made = matches!(self.state.body, BodyState::Value);
        Self::check_params(&call, self.state.fields.as_deref(), is_made, node.span, reader);
        self.check_request(&call, step, node.span, reader);
        self.check_event(&call, node.span, reader);
        // Attributes that steps have set are those of one event.
        self.state.event = EventState::all(receive_events(self.entries));
        Some(call)
    }

    /// Reports an event without attributes.
    pub(super) fn check_event(&self, call: &CallPlan, span: Span, reader: &mut Reader<'_>) {
        if call.operation.sends_events() && !(self.state.event.has_source && self.state.event.has_type) {
            let message = format!("`{}` sends events, which need a `source` and a `type`", call.operation.describe());
            let help = "put a step `event: { source: …, type: … }` before this one, or write `envelope: cloudevents` in all entries";
            reader.error("event", span, message, help);
        }
    }

    /// Reports a step that cannot work on a stream.
    pub(super) fn refuse_in_stream(&self, step: &str, span: Span, reader: &mut Reader<'_>) {
        if self.state.streaming {
            let message = format!("`{step}` cannot be applied to a stream: its messages are forwarded unchanged");
            reader.error("stream", span, message, "remove the step, or move it before the call");
        }
    }

    /// Reports a step that uses the body more than once, if the body is a stream.
    pub(super) fn refuse_stream(&self, step: &str, span: Span, reader: &mut Reader<'_>) {
        if matches!(self.state.body, BodyState::Stream(_)) {
            let message = format!("`{step}` cannot be applied to a stream, which can be read only once");
            reader.error("stream", span, message, "forward it with one `call`");
        }
    }
}

/// The span of the last step, which decides what the caller gets.
fn span_of_last(node: &Node) -> Span {
    match &node.kind {
        Kind::List(items) => items.last().map_or(node.span, |item| item.span),
        _ => node.span,
    }
}

/// The fields of `req` if no entry accepts a body: then they are known at load.
fn request_fields(entries: &[Arc<dyn EntrySpec>]) -> Option<Vec<ByteString>> {
    let mut all: Option<Vec<ByteString>> = None;
    for entry in entries {
        if entry.accepts_body() {
            return None;
        }
        let binding = entry.binding();
        let mut fields = binding.params.clone();
        if let BodyBinding::Field(name) = &binding.body {
            fields.push(name.clone());
        }
        all = Some(match all {
            None => fields,
            Some(known) => known.into_iter().filter(|field| fields.contains(field)).collect(),
        });
    }
    all
}
