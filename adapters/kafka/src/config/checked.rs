//! Settings as checked; nothing downstream checks them again.

use std::any::Any;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{CallType, Contracts};
use crossdock_delivery::RetryPolicy;
use crossdock_message::{ByteString, Code, Fault, Format, Message};
use crossdock_ports::{
    Address, Binding, BodyBinding, BodyFormat, Capabilities, Delivery, EntryContext, EntrySpec, ListenerSpec,
    OperationSpec, PathTemplate, ServiceSpec, WriteFormat, known_call,
};
use crossdock_settings::{FromNode, Node, Reader, Spanned};

use super::cluster::Cluster;
use super::key::KeyTemplate;
use super::{
    Compression, Convention, Declare, EntrySettings, GroupProtocol, ListenerSettings, OperationSettings, Order,
    RegistryAccess, Reject, RepliesSettings, ServiceSettings, Start,
};
use crate::correlation::ReplyAddress;
use crate::mapping;
use crate::received::ReceivedRecord;

/// The longest name of a topic (Kafka, `Topic.MAX_NAME_LENGTH`).
const TOPIC_LEN_MAX: usize = 249;

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

/// What happens to a record that will never succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RejectPolicy {
    /// It is written to this topic.
    DeadLetter(String),
    /// It is skipped.
    Discard,
}

impl RejectPolicy {
    fn read(settings: &EntrySettings, topic: &str, node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let policy = match (settings.reject, &settings.dead_letter) {
            (Reject::DeadLetter, Some(dead)) => Self::DeadLetter(self::topic(dead, reader)?),
            (Reject::DeadLetter, None) => {
                let help = "add `dead_letter: TOPIC`, or `reject: discard`";
                reader.error("dead-letter", node.span, "an entry needs `dead_letter` or another `reject`", help);
                return None;
            }
            (Reject::Discard, Some(dead)) => {
                let help = "remove `dead_letter` or `reject`";
                let message = "`dead_letter` cannot be combined with `reject: discard`";
                reader.error("dead-letter", dead.span, message, help);
                return None;
            }
            (Reject::Discard, None) => Self::Discard,
        };
        if policy == Self::DeadLetter(topic.to_owned()) {
            let message = "a topic cannot be its own dead letter topic";
            reader.error("dead-letter", settings.topic.span, message, "name another topic in `dead_letter`");
            return None;
        }
        Some(policy)
    }
}

/// An entry, as checked.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    binding: Arc<Binding>,
    pub(crate) topic: String,
    pub(crate) declare: Declare,
    pub(crate) order: Order,
    pub(crate) concurrency: usize,
    pub(crate) window: usize,
    pub(crate) window_len: usize,
    pub(crate) body_len_max: u64,
    /// The format of values without a media type.
    pub(crate) format: Format,
    /// Knows the types of the values.
    pub(crate) registry: Option<RegistryAccess>,
    pub(crate) reject_policy: RejectPolicy,
    pub(crate) retry: RetryPolicy,
    /// Offsets are stored before records are processed, and records are never retried.
    pub(crate) is_at_most_once: bool,
    /// Offsets are committed in transactions, with what is sent to the same cluster.
    pub(crate) is_transactional: bool,
    pub(crate) call: Option<Arc<CallType>>,
    /// Topics that requests may name for their replies.
    pub(crate) reply_to: Vec<String>,
    pub(crate) convention: Convention,
    pub(crate) reply_format: WriteFormat,
}

