//! Runs the adapter contract suite against the AMQP adapter with RabbitMQ.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_amqp::AmqpAdapter;
use crossdock_contract::Contracts;
use crossdock_ports::{Adapter, AdapterError, EntryContext, EntrySpec, Inbound, OperationSpec, Outbound};
use crossdock_test_kit::contract;
use crossdock_tests::RabbitMq;

struct Amqp {
    adapter: AmqpAdapter,
    url: String,
    queue: String,
}

impl Amqp {
    fn service(&self, url: &str) -> Arc<dyn crossdock_ports::ServiceSpec> {
        let text = format!("url: \"{url}\"\noperations: {{ ask: {{ queue: {}, reply: true }} }}", self.queue);
        contract::read_settings(&text, |node, reader| self.adapter.read_service(node, &Contracts::default(), reader))
    }
}

impl contract::Subject for Amqp {
    fn inbound(&self) -> Result<Box<dyn Inbound>, AdapterError> {
        let text = format!("url: \"{}\"", self.url);
        let listener = contract::read_settings(&text, |node, reader| self.adapter.read_listener(node, reader));
        self.adapter.open_inbound("contract", &*listener)
    }

    fn outbound(&self, address: &str) -> Result<Rc<dyn Outbound>, AdapterError> {
        // A listener reports its address without user and password.
        let url = if address == self.unused_address() { format!("amqp://{address}") } else { self.url.clone() };
        self.adapter.open_outbound(&*self.service(&url), 0)
    }

    fn unused_address(&self) -> String {
        "127.0.0.1:1".to_owned()
    }

    fn entry(&self) -> Arc<dyn EntrySpec> {
        let contracts = Contracts::default();
        let context = EntryContext { contracts: &contracts, call: None, whole_service: false, delivery: None };
        let text = format!("listen: contract\nqueue: {}\nreject: discard", self.queue);
        contract::read_settings(&text, |node, reader| self.adapter.read_entry(node, context, reader)).remove(0)
    }

    fn operation(&self) -> Arc<dyn OperationSpec> {
        self.service(&self.url).operations().remove(0).1
    }
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_adapter_fulfills_the_adapter_contract() {
    let broker = RabbitMq::start();
    let queue = broker.name("contract");
    broker.run(&["declare", &queue]);
    let subject = Amqp { adapter: AmqpAdapter::default(), url: broker.url.clone(), queue };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(contract::run(&subject)));
}
