//! `steps:`.

use std::sync::Arc;

use crossdock_adapter_api::{BodyBinding, EntrySpec, WriteFormat};
use crossdock_contract::{CallType, Typed};
use crossdock_message::{ByteString, Code};
use crossdock_settings::{FromNode, Kind, Node, Reader, Span, Spanned, nearest};

use super::headers::{check_header_value, header_name, headers_of_route};
use super::types::{BodyState, Made, check_body, check_condition};
use super::{CodeName, Loader};
use crate::expression::{Expression, ExpressionError, Names, Template};
use crate::map::MapPlan;
use crate::plan::{CallPlan, RespondBody, Step};

/// The steps that there are.
pub(crate) const STEPS: &[&str] = &[
    "map",
    "set",
    "require",
    "filter",
    "call",
    "send",
    "choice",
    "multicast",
    "split",
    "enrich",
    "tap",
    "respond",
    "fault",
];

/// Levels of steps inside steps.
pub(super) const DEPTH_MAX: usize = 8;

/// What is known where a step stands.
#[derive(Clone)]
pub(super) struct State {
    /// A service was called on every way to here.
    pub(super) called: bool,
    /// Names that steps have bound.
    pub(super) bound: Vec<ByteString>,
    /// Those of them that hold what a service sent.
    pub(super) of_services: Vec<ByteString>,
    /// Something answers the caller on every way to here: a reply, a new body, or a send.
    pub(super) answered: bool,
    /// The top fields of the body and the address, where they are known.
    pub(super) fields: Option<Vec<ByteString>>,
    /// What is known of the body.
    pub(super) body: BodyState,
    /// The type of the last reply.
    pub(super) reply: Option<Arc<Typed>>,
    /// A service was called on some way to here.
    pub(super) may_reply: bool,
    /// Something was sent on every way to here.
    pub(super) sent: bool,
    /// The last reply is bytes that no contract describes.
    pub(super) opaque_reply: bool,
    /// The reply is a stream, or was: what stands behind can only hand it on.
    pub(super) streaming: bool,
    /// The headers that messages may have.
    pub(super) headers: Arc<[ByteString]>,
}

pub(super) struct StepReader<'l> {
    pub(super) loader: &'l Loader<'l>,
    /// What the contract says of the route.
    pub(super) call: Option<&'l Arc<CallType>>,
    /// The method that a service's name alone means.
    pub(super) method: Option<&'l str>,
    pub(super) state: State,
    pub(super) depth: usize,
    /// What stands here gives no answer.
    pub(super) in_branch: bool,
    /// What the route takes.
    pub(super) entries: &'l [Arc<dyn EntrySpec>],
}

/// Whether messages of an entry are bytes that no contract describes.
fn is_opaque(entry: &Arc<dyn EntrySpec>) -> bool {
    entry.call_type().is_none() && entry.answer() == Some(&WriteFormat::Protobuf)
}

/// The names of an expression that stands outside of steps.
pub(super) fn request_names() -> Names {
    let unbound = [("res", "a reply is not there where an error is answered; use `req`")];
    Names {
        variables: ["req", "header", "msg"].map(ByteString::from_static).to_vec(),
        unbound: unbound.map(|(name, help)| (ByteString::from_static(name), help)).to_vec(),
        ..Names::default()
    }
}

/// Where placeholders were replaced, places in the text are not places in the file.
fn report(node: &Node, resolved: bool, errors: Vec<ExpressionError>, reader: &mut Reader<'_>) {
    for error in errors {
        let span = if resolved { node.span } else { node.span_of(error.range) };
        reader.error("expression", span, error.problem, error.help);
    }
}

/// Reads a text with expressions in it.
pub(super) fn template(node: &Node, names: &Names, reader: &mut Reader<'_>) -> Option<Template> {
    let (text, resolved) = reader.text(node)?;
    Template::compile(&text, names).map_err(|errors| report(node, resolved, errors, reader)).ok()
}

impl<'l> StepReader<'l> {
    pub(super) fn new(
        loader: &'l Loader<'l>,
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
        Self {
            loader,
            call,
            method,
            state: State {
                called: false,
                bound: Vec::new(),
                of_services: Vec::new(),
                answered: false,
                fields: match call {
                    // Of a typed request the type knows the fields.
                    Some(_) => None,
                    None => request_fields(entries),
                },
                body,
                reply: None,
                may_reply: false,
                sent: false,
                opaque_reply: false,
                streaming: false,
                headers: headers_of_route(route).into(),
            },
            depth: 0,
            in_branch: false,
            entries,
        }
    }

