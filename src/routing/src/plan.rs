//! What route files become: plain data that the data path follows.

use std::sync::Arc;
use std::time::Duration;

use crossdock_adapter_api::{Delivery, EntrySpec, OperationSpec, ServiceSpec};
use crossdock_contract::{CallType, Contracts};
use crossdock_message::{ByteString, Code};

use crate::expression::{Expression, Template};
use crate::health::{BreakerPlan, HealthPlan};
use crate::map::MapPlan;
use crate::matcher::Table;
use crate::retry::RetryPlan;

crossdock_settings::choices! {
    /// How a call picks one of a service's endpoints.
    pub enum Balance {
        /// In turn.
        RoundRobin = "round_robin",
        /// The one with the fewest calls under way; in turn among equals.
        LeastOutstanding = "least_outstanding",
    }
}

/// Everything that route files say, checked.
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
    /// Which route takes which message.
    pub table: Table,
}

/// A service.
#[derive(Debug)]
pub struct ServicePlan {
    /// Its name.
    pub name: ByteString,
    /// The adapter that reaches it.
    pub adapter: &'static str,
    /// The adapter's own part.
    pub spec: Arc<dyn ServiceSpec>,
    /// How long one try may take.
    pub timeout: Duration,
    /// How a failed try is made again.
    pub retry: Option<RetryPlan>,
    /// Calls under way at once, in the whole process.
    pub concurrency: usize,
    /// How an endpoint is picked.
    pub balance: Balance,
    /// Operations that are named idempotent.
    pub idempotent: Vec<ByteString>,
    /// How its endpoints are checked; nothing where they are not.
    pub health: Option<HealthPlan>,
    /// When its calls fail at once; nothing where they never do.
    pub breaker: Option<BreakerPlan>,
}

/// A route.
#[derive(Debug)]
pub struct RoutePlan {
    /// Its name.
    pub name: ByteString,
    /// What the contract says of its messages, where it has one.
    pub call: Option<Arc<CallType>>,
    /// What it takes.
    pub entries: Vec<Arc<dyn EntrySpec>>,
    /// What it promises of each message; nothing where it does not say.
    pub delivery: Option<Delivery>,
    /// The deadline of a caller who sets none.
    pub deadline_default: Duration,
    /// The longest deadline that a caller gets.
    pub deadline_max: Duration,
    /// Headers that are carried from the caller to services.
    pub carry: Arc<[ByteString]>,
    /// Those of them that may have several values, besides those that are lists by their definition.
    pub lists: Vec<ByteString>,
    /// Headers that are carried from a service's reply to the caller.
    pub carry_back: Arc<[ByteString]>,
    /// The key of messages that are carried out one after another; nothing where no order is kept.
    pub order: Option<Expression>,
    /// How a message is known that was carried out before.
    pub idempotency: Option<IdempotencyPlan>,
    /// What it does.
    pub steps: Vec<Step>,
    /// How faults are answered where the code's own answer is not wanted.
    pub errors: Vec<ErrorRule>,
}

/// How a message is known that was carried out before.
#[derive(Debug)]
pub struct IdempotencyPlan {
    /// The key that says which messages are the same.
    pub key: Expression,
    /// How long it is known.
    pub window: Duration,
    /// How many keys are known at once; where there are more, the oldest is forgotten.
    pub keys_max: usize,
}

/// One call of an operation.
#[derive(Debug, Clone)]
pub struct CallPlan {
    /// The service's place in the plan.
    pub service: usize,
    /// The operation's name.
    pub operation_name: ByteString,
    /// The adapter's own part.
    pub operation: Arc<dyn OperationSpec>,
    /// Carrying it out twice does no harm, by the protocol or by the file's word.
    pub idempotent: bool,
    /// The service's retry covers this operation.
    pub retried: bool,
}

/// A way that a choice may go.
#[derive(Debug)]
pub struct Branch {
    /// `None` for `otherwise`.
    pub when: Option<Expression>,
    /// What it does.
    pub steps: Vec<Step>,
}

/// The body of an answer that a route gives itself.
#[derive(Debug)]
pub enum RespondBody {
    /// The body that there is.
    Current,
    /// None.
    Empty,
    /// A new one.
    Map(MapPlan),
}

