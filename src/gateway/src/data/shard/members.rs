//! The endpoints of a service on one data arbiter, each with its port.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_ports::{Adapter, AdapterError, Outbound};
use crossdock_routing::ServicePlan;

use super::super::picker::Load;
use crate::process::health::{Endpoint, KnownEndpoint, ServiceHealth};

/// An endpoint with its port, health and load.
pub(super) struct Member {
    pub(super) port: Rc<dyn Outbound>,
    pub(super) health: Arc<Endpoint>,
    pub(super) load: Load,
    /// The index of its configured address.
    pub(super) address_index: usize,
}

/// The current endpoints. A call keeps the set that it started with.
pub(super) struct Members {
    /// The ports to the configured addresses, each to all resolved addresses of its host.
    ports: Vec<Rc<dyn Outbound>>,
    current: RefCell<Rc<[Rc<Member>]>>,
}

impl Members {
    pub(super) fn open(
        adapter: &dyn Adapter,
        plan: &ServicePlan,
        health: &ServiceHealth,
    ) -> Result<Self, AdapterError> {
        let ports = (0..plan.spec.endpoints().len()).map(|index| adapter.open_outbound(&*plan.spec, index));
        let members = Self { ports: ports.collect::<Result<_, _>>()?, current: RefCell::new(Rc::new([])) };
        members.update(&health.endpoints());
        Ok(members)
    }

    pub(super) fn current(&self) -> Rc<[Rc<Member>]> {
        Rc::clone(&self.current.borrow())
    }

    /// Replaces the endpoints. Remaining ones keep their connections; removed ones close them after their last call.
    pub(super) fn update(&self, endpoints: &[KnownEndpoint]) {
        let previous = self.current();
        let member = |known: &KnownEndpoint| {
            let is_same = |member: &&Rc<Member>| {
                member.address_index == known.address_index && Arc::ptr_eq(&member.health, &known.endpoint)
            };
            previous.iter().find(is_same).map_or_else(|| Rc::new(self.member(known)), Rc::clone)
        };
        let updated = endpoints.iter().map(member).collect();
        self.current.replace(updated);
    }

    fn member(&self, known: &KnownEndpoint) -> Member {
        let host_port = &self.ports[known.address_index];
        let port = known.endpoint.ip.and_then(|ip| host_port.at(ip)).unwrap_or_else(|| Rc::clone(host_port));
        Member { port, health: Arc::clone(&known.endpoint), load: Load::default(), address_index: known.address_index }
    }
}
