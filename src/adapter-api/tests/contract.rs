//! The memory adapter keeps the contract of adapters.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_adapter_api::memory::{Hub, MemorySpec};
use crossdock_adapter_api::{AdapterError, EntrySpec, Inbound, OperationSpec, Outbound, contract};

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

    fn nowhere(&self) -> String {
        "nowhere".into()
    }

    fn entry(&self) -> Arc<dyn EntrySpec> {
        Arc::new(MemorySpec::new("subject"))
    }

    fn operation(&self) -> Arc<dyn OperationSpec> {
        Arc::new(MemorySpec::new("subject"))
    }
}

#[tokio::test]
async fn the_memory_adapter_keeps_the_contract() {
    contract::run(&Memory { hub: Hub::new() }).await;
}
