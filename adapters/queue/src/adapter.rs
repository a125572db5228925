//! Reads entries and services.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use crossdock_contract::Contracts;
use crossdock_ports::{
    Adapter, AdapterError, Enqueue, EntryContext, EntrySpec, Inbound, ListenerSpec, Outbound, Schemas, ServiceSpec,
};
use crossdock_settings::{FromNode, Node, Reader};

use crate::checked::{Entry, Service};
use crate::config::{EntrySettings, ServiceSettings};
use crate::outbound::QueueOutbound;

/// The adapter of the queues of the cluster.
#[derive(Default)]
pub struct QueueAdapter {
    queues: Arc<OnceLock<Arc<dyn Enqueue>>>,
}

impl Adapter for QueueAdapter {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn schemas(&self) -> Schemas {
        // No listener is valid.
        Schemas { listener: false.into(), entry: EntrySettings::schema(), service: ServiceSettings::schema() }
    }

    fn read_listener(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Arc<dyn ListenerSpec>> {
        let help = "remove it, and write `from: { queue: { queue: NAME } }` in routes";
        reader.error("listener", node.span, "queues of the cluster need no listener", help);
        None
    }

    fn read_entry(
        &self,
        node: &Node,
        context: EntryContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Arc<dyn EntrySpec>>> {
        Some(vec![Arc::new(Entry::read(node, context, reader)?)])
    }

    fn read_service(
        &self,
        node: &Node,
        contracts: &Contracts,
        reader: &mut Reader<'_>,
    ) -> Option<Arc<dyn ServiceSpec>> {
        Some(Arc::new(Service::read(node, contracts, reader)?))
    }

    fn connect_queues(&self, queues: Arc<dyn Enqueue>) {
        // One process is a member of one cluster.
        let _ = self.queues.set(queues);
    }

    fn open_inbound(&self, _: &str, _: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError> {
        Err(AdapterError::Settings("queues of the cluster need no listener".to_owned()))
    }

    fn open_outbound(&self, _: &dyn ServiceSpec, _: usize) -> Result<Rc<dyn Outbound>, AdapterError> {
        Ok(Rc::new(QueueOutbound::new(Arc::clone(&self.queues))))
    }
}
