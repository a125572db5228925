//! Stubs of services, whose replies a test defines.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use crossdock_contract::Contracts;
use crossdock_message::{Body, BodyType, ByteString, Code, Fault, Format, Message};
use crossdock_ports::{
    Adapter, AdapterError, EntryContext, EntrySpec, Inbound, ListenerSpec, LocalFuture, OperationSpec, Outbound,
    Schemas, ServiceSpec, WriteFormat, encode_body,
};
use crossdock_routing::StubPlan;
use crossdock_settings::{Node, Reader};

use crossdock_message::stream_from_json;

/// The name of the adapter; settings cannot use it.
pub(super) const NAME: &str = "stub";

/// The replies of stubs, and the requests that they received.
#[derive(Clone, Default)]
pub(super) struct Stubs {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    replies: BTreeMap<String, StubPlan>,
    sent: BTreeMap<String, String>,
    problem: Option<String>,
}

impl Stubs {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the replies, and forgets requests and problems of the previous test.
    pub(super) fn prepare(&self, stubs: &[(ByteString, StubPlan)]) {
        let replies = stubs.iter().map(|(name, plan)| (name.to_string(), plan.clone())).collect();
        *self.inner() = Inner { replies, ..Inner::default() };
    }

    /// The last body that a service or operation received.
    pub(super) fn sent(&self, name: &str) -> Option<String> {
        self.inner().sent.get(name).cloned()
    }

    /// A call that the test does not define.
    pub(super) fn problem(&self) -> Option<String> {
        self.inner().problem.clone()
    }
}

/// The operations of a real service, with a stub as endpoint.
#[derive(Debug)]
pub(super) struct StubSpec {
    service: ByteString,
    real: Arc<dyn ServiceSpec>,
    endpoints: Vec<String>,
}

impl StubSpec {
    pub(super) fn new(service: &ByteString, real: Arc<dyn ServiceSpec>) -> Self {
        Self { service: service.clone(), real, endpoints: vec!["stub".to_owned()] }
    }
}

impl ServiceSpec for StubSpec {
    fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)> {
        self.real.operations()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The adapter of stubs.
pub(super) struct StubAdapter {
    pub(super) stubs: Stubs,
}

impl Adapter for StubAdapter {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schemas(&self) -> Schemas {
        let none = serde_json::json!(false);
        Schemas { listener: none.clone(), entry: none.clone(), service: none }
    }

    fn read_listener(&self, _: &Node, _: &mut Reader<'_>) -> Option<Arc<dyn ListenerSpec>> {
        None
    }

    fn read_entry(&self, _: &Node, _: EntryContext<'_>, _: &mut Reader<'_>) -> Option<Vec<Arc<dyn EntrySpec>>> {
        None
    }

    fn read_service(&self, _: &Node, _: &Contracts, _: &mut Reader<'_>) -> Option<Arc<dyn ServiceSpec>> {
        None
    }

    fn open_inbound(&self, name: &str, _: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError> {
        Err(AdapterError::Settings(format!("`{name}`: stubs do not listen")))
    }

    fn open_outbound(&self, spec: &dyn ServiceSpec, _: usize) -> Result<Rc<dyn Outbound>, AdapterError> {
        let spec = spec.as_any().downcast_ref::<StubSpec>();
        let spec = spec.ok_or_else(|| AdapterError::Settings("the service is not a stub".into()))?;
        Ok(Rc::new(StubOutbound {
            service: spec.service.clone(),
            operations: spec.operations(),
            stubs: self.stubs.clone(),
        }))
    }
}

struct StubOutbound {
    service: ByteString,
    operations: Vec<(ByteString, Arc<dyn OperationSpec>)>,
    stubs: Stubs,
}

impl StubOutbound {
    fn name_of(&self, operation: &dyn OperationSpec) -> String {
        let wanted = std::ptr::from_ref(operation).cast::<()>();
        let found = self.operations.iter().find(|(_, other)| std::ptr::eq(Arc::as_ptr(other).cast::<()>(), wanted));
        let name = found.map_or("?", |(name, _)| &**name);
        format!("{}.{name}", self.service)
    }

    /// Records a request and returns the reply to it.
    fn receive(&self, operation: &dyn OperationSpec, message: &Message) -> Result<StubPlan, Fault> {
        let name = self.name_of(operation);
        let body = match operation.body() {
            Some(format) => {
                let of_type = operation.call_type().map(|call| &*call.request as &dyn BodyType);
                // Binary bodies with a contract are recorded as JSON, to be compared and shown.
                let binary = format.needs_contract() && of_type.is_some();
                let shown = if binary { &WriteFormat::json() } else { format };
                match &message.body {
                    // Streams are not read; only the call is recorded.
                    Body::Stream(_) => Bytes::new(),
                    _ => encode_body(message, shown, of_type)?.chunks.to_bytes(),
                }
            }
            None => Bytes::new(),
        };
        let text = String::from_utf8_lossy(&body).into_owned();
        let mut inner = self.stubs.inner();
        inner.sent.insert(name.clone(), text.clone());
        inner.sent.insert(self.service.to_string(), text);
        let reply = inner.replies.get(&name).or_else(|| inner.replies.get(&*self.service)).cloned();
        reply.ok_or_else(|| {
            inner.problem =
                Some(format!("`{name}` was called, but `stub:` does not define a reply: add `{name}` to `stub:`"));
            Fault::new(Code::Internal, "NO_STUB", "the test has no stub for this call")
        })
    }
}

impl Outbound for StubOutbound {
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        _: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            let stub = self.receive(operation, message)?;
            tokio::time::sleep(stub.after).await;
            if let Some(code) = stub.fault {
                return Err(Fault::new(code, "STUB", "the stub fails as defined by the test"));
            }
            let mut reply = Message::new(message.id.clone(), message.source.clone());
            if let Some((body, media_type)) = stub.body {
                if operation.body().is_some_and(WriteFormat::needs_contract) && operation.call_type().is_none() {
                    let problem =
                        format!("`{}` is opaque: its stub can only define a `fault`", self.name_of(operation));
                    self.stubs.inner().problem = Some(problem);
                    return Err(Fault::new(Code::Internal, "NO_STUB", "the test has no stub for this call"));
                }
                reply.content_type = Some(ByteString::from_static(media_type));
                let format = Format::of_media_type(media_type);
                reply.body = match operation.call_type() {
                    Some(call) if call.server_streaming => {
                        let of_type = Arc::clone(&call.reply) as Arc<dyn BodyType>;
                        let list = Body::typed(body.into_bytes().into(), format, of_type);
                        stream_from_json(&list)
                            .map_err(|problem| Fault::new(Code::Internal, "STUB", problem.to_string()))?
                    }
                    Some(call) => {
                        let of_type = Arc::clone(&call.reply) as Arc<dyn BodyType>;
                        Body::typed(body.into_bytes().into(), format, of_type)
                    }
                    None => Body::raw(body.into_bytes().into(), format),
                };
            }
            Ok(reply)
        })
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
