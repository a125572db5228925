//! What route files become: plain data that the data path executes.

use std::sync::Arc;

use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_ports::{Delivery, EntrySpec, OperationSpec};

use crate::errors::ErrorRule;
use crate::headers::HeaderPlan;
use crate::matcher::Table;
use crate::policies::Policies;
use crate::route_test::RouteTest;
use crate::services::ServicePlan;
use crate::steps::Step;

/// The content of all route files, checked.
#[derive(Debug, Default)]
pub struct Plan {
    /// The contracts.
    pub contracts: Contracts,
    /// The services, in the order of the files.
    pub services: Vec<Arc<ServicePlan>>,
    /// The routes, in the order of the files.
    pub routes: Vec<Arc<RoutePlan>>,
    /// The tests, in the order of the files.
    pub tests: Vec<RouteTest>,
    /// Matches messages to entries of routes.
    pub table: Table,
}

/// The lock of the cluster that an instance must hold to read the messages of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerLock {
    /// Its name.
    pub name: ByteString,
    /// The entry is one of those of its route that are divided evenly among the instances.
    pub is_partitioned: bool,
}

/// A route.
#[derive(Debug)]
pub struct RoutePlan {
    /// Its name.
    pub name: ByteString,
    /// The call of the contract that it serves.
    pub call: Option<Arc<CallType>>,
    /// The messages that it accepts.
    pub entries: Vec<Arc<dyn EntrySpec>>,
    /// For each entry, the lock of the cluster that an instance must hold to read its messages.
    pub owner_locks: Vec<Option<OwnerLock>>,
    /// The guarantee for each message; `None` if the route does not declare one.
    pub delivery: Option<Delivery>,
    /// The headers that it forwards.
    pub headers: HeaderPlan,
    /// What is decided between the admission of a message and the first step.
    pub policies: Policies,
    /// What it does.
    pub steps: Vec<Step>,
    /// A message may be sent to several receivers, or several times.
    pub fans_out: bool,
    /// How faults are answered; the first rule that applies wins.
    pub errors: Vec<ErrorRule>,
}

impl RoutePlan {
    /// The lock of the cluster that an instance must hold to read the messages of this entry.
    #[must_use]
    pub fn owner_lock(&self, entry: usize) -> Option<&ByteString> {
        self.owner_locks.get(entry)?.as_ref().map(|lock| &lock.name)
    }

    /// The names of the locks of the entries that are divided evenly among the instances.
    pub fn partitions(&self) -> impl Iterator<Item = &ByteString> {
        self.owner_locks.iter().flatten().filter(|lock| lock.is_partitioned).map(|lock| &lock.name)
    }
}

/// One call of an operation.
#[derive(Debug, Clone)]
pub struct CallPlan {
    /// The position of the service in the plan.
    pub service: usize,
    /// The name of the operation.
    pub operation_name: ByteString,
    /// The settings of the adapter.
    pub operation: Arc<dyn OperationSpec>,
    /// Executing it twice does no harm, by its protocol or by its declaration.
    pub idempotent: bool,
    /// The retry of the service covers this operation.
    pub retried: bool,
}

impl CallPlan {
    /// The operation, how it is reached, and its limits, on one line for people.
    #[must_use]
    pub fn describe(&self, plan: &Plan) -> String {
        let service = &plan.services[self.service];
        let retry = match service.retry.as_ref().filter(|_| self.retried) {
            None => "no retry".to_owned(),
            Some(retry) => {
                let codes: Vec<&str> = retry.on.iter().map(|code| code.name()).collect();
                format!("up to {} attempts on {}", retry.attempts, codes.join(", "))
            }
        };
        let endpoints = service.spec.endpoints().len();
        format!(
            "{}.{} ({} over {}; within {:?}, {retry}, {} at once, {endpoints} endpoint{})",
            service.name,
            self.operation_name,
            self.operation.describe(),
            service.adapter,
            service.timeout,
            service.concurrency,
            if endpoints == 1 { "" } else { "s" },
        )
    }
}

impl Plan {
    /// The route of that name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Arc<RoutePlan>> {
        self.routes.iter().find(|route| route.name == name)
    }
}