impl Entry {
    pub(crate) fn read(node: &Node, context: EntryContext<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EntrySettings::from_node(node, reader)?;
        let topic = topic(&settings.topic, reader)?;
        let call = context.call.cloned();
        if let Some(call) = call.as_ref().filter(|call| call.client_streaming || call.server_streaming) {
            let message = format!("`{}` is a streaming method; a topic needs a unary one", call.name);
            reader.error("stream", node.span, message, "name a unary method in `as:`");
            return None;
        }
        let typed = call.is_some();
        let reject_policy = RejectPolicy::read(&settings, &topic, node, reader)?;
        for (name, value) in [
            ("concurrency", settings.concurrency),
            ("window", settings.window),
            ("attempts", settings.attempts as usize),
        ] {
            if value == 0 {
                let span = node.get(name).map_or(node.span, |node| node.span);
                reader.error("number", span, format!("`{name}` must be at least 1"), "");
                return None;
            }
        }
        let reply_format = settings.answer.to_write_format(settings.root.as_ref(), typed, node.span, reader)?;
        let reply_to = settings.reply_to.iter().map(|topic| self::topic(topic, reader)).collect::<Option<Vec<_>>>()?;
        if reply_to.contains(&topic) {
            let message = "a topic cannot receive the replies to its own requests";
            let span = node.get("reply_to").map_or(node.span, |node| node.span);
            reader.error("reply-to", span, message, "name another topic in `reply_to`");
            return None;
        }
        let registry = match &settings.registry {
            None => None,
            Some(registry) => Some(RegistryAccess::read(registry, node.get("registry").unwrap_or(node), reader)?),
        };
        if let Some(format) = node.get("format").filter(|_| registry.is_some()) {
            let message = "the format of values with a registry is that of their schema";
            reader.error("format", format.span, message, "remove `format` or `registry`");
            return None;
        }
        let is_transactional = context.delivery == Some(Delivery::EffectivelyOnce);
        if is_transactional && !reply_to.is_empty() {
            let help = "remove `reply_to`, or write `delivery: at-least-once`";
            let span = node.get("reply_to").map_or(node.span, |node| node.span);
            reader.error("reply-to", span, "requests cannot be processed in transactions", help);
            return None;
        }
        let Ok(path) = PathTemplate::parse(&mapping::topic_path(&topic)) else {
            reader.error("topic", settings.topic.span, "this topic name cannot be used", "");
            return None;
        };
        let body = settings.body.as_ref().filter(|name| *name != "*" && !typed);
        let body = body.map_or(BodyBinding::Fields, |name| BodyBinding::Field(name.as_str().into()));
        Some(Self {
            address: Address {
                listener: settings.listen.as_str().into(),
                method: ByteString::from_static(mapping::CONSUME),
                path,
                headers: Vec::new(),
            },
            binding: Arc::new(Binding { body, params: Vec::new() }),
            topic,
            declare: settings.declare,
            order: settings.order,
            concurrency: settings.concurrency,
            window: settings.window,
            window_len: usize::try_from(settings.window_size.0).unwrap_or(usize::MAX),
            body_len_max: settings.max.0,
            format: match settings.format {
                // A value with a contract is JSON by default.
                BodyFormat::Json => Format::Json,
                BodyFormat::Raw if typed => Format::Json,
                BodyFormat::Xml => Format::Xml,
                BodyFormat::Protobuf => Format::Protobuf,
                BodyFormat::Raw => Format::Raw,
            },
            registry,
            reject_policy,
            retry: RetryPolicy {
                attempts: settings.attempts,
                backoff: settings.backoff.0,
                backoff_max: settings.backoff_max.0.max(settings.backoff.0),
            },
            is_at_most_once: context.delivery == Some(Delivery::AtMostOnce),
            is_transactional,
            call,
            reply_to,
            convention: settings.reply_headers,
            reply_format,
        })
    }
}

impl Entry {
    /// The address of the reply to a record; `None` if it is no request.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it cannot be read; PERMISSION_DENIED if the entry does not list its topic.
    pub(crate) fn reply_address(&self, record: &ReceivedRecord) -> Result<Option<ReplyAddress>, Fault> {
        if self.reply_to.is_empty() {
            return Ok(None);
        }
        let address = self.convention.reply_address(record)?;
        if address.as_ref().is_some_and(|address| !self.reply_to.contains(&address.topic)) {
            let problem = "the reply topic of the request is not listed in `reply_to` of the route";
            return Err(Fault::caller(Code::PermissionDenied, "REPLY_TO", problem));
        }
        Ok(address)
    }
}

