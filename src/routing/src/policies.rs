//! Policies of routes: one file per policy.
//!
//! A policy decides about a message between its admission and the first step: whether it may go on, when, and what happens after the
//! last step. Each file declares how its policy is written, how it is checked, and the plan that it becomes;
//! `gateway/src/data/policies/NAME.rs` executes that plan. The list below is the only one, and its order is that of execution: each policy
//! waits within the deadline, idempotency is decided once it is a message's turn, and steps run last.

mod deadline;
mod idempotency;
mod order;

use std::sync::Arc;

use crossdock_contract::CallType;
use crossdock_ports::{Delivery, EntrySpec};
use crossdock_settings::{Fields, FromNode, Node, Reader, Span, choices, described};
use serde_json::{Map, Value};

use crate::catalog::ServiceCatalog;
use crate::expression::Expression;
use crate::steps::StepReader;

pub use deadline::DeadlinePolicy;
pub use idempotency::{IdempotencyPolicy, KeyMemory};
pub use order::{ClusterOrder, OrderPolicy};

choices! {
    /// Where a guarantee by key holds.
    pub(crate) enum Scope {
        /// In this instance of the gateway, for as long as it runs.
        Instance = "instance",
        /// In all instances of the cluster.
        Cluster = "cluster",
    }
}

/// A policy of a route.
trait Policy {
    /// The policy as written.
    type Settings: FromNode;
    /// The policy as checked; an `Option` if a route need not have it.
    type Plan;

    /// Its key in a route.
    const KEY: &'static str;
    /// What it does, for editors.
    const SUMMARY: &'static str;

    /// Checks the settings; `None` stands for a route that does not have the key. Returns `None` if an error was reported.
    fn check(
        settings: Option<Self::Settings>,
        route: &PolicyContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Self::Plan>;

    /// One line for people, after the key; `None` if the route does not have the policy.
    fn describe(plan: &Self::Plan) -> Option<String>;
}

/// What a policy may know about its route.
pub(crate) struct PolicyContext<'r> {
    /// The whole route.
    pub(crate) node: &'r Node,
    pub(crate) entries: &'r [Arc<dyn EntrySpec>],
    /// The call of the contract that the route serves.
    pub(crate) call: Option<&'r Arc<CallType>>,
    pub(crate) delivery: Option<Delivery>,
    pub(crate) services: &'r ServiceCatalog,
    /// The instance is a member of a cluster.
    pub(crate) has_cluster: bool,
}

impl PolicyContext<'_> {
    /// The span of a key of the route.
    fn span(&self, key: &str) -> Span {
        self.node.get(key).map_or(self.node.span, |node| node.span)
    }

    /// Whether messages are answered once a queue of the cluster has them: `order` says so.
    fn accepts_in_cluster(&self) -> bool {
        let Some(order) = self.node.get(OrderPolicy::KEY) else { return false };
        let is = |key: &str, value: &str| order.get(key).and_then(Node::text).is_some_and(|text| text == value);
        let answers_outcome = self.entries.iter().all(|entry| !entry.capabilities().acknowledges);
        is("scope", "cluster") && (is("answer", "accepted") || order.get("answer").is_none() && !answers_outcome)
    }

    /// Reports `scope: cluster` of a policy if there is no cluster.
    fn require_cluster(&self, key: &str, reader: &mut Reader<'_>) {
        if !self.has_cluster {
            let help = "add `cluster: {}` to crossdock.yaml, for a cluster of this instance alone";
            reader.error("no-cluster", self.span(key), "`scope: cluster` needs a cluster", help);
        }
    }

    /// Whether the route serves a call with a stream.
    fn is_streaming(&self) -> bool {
        self.call.is_some_and(|call| call.client_streaming || call.server_streaming)
    }

    /// Reads an expression over the request.
    fn expression(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Expression> {
        StepReader::new(self.services, self.entries, self.call, None, self.node).expression(node, reader)
    }
}

macro_rules! policies {
    ($($(#[doc = $doc:literal])+ $field:ident: $policy:ty => $plan:ty,)*) => {
        /// The policies of a route, in the order in which they are executed.
        #[derive(Debug)]
        pub struct Policies {
            $($(#[doc = $doc])+ pub $field: $plan,)*
        }

        /// The settings of a route's policies, before they are checked.
        pub(crate) struct PolicySettings {
            $($field: Option<Option<<$policy as Policy>::Settings>>,)*
        }

        impl PolicySettings {
            /// Reads the keys of all policies.
            pub(crate) fn read(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Self {
                Self { $($field: fields.read(<$policy as Policy>::KEY, reader),)* }
            }

            /// Checks all of them; `None` if an error was reported.
            pub(crate) fn check(self, route: &PolicyContext<'_>, reader: &mut Reader<'_>) -> Option<Policies> {
                $(let $field = self.$field.and_then(|settings| <$policy as Policy>::check(settings, route, reader));)*
                Some(Policies { $($field: $field?,)* })
            }
        }

        impl Policies {
            /// One line for people for each policy that the route has: its key, and what it does.
            #[must_use]
            pub fn describe(&self) -> Vec<(&'static str, String)> {
                let mut lines = Vec::new();
                $(lines.extend(<$policy as Policy>::describe(&self.$field).map(|line| (<$policy as Policy>::KEY, line)));)*
                lines
            }
        }

        /// The JSON Schemas of all policies by key.
        pub(crate) fn policy_schemas() -> Map<String, Value> {
            let mut schemas = Map::new();
            $({
                let schema = <$policy as Policy>::Settings::schema();
                schemas.insert(<$policy as Policy>::KEY.to_owned(), described(schema, <$policy as Policy>::SUMMARY));
            })*
            schemas
        }
    };
}

policies! {
    /// When the exchange of a message must end.
    deadline: DeadlinePolicy => DeadlinePolicy,
    /// Messages with the same key are processed one after another.
    order: OrderPolicy => Option<OrderPolicy>,
    /// Messages with the same key are processed once.
    idempotency: IdempotencyPolicy => Option<IdempotencyPolicy>,
}
