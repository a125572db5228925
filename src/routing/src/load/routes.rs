//! `routes:`.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_adapter_api::{Delivery, EntryContext, EntrySpec, WriteFormat, known_call};
use crossdock_contract::CallType;
use crossdock_message::ByteString;
use crossdock_settings::{Duration, FromNode as _, Key, Kind, Node, OneOrMany, Reader, Spanned, nearest};

use super::headers::header_names;
use super::keyed::{IdempotencySettings, OrderSettings, Route};
use super::services::place_of;
use super::steps::StepReader;
use super::{CodeName, DeadlineSettings, Loader, check_name};
use crate::plan::{ErrorRule, RoutePlan};

const DEADLINE_DEFAULT: StdDuration = StdDuration::from_secs(10);
const DEADLINE_MAX: StdDuration = StdDuration::from_secs(60);
/// A stream lasts as long as its ends want; a forgotten one does not last for ever.
const STREAM_DEADLINE: StdDuration = StdDuration::from_secs(24 * 3600);

/// The call that a route is about.
struct About {
    call: Arc<CallType>,
    /// It is one of all methods of a service.
    whole_service: bool,
}

crossdock_settings::settings! {
    /// the headers of a route
    pub(crate) struct HeaderSettings {
        /// Carried from the caller to services. One that is sent several times is refused, but for those that are lists by their
        /// definition (`accept`, `cookie`, …) and those written `name...`.
        pub(crate) request: Vec<Spanned<String>>,
        /// Carried from a service's reply to the caller.
        pub(crate) answer: Vec<Spanned<String>>,
    }

    /// an error rule
    pub(crate) struct ErrorRuleSettings {
        /// Codes that it is for; all where nothing is said.
        pub(crate) on: Option<OneOrMany<CodeName>>,
        /// Services whose faults it is for; all where nothing is said.
        pub(crate) from: Option<OneOrMany<Spanned<String>>>,
        /// What the caller gets.
        pub(crate) answer: ErrorAnswerSettings,
    }

    /// the answer to an error
    pub(crate) struct ErrorAnswerSettings {
        /// The code that the caller gets.
        pub(crate) code: Option<CodeName>,
        /// The sentence that the caller gets.
        pub(crate) message: Option<Node>,
    }
}

