//! Settings as checked; nothing downstream checks them again.

use std::any::Any;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crossdock_cloudevents::{EntryEnvelope, Envelope};
use crossdock_contract::{CallType, Contracts};
use crossdock_delivery::RetryPolicy;
use crossdock_message::{ByteString, Limits};
use crossdock_ports::{
    Address, Binding, BodyBinding, BodyFormat, Capabilities, Delivery, EntryContext, EntrySpec, ListenerSpec,
    OperationSpec, PathTemplate, ServiceSpec, WriteFormat, known_call,
};
use crossdock_settings::{FromNode, Node, Reader, Spanned};
use lapin::types::ShortString;

use super::addresses::Addresses;
use super::key::RoutingKey;
use super::{Declare, EntrySettings, ListenerSettings, OperationSettings, QueueType, Reject, ServiceSettings};
use crate::mapping;

/// A listener, as checked.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) addresses: Addresses,
}

impl Listener {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ListenerSettings::from_node(node, reader)?;
        let ListenerSettings { url, connect_timeout, heartbeat, tls } = settings;
        Some(Self { addresses: Addresses::read(&url, connect_timeout.0, heartbeat.0, tls, node, reader)? })
    }
}

impl ListenerSpec for Listener {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fingerprint(&self) -> String {
        format!("{:x}", self.addresses.fingerprint())
    }
}

/// What happens to a message that will never succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RejectPolicy {
    /// It is published to this queue.
    DeadLetter(ShortString),
    /// It is nacked without requeue.
    Broker,
    /// It is acknowledged.
    Discard,
}

/// An entry, as checked.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    binding: Arc<Binding>,
    pub(crate) listener: ByteString,
    pub(crate) queue: ShortString,
    pub(crate) declare: Declare,
    pub(crate) queue_type: QueueType,
    pub(crate) prefetch: u16,
    pub(crate) priority: Option<i32>,
    pub(crate) body_len_max: u64,
    pub(crate) reject_policy: RejectPolicy,
    pub(crate) retry: RetryPolicy,
    pub(crate) reply_to: Vec<String>,
    /// It is acknowledged before it is processed, and never retried.
    pub(crate) is_at_most_once: bool,
    /// Equal for entries with equal settings, regardless of their contracts.
    pub(crate) fingerprint: u64,
    pub(crate) reply_format: WriteFormat,
    pub(crate) call: Option<Arc<CallType>>,
    /// The limits on reading events, if messages are events.
    pub(crate) events: Option<Arc<Limits>>,
}

impl Entry {
    pub(crate) fn read(node: &Node, context: EntryContext<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EntrySettings::from_node(node, reader)?;
        let queue = name(&settings.queue, "queue", reader)?;
        let mut hasher = DefaultHasher::new();
        format!("{settings:?} {:?}", context.delivery).hash(&mut hasher);
        let fingerprint = hasher.finish();
        let call = context.call.cloned();
        if let Some(call) = call.as_ref().filter(|call| call.client_streaming || call.server_streaming) {
            let message = format!("`{}` is a streaming method; a queue needs a unary one", call.name);
            reader.error("stream", node.span, message, "name a unary method in `as:`");
            return None;
        }
        let typed = call.is_some();
        let reply_format = settings.answer.to_write_format(settings.root.as_ref(), typed, node.span, reader)?;
        let reject_policy = match (settings.reject, &settings.dead_letter) {
            (Reject::DeadLetter, Some(queue)) => RejectPolicy::DeadLetter(name(queue, "queue", reader)?),
            (Reject::DeadLetter, None) => {
                let help = "add `dead_letter: QUEUE`, or `reject: broker` if a policy of the queue dead-letters messages, or \
                            `reject: discard`";
                let message = "an entry needs `dead_letter` or another `reject`";
                reader.error("dead-letter", node.span, message, help);
                return None;
            }
            (_, Some(queue)) => {
                let help = "remove `dead_letter` or `reject`";
                reader.error("dead-letter", queue.span, "`dead_letter` cannot be combined with this `reject`", help);
                return None;
            }
            (Reject::Broker, None) => RejectPolicy::Broker,
            (Reject::Discard, None) => RejectPolicy::Discard,
        };
        for (name, value) in [("prefetch", u64::from(settings.prefetch)), ("attempts", u64::from(settings.attempts))] {
            if value == 0 {
                let span = node.get(name).map_or(node.span, |node| node.span);
                reader.error("number", span, format!("`{name}` must be at least 1"), "");
                return None;
            }
        }
        let path = PathTemplate::parse(&mapping::queue_path(queue.as_str()));
        let Ok(path) = path else {
            reader.error("queue", settings.queue.span, "this queue name cannot be used", "");
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
            listener: settings.listen.as_str().into(),
            queue,
            declare: settings.declare,
            queue_type: settings.queue_type,
            prefetch: settings.prefetch,
            priority: settings.priority,
            body_len_max: settings.max.0,
            reject_policy,
            retry: RetryPolicy {
                attempts: settings.attempts,
                backoff: settings.backoff.0,
                backoff_max: settings.backoff_max.0.max(settings.backoff.0),
            },
            reply_to: settings.reply_to,
            fingerprint,
            is_at_most_once: context.delivery == Some(Delivery::AtMostOnce),
            reply_format,
            call,
            events: (settings.envelope == EntryEnvelope::CloudEvents).then(|| Arc::clone(context.contracts.limits())),
        })
    }
}

