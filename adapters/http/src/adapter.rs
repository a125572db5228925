//! The adapter: reads settings, opens listeners and outbound ports.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::Contracts;
use crossdock_ports::{
    Adapter, AdapterError, EntryContext, EntrySpec, Inbound, ListenerSpec, Outbound, Schemas, ServiceSpec, TestClient,
};
use crossdock_settings::{FromNode, Node, Reader};

use crate::config::{Entry, EntrySettings, Listener, ListenerSettings, Service, ServiceSettings};
use crate::inbound::HttpInbound;
use crate::outbound::HttpOutbound;
use crate::test_client::HttpTestClient;

/// HTTP/1.1 and HTTP/2 inbound, HTTP/1.1 outbound.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpAdapter;

impl Adapter for HttpAdapter {
    fn name(&self) -> &'static str {
        "http"
    }

    fn test_client(&self) -> Option<&dyn TestClient> {
        Some(&HttpTestClient)
    }

    fn schemas(&self) -> Schemas {
        Schemas {
            listener: ListenerSettings::schema(),
            entry: EntrySettings::schema(),
            service: ServiceSettings::schema(),
        }
    }

    fn read_listener(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Arc<dyn ListenerSpec>> {
        Some(Arc::new(Listener::read(node, reader)?))
    }

    fn read_entry(
        &self,
        node: &Node,
        context: EntryContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Arc<dyn EntrySpec>>> {
        Entry::read(node, context, reader)
    }

    fn read_service(
        &self,
        node: &Node,
        contracts: &Contracts,
        reader: &mut Reader<'_>,
    ) -> Option<Arc<dyn ServiceSpec>> {
        Some(Arc::new(Service::read(node, contracts, reader)?))
    }

    fn open_inbound(&self, name: &str, spec: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Listener>() {
            Some(listener) => Ok(Box::new(HttpInbound::open(name, listener)?)),
            None => Err(AdapterError::Settings(format!("the listener `{name}` is not an HTTP listener"))),
        }
    }

    fn open_outbound(&self, spec: &dyn ServiceSpec, endpoint: usize) -> Result<Rc<dyn Outbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Service>() {
            Some(service) => Ok(Rc::new(HttpOutbound::open(service, endpoint)?)),
            None => Err(AdapterError::Settings("the service is not an HTTP service".into())),
        }
    }
}