/// One step of a route.
#[derive(Debug)]
pub enum Step {
    /// Makes a new body.
    Map(MapPlan),
    /// Sets headers.
    Set(Vec<(ByteString, Template)>),
    /// Fails unless a condition holds.
    Require {
        /// The condition.
        that: Expression,
        /// The code of the fault.
        code: Code,
        /// The sentence of the fault.
        message: Template,
    },
    /// Ends the route without an answer unless a condition holds.
    Filter(Expression),
    /// Calls a service; the reply is what the next steps work on.
    Call(CallPlan),
    /// Calls a service and only waits for its confirmation.
    Send(CallPlan),
    /// Takes the first branch whose condition holds.
    Choice(Vec<Branch>),
    /// Follows all branches at once, each with the message as it is here; ends when all have ended.
    Multicast(Vec<Vec<Step>>),
    /// Follows the steps with each item of a list as the message.
    Split {
        /// The list.
        items: Expression,
        /// The name of the item.
        name: ByteString,
        /// Items at once; with one, they go in their order.
        at_once: usize,
        /// What is done with each.
        steps: Vec<Step>,
    },
    /// Calls a service on the side and binds its reply's body to a name.
    Enrich {
        /// The call.
        call: CallPlan,
        /// The body of the call.
        with: MapPlan,
        /// The name.
        name: ByteString,
    },
    /// Sends a copy on the side; nobody waits for it, and its failure is only counted.
    Tap {
        /// The call.
        call: CallPlan,
        /// The body of the call; the current one where nothing is said.
        with: Option<MapPlan>,
    },
    /// Ends the route with this answer.
    Respond {
        /// The status.
        status: Option<u16>,
        /// Headers of the answer.
        headers: Vec<(ByteString, Template)>,
        /// The body.
        body: RespondBody,
    },
    /// Ends the route with a fault.
    Fault {
        /// The code.
        code: Code,
        /// The sentence.
        message: Template,
    },
}

impl Step {
    /// The call whose outcome decides what becomes of the message; that of a `tap` does not.
    fn call(&self) -> Option<&CallPlan> {
        match self {
            Self::Call(call) | Self::Send(call) | Self::Enrich { call, .. } => Some(call),
            _ => None,
        }
    }

    /// The steps inside it.
    fn inner(&self) -> Vec<&[Self]> {
        match self {
            Self::Choice(branches) => branches.iter().map(|branch| branch.steps.as_slice()).collect(),
            Self::Multicast(branches) => branches.iter().map(Vec::as_slice).collect(),
            Self::Split { steps, .. } => vec![steps],
            _ => Vec::new(),
        }
    }

    /// The calls of these steps, and of those inside them, whose outcomes decide what becomes of the message.
    #[must_use]
    pub fn calls(steps: &[Self]) -> Vec<&CallPlan> {
        let mut found = Vec::new();
        let mut open = vec![steps];
        while let Some(steps) = open.pop() {
            for step in steps {
                found.extend(step.call());
                open.extend(step.inner());
            }
        }
        found
    }
}

/// How a fault is answered.
#[derive(Debug)]
pub struct ErrorRule {
    /// The codes that it is for; all where there is none.
    pub on: Vec<Code>,
    /// Only faults of these services, by place; all where there is none.
    pub services: Vec<ByteString>,
    /// The code of the answer.
    pub code: Option<Code>,
    /// The sentence of the answer.
    pub message: Option<Template>,
}

/// A test of a route with stubs in the place of services.
#[derive(Debug)]
pub struct RouteTest {
    /// Its name.
    pub name: String,
    /// The file and line where it stands.
    pub place: String,
    /// The route's name.
    pub route: ByteString,
    /// The request.
    pub given: TestGiven,
    /// What services answer, by `service` or `service.operation`.
    pub stubs: Vec<(ByteString, StubPlan)>,
    /// What is expected.
    pub expect: TestExpect,
}

/// The request of a test.
#[derive(Debug, Clone)]
pub struct TestGiven {
    /// It is a call of gRPC, and the body its message in JSON.
    pub grpc: bool,
    /// The method.
    pub method: ByteString,
    /// The path with its query; empty for a call of gRPC.
    pub path: ByteString,
    /// Headers.
    pub headers: Vec<(ByteString, ByteString)>,
    /// The body and its media type.
    pub body: Option<(ByteString, &'static str)>,
    /// The caller's deadline.
    pub timeout: Option<Duration>,
}

/// What a stub answers.
#[derive(Debug, Clone)]
pub struct StubPlan {
    /// After this time.
    pub after: Duration,
    /// With this body and media type.
    pub body: Option<(ByteString, &'static str)>,
    /// Or with this fault.
    pub fault: Option<Code>,
}

/// What a test expects.
#[derive(Debug, Clone, Default)]
pub struct TestExpect {
    /// The HTTP status, or its like.
    pub status: Option<u16>,
    /// The code of a fault.
    pub code: Option<Code>,
    /// The body, compared by value.
    pub body: Option<(ByteString, &'static str)>,
    /// Headers that must be there.
    pub headers: Vec<(ByteString, ByteString)>,
    /// Services that must have been called, by `service` or `service.operation`, and the bodies that they must have got.
    pub sent: Vec<(ByteString, Option<(ByteString, &'static str)>)>,
}

impl Plan {
    /// The route of that name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Arc<RoutePlan>> {
        self.routes.iter().find(|route| route.name == name)
    }
}