impl EntrySpec for Entry {
    fn capabilities(&self) -> Capabilities {
        Capabilities { replies: true, acknowledges: !self.is_at_most_once, ordered: true }
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

    fn answer(&self) -> Option<&WriteFormat> {
        Some(&self.reply_format)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn receives_events(&self) -> bool {
        self.events.is_some()
    }

    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        let help = "replace `reject: discard` with `dead_letter: QUEUE`";
        (self.reject_policy == RejectPolicy::Discard).then_some(("discards rejected messages", help))
    }

    fn describe(&self) -> String {
        format!("amqp queue {} on {}", self.queue, self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A service, as checked: one broker with one or more addresses.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) addresses: Addresses,
    names: Vec<String>,
    operations: Vec<(ByteString, Arc<dyn OperationSpec>)>,
    pub(crate) reply_len_max: u64,
    pub(crate) late_reply: Option<ShortString>,
}

impl Service {
    pub(crate) fn read(node: &Node, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ServiceSettings::from_node(node, reader)?;
        let (connect, heartbeat) = (settings.connect_timeout.0, settings.heartbeat.0);
        let addresses = Addresses::read(&settings.url, connect, heartbeat, settings.tls, node, reader);
        if settings.operations.0.is_empty() {
            let help = "add `operations: { name: { queue: QUEUE } }`";
            reader.error("missing-key", node.span, "a service needs at least one operation", help);
            return None;
        }
        let nodes = node.get("operations").map_or(&[][..], |operations| operations.entries());
        let operations = settings.operations.0.iter().zip(nodes).map(|((name, operation), (_, node))| {
            let operation = Operation::read(operation, settings.format, contracts, node, reader)?;
            Some((ByteString::from(name.value.as_str()), Arc::new(operation) as Arc<dyn OperationSpec>))
        });
        let operations: Vec<Option<_>> = operations.collect();
        let late_reply = match &settings.late_reply {
            None => None,
            Some(queue) => Some(name(queue, "queue", reader)?),
        };
        let addresses = addresses?;
        Some(Self {
            names: vec![addresses.redacted.clone()],
            addresses,
            operations: operations.into_iter().collect::<Option<_>>()?,
            reply_len_max: settings.max.0,
            late_reply,
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
    pub(crate) exchange: ShortString,
    pub(crate) key: RoutingKey,
    pub(crate) reply: bool,
    pub(crate) priority: Option<u8>,
    pub(crate) persistent: bool,
    pub(crate) mandatory: bool,
    pub(crate) body: WriteFormat,
    pub(crate) call: Option<Arc<CallType>>,
    pub(crate) envelope: Envelope,
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
        let format = settings.format.unwrap_or(format);
        let body = format.to_write_format(settings.root.as_ref(), call.is_some(), node.span, reader)?;
        let (exchange, key) = match (&settings.queue, &settings.exchange, &settings.key) {
            // The default exchange routes a message to the queue named by its routing key.
            (Some(queue), None, None) => (ShortString::default(), RoutingKey::constant(name(queue, "queue", reader)?)),
            (None, Some(exchange), key) => {
                let key = match key {
                    None => Some(RoutingKey::constant(ShortString::default())),
                    Some(key) => RoutingKey::read(key, reader),
                };
                (name(exchange, "exchange", reader)?, key?)
            }
            _ => {
                let help = "write `queue: QUEUE`, or `exchange: EXCHANGE` and `key: KEY`";
                reader.error("target", node.span, "an operation needs either `queue` or `exchange`", help);
                return None;
            }
        };
        if settings.reply && !settings.mandatory {
            let help = "remove `mandatory: false`";
            reader.error(
                "mandatory",
                node.span,
                "a request cannot have `mandatory: false`: an unroutable one would get no reply",
                help,
            );
            return None;
        }
        let persistent = settings.persistent.unwrap_or(!settings.reply);
        Some(Self {
            exchange,
            key,
            reply: settings.reply,
            priority: settings.priority,
            persistent,
            mandatory: settings.mandatory,
            body,
            call,
            envelope: settings.envelope,
        })
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        self.key.params()
    }

    fn body(&self) -> Option<&WriteFormat> {
        Some(&self.body)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn sends_events(&self) -> bool {
        self.envelope != Envelope::Plain
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        // The caller of a request notices its loss: there is no reply.
        match (self.mandatory, self.persistent || self.reply) {
            (true, true) => None,
            (false, _) => Some(("drops unroutable messages", "remove `mandatory: false` from the operation")),
            (true, false) => Some((
                "sends messages that do not survive a restart of the broker",
                "remove `persistent: false` from the operation",
            )),
        }
    }

    fn describe(&self) -> String {
        let kind = if self.reply { "request" } else { "message" };
        match self.exchange.as_str() {
            "" => format!("{kind} to queue {}", self.key.as_str()),
            exchange => format!("{kind} to exchange {exchange} with key `{}`", self.key.as_str()),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Checks a name: AMQP allows up to 255 bytes.
fn name(text: &Spanned<String>, what: &str, reader: &mut Reader<'_>) -> Option<ShortString> {
    match ShortString::try_new(text.value.as_str()) {
        Ok(name) if !text.value.is_empty() => Some(name),
        _ => {
            let message = format!("the name of a {what} must have 1 to 255 bytes");
            reader.error("name", text.span, message, "");
            None
        }
    }
}
