//! Opens listeners and services.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::Contracts;
use crossdock_ports::{
    Adapter, AdapterError, DeadLetters, EntryContext, EntryFinding, EntrySpec, Inbound, ListenerSpec, Outbound,
    PortStatus, Schemas, ServiceSpec,
};
use crossdock_settings::{FromNode, Node, Reader};

use crate::broker::{Brokers, Purpose};
use crate::config::cycles;
use crate::config::{Entry, EntrySettings, Listener, ListenerSettings, Service, ServiceSettings};
use crate::dead_letters;
use crate::inbound::AmqpInbound;
use crate::outbound::AmqpOutbound;

/// The AMQP 0.9.1 adapter, inbound and outbound.
#[derive(Debug, Default)]
pub struct AmqpAdapter {
    brokers: Brokers,
}

impl Adapter for AmqpAdapter {
    fn name(&self) -> &'static str {
        "amqp"
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

    fn check_entries(&self, entries: &[&Arc<dyn EntrySpec>]) -> Vec<EntryFinding> {
        cycles::find(entries)
    }

    fn read_service(
        &self,
        node: &Node,
        contracts: &Contracts,
        reader: &mut Reader<'_>,
    ) -> Option<Arc<dyn ServiceSpec>> {
        Some(Arc::new(Service::read(node, contracts, reader)?))
    }

    fn dead_letters(
        &self,
        listener: &dyn ListenerSpec,
        entries: &[Arc<dyn EntrySpec>],
    ) -> Result<Vec<Box<dyn DeadLetters>>, AdapterError> {
        let Some(listener) = listener.as_any().downcast_ref::<Listener>() else { return Ok(Vec::new()) };
        let queues = dead_letters::queues(listener, entries, &self.brokers)?;
        Ok(queues.into_iter().map(|queue| Box::new(queue) as Box<dyn DeadLetters>).collect())
    }

    fn open_inbound(&self, name: &str, spec: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Listener>() {
            Some(listener) => Ok(Box::new(AmqpInbound::open(name, listener, &self.brokers)?)),
            None => Err(AdapterError::Settings(format!("the listener `{name}` is not an AMQP listener"))),
        }
    }

    fn open_outbound(&self, spec: &dyn ServiceSpec, _: usize) -> Result<Rc<dyn Outbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Service>() {
            Some(service) => Ok(Rc::new(AmqpOutbound::open(service, &self.brokers)?)),
            None => Err(AdapterError::Settings("the service is not an AMQP service".into())),
        }
    }

    fn connection_status(&self, spec: &dyn ServiceSpec, _: usize) -> Option<PortStatus> {
        let service = spec.as_any().downcast_ref::<Service>()?;
        self.brokers.status(&service.addresses, Purpose::Publish)
    }
}
