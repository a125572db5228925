//! What an adapter is to the gateway: a reader of its own settings, and a maker of ports.

use std::any::Any;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_settings::{Node, Reader};

use crate::{Binding, DeadLetters, Inbound, Outbound, PathTemplate, WriteFormat};

/// An adapter could not do what the settings ask for.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate, key or other file cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The adapter stopped and should not have.
    #[error("stopped: {0}")]
    Stopped(String),
}

/// What an adapter can give: decides what routes may ask of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A caller waits for a reply.
    pub replies: bool,
    /// A message can be settled at its source after it was handled.
    pub acknowledges: bool,
    /// Messages of one source come in order.
    pub ordered: bool,
    /// A sent message is confirmed by the other side.
    pub confirms: bool,
}

/// What a message must be addressed to for an entry to take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The listener's name, as `crossdock.yaml` gives it.
    pub listener: ByteString,
    /// The method, such as `GET`.
    pub method: ByteString,
    /// The path.
    pub path: PathTemplate,
    /// Headers that must be there; more of them win over fewer.
    pub headers: Vec<HeaderCondition>,
}

/// A header that must have this value, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// In lower case.
    pub name: ByteString,
    /// The whole value.
    pub value: ByteString,
}

/// Which calls to services are given up where the caller leaves before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancels {
    /// None.
    Never,
    /// Idempotent calls (RFC 9110 §9.2.2): repeating one after a partial execution is safe.
    Idempotent,
    /// All: a caller who leaves says by the protocol's own rules that it wants nothing more.
    Always,
}

/// A listener, as checked.
pub trait ListenerSpec: Any + Debug + Send + Sync {
    /// For the adapter to find its own type again.
    fn as_any(&self) -> &dyn Any;
    /// What must be the same for a listener to stay open over a reload.
    fn fingerprint(&self) -> String;
}

/// One `from:` of a route, as checked.
pub trait EntrySpec: Any + Debug + Send + Sync {
    /// What it takes.
    fn address(&self) -> &Address;
    /// How a request becomes `req`.
    fn binding(&self) -> &Arc<Binding>;
    /// Whether its messages may have a body.
    fn accepts_body(&self) -> bool {
        true
    }
    /// What the contract says of its messages, where it has one.
    fn call_type(&self) -> Option<&Arc<CallType>> {
        None
    }
    /// Whether calls to services are given up where the caller leaves.
    fn cancels(&self) -> Cancels {
        Cancels::Never
    }
    /// A reply may come as a stream.
    fn streams(&self) -> bool {
        false
    }
    /// How answers are written that have to be; nothing where there are none.
    fn answer(&self) -> Option<&WriteFormat> {
        None
    }
    /// Why a message that was taken may be lost, and what to write so that it is not; nothing where none is.
    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    /// For people: what it takes, on one line.
    fn describe(&self) -> String;
    /// For the adapter to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A service, as checked: one or more endpoints that do the same.
pub trait ServiceSpec: Any + Debug + Send + Sync {
    /// The endpoints, for people and metrics; never empty.
    fn endpoints(&self) -> &[String];
    /// The host name of an endpoint, where each of the name's addresses is an endpoint of its own ([`Outbound::at`]); nothing where the
    /// endpoint is one as it is.
    fn host_name(&self, endpoint: usize) -> Option<&str> {
        let _ = endpoint;
        None
    }
    /// The operations by name.
    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)>;
    /// The key of `health:` that names what its health checks ask for; nothing where they only make a connection.
    fn health_key(&self) -> Option<&'static str> {
        None
    }
    /// For the adapter to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// What can be asked of a service.
