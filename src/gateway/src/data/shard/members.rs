//! The endpoints of a service on one data arbiter, each with its port.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_adapter_api::{Adapter, AdapterError, Outbound};
use crossdock_routing::ServicePlan;

use super::super::picker::Load;
use crate::process::health::{Endpoint, Known, ServiceHealth};

/// An endpoint with what calls to it use.
pub(super) struct Member {
    pub(super) port: Rc<dyn Outbound>,
    pub(super) health: Arc<Endpoint>,
    pub(super) load: Load,
    /// The place of its address in the settings.
    pub(super) place: usize,
}

/// The endpoints of now. A call keeps those that it began with.
pub(super) struct Members {
    /// To each address of the settings, all of its host's addresses together.
    ports: Vec<Rc<dyn Outbound>>,
    now: RefCell<Rc<[Rc<Member>]>>,
}

impl Members {
    pub(super) fn open(
        adapter: &dyn Adapter,
        plan: &ServicePlan,
        health: &ServiceHealth,
    ) -> Result<Self, AdapterError> {
        let ports = (0..plan.spec.endpoints().len()).map(|place| adapter.open_outbound(&*plan.spec, place));
        let members = Self { ports: ports.collect::<Result<_, _>>()?, now: RefCell::new(Rc::new([])) };
        members.update(&health.endpoints());
        Ok(members)
    }

    pub(super) fn now(&self) -> Rc<[Rc<Member>]> {
        Rc::clone(&self.now.borrow())
    }

    /// Takes other endpoints over: those that stay keep their connections, those that are gone lose them with their last call.
    pub(super) fn update(&self, current: &[Known]) {
        let before = self.now();
        let member = |known: &Known| {
            let is_same =
                |member: &&Rc<Member>| member.place == known.place && Arc::ptr_eq(&member.health, &known.endpoint);
            before.iter().find(is_same).map_or_else(|| Rc::new(self.member(known)), Rc::clone)
        };
        let now = current.iter().map(member).collect();
        self.now.replace(now);
    }

    fn member(&self, known: &Known) -> Member {
        let of_all = &self.ports[known.place];
        let port = known.endpoint.ip.and_then(|ip| of_all.at(ip)).unwrap_or_else(|| Rc::clone(of_all));
        Member { port, health: Arc::clone(&known.endpoint), load: Load::default(), place: known.place }
    }
}
