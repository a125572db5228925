//! The ports that carry messages.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_message::{ByteString, Code, Fault, Message, Record, RequestContext};

use crate::{AdapterError, EntrySpec, OperationSpec, OrderGuard, PortStatus, ReportStatus};

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A future that may change threads.
pub type SendFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Completes when a listener must stop.
pub type Stop = SendFuture<'static, ()>;

/// The outcome of an inbound message. `settle.rs` of each adapter maps it to its protocol.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "replies are the common case; boxing would allocate for each")]
pub enum Outcome {
    /// The route replied.
    Replied(Message),
    /// The route accepted it and has no reply.
    Accepted,
    /// The route failed.
    Failed(Fault),
}

/// Header fields as received, looked up without copying.
pub trait Fields {
    /// The first value of a name in lower case.
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// Whether a name in lower case has several values.
    fn is_repeated(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// The fault of a request with several values of a header that must have one; the gateway does not guess which counts.
#[must_use]
pub fn header_twice(name: &str) -> Fault {
    let message = format!("the header `{name}` was sent several times");
    Fault::caller(Code::InvalidArgument, "HEADER_TWICE", message).with_detail("header", ByteString::from(name))
}

/// No header fields.
#[derive(Debug, Clone, Copy)]
pub struct NoFields;

impl Fields for NoFields {
    fn get(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

/// What is known about a message before its body is read.
pub struct Head<'a> {
    /// The context of the request; policies that authenticate the caller complete it.
    pub context: &'a mut RequestContext,
    /// The listener's name.
    pub listener: &'a str,
    /// The method.
    pub method: &'a str,
    /// The normalised path: no dot segments, no empty segments, escapes only where they are needed.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a dyn Fields,
    /// The message was accepted before: it is admitted even while the gateway drains.
    pub is_accepted: bool,
}

/// The gateway, as adapters see it on one data arbiter.
pub trait Ingress {
    /// Finds the route of a message, before its body is read.
    ///
    /// # Errors
    /// NOT_FOUND if no route matches; UNIMPLEMENTED with the detail `allow` if one matches with another method; UNAVAILABLE while the gateway
    /// drains.
    fn admit(&self, head: &mut Head<'_>) -> Result<Admission, Fault>;

    /// A new id for a request, unique in this gateway.
    fn new_id(&self) -> ByteString;

    /// Logs and counts the fault of a request that was refused before [`Ingress::admit`], such as one that could not be parsed.
    fn refused(&self, listener: &str, context: &RequestContext, fault: &Fault);

    /// The entries of a listener, for reflection and for consumers of queues.
    fn entries(&self, listener: &str) -> Vec<Arc<dyn EntrySpec>>;

    /// Whether the gateway is stopping.
    fn is_draining(&self) -> bool;
}

/// Opens an [`Ingress`] for each data arbiter.
pub trait OpenIngress: Send + Sync {
    /// Called once on each data arbiter of an adapter.
    fn open(&self) -> Rc<dyn Ingress>;
}

/// An admitted message.
pub struct Admission {
    /// The entry that matched: the adapter's own spec, with its limits.
    pub entry: Arc<dyn EntrySpec>,
    /// The parameters that the path contains.
    pub params: Record,
    /// The headers, in lower case, that the route forwards to services.
    pub request_headers: Arc<[ByteString]>,
    /// Processes the message.
    pub exchange: Box<dyn Exchange>,
}

/// The exchange of one message that was admitted.
pub trait Exchange {
    /// Ends the exchange of a message that the adapter could not read, such as one with an invalid body. The fault is logged and counted.
    fn refuse(self: Box<Self>, context: &RequestContext, fault: Fault) -> Outcome;

    /// Processes the message. The future may be dropped: calls in flight continue, their replies are discarded, and the permits that they
    /// hold are released.
    fn dispatch(self: Box<Self>, message: Message) -> LocalFuture<'static, Outcome>;

    /// Like [`Exchange::dispatch`], for a message that may be redelivered: if the route keeps an order, `guard` holds the message's position in it
    /// over all attempts. The order is that of the futures' first polls.
    fn dispatch_ordered(self: Box<Self>, message: Message, guard: Rc<OrderGuard>) -> LocalFuture<'static, Outcome> {
        let _ = guard;
        self.dispatch(message)
    }
}

/// An open listener.
pub trait Inbound: Send {
    /// The address that it listens on, with its actual port.
    fn address(&self) -> String;

    /// Reports whether messages can arrive while it runs.
    fn status(&self) -> Arc<dyn ReportStatus> {
        Arc::new(PortStatus::Up)
    }

    /// Serves until `stop` completes; then accepts nothing new, finishes the exchanges in flight, and returns.
    ///
    /// # Errors
    /// [`AdapterError`], if it cannot continue.
    fn run(
        self: Box<Self>,
        arbiters: usize,
        ingress: Arc<dyn OpenIngress>,
        stop: Stop,
    ) -> SendFuture<'static, Result<(), AdapterError>>;
}

/// The port to one endpoint of a service, on one data arbiter.
pub trait Outbound {
    /// Sends the message and waits for the reply, for as long as the caller polls.
    ///
    /// `retry` of a fault is [`Same`](crossdock_message::Retry::Same) only if the service cannot have started to process the message. Dropping
    /// the future cancels the call and leaves no task behind.
    ///
    /// `response_headers` are the headers of the reply, in lower case, that the route forwards.
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        response_headers: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>>;

    /// The port to one address of the endpoint's host name, if the adapter supports them
    /// ([`ServiceSpec::host_name`](crate::ServiceSpec::host_name)). It shares no connection with this one.
    fn at(&self, address: IpAddr) -> Option<Rc<dyn Outbound>> {
        let _ = address;
        None
    }

    /// Checks that the endpoint can be reached now, for `check --connect` and health checks.
    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>>;

    /// Checks that the endpoint is healthy: requests `target` ([`ServiceSpec::health_key`](crate::ServiceSpec::health_key)), or connects if there is
    /// none. The caller limits its time.
    fn check<'a>(&'a self, target: Option<&'a str>) -> LocalFuture<'a, Result<(), Fault>> {
        let _ = target;
        self.probe()
    }
}
