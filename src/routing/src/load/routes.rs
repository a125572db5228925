//! `routes`.

use std::sync::Arc;

use crossdock_contract::CallType;
use crossdock_message::ByteString;
use crossdock_ports::{Delivery, EntrySpec, known_call};
use crossdock_settings::{FromNode as _, Key, Node, Reader, Settings as _, Span, Spanned, nearest, settings};

use super::{Loader, NO_ENGINE_HELP, declare};
use crate::errors::{ErrorRule, ErrorRuleSettings};
use crate::headers::{HeaderPlan, HeaderSettings};
use crate::plan::{OwnerLock, RoutePlan};
use crate::policies::{PolicyContext, PolicySettings};
use crate::steps::{Step, StepReader};

settings! {
    /// a route
    pub(crate) struct RouteSettings {
        /// The call of a contract that the route serves: `pkg.Service/Method`, or `pkg.Service` for all its methods.
        pub(crate) r#as: Option<Spanned<String>>,
        /// The messages that the route accepts, by protocol; one entry or a list.
        pub(crate) from: Option<Node>,
        /// The guarantee for each message; the load fails if a part cannot keep it.
        pub(crate) delivery: Option<Delivery>,
        /// The headers that the route forwards; others are dropped.
        pub(crate) headers: Option<HeaderSettings>,
        /// What the route does with a message, in order.
        pub(crate) steps: Option<Node>,
        /// How the route answers faults; the first rule that applies wins.
        pub(crate) errors: Vec<ErrorRuleSettings>,
    }
}

impl RouteSettings {
    fn entries_and_steps(node: &Node) -> Self {
        let (from, steps) = (node.get("from").cloned(), node.get("steps").cloned());
        Self { r#as: None, from, delivery: None, headers: None, steps, errors: Vec::new() }
    }
}

/// The call of a contract that a route serves.
pub(super) struct ServedCall {
    pub(super) call: Arc<CallType>,
    /// The route serves all methods of a service, this one among them.
    pub(super) whole_service: bool,
}

impl ServedCall {
    fn method(&self) -> &str {
        self.call.name.rsplit('/').next().unwrap_or("")
    }
}

impl Loader<'_> {
    pub(super) fn route(&mut self, key: &Key, node: &Node, reader: &mut Reader<'_>) {
        let Some(name) = declare(key, "route", &mut self.route_names, reader) else { return };
        match node.get("as").map(|node| (node.span, Spanned::<String>::from_node(node, reader))) {
            None => self.one_route(&name, None, key, node, reader),
            Some((_, None)) => {}
            Some((_, Some(method))) if method.value.contains('/') => {
                if let Some(call) = known_call(&method, &self.contracts, reader) {
                    let served = ServedCall { call: Arc::new(call), whole_service: false };
                    self.one_route(&name, Some(&served), key, node, reader);
                }
            }
            Some((span, Some(service))) => match self.contracts.calls_of(&service.value) {
                Some(calls) => {
                    for call in calls {
                        let served = ServedCall { call: Arc::new(call), whole_service: true };
                        let name = format!("{name}.{}", served.method()).into();
                        self.one_route(&name, Some(&served), key, node, reader);
                    }
                }
                None => self.report_unknown_service(&service.value, span, reader),
            },
        }
    }

    fn report_unknown_service(&self, service: &str, span: Span, reader: &mut Reader<'_>) {
        let help = match nearest(service, self.contracts.services()) {
            Some(meant) => format!("write `{meant}`, or `{meant}/Method`"),
            None => "write `pkg.Service` or `pkg.Service/Method`, of a contract below `contracts:`".to_owned(),
        };
        reader.error("unknown-service", span, format!("no contract has a service `{service}`"), help);
    }

