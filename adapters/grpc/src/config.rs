//! Settings as written, and as checked: nothing downstream checks them again.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_adapter_api::{
    Address, Binding, EntryContext, EntrySpec, ListenerSpec, OperationSpec, PathTemplate, ServiceSpec, WriteFormat,
    known_call,
};
use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_settings::{
    Duration, FromNode, Named, Node, OneOrMany, Reader, Secret, Size, Spanned, choices, nearest, settings,
};
use crossdock_transport::http2::{self, Limits};
use crossdock_transport::{ClientTlsSettings, Endpoint, ServerTlsSettings, bind_address, static_headers};

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
        /// Connections at once.
        pub(crate) connections: usize = 10_000,
        /// Connections at once from one address.
        pub(crate) connections_per_address: usize = 5_000,
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
        /// What one message may weigh.
        pub(crate) max: Size = Size(4 * MIB),
    }

    /// a grpc service
    pub(crate) struct ServiceSettings {
        /// The address, or several that do the same: `http://host:port`, or `https:` for TLS.
        pub(crate) url: OneOrMany<Spanned<String>>,
        /// Its name in the contract, `pkg.Service`; its methods are the operations.
        pub(crate) service: Spanned<String>,
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
    pub(crate) call: Arc<CallType>,
    pub(crate) message_len_max: usize,
}

impl Entry {
    pub(crate) fn read(node: &Node, context: EntryContext<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EntrySettings::from_node(node, reader)?;
        let call = match (&settings.method, context.call) {
            (Some(method), None) => Arc::new(known_call(method, context.contracts, reader)?),
            (None, Some(call)) => Arc::clone(call),
            (Some(method), Some(call)) if *method.value == *call.name => Arc::clone(call),
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
        let path = match PathTemplate::parse(&format!("/{}", call.name)) {
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
        Some(Self { address, binding: Arc::default(), call, message_len_max })
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
        Some(&self.call)
    }

    fn cancels(&self) -> bool {
        true
    }

    fn streams(&self) -> bool {
        self.call.server_streaming
    }

    fn describe(&self) -> String {
        format!("grpc {} on {}", self.call.name, self.address.listener)
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
        let calls = contracts.calls_of(&settings.service.value);
        if calls.is_none() {
            let help = match nearest(&settings.service.value, contracts.services()) {
                Some(meant) => format!("write `{meant}`"),
                None if contracts.is_empty() => "add the file that has it below `contracts:`".to_owned(),
                None => "write `pkg.Service`, of a contract below `contracts:`".to_owned(),
            };
            let message = format!("no contract has a service `{}`", settings.service.value);
            reader.error("unknown-contract", settings.service.span, message, help);
        }
        let endpoints: Vec<Endpoint> = endpoints.into_iter().collect::<Option<_>>()?;
        let (headers, calls) = (headers?, calls?);
        if endpoints.is_empty() {
            let help = "write `url: http://host:port`";
            reader.error("missing-value", node.span, "a service has at least one address", help);
            return None;
        }
        let operations = calls.into_iter().map(|call| {
            let name = ByteString::from(call.name.rsplit('/').next().unwrap_or(""));
            (
                name,
                Arc::new(Operation { path: format!("/{}", call.name), call: Arc::new(call) }) as Arc<dyn OperationSpec>,
            )
        });
        Some(Self {
            names: settings.url.0.iter().map(|url| url.value.clone()).collect(),
            endpoints,
            operations: operations.collect(),
            headers,
            message_len_max: usize::try_from(settings.max.0).unwrap_or(usize::MAX),
            settings,
        })
    }
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
    pub(crate) call: Arc<CallType>,
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        &[]
    }

    fn body(&self) -> Option<&WriteFormat> {
        Some(&WriteFormat::Protobuf)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        Some(&self.call)
    }

    fn is_idempotent(&self) -> bool {
        self.call.idempotent
    }

    fn describe(&self) -> String {
        let stream = |streams: bool| if streams { "stream of " } else { "" };
        let (request, reply) = (self.call.request.type_ref().name(), self.call.reply.type_ref().name());
        format!(
            "{} ({}{request} → {}{reply})",
            self.call.name,
            stream(self.call.client_streaming),
            stream(self.call.server_streaming)
        )
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
