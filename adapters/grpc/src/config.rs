//! Settings as written, and as checked: nothing downstream checks them again.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_adapter_api::{
    Address, Binding, Cancels, EntryContext, EntrySpec, ListenerSpec, OperationSpec, PathTemplate, ServiceSpec,
    WriteFormat, known_call,
};
use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_settings::{
    Duration, FromNode, Named, Node, OneOrMany, Reader, Secret, Size, Spanned, choices, nearest, settings,
};
use crossdock_transport::http2::{self, Limits};
use crossdock_transport::{ClientTlsSettings, Endpoint, ServerTlsSettings, bind_address, static_headers};

/// What a listener answers itself: the service of health, and those of reflection.
pub(crate) const OWN_SERVICES: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

const fn seconds(count: u64) -> Duration {
    Duration(StdDuration::from_secs(count))
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

choices! {
    /// How messages are packed.
    pub(crate) enum Compression {
        /// As they are.
        None = "none",
        /// With gzip, where that makes them smaller.
        Gzip = "gzip",
    }

    /// Which words of a service about its errors reach callers.
    pub(crate) enum Faults {
        /// Those of codes that are about the request; not those of `unknown`, `internal` and `data_loss`, which tell of its inside.
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
        /// Tell callers the contracts of what is served (gRPC server reflection, v1 and v1alpha).
        pub(crate) reflection: bool = false,
        /// Connections at once; where nothing is said, as many as the process may have open: three quarters of its limit on open files.
        pub(crate) connections: Option<usize>,
        /// Connections at once from one address; half of all where nothing is said.
        pub(crate) connections_per_address: Option<usize>,
        /// Calls at once on one connection.
        pub(crate) streams: u32 = 100,
        /// What the metadata of a call may weigh.
        pub(crate) head: Size = Size(64 * KIB),
        /// What may be on its way to one call without having been taken.
        pub(crate) stream_window: Size = Size(64 * KIB),
        /// What may be on its way on one connection without having been taken.
        pub(crate) connection_window: Size = Size(MIB),
        /// How often a quiet connection is asked whether it is alive.
        pub(crate) keep_alive: Duration = seconds(60),
        /// How long it may take to say so.
        pub(crate) keep_alive_timeout: Duration = seconds(20),
        /// How long a connection is kept without a call.
        pub(crate) idle_timeout: Duration = seconds(300),
        /// How long a caller may take nothing of a whole answer that is there; its stream is reset then.
        pub(crate) write_timeout: Duration = seconds(30),
        /// How messages to callers who can unpack them are packed.
        pub(crate) compression: Compression = Compression::None,
    }

    /// a grpc entry
    pub(crate) struct EntrySettings {
        /// The listener, as crossdock.yaml names it.
        pub(crate) listen: String,
        /// The method, `pkg.Service/Method`; that of the route's `as` where nothing is said.
        pub(crate) method: Option<Spanned<String>>,
        /// Take messages of the method as bytes that nobody looks into, by no contract; one message each way.
        pub(crate) opaque: bool = false,
        /// What one message may weigh.
        pub(crate) max: Size = Size(4 * MIB),
    }

    /// a grpc service
    pub(crate) struct ServiceSettings {
        /// The address, or several that do the same: `http://host:port`, or `https:` for TLS.
        pub(crate) url: OneOrMany<Spanned<String>>,
        /// Its name in the contract, `pkg.Service`; its methods are the operations.
        pub(crate) service: Option<Spanned<String>>,
        /// Operations without a contract, each `name: pkg.Service/Method`: messages go as the bytes that they came as, one each way.
        pub(crate) opaque: Named<Spanned<String>>,
        /// Metadata of every call.
        pub(crate) headers: Named<Spanned<Secret>>,
        /// What one message of a reply may weigh.
        pub(crate) max: Size = Size(4 * MIB),
        /// For making a connection.
        pub(crate) connect_timeout: Duration = seconds(2),
        /// How often a quiet connection is asked whether it is alive.
        pub(crate) keep_alive: Duration = seconds(60),
        /// How long it may take to say so.
        pub(crate) keep_alive_timeout: Duration = seconds(20),
        /// How messages to the service are packed.
        pub(crate) compression: Compression = Compression::None,
        /// Which words of the service about its errors reach callers.
        pub(crate) faults: Faults = Faults::Safe,
        /// Trust and identity, for `https`.
        pub(crate) tls: Option<ClientTlsSettings>,
    }
}

impl ListenerSettings {
    /// Of its connections. Sizes were checked to fit.
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
    /// Nothing where its messages are opaque.
    pub(crate) call: Option<Arc<CallType>>,
    pub(crate) message_len_max: usize,
}

impl Entry {
    pub(crate) fn read(node: &Node, context: EntryContext<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EntrySettings::from_node(node, reader)?;
        let call = match (&settings.method, context.call) {
            (Some(_), None) if settings.opaque => None,
            (_, Some(call)) if settings.opaque => {
                let message = format!("the route is about `{}`, whose messages are not opaque", call.name);
                reader.error("opaque", node.span, message, "leave `opaque` out, or make it a route of its own");
                return None;
            }
            (Some(method), None) => Some(Arc::new(known_call(method, context.contracts, reader)?)),
            (None, Some(call)) => Some(Arc::clone(call)),
            (Some(method), Some(call)) if *method.value == *call.name => Some(Arc::clone(call)),
            (Some(method), Some(call)) => {
                let message = format!("the route is about `{}`, not `{}`", call.name, method.value);
                reader.error("entry-type", method.span, message, "leave `method` out");
                return None;
            }
            (None, None) => {
                let help = "add `method: pkg.Service/Method`, or `as: pkg.Service` to the route";
                reader.error("missing-key", node.span, "the entry does not say which method it takes", help);
                return None;
            }
        };
        let method = match (&call, &settings.method) {
            (None, Some(method)) => {
                let name = opaque_method(method, reader)?;
                if OWN_SERVICES.iter().any(|own| name.split('/').next() == Some(own)) {
                    let message = format!("`{name}` is answered by the listener itself");
                    reader.error("unknown-method", method.span, message, "take the entry out");
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
        let message_len_max = usize::try_from(settings.max.0).unwrap_or(usize::MAX);
        Some(Self { address, binding: Arc::default(), method, call, message_len_max })
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

    fn cancels(&self) -> Cancels {
        Cancels::Always
    }

    fn answer(&self) -> Option<&WriteFormat> {
        Some(&WriteFormat::Protobuf)
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
        let operations = match &settings.service {
            Some(service) => described_operations(service, contracts, reader),
            None => Some(Vec::new()),
        };
        let opaque: Vec<_> =
            settings.opaque.0.iter().map(|(name, method)| opaque_operation(name, method, reader)).collect();
        let endpoints: Vec<Endpoint> = endpoints.into_iter().collect::<Option<_>>()?;
        let (headers, mut operations) = (headers?, operations?);
        for (name, operation) in opaque.into_iter().collect::<Option<Vec<_>>>()? {
            if operations.iter().any(|(other, _)| *other == name) {
                let span = node.get("opaque").map_or(node.span, |node| node.span);
                let message = format!("the contract has a method `{name}` already");
                reader.error("opaque", span, message, "call the operation something else");
                return None;
            }
            operations.push((name, operation));
        }
        if operations.is_empty() {
            let help = "write `service: pkg.Service`, of a contract below `contracts:`; or `opaque: { name: pkg.Service/Method }`, \
                        for bytes that nobody looks into";
            reader.error("missing-key", node.span, "a service has at least one operation", help);
            return None;
        }
        if endpoints.is_empty() {
            let help = "write `url: http://host:port`";
            reader.error("missing-value", node.span, "a service has at least one address", help);
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

/// The methods of a service that a contract describes.
fn described_operations(
    service: &Spanned<String>,
    contracts: &Contracts,
    reader: &mut Reader<'_>,
) -> Option<Vec<NamedOperation>> {
    let Some(calls) = contracts.calls_of(&service.value) else {
        let help = match nearest(&service.value, contracts.services()) {
            Some(meant) => format!("write `{meant}`"),
            None if contracts.is_empty() => "add the file that has it below `contracts:`".to_owned(),
            None => "write `pkg.Service`, of a contract below `contracts:`".to_owned(),
        };
        let message = format!("no contract has a service `{}`", service.value);
        reader.error("unknown-contract", service.span, message, help);
        return None;
    };
    let named = calls.into_iter().map(|call| {
        let name = ByteString::from(call.name.rsplit('/').next().unwrap_or(""));
        let operation = Operation { path: format!("/{}", call.name), call: Some(Arc::new(call)) };
        (name, Arc::new(operation) as Arc<dyn OperationSpec>)
    });
    Some(named.collect())
}

fn opaque_operation(
    name: &Spanned<String>,
    method: &Spanned<String>,
    reader: &mut Reader<'_>,
) -> Option<NamedOperation> {
    if !is_identifier(&name.value) {
        let message = format!("`{}` is not the name of an operation", name.value);
        reader.error("name", name.span, message, "use letters, digits and `_`, not a digit first");
        return None;
    }
    let path = format!("/{}", opaque_method(method, reader)?);
    Some((name.value.as_str().into(), Arc::new(Operation { path, call: None })))
}

fn is_identifier(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A method that no contract has to know: a service's full name and a name, each of identifiers.
fn opaque_method<'m>(method: &'m Spanned<String>, reader: &mut Reader<'_>) -> Option<&'m str> {
    let (service, name) = method.value.split_once('/').unwrap_or_default();
    if service.split('.').all(is_identifier) && is_identifier(name) {
        return Some(&method.value);
    }
    let message = format!("`{}` is not the name of a method", method.value);
    reader.error("unknown-method", method.span, message, "write `pkg.Service/Method`");
    None
}

fn endpoint(url: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Endpoint> {
    let endpoint = Endpoint::read(url, reader)?;
    if endpoint.base.is_empty() {
        return Some(endpoint);
    }
    reader.error("url", url.span, "a gRPC service has no path of its own", "write `http://host:port`");
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
    /// Nothing where its messages are opaque.
    pub(crate) call: Option<Arc<CallType>>,
}

impl Operation {
    /// Replies come one after another.
    pub(crate) fn replies_stream(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.server_streaming)
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        &[]
    }

    fn body(&self) -> Option<&WriteFormat> {
        Some(&WriteFormat::Protobuf)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
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
