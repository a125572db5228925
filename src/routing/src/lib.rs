//! Route files: read, checked, compiled to plans, matched.
//!
//! ```text
//! YAML ─▶ load ─▶ Plan { services, routes, tests } ─▶ Table: (listener, method, path, headers) ─▶ RoutePlan
//!          │                                                                                        │
//!          └─▶ Diagnostics                                       policies, steps, expressions ◀─────┘
//! ```
//!
//! Everything that can be known before the first message is checked at load, and all errors are reported at once. A
//! [`Plan`] is plain data and pure functions: it performs no I/O and knows neither actors nor protocols.
//!
//! One thing is one file: a step in `steps/`, a policy of a route in `policies/`, a policy of calls in `services/`. Each declares how it
//! is written, its JSON Schema, its checks and its plan.

mod catalog;
mod errors;
pub mod expression;
mod headers;
mod load;
mod map;
mod matcher;
mod plan;
mod policies;
mod route_test;
mod scalars;
mod schema;
mod services;
pub mod steps;

pub use errors::ErrorRule;
pub use headers::HeaderPlan;
pub use load::{Inputs, ListenerInfo, load};
pub use map::MapPlan;
pub use matcher::{Match, Miss, Table};
pub use plan::{CallPlan, OwnerLock, Plan, RoutePlan};
pub use policies::{ClusterOrder, DeadlinePolicy, IdempotencyPolicy, KeyMemory, OrderPolicy, Policies};
pub use route_test::{RouteTest, StubPlan, TestExpect};
pub use schema::route_file_schema;
pub use services::{Balance, BreakerPlan, HealthPlan, RetryBudget, RetryPlan, ServicePlan, Verdict};
pub use steps::Step;