    fn one_route(
        &mut self,
        name: &ByteString,
        served: Option<&ServedCall>,
        key: &Key,
        node: &Node,
        reader: &mut Reader<'_>,
    ) {
        let Some(mut fields) = reader.fields(node, "a route") else { return };
        let policies = PolicySettings::read(&mut fields, reader);
        let settings = RouteSettings::read_fields(&mut fields, reader);
        fields.finish(reader);
        let is_complete = settings.is_some();
        // Entries and steps are checked whatever is wrong with the other keys.
        let settings = settings.unwrap_or_else(|| RouteSettings::entries_and_steps(node));
        let (entries, owner_locks) = self.entries_of_route(&settings, served, key, reader).unzip();
        if served.is_some_and(|served| served.whole_service) && entries.as_ref().is_some_and(Vec::is_empty) {
            // No entry accepts this method of the service.
            return;
        }
        let known_entries = entries.as_deref().unwrap_or(&[]);
        let call = call_of(served, known_entries, key, reader);
        let steps = self.steps_of_route(&settings, served, known_entries, call.as_ref(), (key, node), reader);
        let context = PolicyContext {
            node,
            entries: known_entries,
            call: call.as_ref(),
            delivery: settings.delivery,
            services: &self.services,
            has_cluster: self.inputs.has_cluster,
        };
        let policies = policies.check(&context, reader);
        let errors = ErrorRule::check_all(&settings.errors, &self.services, reader);
        let headers = settings.headers.as_ref().map(|headers| HeaderPlan::check(headers, reader)).unwrap_or_default();
        let (Some(entries), Some(steps), Some(policies), true) = (entries, steps, policies, is_complete) else {
            return;
        };
        if let Some((delivery, node)) = settings.delivery.zip(node.get("delivery")) {
            self.check_delivery(delivery, &entries, &steps, policies.idempotency.is_some(), node.span, reader);
        }
        self.add_to_table(name, &entries, settings.from.as_ref().map_or(key.span, |from| from.span), reader);
        let (name, delivery) = (name.clone(), settings.delivery);
        let fans_out = Step::fan_out(&steps);
        let owner_locks = owner_locks.unwrap_or_default();
        let route =
            RoutePlan { name, call, entries, owner_locks, delivery, headers, policies, steps, fans_out, errors };
        self.plan.routes.push(Arc::new(route));
    }

    fn entries_of_route(
        &self,
        settings: &RouteSettings,
        served: Option<&ServedCall>,
        key: &Key,
        reader: &mut Reader<'_>,
    ) -> Option<(Vec<Arc<dyn EntrySpec>>, Vec<Option<OwnerLock>>)> {
        if settings.from.is_none() {
            let help = "add `from: { http: { listen: …, get: /… } }`";
            reader.error("missing-key", key.span, "a route needs `from`", help);
        }
        settings.from.as_ref().map(|from| self.entries(from, served, settings.delivery, reader).into_iter().unzip())
    }

    fn steps_of_route(
        &self,
        settings: &RouteSettings,
        served: Option<&ServedCall>,
        entries: &[Arc<dyn EntrySpec>],
        call: Option<&Arc<CallType>>,
        (key, node): (&Key, &Node),
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Step>> {
        let Some(steps) = &settings.steps else {
            let help = "add `steps: [ { call: service.operation } ]`";
            reader.error("missing-key", key.span, "a route needs `steps`", help);
            return None;
        };
        let method = served.filter(|served| served.whole_service).map(ServedCall::method);
        let mut at = StepReader::new(&self.services, entries, call, method, node);
        at.locks = self.inputs.locks;
        at.no_sequence = at.locks.is_none_or(|row| !row.sequences).then_some(NO_ENGINE_HELP);
        at.route(steps, reader)
    }

    fn add_to_table(&mut self, name: &ByteString, entries: &[Arc<dyn EntrySpec>], span: Span, reader: &mut Reader<'_>) {
        let route = self.plan.routes.len();
        for (index, entry) in entries.iter().enumerate() {
            if let Err((taken, _)) = self.plan.table.add(entry.address(), (route, index)) {
                let other = self.plan.routes.get(taken).map_or(name, |route| &route.name);
                let message = format!("the route `{other}` already accepts `{}`", entry.describe());
                let help = "change the path or method, or distinguish them by `headers:`";
                reader.error("route-taken", span, message, help);
            }
        }
    }
}

/// The call that a route serves: by its `as`, else by its entries, which must agree.
fn call_of(
    served: Option<&ServedCall>,
    entries: &[Arc<dyn EntrySpec>],
    key: &Key,
    reader: &mut Reader<'_>,
) -> Option<Arc<CallType>> {
    let first = served.map(|served| &served.call).or_else(|| entries.iter().find_map(|entry| entry.call_type()))?;
    if let Some(other) = entries.iter().find(|entry| entry.call_type().is_none_or(|call| call.name != first.name)) {
        let message = format!("`{}` does not belong to the call `{}`", other.describe(), first.name);
        let help = match (other.call_type(), other.answer()) {
            (None, Some(format)) if format.needs_contract() => {
                "remove `opaque`, or split the route into two".to_owned()
            }
            _ => format!("add `as: {}` to the route, or split it into two", first.name),
        };
        reader.error("entry-type", key.span, message, help);
    }
    Some(Arc::clone(first))
}
