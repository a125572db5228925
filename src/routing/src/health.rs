//! How a service's endpoints are watched.

use std::time::Duration;

use crossdock_message::ByteString;

/// An active health check of each endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPlan {
    /// What is asked for, as the adapter understands it: a path, the name of a gRPC service. Without it, a connection is made.
    pub target: Option<ByteString>,
    /// From one check to the next.
    pub every: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Checks that fail in a row before the endpoint gets no calls.
    pub failures: u32,
}

/// When calls to a service fail at once, without being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerPlan {
    /// Failed calls per hundred, from which on it opens.
    pub failures_percent: u32,
    /// Calls within the window below which it does not open.
    pub calls_min: u32,
    /// The window over which calls are counted.
    pub window: Duration,
    /// How long it is open before calls are let through to probe the service.
    pub open: Duration,
    /// Probing calls at once; as many have to succeed before it closes.
    pub probes: u32,
}
