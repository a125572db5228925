//! Opens listeners and ports.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::Contracts;
use crossdock_ports::{
    Adapter, AdapterError, EntryContext, EntrySpec, Inbound, ListenerSpec, Outbound, Schemas, ServiceSpec, TestClient,
};
use crossdock_settings::{FromNode, Node, Reader};

use crate::client::GrpcTestClient;
use crate::config::{Entry, EntrySettings, Listener, ListenerSettings, Service, ServiceSettings};
use crate::inbound::GrpcInbound;
use crate::outbound::GrpcOutbound;

/// gRPC over HTTP/2.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrpcAdapter;

impl Adapter for GrpcAdapter {
    fn name(&self) -> &'static str {
        "grpc"
    }

    fn test_client(&self) -> Option<&dyn TestClient> {
        Some(&GrpcTestClient)
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

    fn open_inbound(&self, name: &str, spec: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Listener>() {
            Some(listener) => Ok(Box::new(GrpcInbound::open(name, listener)?)),
            None => Err(AdapterError::Settings(format!("listener `{name}` is not a gRPC listener"))),
        }
    }

    fn open_outbound(&self, spec: &dyn ServiceSpec, endpoint: usize) -> Result<Rc<dyn Outbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Service>() {
            Some(service) => Ok(Rc::new(GrpcOutbound::open(service, endpoint)?)),
            None => Err(AdapterError::Settings("the service is not a gRPC service".into())),
        }
    }
}
