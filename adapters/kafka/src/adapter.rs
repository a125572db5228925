//! Opens listeners and services.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_contract::Contracts;
use crossdock_ports::{
    Adapter, AdapterError, Claim, DeadLetters, EntryContext, EntryFinding, EntrySpec, Inbound, ListenerSpec, Outbound,
    PortStatus, Schemas, ServiceSpec,
};
use crossdock_settings::{FromNode, Node, Reader};

use crate::config::{Entry, EntrySettings, Listener, ListenerSettings, Service, ServiceSettings};
use crate::dead_letters;
use crate::inbound::KafkaInbound;
use crate::outbound::{KafkaOutbound, batching};
use crate::producer::Producers;
use crate::registry::Registries;
use crate::replies::ReplyReceivers;

/// The Kafka adapter, inbound and outbound.
#[derive(Debug, Default)]
pub struct KafkaAdapter {
    producers: Producers,
    replies: ReplyReceivers,
    registries: Arc<Registries>,
}

impl Adapter for KafkaAdapter {
    fn name(&self) -> &'static str {
        "kafka"
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
        Entry::check_all(entries)
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
        let topics = dead_letters::topics(listener, entries, &self.producers)?;
        Ok(topics.into_iter().map(|topic| Box::new(topic) as Box<dyn DeadLetters>).collect())
    }

    fn connect_claims(&self, claims: Arc<dyn Claim>) {
        self.replies.connect(claims);
    }

    fn open_inbound(&self, name: &str, spec: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Listener>() {
            Some(listener) => Ok(Box::new(KafkaInbound::open(name, listener, &self.producers, &self.registries)?)),
            None => Err(AdapterError::Settings(format!("the listener `{name}` is not a Kafka listener"))),
        }
    }

    fn open_outbound(&self, spec: &dyn ServiceSpec, _: usize) -> Result<Rc<dyn Outbound>, AdapterError> {
        match spec.as_any().downcast_ref::<Service>() {
            Some(service) => Ok(KafkaOutbound::open(service, &self.producers, &self.replies, &self.registries)?),
            None => Err(AdapterError::Settings("the service is not a Kafka service".into())),
        }
    }

    fn connection_status(&self, spec: &dyn ServiceSpec, _: usize) -> Option<PortStatus> {
        let service = spec.as_any().downcast_ref::<Service>()?;
        let sending = self.producers.status(&service.cluster, batching(service))?;
        let receiving = service.replies.as_ref().and_then(|replies| self.replies.status(&service.cluster, replies));
        Some(match receiving {
            Some(down @ PortStatus::Down(_)) if sending.is_up() => down,
            _ => sending,
        })
    }
}
