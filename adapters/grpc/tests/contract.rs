//! Runs the adapter contract suite against the gRPC adapter.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{CallType, Contracts};
use crossdock_grpc::GrpcAdapter;
use crossdock_message::{Body, BodyType, Format, Limits, Record, Value, json};
use crossdock_ports::{Adapter, AdapterError, EntryContext, EntrySpec, Inbound, OperationSpec, Outbound};
use crossdock_proto::{Files, compile};
use crossdock_test_kit::contract;

struct Probe;

/// The suite's body as a protobuf message: its text, and the fields that the echo service reads.
const PROTO: &[u8] = b"syntax = \"proto3\";
package probe.v1;
service Probes { rpc Send(Probe) returns (Probe); }
message Probe { string text = 1; string fail = 2; int64 wait = 3; }
";

impl Files for Probe {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        Ok((name == "probe.proto").then(|| Bytes::from_static(PROTO)))
    }
}

struct Grpc {
    contracts: Contracts,
    call: CallType,
}

impl Grpc {
    fn new() -> Self {
        let mut contracts = Contracts::new(&Limits::default());
        contracts.add("probe".into(), Arc::new(compile(&["probe.proto"], &Probe).expect("a contract")));
        let call = contracts.call("probe.v1.Probes/Send").expect("the method");
        Self { contracts, call }
    }

    fn service(&self, address: &str) -> Arc<dyn crossdock_ports::ServiceSpec> {
        let text = format!("url: \"http://{address}\"\nservice: probe.v1.Probes");
        contract::read_settings(&text, |node, reader| GrpcAdapter.read_service(node, &self.contracts, reader))
    }
}

impl contract::Subject for Grpc {
    fn inbound(&self) -> Result<Box<dyn Inbound>, AdapterError> {
        let listener =
            contract::read_settings("bind: 127.0.0.1:0", |node, reader| GrpcAdapter.read_listener(node, reader));
        GrpcAdapter.open_inbound("contract", &*listener)
    }

    fn outbound(&self, address: &str) -> Result<Rc<dyn Outbound>, AdapterError> {
        GrpcAdapter.open_outbound(&*self.service(address), 0)
    }

    fn unused_address(&self) -> String {
        // A port that was just free.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("an address").to_string()
    }

    fn entry(&self) -> Arc<dyn EntrySpec> {
        let context = EntryContext { contracts: &self.contracts, call: None, whole_service: false, delivery: None };
        let text = "listen: contract\nmethod: probe.v1.Probes/Send";
        contract::read_settings(text, |node, reader| GrpcAdapter.read_entry(node, context, reader)).remove(0)
    }

    fn operation(&self) -> Arc<dyn OperationSpec> {
        self.service("127.0.0.1:1").operations().remove(0).1
    }

    fn body(&self, text: &str) -> Body {
        let given = json::read(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).expect("JSON");
        let mut probe = Record::new();
        probe.set("text", Value::from(text));
        for name in ["fail", "wait"] {
            if let Some(value) = given.get(name) {
                probe.set(name, value.clone());
            }
        }
        let request = &self.call.request;
        let wire = request.write(&Value::Record(probe), Format::Protobuf).expect("a probe");
        Body::typed(wire.into(), Format::Protobuf, Arc::clone(request) as Arc<dyn BodyType>)
    }

    fn text(&self, body: &Body) -> Bytes {
        let value = body.value(&Limits::default()).expect("a probe").expect("a probe");
        match value.get("text") {
            Some(Value::Text(text)) => text.clone().into_bytes(),
            other => panic!("rule 1: the reply must hold the text, not {other:?}"),
        }
    }
}

#[test]
fn the_grpc_adapter_fulfils_the_contract() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(contract::run(&Grpc::new())));
}
