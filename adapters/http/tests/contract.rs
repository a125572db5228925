//! The HTTP adapter fulfils the adapter contract.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::Contracts;
use crossdock_http::HttpAdapter;
use crossdock_ports::{Adapter, AdapterError, EntryContext, EntrySpec, Inbound, OperationSpec, Outbound};
use crossdock_test_kit::contract;

struct Http;

impl contract::Subject for Http {
    fn inbound(&self) -> Result<Box<dyn Inbound>, AdapterError> {
        let listener =
            contract::read_settings("bind: 127.0.0.1:0", |node, reader| HttpAdapter.read_listener(node, reader));
        HttpAdapter.open_inbound("contract", &*listener)
    }

    fn outbound(&self, address: &str) -> Result<Rc<dyn Outbound>, AdapterError> {
        let text = format!("url: \"http://{address}\"\noperations: {{ send: {{ post: /contract }} }}");
        let service = contract::read_settings(&text, |node, reader| {
            HttpAdapter.read_service(node, &Contracts::default(), reader)
        });
        HttpAdapter.open_outbound(&*service, 0)
    }

    fn unused_address(&self) -> String {
        // The port is free again as soon as the listener is dropped.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("an address").to_string()
    }

    fn entry(&self) -> Arc<dyn EntrySpec> {
        let contracts = Contracts::default();
        let context = EntryContext { contracts: &contracts, call: None, whole_service: false, delivery: None };
        let text = "listen: contract\npost: /contract";
        contract::read_settings(text, |node, reader| HttpAdapter.read_entry(node, context, reader)).remove(0)
    }

    fn operation(&self) -> Arc<dyn OperationSpec> {
        let text = "url: \"http://127.0.0.1:1\"\noperations: { send: { post: /contract } }";
        let service =
            contract::read_settings(text, |node, reader| HttpAdapter.read_service(node, &Contracts::default(), reader));
        service.operations().remove(0).1
    }
}

#[test]
fn the_http_adapter_fulfils_the_contract() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(contract::run(&Http)));
}
