//! The adapter of a protocol: reads its settings into specs and opens ports from them.

use std::any::Any;
use std::fmt::{self, Debug, Display};
use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_settings::{Node, Reader};

use crate::{
    Binding, Claim, DeadLetters, Enqueue, Inbound, Outbound, PathTemplate, PortStatus, QueueSource, TestClient,
    WriteFormat,
};

/// Why an adapter cannot open or serve what the settings configure.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Listening on an address failed.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the settings, such as a certificate, cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The adapter stopped unexpectedly.
    #[error("stopped: {0}")]
    Stopped(String),
}

/// What an entry guarantees. Routes that need more are rejected when they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Callers wait for a reply.
    pub replies: bool,
    /// Messages are acknowledged at their source after they were processed.
    pub acknowledges: bool,
    /// Messages of one source arrive in order.
    pub ordered: bool,
}

impl Capabilities {
    /// Those of a request that waits for its reply.
    pub const REQUEST_REPLY: Self = Self { replies: true, acknowledges: false, ordered: false };
}

/// The messages that an entry accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The name of the listener in `crossdock.yaml`.
    pub listener: ByteString,
    /// The method, such as `GET`.
    pub method: ByteString,
    /// The path.
    pub path: PathTemplate,
    /// Required headers. The entry with more of them takes precedence.
    pub headers: Vec<HeaderCondition>,
}

/// The same for all instances with the same routes: method, listener, path and headers.
impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.listener, self.path.as_str())?;
        self.headers.iter().try_for_each(|header| write!(f, " {}: {}", header.name, header.value))
    }
}

/// A required header with exactly this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// The name, in lower case.
    pub name: ByteString,
    /// The whole value.
    pub value: ByteString,
}

/// Which calls to services are cancelled when the caller disconnects before its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancels {
    /// None.
    Never,
    /// Idempotent calls (RFC 9110 §9.2.2), which are safe to repeat after a partial execution.
    Idempotent,
    /// All: by the rules of the protocol, a caller that disconnects cancels its request.
    Always,
}

/// A listener whose settings are valid.
pub trait ListenerSpec: Any + Debug + Send + Sync {
    /// For the adapter to downcast to its own type.
    fn as_any(&self) -> &dyn Any;
    /// A listener stays open over a reload if its fingerprint is unchanged.
    fn fingerprint(&self) -> String;
    /// The system whose transactions include the acknowledgement of a message that must take effect once, and what its route sends to that system;
    /// `None` if there are none. Compared only, never shown.
    fn transactions(&self) -> Option<&str> {
        None
    }
}

/// One entry (`from`) of a route, whose settings are valid.
pub trait EntrySpec: Any + Debug + Send + Sync {
    /// The messages that it accepts.
    fn address(&self) -> &Address;
    /// How a request becomes `req`.
    fn binding(&self) -> &Arc<Binding>;
    /// What it guarantees.
    fn capabilities(&self) -> Capabilities {
        Capabilities::REQUEST_REPLY
    }
    /// Whether the adapter fetches its messages, from a broker, rather than being called. It must follow
    /// [`Ingress::entries`](crate::Ingress::entries), which lists the entry only while this instance may read it.
    fn is_consumed(&self) -> bool {
        false
    }
    /// The queue of the cluster whose messages it accepts. The gateway delivers them; the entry needs no listener.
    fn queue(&self) -> Option<&QueueSource> {
        None
    }
    /// Whether its messages can have a body.
    fn accepts_body(&self) -> bool {
        true
    }
    /// The types of its messages, if there is a contract.
    fn call_type(&self) -> Option<&Arc<CallType>> {
        None
    }
    /// Whether its messages have types that no contract of the route gives them, such as those of a schema registry.
    fn has_own_types(&self) -> bool {
        false
    }
    /// Whether its messages are events, with attributes of CloudEvents.
    fn receives_events(&self) -> bool {
        false
    }
    /// Which calls to services are cancelled when the caller disconnects.
    fn cancels(&self) -> Cancels {
        Cancels::Never
    }
    /// Whether the reply can be a stream.
    fn streams(&self) -> bool {
        false
    }
    /// How reply bodies that the gateway creates are encoded; `None` if the entry has no replies.
    fn answer(&self) -> Option<&WriteFormat> {
        None
    }
    /// Why an accepted message may be lost, and the setting that prevents it; `None` if no message is lost.
    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    /// A description on one line.
    fn describe(&self) -> String;
    /// For the adapter to downcast to its own type.
    fn as_any(&self) -> &dyn Any;
}

/// A service whose settings are valid: one or more equivalent endpoints.
pub trait ServiceSpec: Any + Debug + Send + Sync {
    /// The names of the endpoints, for messages and metrics; never empty.
    fn endpoints(&self) -> &[String];
    /// The host name of an endpoint if each of the name's addresses is an endpoint ([`Outbound::at`]); `None` if it is a single endpoint.
    fn host_name(&self, endpoint: usize) -> Option<&str> {
        let _ = endpoint;
        None
    }
    /// The operations, by name.
    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)>;
    /// Whether it needs the instance to be a member of a cluster.
    fn needs_cluster(&self) -> bool {
        false
    }
    /// The key in `health` that names the target of health checks; `None` if they only connect.
    fn health_key(&self) -> Option<&'static str> {
        None
    }
    /// For the adapter to downcast to its own type.
    fn as_any(&self) -> &dyn Any;
}

