//! Entries of routes.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crossdock_cloudevents::EntryEnvelope;
use crossdock_contract::CallType;
use crossdock_delivery::RetryPolicy;
use crossdock_message::{ByteString, Code, Fault, Format, Limits};
use crossdock_ports::{
    Address, Binding, BodyBinding, BodyFormat, Capabilities, Delivery, EntryContext, EntryFinding, EntrySpec,
    PathTemplate, WriteFormat,
};
use crossdock_settings::{FromNode, Node, Reader};

use super::topic;
use crate::config::{Convention, Declare, EntrySettings, Order, RegistryAccess, Reject};
use crate::correlation::ReplyAddress;
use crate::mapping;
use crate::received::ReceivedRecord;

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

/// A topic in which records wait for their next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetryTopic {
    pub(crate) topic: String,
    pub(crate) after: Duration,
}

/// The maximum number of retry topics of an entry.
const RETRY_TOPICS_MAX: usize = 16;

impl RetryTopic {
    /// Reads the retry topics of an entry; `None` if an error was reported.
    fn read_all(
        settings: &EntrySettings,
        topic: &str,
        delivery: Option<Delivery>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Self>> {
        let Some(retry) = node.get("retry").filter(|_| !settings.retry.is_empty()) else { return Some(Vec::new()) };
        let unfit = [
            (
                settings.order != Order::None,
                "retry topics do not keep the order of records",
                "add `order: none`, or remove `retry`",
            ),
            (
                node.get("attempts").or_else(|| node.get("backoff")).or_else(|| node.get("backoff_max")).is_some(),
                "the retry topics say how often and when a record is retried",
                "remove `attempts`, `backoff` and `backoff_max`, or `retry`",
            ),
            (
                !settings.reply_to.is_empty(),
                "requests are not retried, as their callers wait",
                "remove `reply_to` or `retry`",
            ),
            (
                matches!(delivery, Some(Delivery::AtMostOnce | Delivery::EffectivelyOnce)),
                "records can be moved to retry topics only with `delivery: at-least-once`",
                "remove `retry`, or change `delivery`",
            ),
            (settings.retry.len() > RETRY_TOPICS_MAX, "an entry can have at most 16 retry topics", ""),
        ];
        if let Some((_, message, help)) = unfit.into_iter().find(|(is_unfit, ..)| *is_unfit) {
            reader.error("retry", retry.span, message, help);
            return None;
        }
        let mut topics: Vec<Self> = Vec::new();
        for setting in &settings.retry {
            let name = self::topic(&setting.topic, reader)?;
            let dead = settings.dead_letter.as_ref().map(|dead| dead.value.as_str());
            if name == topic || dead == Some(&name) || topics.iter().any(|other| other.topic == name) {
                let message = "a retry topic must differ from the other topics of its entry";
                reader.error("retry", setting.topic.span, message, "name another topic");
                return None;
            }
            topics.push(Self { topic: name, after: setting.after.0 });
        }
        Some(topics)
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
    /// The limits on reading events, if records are events.
    pub(crate) events: Option<Arc<Limits>>,
    /// Knows the types of the values.
    pub(crate) registry: Option<RegistryAccess>,
    pub(crate) reject_policy: RejectPolicy,
    pub(crate) retry: RetryPolicy,
    /// In the order in which a record passes them; none if it keeps its place while it is retried.
    pub(crate) retry_topics: Vec<RetryTopic>,
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
        let retry_topics = RetryTopic::read_all(&settings, &topic, context.delivery, node, reader)?;
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
            Some(registry) => Some(RegistryAccess::read(
                registry,
                context.contracts.limits(),
                node.get("registry").unwrap_or(node),
                reader,
            )?),
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
            events: (settings.envelope == EntryEnvelope::CloudEvents).then(|| Arc::clone(context.contracts.limits())),
            registry,
            reject_policy,
            retry: RetryPolicy {
                attempts: match retry_topics.len() {
                    0 => settings.attempts,
                    count => u32::try_from(count + 1).unwrap_or(u32::MAX),
                },
                backoff: settings.backoff.0,
                backoff_max: settings.backoff_max.0.max(settings.backoff.0),
            },
            retry_topics,
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
    /// The topics that it consumes.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.topic).chain(self.retry_topics.iter().map(|retry| &retry.topic))
    }

    /// The dead letter topic.
    fn dead_letter(&self) -> Option<&String> {
        match &self.reject_policy {
            RejectPolicy::DeadLetter(dead) => Some(dead),
            RejectPolicy::Discard => None,
        }
    }

    /// Entries with a retry topic that another entry of the same listener uses.
    pub(crate) fn check_all(entries: &[&Arc<dyn EntrySpec>]) -> Vec<EntryFinding> {
        let entries: Vec<(usize, &Self)> = entries
            .iter()
            .enumerate()
            .filter_map(|(index, spec)| Some((index, spec.as_any().downcast_ref::<Self>()?)))
            .collect();
        let is_taken = |index: usize, entry: &Self, topic: &String| {
            entries.iter().any(|(other, of)| {
                *other != index
                    && of.address.listener == entry.address.listener
                    && of.topics().chain(of.dead_letter()).any(|name| name == topic)
            })
        };
        let finding = |(index, entry): &(usize, &Self)| {
            let RetryTopic { topic, .. } =
                entry.retry_topics.iter().find(|retry| is_taken(*index, entry, &retry.topic))?;
            let message = format!("another entry uses the retry topic `{topic}` of this one");
            Some(EntryFinding { entry: *index, message, help: "name another topic in `retry`".to_owned() })
        };
        entries.iter().filter_map(finding).collect()
    }

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

    fn is_consumed(&self) -> bool {
        true
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn has_own_types(&self) -> bool {
        self.registry.is_some()
    }

    fn receives_events(&self) -> bool {
        self.events.is_some()
    }

    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        let help = "replace `reject: discard` with `dead_letter: TOPIC`";
        (self.reject_policy == RejectPolicy::Discard).then_some(("discards rejected records", help))
    }

    fn describe(&self) -> String {
        let retries: Vec<String> =
            self.retry_topics.iter().map(|retry| format!("{} after {:?}", retry.topic, retry.after)).collect();
        let retries = if retries.is_empty() { String::new() } else { format!(", retried in {}", retries.join(", ")) };
        format!("kafka topic {} on {}{retries}", self.topic, self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