pub trait OperationSpec: Any + Debug + Send + Sync {
    /// Fields that are taken out of the message for the address.
    fn params(&self) -> &[ByteString];
    /// Whether fields of the body go into the address; then the body is only written once the address has taken them.
    fn has_address_fields(&self) -> bool {
        !self.params().is_empty()
    }
    /// How the body is written; `None` where the operation has no body.
    fn body(&self) -> Option<&WriteFormat>;
    /// Whether the operation has a place for a field of a body.
    fn has_place_for(&self, field: &str) -> bool {
        let _ = field;
        true
    }
    /// What the contract says of its messages, where it has one.
    fn call_type(&self) -> Option<&Arc<CallType>> {
        None
    }
    /// Carrying it out twice is as carrying it out once, by the protocol's own rules.
    fn is_idempotent(&self) -> bool;
    /// Why a message may be lost though the operation went well, and what to write so that it is not; nothing where none is.
    fn may_lose(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    /// For people: on one line.
    fn describe(&self) -> String;
    /// For the adapter to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// The JSON Schemas of an adapter's settings.
#[derive(Debug, Clone)]
pub struct Schemas {
    /// Below a listener.
    pub listener: serde_json::Value,
    /// Below `from:`.
    pub entry: serde_json::Value,
    /// Below a service.
    pub service: serde_json::Value,
}

/// What an entry is read with besides its own settings.
#[derive(Debug, Clone, Copy)]
pub struct EntryContext<'a> {
    /// All contracts.
    pub contracts: &'a Contracts,
    /// The call that the route is about, by its `as:`.
    pub call: Option<&'a Arc<CallType>>,
    /// The call is one of all methods of a service: an entry may pass over one that is not for it.
    pub whole_service: bool,
    /// What the route promises; nothing where it does not say.
    pub delivery: Option<Delivery>,
}

crossdock_settings::choices! {
    /// What a route promises of each message that it takes.
    pub enum Delivery {
        /// It is carried out once or not at all.
        AtMostOnce = "at-most-once",
        /// It is carried out, perhaps more than once; whoever was told that it is taken may rely on it.
        AtLeastOnce = "at-least-once",
        /// It is carried out, perhaps more than once, where that is as once.
        EffectivelyOnce = "effectively-once",
    }
}

/// What is wrong with an entry beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFinding {
    /// The entry's index among those that were checked.
    pub entry: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// A protocol. One value of it serves the whole process.
pub trait Adapter: Send + Sync {
    /// The key in settings and route files, such as `http`.
    fn name(&self) -> &'static str;
    /// What it can give.
    fn capabilities(&self) -> Capabilities;
    /// The JSON Schemas of its settings.
    fn schemas(&self) -> Schemas;
    /// Reads what stands below a listener; `None` says that errors were reported.
    fn read_listener(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Arc<dyn ListenerSpec>>;
    /// Reads what stands below `from:`. One place in a file may be several entries, such as all bindings of a method.
    fn read_entry(
        &self,
        node: &Node,
        context: EntryContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Arc<dyn EntrySpec>>>;
    /// Checks all entries of this adapter together, once each of them is good.
    fn check_entries(&self, entries: &[&Arc<dyn EntrySpec>]) -> Vec<EntryFinding> {
        let _ = entries;
        Vec::new()
    }
    /// Reads what stands below a service.
    fn read_service(&self, node: &Node, contracts: &Contracts, reader: &mut Reader<'_>)
    -> Option<Arc<dyn ServiceSpec>>;

    /// The places where a listener's entries set messages aside, for those who look after them. Nothing is reached yet.
    ///
    /// # Errors
    /// [`AdapterError`] where a file of the settings cannot be used.
    fn dead_letters(
        &self,
        listener: &dyn ListenerSpec,
        entries: &[Arc<dyn EntrySpec>],
    ) -> Result<Vec<Box<dyn DeadLetters>>, AdapterError> {
        let _ = (listener, entries);
        Ok(Vec::new())
    }

    /// Takes the listener's address, so that nothing after it can fail for a reason of the settings.
    ///
    /// # Errors
    /// [`AdapterError`] where the address is taken or a file cannot be used.
    fn open_inbound(&self, name: &str, spec: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError>;

    /// Makes the port to one endpoint, on the data arbiter that will use it. Connections are made when they are needed.
    ///
    /// # Errors
    /// [`AdapterError`] where a file of the settings cannot be used.
    fn open_outbound(&self, spec: &dyn ServiceSpec, endpoint: usize) -> Result<Rc<dyn Outbound>, AdapterError>;
}