/// An operation of a service.
pub trait OperationSpec: Any + Debug + Send + Sync {
    /// Fields of the message that become part of the address.
    fn params(&self) -> &[ByteString];
    /// Whether only the adapter can encode the body: fields of it become part of the address and are removed first, or its type is only known then.
    fn encodes_late(&self) -> bool {
        !self.params().is_empty()
    }
    /// How the body is encoded; `None` if the operation has no body.
    fn body(&self) -> Option<&WriteFormat>;
    /// Whether the operation can carry this field of a body.
    fn has_place_for(&self, field: &str) -> bool {
        let _ = field;
        true
    }
    /// The types of its messages, if there is a contract.
    fn call_type(&self) -> Option<&Arc<CallType>> {
        None
    }
    /// Whether the protocol defines the operation as idempotent.
    fn is_idempotent(&self) -> bool;
    /// Whether its messages are sent as events, with attributes of CloudEvents.
    fn sends_events(&self) -> bool {
        false
    }
    /// Whether the receiver confirms that it has the message.
    fn is_confirmed(&self) -> bool {
        true
    }
    /// The system whose transactions its messages join ([`ListenerSpec::transactions`]); `None` if they join none.
    fn transactions(&self) -> Option<&str> {
        None
    }
    /// Why a message may be lost although the operation succeeded, and the setting that prevents it; `None` if no message is lost.
    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    /// A description on one line.
    fn describe(&self) -> String;
    /// For the adapter to downcast to its own type.
    fn as_any(&self) -> &dyn Any;
}

/// The JSON Schemas of an adapter's settings.
#[derive(Debug, Clone)]
pub struct Schemas {
    /// Of a listener.
    pub listener: serde_json::Value,
    /// Of an entry (`from`).
    pub entry: serde_json::Value,
    /// Of a service.
    pub service: serde_json::Value,
}

/// The context in which an entry is read.
#[derive(Debug, Clone, Copy)]
pub struct EntryContext<'a> {
    /// All contracts.
    pub contracts: &'a Contracts,
    /// The call that the route implements (`as`).
    pub call: Option<&'a Arc<CallType>>,
    /// The route implements all methods of a service: an entry may skip those that do not apply to it.
    pub whole_service: bool,
    /// The delivery guarantee of the route, if it states one.
    pub delivery: Option<Delivery>,
}

crossdock_settings::choices! {
    /// The delivery guarantee of a route for each message that it accepts.
    pub enum Delivery {
        /// Processed once or not at all.
        AtMostOnce = "at-most-once",
        /// Processed once or more. An acknowledged message is never lost.
        AtLeastOnce = "at-least-once",
        /// Processed once or more, with the effect of once.
        EffectivelyOnce = "effectively-once",
    }
}

/// A conflict of an entry with other entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFinding {
    /// The index of the entry among those that were checked.
    pub entry: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// The adapter of a protocol. One value serves the whole process.
pub trait Adapter: Send + Sync {
    /// The key in settings and route files, such as `http`.
    fn name(&self) -> &'static str;
    /// The JSON Schemas of its settings.
    fn schemas(&self) -> Schemas;
    /// The client for tests of routes; `None` if tests cannot send to entries of this protocol.
    fn test_client(&self) -> Option<&dyn TestClient> {
        None
    }
    /// Reads the settings of a listener; `None` if an error was reported.
    fn read_listener(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Arc<dyn ListenerSpec>>;
    /// Reads an entry (`from`); `None` if an error was reported. One may be several entries, such as all HTTP bindings of a method.
    fn read_entry(
        &self,
        node: &Node,
        context: EntryContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Arc<dyn EntrySpec>>>;
    /// Checks all entries of this adapter together, after each of them was found valid.
    fn check_entries(&self, entries: &[&Arc<dyn EntrySpec>]) -> Vec<EntryFinding> {
        let _ = entries;
        Vec::new()
    }
    /// Reads the settings of a service; `None` if an error was reported.
    fn read_service(&self, node: &Node, contracts: &Contracts, reader: &mut Reader<'_>)
    -> Option<Arc<dyn ServiceSpec>>;

    /// The places that hold dead letters of a listener's entries. Opens no connection.
    ///
    /// # Errors
    /// [`AdapterError`] if a file of the settings cannot be used.
    fn dead_letters(
        &self,
        listener: &dyn ListenerSpec,
        entries: &[Arc<dyn EntrySpec>],
    ) -> Result<Vec<Box<dyn DeadLetters>>, AdapterError> {
        let _ = (listener, entries);
        Ok(Vec::new())
    }

    /// Gives it the queues of the cluster, once the instance is a member of one.
    fn connect_queues(&self, queues: Arc<dyn Enqueue>) {
        let _ = queues;
    }

    /// Lets it divide things among the instances of the cluster, once the instance is a member of one.
    fn connect_claims(&self, claims: Arc<dyn Claim>) {
        let _ = claims;
    }

    /// Binds the address of a listener. Settings cannot cause errors after this succeeded.
    ///
    /// # Errors
    /// [`AdapterError`] if the address is in use or a file cannot be used.
    fn open_inbound(&self, name: &str, spec: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError>;

    /// Creates the port to one endpoint, on the data arbiter that will use it. Connections are opened when they are needed.
    ///
    /// # Errors
    /// [`AdapterError`] if a file of the settings cannot be used.
    fn open_outbound(&self, spec: &dyn ServiceSpec, endpoint: usize) -> Result<Rc<dyn Outbound>, AdapterError>;

    /// The status of the connection to one endpoint, which all data arbiters share; `None` if they share none, so that only the outcomes of
    /// calls tell. Opens no connection.
    fn connection_status(&self, spec: &dyn ServiceSpec, endpoint: usize) -> Option<PortStatus> {
        let _ = (spec, endpoint);
        None
    }
}
