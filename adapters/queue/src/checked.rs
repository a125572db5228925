//! Settings as checked; nothing downstream checks them again.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_ports::{
    Address, Binding, BodyBinding, BodyFormat, Capabilities, EntryContext, EntrySpec, KeyTemplate, OperationSpec,
    PathTemplate, QueueSource, ServiceSpec, WriteFormat, known_call,
};
use crossdock_settings::{FromNode, Node, Reader, Spanned};

use crate::config::{EntrySettings, OperationSettings, ServiceSettings};

/// The method of every message of a queue.
const DELIVER: &str = "DELIVER";
/// Stands in addresses where others have a listener.
const CLUSTER: &str = "cluster";
/// Maximum length of the name of a queue, in bytes.
const NAME_LEN_MAX: usize = 200;
const CONCURRENCY_MAX: usize = 10_000;
const WINDOW: Duration = Duration::from_secs(3_600);
/// The longest window and delay of the cluster.
const TIME_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Checks the name of a queue. Names with spaces belong to the gateway.
fn name(text: &Spanned<String>, reader: &mut Reader<'_>) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if (1..=NAME_LEN_MAX).contains(&text.value.len()) && text.value.bytes().all(is_plain) {
        return Some(text.value.clone());
    }
    let message = format!("the name of a queue has 1 to {NAME_LEN_MAX} letters, digits, and `-`, `.`, `_` or `~`");
    reader.error("name", text.span, message, "write for example `orders.new`");
    None
}

/// An entry.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    binding: Arc<Binding>,
    source: QueueSource,
    call: Option<Arc<CallType>>,
}

impl Entry {
    pub(crate) fn read(node: &Node, context: EntryContext<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EntrySettings::from_node(node, reader)?;
        let queue = name(&settings.queue, reader)?;
        let call = context.call.cloned();
        if let Some(call) = call.as_ref().filter(|call| call.client_streaming || call.server_streaming) {
            let message = format!("`{}` is a streaming method; a queue needs a unary one", call.name);
            reader.error("stream", node.span, message, "name a unary method in `as:`");
            return None;
        }
        let EntrySettings { concurrency, attempts, backoff, backoff_max, body, .. } = settings;
        if attempts == 0 || !(1..=CONCURRENCY_MAX).contains(&concurrency) {
            let message = format!("`attempts` must be at least 1, and `concurrency` between 1 and {CONCURRENCY_MAX}");
            reader.error("number", node.span, message, "");
            return None;
        }
        // A name that passed the check is a segment of a path.
        let path = PathTemplate::parse(&format!("/{queue}")).ok()?;
        let body = body.filter(|name| *name != "*" && call.is_none());
        let body = body.map_or(BodyBinding::Fields, |name| BodyBinding::Field(name.into()));
        let (listener, method) = (ByteString::from_static(CLUSTER), ByteString::from_static(DELIVER));
        let (backoff, backoff_max) = (backoff.0, backoff_max.0.max(backoff.0));
        Some(Self {
            address: Address { listener, method, path, headers: Vec::new() },
            binding: Arc::new(Binding { body, params: Vec::new() }),
            source: QueueSource { queue, attempts, backoff, backoff_max, concurrency },
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

    /// `order` of a route cannot add to the order by key that the queue has.
    fn capabilities(&self) -> Capabilities {
        Capabilities { replies: false, acknowledges: true, ordered: false }
    }

    fn queue(&self) -> Option<&QueueSource> {
        Some(&self.source)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn describe(&self) -> String {
        format!("queue {} of the cluster", self.source.queue)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The queues of the cluster as a service.
#[derive(Debug)]
pub(crate) struct Service {
    names: Vec<String>,
    operations: Vec<(ByteString, Arc<dyn OperationSpec>)>,
}

impl Service {
    pub(crate) fn read(node: &Node, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ServiceSettings::from_node(node, reader)?;
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
        Some(Self { names: vec![CLUSTER.to_owned()], operations: operations.into_iter().collect::<Option<_>>()? })
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
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An operation: messages to a queue.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) queue: String,
    pub(crate) key: Option<KeyTemplate>,
    pub(crate) delay: Duration,
    /// How duplicates are recognized, and for how long.
    pub(crate) id: Option<(KeyTemplate, Duration)>,
    pub(crate) body: WriteFormat,
    pub(crate) call: Option<Arc<CallType>>,
    /// The fields of key and id.
    params: Vec<ByteString>,
}

impl Operation {
    fn read(
        settings: &OperationSettings,
        format: BodyFormat,
        contracts: &Contracts,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let queue = name(&settings.queue, reader)?;
        let call = match &settings.r#as {
            None => None,
            Some(name) => Some(Arc::new(known_call(name, contracts, reader)?)),
        };
        let format = settings.format.unwrap_or(format);
        let body = format.to_write_format(settings.root.as_ref(), call.is_some(), node.span, reader)?;
        let mut template = |text: &Option<Spanned<String>>| match text {
            None => Some(None),
            Some(text) => KeyTemplate::read(text, reader).map(Some),
        };
        let (key, id) = (template(&settings.key)?, template(&settings.id)?);
        if id.is_none() && settings.window.is_some() {
            let help = "add `id`, such as `id: \"{order}\"`, or remove `window`";
            reader.error("window", node.span, "`window` needs an `id`, by which duplicates are recognized", help);
            return None;
        }
        let window = settings.window.map_or(WINDOW, |window| window.0);
        let delay = settings.delay.map_or(Duration::ZERO, |delay| delay.0);
        if window.is_zero() || window > TIME_MAX || delay > TIME_MAX {
            let message = "`delay` can be at most 30 days, and `window` between one millisecond and 30 days";
            reader.error("duration", node.span, message, "");
            return None;
        }
        let fields = [&key, &id].into_iter().flatten().flat_map(|template| template.fields().iter().cloned());
        Some(Self { queue, params: fields.collect(), key, delay, id: id.map(|id| (id, window)), body, call })
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        &self.params
    }

    /// The fields of the key stay in the body.
    fn encodes_late(&self) -> bool {
        false
    }

    fn body(&self) -> Option<&WriteFormat> {
        Some(&self.body)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn is_idempotent(&self) -> bool {
        self.id.is_some()
    }

    fn describe(&self) -> String {
        match &self.key {
            Some(key) => format!("message to queue {} of the cluster with key `{}`", self.queue, key.as_str()),
            None => format!("message to queue {} of the cluster", self.queue),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
