//! Settings, as written and as checked. Nothing downstream checks them again.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_cloudevents::{EntryEnvelope, Envelope};
use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_ports::{
    Address, Binding, BodyFormat, Cancels, EntryContext, EntrySpec, ListenerSpec, OperationSpec, PathTemplate,
    ServiceSpec, WriteFormat, known_call,
};
use crossdock_settings::{
    Duration, FromNode, Named, Node, OneOrMany, Reader, Secret, Size, Spanned, choices, nearest, settings,
};
use crossdock_transport::http2::{self, Limits};
use crossdock_transport::{ClientTlsSettings, Endpoint, ServerTlsSettings, bind_address, static_headers};

/// How messages of gRPC are encoded.
pub(crate) static PROTOBUF: WriteFormat = WriteFormat::protobuf();

/// Services that a listener implements itself: health and reflection.
pub(crate) const BUILT_IN_SERVICES: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

const fn seconds(count: u64) -> Duration {
    Duration(StdDuration::from_secs(count))
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

choices! {
    /// Message compression.
    pub(crate) enum Compression {
        /// Uncompressed.
        None = "none",
        /// Gzip, if it makes a message smaller.
        Gzip = "gzip",
    }

    /// Which error messages of a service are passed to callers.
    pub(crate) enum Faults {
        /// All except those of `unknown`, `internal` and `data_loss`, which may reveal internals of the service.
        Safe = "safe",
        /// All.
        All = "all",
    }
}

settings! {
    /// a grpc listener
    pub(crate) struct ListenerSettings {
        /// Address and port, such as `127.0.0.1:9090`.
        pub(crate) bind: Spanned<String>,
        /// Speak TLS.
        pub(crate) tls: Option<ServerTlsSettings>,
        /// Serve gRPC server reflection (v1 and v1alpha).
        pub(crate) reflection: bool = false,
        /// Maximum number of open connections. Default: three quarters of the limit on open files.
        pub(crate) connections: Option<usize>,
        /// Maximum number of open connections per client address. Default: half of `connections`.
        pub(crate) connections_per_address: Option<usize>,
        /// Maximum number of concurrent calls per connection.
        pub(crate) streams: u32 = 100,
        /// Maximum size of the metadata of a call.
        pub(crate) head: Size = Size(64 * KIB),
        /// HTTP/2 flow-control window of a stream.
        pub(crate) stream_window: Size = Size(64 * KIB),
        /// HTTP/2 flow-control window of a connection.
        pub(crate) connection_window: Size = Size(MIB),
        /// Interval between HTTP/2 keep-alive pings.
        pub(crate) keep_alive: Duration = seconds(60),
        /// How long to wait for the answer to a ping.
        pub(crate) keep_alive_timeout: Duration = seconds(20),
        /// How long a connection may stay open without calls.
        pub(crate) idle_timeout: Duration = seconds(300),
        /// How long a caller may read nothing of a complete response before its stream is reset.
        pub(crate) write_timeout: Duration = seconds(30),
        /// Compression of messages to callers that accept it.
        pub(crate) compression: Compression = Compression::None,
    }

    /// a grpc entry
    pub(crate) struct EntrySettings {
        /// The name of the listener in crossdock.yaml.
        pub(crate) listen: String,
        /// The method, `pkg.Service/Method`. Default: the method of the route's `as`.
        pub(crate) method: Option<Spanned<String>>,
        /// Pass messages through as bytes, without a contract. Unary calls only.
        pub(crate) opaque: bool = false,
        /// How messages are framed. With `opaque`, a message without attributes in its metadata is a `io.cloudevents.v1.CloudEvent`.
        pub(crate) envelope: EntryEnvelope = EntryEnvelope::Plain,
        /// Maximum size of a message.
        pub(crate) max: Size = Size(4 * MIB),
    }

    /// a grpc service
    pub(crate) struct ServiceSettings {
        /// The URL, or several for equivalent endpoints: `http://host:port`, or `https:` for TLS.
        pub(crate) url: OneOrMany<Spanned<String>>,
        /// The service in the contract, `pkg.Service`; its methods are the operations.
        pub(crate) service: Option<Spanned<String>>,
        /// Operations without a contract, each `name: pkg.Service/Method`: messages pass through as bytes. Unary calls only.
        pub(crate) opaque: Named<Spanned<String>>,
        /// How messages are framed. In structured mode a message is a `io.cloudevents.v1.CloudEvent`, which only `opaque` operations accept.
        pub(crate) envelope: Envelope = Envelope::Plain,
        /// The encoding of the data of events in structured mode.
        pub(crate) format: BodyFormat = BodyFormat::Json,
        /// Metadata added to every call.
        pub(crate) headers: Named<Spanned<Secret>>,
        /// Maximum size of a reply message.
        pub(crate) max: Size = Size(4 * MIB),
        /// Timeout for establishing a connection.
        pub(crate) connect_timeout: Duration = seconds(2),
        /// Interval between HTTP/2 keep-alive pings.
        pub(crate) keep_alive: Duration = seconds(60),
        /// How long to wait for the answer to a ping.
        pub(crate) keep_alive_timeout: Duration = seconds(20),
        /// Compression of messages to the service.
        pub(crate) compression: Compression = Compression::None,
        /// Which error messages of the service are passed to callers.
        pub(crate) faults: Faults = Faults::Safe,
        /// TLS settings for `https`.
        pub(crate) tls: Option<ClientTlsSettings>,
    }
}

impl ListenerSettings {
    /// The HTTP/2 limits of its connections. Sizes are checked to fit.
    pub(crate) fn limits(&self) -> Limits {
        let small = |size: Size| u32::try_from(size.0).unwrap_or(u32::MAX);
        Limits {
            streams: self.streams,
            head_len_max: small(self.head),
            stream_window: small(self.stream_window),
            connection_window: small(self.connection_window),
            keep_alive: self.keep_alive.0,
            keep_alive_timeout: self.keep_alive_timeout.0,
            idle_timeout: self.idle_timeout.0,
            write_timeout: self.write_timeout.0,
            date: false,
        }
    }
}

/// A listener, as checked.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) bind: SocketAddr,
    pub(crate) settings: ListenerSettings,
}

