//! Runs the adapter contract suite against the memory adapter.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_ports::{AdapterError, EntrySpec, Inbound, OperationSpec, Outbound};
use crossdock_test_kit::contract;
use crossdock_test_kit::memory::{Hub, MemorySpec};

struct Memory {
    hub: Hub,
}

impl contract::Subject for Memory {
    fn inbound(&self) -> Result<Box<dyn Inbound>, AdapterError> {
        self.hub.listen("subject")
    }

    fn outbound(&self, address: &str) -> Result<Rc<dyn Outbound>, AdapterError> {
        Ok(self.hub.port(address))
    }

    fn unused_address(&self) -> String {
        "unused".into()
    }

    fn entry(&self) -> Arc<dyn EntrySpec> {
        Arc::new(MemorySpec::new("subject"))
    }

    fn operation(&self) -> Arc<dyn OperationSpec> {
        Arc::new(MemorySpec::new("subject"))
    }
}

#[tokio::test]
async fn the_memory_adapter_meets_the_contract() {
    contract::run(&Memory { hub: Hub::new() }).await;
}
