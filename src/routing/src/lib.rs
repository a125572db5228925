//! Route files: read, checked, compiled to plans, matched.
//!
//! ```text
//! YAML ─▶ load ─▶ Plan { services, routes, tests } ─▶ Table: (listener, method, path, headers) ─▶ RoutePlan
//!          │                                                                                        │
//!          └─▶ Diagnostics                                                 steps, expressions ◀─────┘
//! ```
//!
//! Everything that can be known before the first message is checked at load, and all errors are reported at once. A
//! [`Plan`] is plain data and pure functions: it performs nothing and knows of no actor and no protocol.

pub mod expression;
mod health;
mod load;
mod map;
mod matcher;
mod plan;
mod retry;
mod schema;

pub use health::{BreakerPlan, HealthPlan};
pub use load::{Inputs, load};
pub use map::MapPlan;
pub use matcher::{Match, Miss, Table};
pub use plan::{
    Balance, Branch, CallPlan, ErrorRule, IdempotencyPlan, Plan, RespondBody, RoutePlan, RouteTest, ServicePlan, Step,
    StubPlan, TestExpect, TestGiven,
};
pub use retry::{RetryBudget, RetryPlan, Verdict};
pub use schema::route_file_schema;