impl Listener {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ListenerSettings::from_node(node, reader)?;
        let bind = bind_address(&settings.bind, reader)?;
        let sizes = [
            ("head", settings.head),
            ("stream_window", settings.stream_window),
            ("connection_window", settings.connection_window),
        ];
        http2::check_sizes(sizes, node, reader)?;
        Some(Self { bind, settings })
    }
}

impl ListenerSpec for Listener {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.settings)
    }
}

/// An entry, as checked.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    binding: Arc<Binding>,
    /// `pkg.Service/Method`.
    pub(crate) method: ByteString,
    /// `None` if the messages are opaque.
    pub(crate) call: Option<Arc<CallType>>,
    pub(crate) message_len_max: usize,
    /// Messages are events.
    pub(crate) is_event: bool,
}

impl Entry {
    pub(crate) fn read(node: &Node, context: EntryContext<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EntrySettings::from_node(node, reader)?;
        let call = match (&settings.method, context.call) {
            (Some(_), None) if settings.opaque => None,
            (_, Some(call)) if settings.opaque => {
                let message =
                    format!("`opaque` cannot be combined with `{}` of the route, which has a contract", call.name);
                reader.error("opaque", node.span, message, "remove `opaque`, or use a separate route");
                return None;
            }
            (Some(method), None) => Some(Arc::new(known_call(method, context.contracts, reader)?)),
            (None, Some(call)) => Some(Arc::clone(call)),
            (Some(method), Some(call)) if *method.value == *call.name => Some(Arc::clone(call)),
            (Some(method), Some(call)) => {
                let message = format!("the route is for `{}`, not `{}`", call.name, method.value);
                reader.error("entry-type", method.span, message, "remove `method`");
                return None;
            }
            (None, None) => {
                let help = "add `method: pkg.Service/Method`, or `as: pkg.Service` to the route";
                reader.error("missing-key", node.span, "the entry has no method", help);
                return None;
            }
        };
        let method = match (&call, &settings.method) {
            (None, Some(method)) => {
                let name = opaque_method(method, reader)?;
                if BUILT_IN_SERVICES.iter().any(|service| name.split('/').next() == Some(service)) {
                    let message = format!("`{name}` is implemented by the listener itself");
                    reader.error("unknown-method", method.span, message, "remove the entry");
                    return None;
                }
                ByteString::from(name)
            }
            (Some(call), _) => call.name.clone(),
            (None, None) => return None,
        };
        let path = match PathTemplate::parse(&format!("/{method}")) {
            Ok(path) => path,
            Err(error) => {
                reader.error("unknown-method", node.span, error.problem, error.help);
                return None;
            }
        };
        let address = Address {
            listener: settings.listen.as_str().into(),
            method: ByteString::from_static("POST"),
            path,
            headers: Vec::new(),
        };
        let is_event = settings.envelope == EntryEnvelope::CloudEvents;
        if is_event && call.as_ref().is_some_and(|call| call.client_streaming) {
            let help = "remove `envelope`, or name a unary method";
            reader.error("envelope", node.span, "the messages of a stream cannot be events", help);
            return None;
        }
        let message_len_max = usize::try_from(settings.max.0).unwrap_or(usize::MAX);
        Some(Self { address, binding: Arc::default(), method, call, message_len_max, is_event })
    }
}