impl Loader<'_> {
    pub(super) fn route(&mut self, key: &Key, node: &Node, reader: &mut Reader<'_>) {
        check_name(key, "route", reader);
        let name = ByteString::from(key.name.as_str());
        if let Some((_, first)) = self.route_spans.iter().find(|(other, _)| *other == name) {
            let place = place_of(*first, reader);
            reader.error(
                "duplicate-name",
                key.span,
                format!("the route `{name}` stands twice"),
                format!("it stands at {place} already"),
            );
            return;
        }
        self.route_spans.push((name.clone(), key.span));
        match node.get("as").map(|node| (node.span, Spanned::<String>::from_node(node, reader))) {
            None => self.one_route(&name, None, key, node, reader),
            Some((_, None)) => {}
            Some((_, Some(method))) if method.value.contains('/') => {
                if let Some(call) = known_call(&method, &self.contracts, reader) {
                    let about = About { call: Arc::new(call), whole_service: false };
                    self.one_route(&name, Some(&about), key, node, reader);
                }
            }
            Some((span, Some(service))) => match self.contracts.calls_of(&service.value) {
                // A route for each method.
                Some(calls) => {
                    for call in calls {
                        let method = call.name.rsplit('/').next().unwrap_or("").to_owned();
                        let about = About { call: Arc::new(call), whole_service: true };
                        self.one_route(&format!("{name}.{method}").into(), Some(&about), key, node, reader);
                    }
                }
                None => {
                    let help = match nearest(&service.value, self.contracts.services()) {
                        Some(meant) => format!("write `{meant}`, or `{meant}/Method`"),
                        None => {
                            "write `pkg.Service` or `pkg.Service/Method`, of a contract below `contracts:`".to_owned()
                        }
                    };
                    let message = format!("no contract has a service `{}`", service.value);
                    reader.error("unknown-service", span, message, help);
                }
            },
        }
    }

    fn one_route(&mut self, name: &ByteString, about: Option<&About>, key: &Key, node: &Node, reader: &mut Reader<'_>) {
        let Some(mut fields) = reader.fields(node, "a route") else { return };
        fields.take("as");
        let from = fields.take("from");
        let delivery: Option<Option<Delivery>> = fields.read("delivery", reader);
        let delivery = delivery.flatten();
        if from.is_none() {
            reader.error(
                "missing-key",
                key.span,
                "a route needs `from`",
                "add `from: { http: { listen: …, get: /… } }`",
            );
        }
        let entries = from.map(|from| self.entries(from, about, delivery, reader));
        if about.is_some_and(|about| about.whole_service) && entries.as_ref().is_some_and(Vec::is_empty) {
            // No entry takes this method of the service.
            return;
        }
        let call = Self::call_of(about, entries.as_deref().unwrap_or(&[]), key, reader);
        let deadline: Option<Option<DeadlineSettings>> = fields.read("deadline", reader);
        let headers: Option<Option<HeaderSettings>> = fields.read("headers", reader);
        let order: Option<Option<OrderSettings>> = fields.read("order", reader);
        let idempotency: Option<Option<IdempotencySettings>> = fields.read("idempotency", reader);
        let steps_node = fields.take("steps");
        let errors: Option<Vec<ErrorRuleSettings>> = fields.read("errors", reader);
        fields.finish(reader);

        let steps = match steps_node {
            Some(steps) => {
                let method =
                    about.filter(|about| about.whole_service).and_then(|about| about.call.name.rsplit('/').next());
                let entries = entries.as_deref().unwrap_or(&[]);
                StepReader::new(self, entries, call.as_ref(), method, node).route(steps, reader)
            }
            None => {
                reader.error(
                    "missing-key",
                    key.span,
                    "a route needs `steps`",
                    "add `steps: [ { call: service.operation } ]`",
                );
                None
            }
        };
        let keyed = Route { node, entries: entries.as_deref().unwrap_or(&[]), call: call.as_ref(), delivery };
        let order = order.flatten().map(|order| self.order(&order, &keyed, reader));
        let idempotency = idempotency.flatten().map(|settings| self.idempotency(&settings, &keyed, reader));
        let rules = errors.map(|errors| self.error_rules(&errors, reader));
        let deadline = deadline.flatten();
        let streams = call.as_ref().is_some_and(|call| call.client_streaming || call.server_streaming);
        let (usual, ceiling) =
            if streams { (STREAM_DEADLINE, STREAM_DEADLINE) } else { (DEADLINE_DEFAULT, DEADLINE_MAX) };
        let longest = deadline.as_ref().and_then(|deadline| deadline.max).unwrap_or(Duration(ceiling)).0;
        let default = deadline.as_ref().and_then(|deadline| deadline.default).map_or(usual.min(longest), |wait| wait.0);
        if default > longest {
            let span = node.get("deadline").map_or(key.span, |node| node.span);
            reader.error(
                "deadline",
                span,
                "the default is longer than the longest",
                "make `max` at least as long as `default`",
            );
        }
        let headers = headers.flatten();
        let (carry, lists) = header_names(headers.as_ref().map_or(&[], |headers| &headers.request), reader);
        let (carry_back, _) = header_names(headers.as_ref().map_or(&[], |headers| &headers.answer), reader);
        let (Some(entries), Some(steps), Some(errors)) = (entries, steps, rules) else { return };
        let (order, idempotency) = (order.flatten(), idempotency.flatten());
        if let Some((delivery, node)) = delivery.zip(node.get("delivery")) {
            self.check_delivery(delivery, &entries, &steps, node.span, reader);
        }
        let route = self.plan.routes.len();
        for (index, entry) in entries.iter().enumerate() {
            if let Err((taken, _)) = self.plan.table.add(entry.address(), (route, index)) {
                let other = self.plan.routes.get(taken).map_or(name, |route| &route.name);
                let span = from.map_or(key.span, |from| from.span);
                let message = format!("`{}` is taken by the route `{other}` already", entry.describe());
                reader.error(
                    "route-taken",
                    span,
                    message,
                    "change the path or method, or tell them apart by `headers:`",
                );
            }
        }
        self.plan.routes.push(Arc::new(RoutePlan {
            name: name.clone(),
            call,
            entries,
            delivery,
            deadline_default: default,
            deadline_max: longest,
            carry: carry.into(),
            lists,
            carry_back: carry_back.into(),
            order,
            idempotency,
            steps,
            errors,
        }));
    }

    /// The call that a route is about: by its `as`, else by its entries, which then have to agree.
    fn call_of(
        about: Option<&About>,
        entries: &[Arc<dyn EntrySpec>],
        key: &Key,
        reader: &mut Reader<'_>,
    ) -> Option<Arc<CallType>> {
        let first = about.map(|about| &about.call).or_else(|| entries.iter().find_map(|entry| entry.call_type()))?;
        if let Some(other) = entries.iter().find(|entry| entry.call_type().is_none_or(|call| call.name != first.name)) {
            let message = format!("`{}` is not a call of `{}`", other.describe(), first.name);
            let help = match (other.call_type(), other.answer()) {
                (None, Some(WriteFormat::Protobuf)) => "leave `opaque` out, or make it two routes".to_owned(),
                _ => format!("add `as: {}` to the route, or make it two routes", first.name),
            };
            reader.error("entry-type", key.span, message, help);
        }
        Some(Arc::clone(first))
    }

    fn entries(
        &self,
        from: &Node,
        about: Option<&About>,
        delivery: Option<Delivery>,
        reader: &mut Reader<'_>,
    ) -> Vec<Arc<dyn EntrySpec>> {
        let list = match &from.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(from),
        };
        if list.is_empty() {
            reader.error(
                "missing-value",
                from.span,
                "a route takes at least one kind of message",
                "write `{ http: { … } }`",
            );
        }
        list.iter().filter_map(|node| self.entry(node, about, delivery, reader)).flatten().collect()
    }

    fn entry(
        &self,
        node: &Node,
        about: Option<&About>,
        delivery: Option<Delivery>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Arc<dyn EntrySpec>>> {
        let context = EntryContext {
            contracts: &self.contracts,
            call: about.map(|about| &about.call),
            whole_service: about.is_some_and(|about| about.whole_service),
            delivery,
        };
        let mut fields = reader.fields(node, "an entry of `from`")?;
        let mut found = None;
        let mut seen = 0;
        for adapter in self.inputs.adapters {
            let Some(part) = fields.take(adapter.name()) else { continue };
            seen += 1;
            found = adapter.read_entry(part, context, reader);
            let Some(entry) = found.as_ref().and_then(|entries| entries.first()) else { continue };
            let listener = &entry.address().listener;
            let span = part.get("listen").map_or(part.span, |node| node.span);
            match self.inputs.listeners.iter().find(|(name, _)| listener == name) {
                Some((_, kind)) if *kind == adapter.name() => {}
                Some((_, kind)) => {
                    let message = format!("the listener `{listener}` speaks {kind}, not {}", adapter.name());
                    reader.error("listener-kind", span, message, "name a listener of the same kind");
                }
                None => {
                    let names = self.inputs.listeners.iter().map(|(name, _)| name.as_str());
                    let help = match nearest(listener, names) {
                        Some(meant) => format!("write `{meant}`"),
                        None => format!("add `{listener}` below `listeners:` in crossdock.yaml"),
                    };
                    reader.error("unknown-listener", span, format!("there is no listener `{listener}`"), help);
                }
            }
        }
        fields.finish(reader);
        if seen != 1 {
            let names: Vec<&str> = self.inputs.adapters.iter().map(|adapter| adapter.name()).collect();
            let help = format!("write one of {}", names.join(", "));
            reader.error("entry", node.span, "an entry names one protocol", help);
            return None;
        }
        found
    }

    fn error_rules(&self, rules: &[ErrorRuleSettings], reader: &mut Reader<'_>) -> Vec<ErrorRule> {
        let mut checked = Vec::new();
        for rule in rules {
            let from = rule.from.as_ref().map_or(&[][..], |from| from.0.as_slice());
            for service in from {
                if !self.service_spans.iter().any(|(name, _)| *name == service.value) {
                    let help = match nearest(service, self.service_spans.iter().map(|(name, _)| &**name)) {
                        Some(meant) => format!("write `{meant}`"),
                        None => "name a service".to_owned(),
                    };
                    reader.error(
                        "unknown-service",
                        service.span,
                        format!("there is no service `{}`", service.value),
                        help,
                    );
                }
            }
            let message = rule
                .answer
                .message
                .as_ref()
                .map(|node| super::steps::template(node, &super::steps::request_names(), reader));
            if matches!(message, Some(None)) {
                continue;
            }
            checked.push(ErrorRule {
                on: rule.on.as_ref().map(|on| on.0.iter().map(|code| code.0).collect()).unwrap_or_default(),
                services: from.iter().map(|name| name.value.as_str().into()).collect(),
                code: rule.answer.code.map(|code| code.0),
                message: message.flatten(),
            });
        }
        checked
    }
}
