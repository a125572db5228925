//! A sample gRPC service: the listener of the adapter with fixed replies instead of routes.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::{CallType, Contracts};
use crossdock_grpc::GrpcAdapter;
use crossdock_message::{Body, ByteString, Code, Fault, Limits, Message, Record, RequestContext, Value, json};
use crossdock_ports::{
    Adapter as _, Admission, EntryContext, EntrySpec, Exchange, Head, Ingress, LocalFuture, OpenIngress, Outcome,
};
use crossdock_proto::{Files, compile};
use crossdock_settings::{Diagnostics, Node, Reader, Resolve, parse};

use super::services::Seen;
use crossdock_message::stream_of;

/// The running service.
pub(super) struct Stock {
    pub(super) address: String,
    pub(super) seen: Seen,
}

/// Contract files next to the settings.
struct Folder<'a>(&'a Path);

impl Files for Folder<'_> {
    fn read(&self, name: &str) -> Result<Option<bytes::Bytes>, String> {
        Ok(std::fs::read(self.0.join("contracts").join(name)).ok().map(bytes::Bytes::from))
    }
}

impl Resolve for Folder<'_> {
    fn env(&self, name: &str) -> Result<String, String> {
        Err(format!("the environment variable `{name}` is not available here"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("the file `{path}` is not available here"))
    }
}

impl Stock {
    /// Starts the service on a free port, with the contract in the settings; it runs until the process exits.
    pub(super) fn start(folder: &Path) -> Result<Self, String> {
        let files = Folder(folder);
        let contract = compile(&["stock.proto"], &files).map_err(|error| error.to_string())?;
        let mut contracts = Contracts::new(&Limits::default());
        contracts.add("stock".into(), Arc::new(contract));
        let calls =
            contracts.calls_of("stock.v1.Stock").ok_or("the contract must define the service `stock.v1.Stock`")?;
        let entries: Option<Vec<Arc<dyn EntrySpec>>> = calls
            .iter()
            .map(|call| {
                let text = format!("listen: stock\nmethod: {}", call.name);
                let context = EntryContext { contracts: &contracts, call: None, whole_service: false, delivery: None };
                read(&text, &files, |node, reader| GrpcAdapter.read_entry(node, context, reader))?.pop()
            })
            .collect();
        let listener =
            read("bind: 127.0.0.1:0\nreflection: true", &files, |node, reader| GrpcAdapter.read_listener(node, reader));
        let (listener, entries) = listener.zip(entries).ok_or("the settings of the sample service are invalid")?;
        let inbound = GrpcAdapter.open_inbound("stock", &*listener).map_err(|error| error.to_string())?;
        let (address, seen) = (inbound.address(), Seen::default());
        let ingress = FixedReplies { entries: entries.into(), seen: seen.clone() };
        actix_rt::spawn(inbound.run(1, Arc::new(ingress), Box::pin(std::future::pending())));
        Ok(Self { address, seen })
    }
}

fn read<T>(text: &str, files: &Folder<'_>, read: impl FnOnce(&Node, &mut Reader<'_>) -> Option<T>) -> Option<T> {
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("sample service", text);
    let node = parse(source, &mut diagnostics)?;
    read(&node, &mut Reader::new(&mut diagnostics, files))
}

#[derive(Clone)]
struct FixedReplies {
    entries: Arc<[Arc<dyn EntrySpec>]>,
    seen: Seen,
}

impl OpenIngress for FixedReplies {
    fn open(&self) -> Rc<dyn Ingress> {
        Rc::new(self.clone())
    }
}

impl Ingress for FixedReplies {
    fn admit(&self, head: &mut Head<'_>) -> Result<Admission, Fault> {
        let entry = self.entries.iter().find(|entry| entry.address().path.as_str() == head.path);
        let unknown = || Fault::caller(Code::Unimplemented, "METHOD", "the sample service has no such method");
        let entry = Arc::clone(entry.ok_or_else(unknown)?);
        let call = entry.call_type().cloned().ok_or_else(unknown)?;
        Ok(Admission {
            entry,
            params: Record::new(),
            request_headers: Arc::new([]),
            exchange: Box::new(FixedReply { call, seen: self.seen.clone() }),
        })
    }

    fn new_id(&self) -> ByteString {
        ByteString::from_static("sample")
    }

    fn refused(&self, _: &str, _: &RequestContext, _: &Fault) {}

    fn entries(&self, _: &str) -> Vec<Arc<dyn EntrySpec>> {
        self.entries.to_vec()
    }

    fn is_draining(&self) -> bool {
        false
    }
}

struct FixedReply {
    call: Arc<CallType>,
    seen: Seen,
}

fn item(sku: &str, quantity: i64, state: &str) -> Body {
    let mut item = Record::new();
    item.set("sku", Value::from(sku));
    item.set("quantity", Value::Int(quantity));
    item.set("state", Value::from(state));
    Body::Value(Value::Record(item))
}

impl Exchange for FixedReply {
    fn refuse(self: Box<Self>, _: &RequestContext, fault: Fault) -> Outcome {
        Outcome::Failed(fault)
    }

    fn dispatch(self: Box<Self>, message: Message) -> LocalFuture<'static, Outcome> {
        Box::pin(async move {
            let request = match message.body.value(&Limits::default()) {
                Ok(Some(request)) => request,
                Ok(None) => return Outcome::Accepted,
                Err(fault) => return Outcome::Failed(fault),
            };
            let shown = json::write(request).unwrap_or_default();
            self.seen.keep_text(format!("{} {}", self.call.name, String::from_utf8_lossy(&shown)));
            let sku = request.get("sku").and_then(Value::scalar_text).unwrap_or_default();
            let mut reply = Message::new(ByteString::new(), ByteString::new());
            reply.body = if self.call.server_streaming {
                stream_of([item(&sku, 2, "AVAILABLE"), item(&sku, 1, "AVAILABLE"), item(&sku, 0, "SOLD_OUT")].into())
            } else {
                // A double cannot represent this number.
                item(&sku, 9_007_199_254_740_993, "AVAILABLE")
            };
            Outcome::Replied(reply)
        })
    }
}