impl EntrySpec for Entry {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            replies: !self.reply_to.is_empty(),
            acknowledges: !self.is_at_most_once,
            ordered: self.order != Order::None,
        }
    }

    fn answer(&self) -> Option<&WriteFormat> {
        (!self.reply_to.is_empty()).then_some(&self.reply_format)
    }

    fn address(&self) -> &Address {
        &self.address
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        let help = "replace `reject: discard` with `dead_letter: TOPIC`";
        (self.reject_policy == RejectPolicy::Discard).then_some(("discards rejected records", help))
    }

    fn describe(&self) -> String {
        format!("kafka topic {} on {}", self.topic, self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Where the replies to requests arrive, as checked.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    pub(crate) topic: String,
    pub(crate) declare: Declare,
    /// The partitions of this instance; all if empty.
    pub(crate) partitions: Vec<i32>,
    pub(crate) convention: Convention,
    /// The topic for late replies.
    pub(crate) late: Option<String>,
    /// The maximum size of a reply's value.
    pub(crate) len_max: u64,
}

impl Replies {
    fn read(settings: &RepliesSettings, node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut partitions = settings.partitions.clone();
        partitions.sort_unstable();
        partitions.dedup();
        let span = || node.get("partitions").map_or(node.span, |node| node.span);
        if partitions.first().is_some_and(|partition| *partition < 0) {
            reader.error("number", span(), "a partition must be at least 0", "");
            return None;
        }
        let convention = settings.headers;
        if !partitions.is_empty() && !convention.has_partition() {
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
            Some(registry) => Some(RegistryAccess::read(registry, node.get("registry").unwrap_or(node), reader)?),
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

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An operation, as checked.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) topic: String,
    pub(crate) declare: Declare,
    key: Option<KeyTemplate>,
    pub(crate) partition: Option<i32>,
    /// It waits for a reply.
    pub(crate) reply: bool,
    /// The cluster's, unless it waits for a reply.
    transactions: Option<String>,
    pub(crate) body: WriteFormat,
    pub(crate) call: Option<Arc<CallType>>,
    pub(crate) subject: Option<Subject>,
}

/// The schema of an operation's values.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// The newest one if `None`.
    pub(crate) version: Option<u32>,
    /// The full name of a protobuf message; the first one of the schema if `None`.
    pub(crate) message: Option<String>,
}

impl Operation {
    fn read(
        settings: &OperationSettings,
        format: BodyFormat,
        contracts: &Contracts,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let call = match &settings.r#as {
            None => None,
            Some(name) => Some(Arc::new(known_call(name, contracts, reader)?)),
        };
        let subject = match &settings.subject {
            Some(subject) => Some(Subject::read(subject, settings, node, reader)?),
            None => {
                if let Some((name, node)) = first_of(node, &["version", "message"]) {
                    reader.error("subject", node.span, format!("`{name}` needs a subject"), "add `subject: NAME`");
                    return None;
                }
                None
            }
        };
        let format = settings.format.unwrap_or(format);
        let body = format.to_write_format(settings.root.as_ref(), call.is_some(), node.span, reader)?;
        let key = match &settings.key {
            None => None,
            Some(key) => Some(KeyTemplate::read(key, reader)?),
        };
        if settings.partition.is_some_and(|partition| partition < 0) {
            let span = node.get("partition").map_or(node.span, |node| node.span);
            reader.error("number", span, "`partition` must be at least 0", "");
            return None;
        }
        let (topic, partition) = (topic(&settings.topic, reader)?, settings.partition);
        Some(Self {
            topic,
            declare: settings.declare,
            key,
            partition,
            reply: settings.reply,
            transactions: None,
            body,
            call,
            subject,
        })
    }

    /// The key of the record for a message; that of its source by default.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a field that is missing or not a scalar.
    pub(crate) fn key(&self, message: &Message) -> Result<Option<Bytes>, Fault> {
        match &self.key {
            Some(key) => key.evaluate(message).map(Some),
            None => Ok(message.key.clone()),
        }
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        self.key.as_ref().map_or(&[], KeyTemplate::fields)
    }

    fn encodes_late(&self) -> bool {
        // The key's fields stay in the value, but only the registry knows the type of a value.
        self.subject.is_some()
    }

    fn body(&self) -> Option<&WriteFormat> {
        Some(&self.body)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn transactions(&self) -> Option<&str> {
        self.transactions.as_deref()
    }

    fn describe(&self) -> String {
        let kind = if self.reply { "request" } else { "record" };
        match &self.key {
            Some(key) => format!("{kind} to topic {} with key `{}`", self.topic, key.as_str()),
            None => format!("{kind} to topic {}", self.topic),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Subject {
    /// The subject of an operation; `None` if an error was reported.
    fn read(
        subject: &Spanned<String>,
        settings: &OperationSettings,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        if let Some((name, other)) = first_of(node, &["as", "format", "root"]) {
            let message =
                format!("`{name}` cannot be combined with `subject`, whose schema says how values are written");
            reader.error("subject", other.span, message, format!("remove `{name}` or `subject`"));
            return None;
        }
        if settings.reply {
            let message = "a request cannot be written by the schema of a subject";
            reader.error("subject", subject.span, message, "remove `subject` or `reply`");
            return None;
        }
        if subject.value.is_empty() || settings.version == Some(0) {
            reader.error("subject", subject.span, "a subject needs a name, and a version from 1", "");
            return None;
        }
        let (name, message) = (subject.value.clone(), settings.message.clone());
        Some(Self { name, version: settings.version, message })
    }
}

/// The first of these keys that is there.
fn first_of<'n>(node: &'n Node, names: &[&'static str]) -> Option<(&'static str, &'n Node)> {
    names.iter().find_map(|name| Some((*name, node.get(name)?)))
}

/// Checks the name of a topic (Kafka, `Topic.validate`).
fn topic(text: &Spanned<String>, reader: &mut Reader<'_>) -> Option<String> {
    let name = &text.value;
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > TOPIC_LEN_MAX || !name.bytes().all(is_legal) || matches!(&**name, "." | "..") {
        let message = "the name of a topic must have 1 to 249 letters, digits, `.`, `_` or `-`";
        reader.error("topic", text.span, message, "");
        return None;
    }
    Some(name.clone())
}