impl EntrySpec for Entry {
    fn address(&self) -> &Address {
        &self.address
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn receives_events(&self) -> bool {
        self.is_event
    }

    fn cancels(&self) -> Cancels {
        Cancels::Always
    }

    fn answer(&self) -> Option<&WriteFormat> {
        Some(&PROTOBUF)
    }

    fn streams(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.server_streaming)
    }

    fn describe(&self) -> String {
        let opaque = if self.call.is_none() { " (opaque)" } else { "" };
        format!("grpc {}{opaque} on {}", self.method, self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A service, as checked.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) endpoints: Vec<Endpoint>,
    names: Vec<String>,
    operations: Vec<(ByteString, Arc<dyn OperationSpec>)>,
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    pub(crate) message_len_max: usize,
    pub(crate) settings: ServiceSettings,
}

impl Service {
    pub(crate) fn read(node: &Node, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ServiceSettings::from_node(node, reader)?;
        let endpoints: Vec<Option<Endpoint>> = settings.url.0.iter().map(|url| endpoint(url, reader)).collect();
        let headers = static_headers(&settings.headers, reader);
        let envelope = settings.envelope;
        if let Some(service) = settings.service.as_ref().filter(|_| envelope == Envelope::Structured) {
            let message =
                "in structured mode, messages have the type `io.cloudevents.v1.CloudEvent` and not those of a contract";
            let help = "write `opaque: { name: pkg.Service/Method }` instead of `service`, or `envelope: cloudevents`";
            reader.error("envelope", service.span, message, help);
            return None;
        }
        let data = settings.format.to_write_format(None, false, node.span, reader)?;
        let operations = match &settings.service {
            Some(service) => contract_operations(service, envelope, contracts, reader),
            None => Some(Vec::new()),
        };
        let opaque: Vec<_> = settings
            .opaque
            .0
            .iter()
            .map(|(name, method)| opaque_operation(name, method, (envelope, &data), reader))
            .collect();
        let endpoints: Vec<Endpoint> = endpoints.into_iter().collect::<Option<_>>()?;
        let (headers, mut operations) = (headers?, operations?);
        for (name, operation) in opaque.into_iter().collect::<Option<Vec<_>>>()? {
            if operations.iter().any(|(other, _)| *other == name) {
                let span = node.get("opaque").map_or(node.span, |node| node.span);
                let message = format!("the contract already has a method `{name}`");
                reader.error("opaque", span, message, "rename the operation");
                return None;
            }
            operations.push((name, operation));
        }
        if operations.is_empty() {
            let help = "write `service: pkg.Service`, of a contract in `contracts:`, or `opaque: { name: pkg.Service/Method }` to pass \
                        messages through as bytes";
            reader.error("missing-key", node.span, "a service must have at least one operation", help);
            return None;
        }
        if endpoints.is_empty() {
            let help = "write `url: http://host:port`";
            reader.error("missing-value", node.span, "a service must have at least one URL", help);
            return None;
        }
        Some(Self {
            names: settings.url.0.iter().map(|url| url.value.clone()).collect(),
            endpoints,
            operations,
            headers,
            message_len_max: usize::try_from(settings.max.0).unwrap_or(usize::MAX),
            settings,
        })
    }
}

type NamedOperation = (ByteString, Arc<dyn OperationSpec>);

/// The methods of a service in a contract, as operations.
fn contract_operations(
    service: &Spanned<String>,
    envelope: Envelope,
    contracts: &Contracts,
    reader: &mut Reader<'_>,
) -> Option<Vec<NamedOperation>> {
    let Some(calls) = contracts.calls_of(&service.value) else {
        let help = match nearest(&service.value, contracts.services()) {
            Some(meant) => format!("write `{meant}`"),
            None if contracts.is_empty() => "add the file that defines it to `contracts:`".to_owned(),
            None => "write `pkg.Service`, of a contract in `contracts:`".to_owned(),
        };
        let message = format!("no contract has a service `{}`", service.value);
        reader.error("unknown-contract", service.span, message, help);
        return None;
    };
    let named = calls.into_iter().map(|call| {
        let name = ByteString::from(call.name.rsplit('/').next().unwrap_or(""));
        let path = format!("/{}", call.name);
        let operation = Operation { path, call: Some(Arc::new(call)), envelope, body: PROTOBUF.clone() };
        (name, Arc::new(operation) as Arc<dyn OperationSpec>)
    });
    Some(named.collect())
}

fn opaque_operation(
    name: &Spanned<String>,
    method: &Spanned<String>,
    (envelope, data): (Envelope, &WriteFormat),
    reader: &mut Reader<'_>,
) -> Option<NamedOperation> {
    if !is_identifier(&name.value) {
        let message = format!("`{}` is not a valid operation name", name.value);
        reader.error("name", name.span, message, "use letters, digits and `_`, and do not start with a digit");
        return None;
    }
    let path = format!("/{}", opaque_method(method, reader)?);
    let body = if envelope == Envelope::Structured { data.clone() } else { PROTOBUF.clone() };
    Some((name.value.as_str().into(), Arc::new(Operation { path, call: None, envelope, body })))
}

fn is_identifier(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Checks the name of an opaque method: the full name of a service, `/`, and a method name.
fn opaque_method<'m>(method: &'m Spanned<String>, reader: &mut Reader<'_>) -> Option<&'m str> {
    let (service, name) = method.value.split_once('/').unwrap_or_default();
    if service.split('.').all(is_identifier) && is_identifier(name) {
        return Some(&method.value);
    }
    let message = format!("`{}` is not a valid method name", method.value);
    reader.error("unknown-method", method.span, message, "write `pkg.Service/Method`");
    None
}

fn endpoint(url: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Endpoint> {
    let endpoint = Endpoint::read(url, reader)?;
    if endpoint.base.is_empty() {
        return Some(endpoint);
    }
    reader.error("url", url.span, "the URL of a gRPC service must not have a path", "write `http://host:port`");
    None
}

impl ServiceSpec for Service {
    fn endpoints(&self) -> &[String] {
        &self.names
    }

    fn host_name(&self, endpoint: usize) -> Option<&str> {
        self.endpoints.get(endpoint)?.name()
    }

    fn health_key(&self) -> Option<&'static str> {
        Some("service")
    }

    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)> {
        self.operations.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A method of a service.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) path: String,
    /// `None` if the messages are opaque.
    pub(crate) call: Option<Arc<CallType>>,
    pub(crate) envelope: Envelope,
    /// How the message is encoded; in structured mode, the data of the event.
    pub(crate) body: WriteFormat,
}

impl Operation {
    /// Whether the reply is a stream.
    pub(crate) fn is_server_streaming(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.server_streaming)
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        &[]
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
        self.call.as_ref().is_some_and(|call| call.idempotent)
    }

    fn describe(&self) -> String {
        let Some(call) = &self.call else { return format!("{} (opaque)", &self.path[1..]) };
        let stream = |streams: bool| if streams { "stream of " } else { "" };
        let (request, reply) = (call.request.type_ref().name(), call.reply.type_ref().name());
        format!("{} ({}{request} → {}{reply})", call.name, stream(call.client_streaming), stream(call.server_streaming))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
