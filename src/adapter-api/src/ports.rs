//! The ports that carry messages.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_message::{ByteString, Code, Fault, Message, Record};
use tokio_util::sync::CancellationToken;

use crate::{AdapterError, EntrySpec, OperationSpec, Turn};

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A future that may change threads.
pub type SendFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What became of an inbound message. `settle.rs` of each adapter says what that means in its protocol.
#[derive(Debug)]
pub enum Outcome {
    /// The route gave a reply.
    Replied(Message),
    /// The route took it on and has nothing to say.
    Accepted,
    /// The route failed.
    Failed(Fault),
}

/// Headers of the wire, to be looked up without copying.
pub trait Fields {
    /// The first value of a name that is given in lower case.
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// Whether a name, given in lower case, has several values.
    fn is_repeated(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// A header that has one value was sent with several: which of them counts is not for the gateway to guess.
#[must_use]
pub fn header_twice(name: &str) -> Fault {
    let message = format!("the header `{name}` was sent several times");
    Fault::caller(Code::InvalidArgument, "HEADER_TWICE", message).with_detail("header", ByteString::from(name))
}

/// No headers.
#[derive(Debug, Clone, Copy)]
pub struct NoFields;

impl Fields for NoFields {
    fn get(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

/// What is known of a message before its body is read.
pub struct Head<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The method.
    pub method: &'a str,
    /// The normalised path: no dot segments, no empty segments, escapes only where they are needed.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a dyn Fields,
}

/// The gateway, as adapters see it on one data arbiter.
pub trait Ingress {
    /// Finds the route that takes the message, before its body is read.
    ///
    /// # Errors
    /// NOT_FOUND where no route matches; UNIMPLEMENTED with the detail `allow` where one does with another method;
    /// UNAVAILABLE while the gateway drains.
    fn admit(&self, head: &Head<'_>) -> Result<Admission, Fault>;

    /// What is served on a listener now, for those who ask what there is.
    fn entries(&self, listener: &str) -> Vec<Arc<dyn EntrySpec>>;

    /// Whether the gateway is stopping.
    fn is_draining(&self) -> bool;
}

/// Gives each data arbiter its own [`Ingress`].
pub trait OpenIngress: Send + Sync {
    /// Called once on each data arbiter that an adapter runs.
    fn open(&self) -> Rc<dyn Ingress>;
}

/// A message that has a route.
pub struct Admission {
    /// The entry that matched: the adapter's own spec, with its limits.
    pub entry: Arc<dyn EntrySpec>,
    /// What the path said.
    pub params: Record,
    /// An identity for the message, unique in this gateway.
    pub id: ByteString,
    /// Headers, in lower case, that the route carries from the caller on.
    pub carry: Arc<[ByteString]>,
    /// What takes the message.
    pub exchange: Box<dyn Exchange>,
}

/// One message on its way through a route.
pub trait Exchange {
    /// Hands the message over. The future may be dropped: work that was accepted goes on, its answer is discarded, and
    /// what it holds is given back.
    fn dispatch(self: Box<Self>, message: Message) -> LocalFuture<'static, Outcome>;

    /// As [`Exchange::dispatch`], for a message that may be tried again: where the route keeps an order, its place in it is held by
    /// `turn` over all tries. The order is that of the futures' first polls.
    fn dispatch_in(self: Box<Self>, message: Message, turn: Rc<Turn>) -> LocalFuture<'static, Outcome> {
        let _ = turn;
        self.dispatch(message)
    }
}

/// A listener that was opened.
pub trait Inbound: Send {
    /// The address that it listens on, with the port that it got.
    fn address(&self) -> String;

    /// Serves until `stop` is cancelled; then takes nothing new, finishes what is in flight, and returns.
    ///
    /// # Errors
    /// [`AdapterError`] where it cannot go on.
    fn run(
        self: Box<Self>,
        arbiters: usize,
        ingress: Arc<dyn OpenIngress>,
        stop: CancellationToken,
    ) -> SendFuture<'static, Result<(), AdapterError>>;
}

/// The port to one endpoint of a service, on one data arbiter.
pub trait Outbound {
    /// Sends the message and waits for the reply, for as long as the caller polls.
    ///
    /// A fault's `retry` is [`Same`](crossdock_message::Retry::Same) only where the service cannot have begun to carry
    /// the message out. Dropping the future cancels the call and leaves no task behind.
    ///
    /// `carry` names the reply's headers that are wanted, in lower case.
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        carry: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>>;

    /// The port to one address of the endpoint's host name, where the adapter has them
    /// ([`ServiceSpec::host_name`](crate::ServiceSpec::host_name)). It shares no connection with this one.
    fn at(&self, address: IpAddr) -> Option<Rc<dyn Outbound>> {
        let _ = address;
        None
    }

    /// Whether the endpoint can be reached now: for `check --connect` and for health.
    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>>;

    /// Whether the endpoint is healthy: asks for what `target` names ([`ServiceSpec::health_key`](crate::ServiceSpec::health_key)), or
    /// makes a connection. The caller bounds its time.
    fn check<'a>(&'a self, target: Option<&'a str>) -> LocalFuture<'a, Result<(), Fault>> {
        let _ = target;
        self.probe()
    }
}
