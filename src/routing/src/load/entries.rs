//! `from`: the messages that a route accepts.

use std::sync::Arc;

use crossdock_ports::{Delivery, EntryContext, EntrySpec};
use crossdock_settings::{FromNode as _, Kind, Node, Reader, Span, choices, nearest};

use super::routes::ServedCall;
use super::{ListenerInfo, Loader, NO_ENGINE_HELP};
use crate::plan::OwnerLock;

choices! {
    /// Which instances of the cluster read the messages of an entry.
    pub(crate) enum ClusterRole {
        /// One at a time.
        Singleton = "singleton",
        /// One at a time, and the entries of the route are divided evenly among the instances.
        Partitioned = "partitioned",
    }
}

/// An entry, and the lock that an instance must hold to read its messages.
pub(super) type OwnedEntry = (Arc<dyn EntrySpec>, Option<OwnerLock>);

/// Maximum length of the name of such a lock.
const OWNER_LOCK_LEN_MAX: usize = 255;

impl Loader<'_> {
    pub(super) fn entries(
        &self,
        from: &Node,
        served: Option<&ServedCall>,
        delivery: Option<Delivery>,
        reader: &mut Reader<'_>,
    ) -> Vec<OwnedEntry> {
        let list = match &from.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(from),
        };
        if list.is_empty() {
            reader.error("missing-value", from.span, "`from` needs at least one entry", "write `{ http: { … } }`");
        }
        let entries = list.iter().filter_map(|node| self.entry(node, served, delivery, reader));
        let entries: Vec<OwnedEntry> = entries.flatten().collect();
        let is_partitioned = |(_, lock): &&OwnedEntry| lock.as_ref().is_some_and(|lock| lock.is_partitioned);
        if entries.iter().filter(is_partitioned).count() == 1 {
            let message =
                "`cluster: partitioned` divides the entries of a route among the instances, and only one entry has it";
            let help = "write it for several entries, such as the queues of an exchange that hashes keys, or write `cluster: singleton`; the \
                        partitions of a Kafka topic are divided without it";
            reader.error("partitioned", from.span, message, help);
        }
        entries
    }

    fn entry(
        &self,
        node: &Node,
        served: Option<&ServedCall>,
        delivery: Option<Delivery>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<OwnedEntry>> {
        let context = EntryContext {
            contracts: &self.contracts,
            call: served.map(|served| &served.call),
            whole_service: served.is_some_and(|served| served.whole_service),
            delivery,
        };
        let mut fields = reader.fields(node, "an entry of `from`")?;
        let role = fields.take("cluster");
        let mut found = None;
        let mut protocols = 0;
        for adapter in self.inputs.adapters {
            let Some(part) = fields.take(adapter.name()) else { continue };
            protocols += 1;
            found = adapter.read_entry(part, context, reader);
            match found.as_ref().and_then(|entries| entries.first()) {
                Some(entry) if entry.queue().is_some() => self.check_cluster(&entry.describe(), part.span, reader),
                Some(entry) => self.check_listener(entry, part, adapter.name(), reader),
                None => {}
            }
        }
        fields.finish(reader);
        if protocols != 1 {
            let names: Vec<&str> = self.inputs.adapters.iter().map(|adapter| adapter.name()).collect();
            let help = format!("write one of {}", names.join(", "));
            reader.error("entry", node.span, "an entry has exactly one protocol", help);
            return None;
        }
        let owned = |entry: Arc<dyn EntrySpec>| {
            let lock = role.and_then(|role| self.owner_lock(&entry, role, reader));
            (entry, lock)
        };
        found.map(|entries| entries.into_iter().map(owned).collect())
    }

    /// The lock that an instance must hold to read the messages of an entry.
    fn owner_lock(&self, entry: &Arc<dyn EntrySpec>, role: &Node, reader: &mut Reader<'_>) -> Option<OwnerLock> {
        let is_partitioned = match ClusterRole::from_node(role, reader)? {
            ClusterRole::Singleton => false,
            ClusterRole::Partitioned => true,
        };
        if is_partitioned {
            self.check_cluster("cluster: partitioned", role.span, reader);
        } else {
            self.check_singleton(role.span, reader);
        }
        if !entry.is_consumed() {
            let message =
                "callers decide which instance they call; only messages of a broker can be read by one instance";
            reader.error("singleton", role.span, message, "remove `cluster`");
        }
        // The description would differ between instances whose settings or releases do, and there would be two readers.
        let address = entry.address();
        let name = format!("entry {}{}", address.listener, address.path.as_str());
        if name.len() > OWNER_LOCK_LEN_MAX {
            reader.error("singleton", role.span, "the names of listener and queue are too long", "use shorter names");
            return None;
        }
        Some(OwnerLock { name: name.into(), is_partitioned })
    }

    /// Reports an entry with one reader, if there is no engine that can keep that.
    fn check_singleton(&self, span: Span, reader: &mut Reader<'_>) {
        match self.inputs.locks {
            Some(row) if row.survives_failover => {}
            Some(row) => {
                let message = format!(
                    "`cluster: singleton` needs locks that survive the failure of a server, which `{}` does not offer",
                    row.name
                );
                let help = "use another engine: embedded (`cluster: {}`), zookeeper, etcd or consul";
                reader.error("engine", span, message, help);
            }
            None => reader.error("no-cluster", span, "`cluster: singleton` needs a cluster", NO_ENGINE_HELP),
        }
    }

    /// Reports a part of the settings that needs a cluster, if there is none.
    pub(super) fn check_cluster(&self, what: &str, span: Span, reader: &mut Reader<'_>) {
        if !self.inputs.has_cluster {
            let help = "add `cluster: {}` to crossdock.yaml, for a cluster of this instance alone";
            reader.error("no-cluster", span, format!("`{what}` needs a cluster"), help);
        }
    }

    fn check_listener(&self, entry: &Arc<dyn EntrySpec>, part: &Node, protocol: &str, reader: &mut Reader<'_>) {
        let listener = &entry.address().listener;
        let span = part.get("listen").map_or(part.span, |node| node.span);
        match self.inputs.listeners.iter().find(|info| *listener == *info.name) {
            Some(info) if info.adapter == protocol => {}
            Some(ListenerInfo { adapter: kind, .. }) => {
                let message = format!("the protocol of the listener `{listener}` is {kind}, not {protocol}");
                reader.error("listener-kind", span, message, format!("name a listener of {protocol}"));
            }
            None => {
                let names = self.inputs.listeners.iter().map(|info| info.name.as_str());
                let help = match nearest(listener, names) {
                    Some(meant) => format!("write `{meant}`"),
                    None => format!("add `{listener}` below `listeners:` in crossdock.yaml"),
                };
                reader.error("unknown-listener", span, format!("there is no listener `{listener}`"), help);
            }
        }
    }

    /// Has each adapter check all of its entries together.
    pub(super) fn check_entries(&self, reader: &mut Reader<'_>) {
        for adapter in self.inputs.adapters {
            let is_its_own = |listener: &str| {
                self.inputs.listeners.iter().any(|info| info.name == listener && info.adapter == adapter.name())
            };
            let all = self.plan.routes.iter().flat_map(|route| route.entries.iter().map(move |entry| (route, entry)));
            let (routes, entries): (Vec<_>, Vec<_>) =
                all.filter(|(_, entry)| is_its_own(&entry.address().listener)).unzip();
            for finding in adapter.check_entries(&entries) {
                let route = &routes[finding.entry].name;
                // A route of a whole service is named `name.Method`.
                let is_named =
                    |name: &str| route == name || route.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
                if let Some((_, span)) = self.route_names.iter().find(|(name, _)| is_named(name)) {
                    reader.error("entries", *span, finding.message, finding.help);
                }
            }
        }
    }
}
