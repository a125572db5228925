//! Tests of routes, as route files declare them: a request, stubs in place of services, and what is expected.

use std::time::Duration;

use crossdock_message::{ByteString, Code};
use crossdock_ports::TestRequest;

/// A test of a route.
#[derive(Debug)]
pub struct RouteTest {
    /// Its name.
    pub name: String,
    /// Its file and line.
    pub place: String,
    /// The route's name.
    pub route: ByteString,
    /// The adapter of the entry that receives the request.
    pub adapter: &'static str,
    /// The request.
    pub given: TestRequest,
    /// The answers of services, by `service` or `service.operation`.
    pub stubs: Vec<(ByteString, StubPlan)>,
    /// What is expected.
    pub expect: TestExpect,
}

/// The answer of a stub.
#[derive(Debug, Clone)]
pub struct StubPlan {
    /// The delay.
    pub after: Duration,
    /// The body and its media type.
    pub body: Option<(ByteString, &'static str)>,
    /// A fault instead of a body.
    pub fault: Option<Code>,
}

/// What a test expects.
#[derive(Debug, Clone, Default)]
pub struct TestExpect {
    /// The HTTP status.
    pub status: Option<u16>,
    /// The code of a fault.
    pub code: Option<Code>,
    /// The body, compared by value.
    pub body: Option<(ByteString, &'static str)>,
    /// Headers that must be present.
    pub headers: Vec<(ByteString, ByteString)>,
    /// Services that must have been called, by `service` or `service.operation`, and the bodies that they must have received.
    pub sent: Vec<(ByteString, Option<(ByteString, &'static str)>)>,
}
