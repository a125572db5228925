//! Settings as checked: nothing downstream checks them again.

use std::any::Any;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use crossdock_adapter_api::{
    Address, Binding, BodyBinding, Delivery, EntryContext, EntrySpec, ListenerSpec, OperationSpec, PathTemplate,
    ServiceSpec, WriteFormat, known_call, xml_root,
};
use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_settings::{FromNode, Node, Reader, Span, Spanned};
use lapin::types::ShortString;

use super::addresses::Addresses;
use super::key::RoutingKey;
use super::{
    BodyFormat, Declare, EntrySettings, ListenerSettings, OperationSettings, QueueType, Reject, ServiceSettings,
};
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

/// What becomes of a message that will never succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// It is published into this queue.
    DeadLetter(ShortString),
    /// The broker has it back.
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
    pub(crate) rejected: Rejected,
    pub(crate) attempts: u32,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) reply_to: Vec<String>,
    /// It is acknowledged before anything is done with it, and never tried again.
    pub(crate) acknowledge_first: bool,
    /// The same for entries of the same settings, whatever their contracts.
    pub(crate) fingerprint: u64,
    pub(crate) answer: WriteFormat,
    pub(crate) call: Option<Arc<CallType>>,
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
            let message = format!("`{}` streams, and a queue takes single messages", call.name);
            reader.error("stream", node.span, message, "name a method without streams in `as:`");
            return None;
        }
        let typed = call.is_some();
        let answer = write_format(settings.answer, settings.root.as_ref(), typed, node.span, reader)?;
        let rejected = match (settings.reject, &settings.dead_letter) {
            (Reject::DeadLetter, Some(queue)) => Rejected::DeadLetter(name(queue, "queue", reader)?),
            (Reject::DeadLetter, None) => {
                let help = "add `dead_letter: QUEUE`; or `reject: broker` where the broker sets them aside by a policy of the \
                            queue; or `reject: discard`";
                let message = "it is not said where messages go that will never succeed";
                reader.error("dead-letter", node.span, message, help);
                return None;
            }
            (_, Some(queue)) => {
                let help = "leave `dead_letter` or `reject` out";
                reader.error("dead-letter", queue.span, "messages are set aside in two ways", help);
                return None;
            }
            (Reject::Broker, None) => Rejected::Broker,
            (Reject::Discard, None) => Rejected::Discard,
        };
        for (name, value) in [("prefetch", u64::from(settings.prefetch)), ("attempts", u64::from(settings.attempts))] {
            if value == 0 {
                let span = node.get(name).map_or(node.span, |node| node.span);
                reader.error("number", span, format!("`{name}` is at least 1"), "");
                return None;
            }
        }
        let path = PathTemplate::parse(&mapping::path_of_queue(queue.as_str()));
        let Ok(path) = path else {
            reader.error("queue", settings.queue.span, "this name of a queue cannot be used", "");
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
            rejected,
            attempts: settings.attempts,
            backoff: settings.backoff.0,
            backoff_max: settings.backoff_max.0.max(settings.backoff.0),
            reply_to: settings.reply_to,
            fingerprint,
            acknowledge_first: context.delivery == Some(Delivery::AtMostOnce),
            answer,
            call,
        })
    }
}

impl EntrySpec for Entry {
    fn address(&self) -> &Address {
        &self.address
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn answer(&self) -> Option<&WriteFormat> {
        Some(&self.answer)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        let help = "write `dead_letter: QUEUE` in the place of `reject: discard`";
        (self.rejected == Rejected::Discard).then_some(("discards what does not succeed", help))
    }

    fn describe(&self) -> String {
        format!("amqp queue {} on {}", self.queue, self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A service, as checked: one broker, however many addresses it has.
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
            reader.error("missing-key", node.span, "a service has at least one operation", help);
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
            names: vec![addresses.shown.clone()],
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
        let body = write_format(format, settings.root.as_ref(), call.is_some(), node.span, reader)?;
        let (exchange, key) = match (&settings.queue, &settings.exchange, &settings.key) {
            // The default exchange takes a message to the queue that has the routing key's name.
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
                reader.error("target", node.span, "it is not said where its messages go", help);
                return None;
            }
        };
        if settings.reply && !settings.mandatory {
            let help = "leave `mandatory` out";
            reader.error("mandatory", node.span, "a request that no queue takes is never answered", help);
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

    fn is_idempotent(&self) -> bool {
        false
    }

    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        // Whoever asks waits for the reply: a lost request is known as one.
        match (self.mandatory, self.persistent || self.reply) {
            (true, true) => None,
            (false, _) => Some(("sends what no queue may take", "leave `mandatory: false` out of the operation")),
            (true, false) => Some((
                "sends what does not survive a restart of the broker",
                "leave `persistent: false` out of the operation",
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

/// Names of AMQP are up to 255 bytes.
fn name(text: &Spanned<String>, what: &str, reader: &mut Reader<'_>) -> Option<ShortString> {
    match ShortString::try_new(text.value.as_str()) {
        Ok(name) if !text.value.is_empty() => Some(name),
        _ => {
            let message = format!("the name of a {what} has 1 to 255 bytes");
            reader.error("name", text.span, message, "");
            None
        }
    }
}

fn write_format(
    format: BodyFormat,
    root: Option<&Spanned<String>>,
    typed: bool,
    span: Span,
    reader: &mut Reader<'_>,
) -> Option<WriteFormat> {
    match (format, xml_root(format == BodyFormat::Xml, root, span, reader)?) {
        (_, Some(root)) => Some(WriteFormat::Xml { root }),
        (BodyFormat::Protobuf, None) if typed => Some(WriteFormat::Protobuf),
        (BodyFormat::Protobuf, None) => {
            let help = "add `as: pkg.Service/Method`, of a contract below `contracts:`";
            reader.error("format", span, "protobuf needs a contract", help);
            None
        }
        (BodyFormat::Raw, None) => Some(WriteFormat::Raw),
        (BodyFormat::Json | BodyFormat::Xml, None) => Some(WriteFormat::Json),
    }
}
