//! Services, and the replies to their requests.

use std::any::Any;
use std::sync::Arc;

use crossdock_contract::Contracts;
use crossdock_message::ByteString;
use crossdock_ports::{OperationSpec, ServiceSpec};
use crossdock_settings::{FromNode, Node, Reader};

use super::{Operation, topic};
use crate::config::{
    Cluster, Compression, Convention, Declare, RegistryAccess, RepliesSettings, ReplyPartitions, ServiceSettings,
};

/// Where the replies to requests arrive, as checked.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    pub(crate) topic: String,
    pub(crate) declare: Declare,
    pub(crate) partitions: ReplyPartitions,
    pub(crate) convention: Convention,
    /// The topic for late replies.
    pub(crate) late: Option<String>,
    /// The maximum size of a reply's value.
    pub(crate) len_max: u64,
}

impl Replies {
    fn read(settings: &RepliesSettings, node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let partitions = settings.partitions.clone();
        let span = || node.get("partitions").map_or(node.span, |node| node.span);
        let convention = settings.headers;
        if partitions != ReplyPartitions::All && !convention.has_partition() {
            let message = format!("`headers: {}` cannot name a partition for a reply", convention.word());
            reader.error("replies", span(), message, "remove `partitions`, or write `headers: spring`");
            return None;
        }
        let late = match &settings.late {
            None => None,
            Some(late) => Some(topic(late, reader)?),
        };
        let topic = topic(&settings.topic, reader)?;
        if late.as_ref() == Some(&topic) {
            let message = "late replies must not go to the topic that replies are read from";
            let span = node.get("late").map_or(node.span, |node| node.span);
            reader.error("replies", span, message, "name another topic in `late`");
            return None;
        }
        let (declare, len_max) = (settings.declare, settings.max.0);
        Some(Self { topic, declare, partitions, convention, late, len_max })
    }
}

/// A service, as checked: one cluster.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) cluster: Cluster,
    pub(crate) compression: Compression,
    pub(crate) linger: std::time::Duration,
    pub(crate) replies: Option<Replies>,
    pub(crate) registry: Option<RegistryAccess>,
    names: Vec<String>,
    operations: Vec<(ByteString, Arc<dyn OperationSpec>)>,
}

impl Service {
    pub(crate) fn read(node: &Node, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ServiceSettings::from_node(node, reader)?;
        let cluster =
            Cluster::read(&settings.brokers, settings.tls, settings.sasl, settings.properties.as_ref(), node, reader);
        if settings.operations.0.is_empty() {
            let help = "add `operations: { name: { topic: TOPIC } }`";
            reader.error("missing-key", node.span, "a service needs at least one operation", help);
            return None;
        }
        let nodes = node.get("operations").map_or(&[][..], |operations| operations.entries());
        let operations = settings.operations.0.iter().zip(nodes).map(|((name, operation), (_, node))| {
            let mut operation = Operation::read(operation, settings.format, contracts, node, reader)?;
            let of_cluster = cluster.as_ref().map(|cluster| cluster.transactions.clone());
            operation.transactions = of_cluster.filter(|_| !operation.reply);
            Some((ByteString::from(name.value.as_str()), Arc::new(operation) as Arc<dyn OperationSpec>))
        });
        let operations: Vec<Option<_>> = operations.collect();
        let replies = match &settings.replies {
            None => None,
            Some(replies) => Some(Replies::read(replies, node.get("replies").unwrap_or(node), reader)?),
        };
        let registry = match &settings.registry {
            None => None,
            Some(registry) => {
                Some(RegistryAccess::read(registry, contracts.limits(), node.get("registry").unwrap_or(node), reader)?)
            }
        };
        for ((_, operation), (_, node)) in settings.operations.0.iter().zip(nodes) {
            if operation.reply && replies.is_none() {
                let help = "add `replies: { topic: TOPIC }` to the service, or remove `reply`";
                reader.error("replies", node.span, "a request needs a topic for its reply", help);
                return None;
            }
            if let Some(subject) = operation.subject.as_ref().filter(|_| registry.is_none()) {
                let help = "add `registry: { url: URL }` to the service, or remove `subject`";
                reader.error("registry", subject.span, "a subject needs a schema registry", help);
                return None;
            }
        }
        let cluster = cluster?;
        Some(Self {
            names: vec![cluster.brokers.clone()],
            cluster,
            compression: settings.compression,
            linger: settings.linger.0,
            replies,
            registry,
            operations: operations.into_iter().collect::<Option<_>>()?,
        })
    }
}

impl ServiceSpec for Service {
    fn endpoints(&self) -> &[String] {
        &self.names
    }

    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)> {
        self.operations.clone()
    }

    fn needs_cluster(&self) -> bool {
        self.replies.as_ref().is_some_and(|replies| replies.partitions == ReplyPartitions::Claimed)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