    /// Reads a route's steps.
    pub(super) fn route(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<Step>> {
        let steps = self.steps(node, reader)?;
        if steps.is_empty() {
            reader.error(
                "missing-value",
                node.span,
                "a route does at least one thing",
                "write `- call: service.operation`",
            );
        } else if !self.state.answered && !ends(&steps) {
            let help = "call a service, make a body with `map`, or end with `respond`; a `choice` may need `otherwise`";
            reader.error("no-answer", node.span, "a message can get to the end without an answer", help);
        } else if !ends(&steps) {
            self.check_answer(steps_span(node), reader);
        }
        Some(steps)
    }

    fn names(&self) -> Names {
        let mut variables: Vec<ByteString> = ["header", "msg"].map(ByteString::from_static).to_vec();
        let mut unbound: Vec<(ByteString, &'static str)> = Vec::new();
        if self.call.is_some_and(|call| call.client_streaming) {
            unbound.push(("req".into(), "the request is a stream of messages; hand it on by a `call`"));
        } else if self.entries.iter().any(is_opaque) {
            unbound.push(("req".into(), "the request is bytes that no contract describes; use `header` or `msg`"));
        } else {
            variables.insert(0, "req".into());
        }
        if self.state.called && self.state.streaming {
            unbound.push(("res".into(), "the reply is a stream of messages, which is handed on as it is"));
        } else if self.state.called && self.state.opaque_reply {
            unbound.push(("res".into(), "the reply is bytes that no contract describes; use `header` or `msg`"));
        } else if self.state.called {
            variables.push("res".into());
        } else {
            unbound.push(("res".into(), "put a `call` step before this one on every way here"));
        }
        variables.extend(self.state.bound.iter().cloned());
        let mut of_services = self.state.of_services.clone();
        if self.state.called {
            // After a call the current message is the reply.
            of_services.extend(["res", "header", "msg"].map(ByteString::from_static));
        }
        Names { variables, unbound, types: self.types(), of_services }
    }

    /// The types that contracts give to names.
    pub(super) fn types(&self) -> Vec<(ByteString, Arc<Typed>)> {
        let request = self.call.map(|call| (ByteString::from_static("req"), Arc::clone(&call.request)));
        let reply = self.state.reply.clone().map(|reply| (ByteString::from_static("res"), reply));
        request.into_iter().chain(reply).collect()
    }

    pub(super) fn expression(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Expression> {
        let (text, resolved) = reader.text(node)?;
        let shown = node.text().unwrap_or(&text);
        let compiled = Expression::compile_shown(&text, shown, &self.names());
        let expression = compiled.map_err(|errors| report(node, resolved, errors, reader)).ok()?;
        if let Some(range) = expression.square() {
            let span = if resolved { node.span } else { node.span_of(range) };
            let message = "this loops over the message for each part of it: the work grows with the square of its size";
            let help = "a large message is refused; make a list or map of what is looked for in a step before, or use `groupBy`";
            reader.diagnostics.warning("dear-expression", span, message, Some(help.to_owned()));
        }
        self.check_headers(expression.inputs(), node, reader);
        Some(expression)
    }

    /// A text with expressions in it.
    pub(super) fn template(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Template> {
        let template = template(node, &self.names(), reader)?;
        self.check_headers(template.expressions().flat_map(Expression::inputs), node, reader);
        Some(template)
    }

    /// Headers that no message of this route has are seldom what is meant.
    fn check_headers<'i>(
        &self,
        inputs: impl Iterator<Item = (&'i ByteString, Option<&'i ByteString>)>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) {
        let names = inputs.filter(|(variable, _)| **variable == "header").filter_map(|(_, name)| name);
        for name in names.filter(|name| !self.state.headers.contains(name)) {
            let message = format!("`{name}` is never there: only headers that the route carries or sets are");
            let help = match nearest(name, self.state.headers.iter().map(|header| &**header)) {
                Some(meant) => format!("write `{meant}`, or add `headers: {{ request: [{name}] }}` to the route"),
                None => format!("add `headers: {{ request: [{name}] }}` to the route"),
            };
            reader.diagnostics.warning("unlisted-header", node.span, message, Some(help));
        }
    }

    /// An expression that decides.
    pub(super) fn condition(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Expression> {
        let condition = self.expression(node, reader)?;
        check_condition(&condition, &self.names().types, node.span, reader);
        Some(condition)
    }

    pub(super) fn steps(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<Step>> {
        let Kind::List(items) = &node.kind else {
            reader.wrong_kind(
                node,
                "a list of steps",
                "write one step a line behind a dash: `- call: service.operation`",
            );
            return None;
        };
        let mut steps = Vec::with_capacity(items.len());
        let mut complete = true;
        let mut ended = false;
        for item in items {
            if ended {
                reader.error(
                    "unreachable",
                    item.span,
                    "no message gets here",
                    "take it out, or move it before `respond` or `fault`",
                );
                break;
            }
            match self.step(item, reader) {
                Some(step) => {
                    ended = matches!(step, Step::Respond { .. } | Step::Fault { .. });
                    steps.push(step);
                }
                None => complete = false,
            }
        }
        complete.then_some(steps)
    }

    fn step(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        let [(key, value)] = node.entries() else {
            let help = format!("write one of {} behind each dash", STEPS.join(", "));
            reader.error("step", node.span, "a step is a map with one key", help);
            return None;
        };
        match key.name.as_str() {
            "map" => {
                let map = self.map(value, reader)?;
                self.refuse_in_stream("map", key.span, reader);
                self.state.fields = map.top_names();
                self.state.answered = true;
                self.state.body = BodyState::Made(Made { map: map.clone(), node: value.clone(), types: self.types() });
                Some(Step::Map(map))
            }
            "set" => self.headers(value, reader).map(Step::Set),
            "require" => self.require(value, reader),
            "filter" => self.filter(key, value, reader),
            "call" => {
                self.refuse_in_stream("call", key.span, reader);
                let call = self.call(value, "call", reader);
                self.state.called = true;
                self.state.may_reply = true;
                self.state.answered = true;
                self.state.fields = None;
                self.replied(call.as_ref());
                call.map(Step::Call)
            }
            "send" => {
                self.state.answered = true;
                self.state.sent = true;
                self.call(value, "send", reader).map(Step::Send)
            }
            "choice" => self.choice(value, reader),
            "multicast" => self.multicast(key, value, reader),
            "split" => self.split(key, value, reader),
            "enrich" => self.enrich(value, reader),
            "tap" => self.tap(value, reader),
            "respond" => self.respond(value, reader),
            "fault" => self.fault(value, reader),
            other => {
                let help = match nearest(other, STEPS.iter().copied()) {
                    Some(meant) => format!("write `{meant}`"),
                    None => format!("steps are {}", STEPS.join(", ")),
                };
                reader.error("unknown-step", key.span, format!("there is no step `{other}`"), help);
                None
            }
        }
    }

    fn call(&self, node: &Node, what: &str, reader: &mut Reader<'_>) -> Option<CallPlan> {
        if node.text().is_none() {
            reader.wrong_kind(node, "a service's operation", &format!("write `{what}: service.operation`"));
            return None;
        }
        let reference = Spanned::<String>::from_node(node, reader)?;
        let call = self.loader.operation(&reference, self.method, reader)?;
        let is_made = matches!(self.state.body, BodyState::Value);
        Self::check_params(&call, self.state.fields.as_deref(), is_made, node.span, reader);
        self.check_request(&call, what, node.span, reader);
        Some(call)
    }

    pub(super) fn refuse_in_stream(&self, step: &str, span: Span, reader: &mut Reader<'_>) {
        if self.state.streaming {
            let message = format!("`{step}` cannot work on a stream: its messages are handed on as they are");
            reader.error("stream", span, message, "take the step out, or put it before the call");
        }
    }

    /// A name that a step binds.
    pub(super) fn new_name(&self, name: &Spanned<String>, reader: &mut Reader<'_>) -> Option<ByteString> {
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let taken =
            matches!(name.value.as_str(), "req" | "res" | "header" | "msg" | "lock" | "true" | "false" | "null" | "in");
        let taken = taken || self.state.bound.iter().any(|bound| *bound == name.value);
        if taken || !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let help = "use a new name of small letters, digits and `_`";
            reader.error("name", name.span, format!("`{}` cannot be bound here", name.value), help);
            return None;
        }
        Some(name.value.as_str().into())
    }

    fn headers(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<(ByteString, Template)>> {
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

    fn require(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        let mut fields = reader.fields(node, "`require`")?;
        let that = Self::needed("that", &mut fields, "`require` needs `that`", "write `that: req.amount > 0`", reader);
        let code = fields.read_or("code", CodeName(Code::InvalidArgument), reader);
        let message = Self::needed(
            "message",
            &mut fields,
            "`require` needs `message`",
            "write what the caller did wrong",
            reader,
        );
        fields.finish(reader);
        let that = that.and_then(|node| self.condition(node, reader));
        let message = message.and_then(|node| self.template(node, reader));
        Some(Step::Require { that: that?, code: code?.0, message: message? })
    }

    pub(super) fn needed<'n>(
        name: &'static str,
        fields: &mut crossdock_settings::Fields<'n>,
        problem: &str,
        help: &str,
        reader: &mut Reader<'_>,
    ) -> Option<&'n Node> {
        let found = fields.take(name);
        if found.is_none() {
            reader.error("missing-key", fields.node().span, problem, help);
        }
        found
    }

    fn side_call(
        &self,
        fields: &mut crossdock_settings::Fields<'_>,
        key: &'static str,
        reader: &mut Reader<'_>,
    ) -> Option<(CallPlan, Option<MapPlan>)> {
        let problem = format!("it needs `{key}`");
        let node = Self::needed(key, fields, &problem, &format!("write `{key}: service.operation`"), reader);
        let with = fields.take("with").map(|with| self.map(with, reader));
        let reference = node.and_then(|node| Spanned::<String>::from_node(node, reader))?;
        let call = self.loader.operation(&reference, self.method, reader)?;
        if call.operation.call_type().is_none() {
            // Where nothing is said, `enrich` makes an empty body, and `tap` sends the one that is there.
            let made = with.is_some() || key == "call";
            let body = if made { &BodyState::Value } else { &self.state.body };
            Self::check_untyped(&call, body, reference.span, reader);
        }
        if let Some(Some(map)) = &with {
            Self::check_params(&call, map.top_names().as_deref(), true, reference.span, reader);
        }
        match with {
            Some(None) => None,
            with => Some((call, with.flatten())),
        }
    }

    fn enrich(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        let mut fields = reader.fields(node, "`enrich`")?;
        let side = self.side_call(&mut fields, "call", reader);
        let name: Option<Spanned<String>> = fields.read("as", reader);
        fields.finish(reader);
        let name = self.new_name(&name?, reader)?;
        self.state.bound.push(name.clone());
        self.state.of_services.push(name.clone());
        let (call, with) = side?;
        let with = with.unwrap_or(MapPlan::Fields(Vec::new()));
        Some(Step::Enrich { call, with, name })
    }

    fn tap(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        let mut fields = reader.fields(node, "`tap`")?;
        let side = self.side_call(&mut fields, "send", reader);
        fields.finish(reader);
        let (call, with) = side?;
        Some(Step::Tap { call, with })
    }

    fn respond(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        if self.in_branch {
            let help = "put it behind the `multicast` or `split`";
            reader.error("respond", node.span, "a branch gives no answer: there are others beside it", help);
            return None;
        }
        let mut fields = reader.fields(node, "`respond`")?;
        let status: Option<Option<Spanned<u16>>> = fields.read("status", reader);
        let headers = fields.take("headers").map(|headers| self.headers(headers, reader));
        self.refuse_in_stream("respond", node.span, reader);
        let body = match fields.take("body") {
            None => {
                self.check_opaque_answer(&self.state.body, node.span, reader);
                Some(RespondBody::Current)
            }
            Some(node) if node.is_null() || node.text() == Some("none") => Some(RespondBody::Empty),
            Some(node) => self.map(node, reader).map(|map| {
                let made = Made { map: map.clone(), node: node.clone(), types: self.types() };
                let made = BodyState::Made(made);
                self.check_opaque_answer(&made, node.span, reader);
                if let Some(call) = self.call.filter(|call| !call.server_streaming) {
                    check_body(&made, &call.reply, "the answer", node.span, reader);
                }
                RespondBody::Map(map)
            }),
        };
        fields.finish(reader);
        let status = status?;
        if let Some(status) = status.as_ref().filter(|status| !(200..=299).contains(&status.value)) {
            let help = "write 200 to 299, or use the step `fault` for an error";
            reader.error("status", status.span, format!("{} is not the status of an answer", status.value), help);
            return None;
        }
        let headers = match headers {
            Some(headers) => headers?,
            None => Vec::new(),
        };
        Some(Step::Respond { status: status.map(|status| status.value), headers, body: body? })
    }

    fn fault(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Step> {
        let mut fields = reader.fields(node, "`fault`")?;
        let code: Option<CodeName> = fields.read("code", reader);
        let message = Self::needed("message", &mut fields, "`fault` needs `message`", "write what went wrong", reader);
        fields.finish(reader);
        let message = message.and_then(|node| self.template(node, reader));
        Some(Step::Fault { code: code?.0, message: message? })
    }
}

/// The last step: what the caller gets is its doing.
fn steps_span(node: &Node) -> Span {
    match &node.kind {
        Kind::List(items) => items.last().map_or(node.span, |item| item.span),
        _ => node.span,
    }
}

/// Whether no message gets past these steps.
pub(super) fn ends(steps: &[Step]) -> bool {
    match steps.last() {
        Some(Step::Respond { .. } | Step::Fault { .. }) => true,
        Some(Step::Choice(branches)) => {
            branches.last().is_some_and(|branch| branch.when.is_none())
                && branches.iter().all(|branch| ends(&branch.steps))
        }
        _ => false,
    }
}

/// The fields of `req` where no entry takes a body: then they are known before any message comes.
fn request_fields(entries: &[Arc<dyn EntrySpec>]) -> Option<Vec<ByteString>> {
    let mut all: Option<Vec<ByteString>> = None;
    for entry in entries {
        let method = &entry.address().method;
        if !matches!(&**method, "GET" | "HEAD" | "DELETE") {
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
