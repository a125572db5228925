//! Listeners.

use std::any::Any;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crossdock_ports::ListenerSpec;
use crossdock_settings::{FromNode, Node, Reader};

use crate::config::{Cluster, GroupProtocol, ListenerSettings, Start};

/// A listener, as checked: one member of a consumer group.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) cluster: Cluster,
    pub(crate) group: String,
    pub(crate) protocol: GroupProtocol,
    pub(crate) instance: Option<String>,
    pub(crate) start: Start,
    pub(crate) rack: Option<String>,
    pub(crate) session_timeout: std::time::Duration,
    pub(crate) commit_interval: std::time::Duration,
    fingerprint: u64,
}

impl Listener {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ListenerSettings::from_node(node, reader)?;
        let mut hasher = DefaultHasher::new();
        // Secrets are not part of the debug output.
        format!("{settings:?}").hash(&mut hasher);
        let cluster =
            Cluster::read(&settings.brokers, settings.tls, settings.sasl, settings.properties.as_ref(), node, reader)?;
        cluster.fingerprint.hash(&mut hasher);
        if settings.group.value.is_empty() {
            reader.error("group", settings.group.span, "the name of a group must not be empty", "");
            return None;
        }
        if let Some(instance) = settings.instance.as_ref().filter(|_| settings.protocol == GroupProtocol::Consumer) {
            let help = "remove `instance`, or write `protocol: classic`";
            reader.error("instance", instance.span, "`instance` cannot be combined with `protocol: consumer`", help);
            return None;
        }
        Some(Self {
            cluster,
            group: settings.group.value,
            protocol: settings.protocol,
            instance: settings.instance.map(|instance| instance.value),
            start: settings.start,
            rack: settings.rack,
            session_timeout: settings.session_timeout.0,
            commit_interval: settings.commit_interval.0,
            fingerprint: hasher.finish(),
        })
    }
}

impl ListenerSpec for Listener {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fingerprint(&self) -> String {
        format!("{:x}", self.fingerprint)
    }

    fn transactions(&self) -> Option<&str> {
        Some(&self.cluster.transactions)
    }
}
