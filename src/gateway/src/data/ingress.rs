//! The gateway side of inbound adapters on one data arbiter.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossdock_message::{ByteString, Code, Fault, Message, Reason, Record, RequestContext, Retry, Value};
use crossdock_offload::discard;
use crossdock_ports::{
    Adapter, Admission, EntrySpec, Exchange, Head, Ingress, LocalFuture, OpenIngress, OrderGuard, Outcome, header_twice,
};
use crossdock_routing::expression::Request;
use crossdock_routing::{Miss, RoutePlan};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span};

use super::counted::Counted;
use super::shards::Shards;
use super::steps::{Budget, Run};
use crate::generation::{CurrentGeneration, Generation};
use crate::process::{Fence, Place, ProcessState};
use crate::stats::{Phases, Stats};

/// Opens an ingress for each data arbiter.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) current: Arc<CurrentGeneration>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) process: Arc<ProcessState>,
    pub(crate) adapters: Arc<[Arc<dyn Adapter>]>,
    /// A random number that distinguishes message ids of this process from those of others.
    pub(crate) boot: u32,
}

impl OpenIngress for Opener {
    fn open(&self) -> Rc<dyn Ingress> {
        Rc::new(DataArbiter::new(self))
    }
}

/// The ingress of one data arbiter.
pub(super) struct DataArbiter {
    current: Arc<CurrentGeneration>,
    stats: Arc<Stats>,
    process: Arc<ProcessState>,
    adapters: Arc<[Arc<dyn Adapter>]>,
    /// The service actors of the latest generation that a message used.
    shards: Rc<RefCell<Option<Rc<Shards>>>>,
    /// Drops the service actors of an older generation, which ends its health checks and name lookups.
    _eviction: AbortOnDropHandle<()>,
    id_prefix: String,
    ids: Cell<u64>,
}

impl DataArbiter {
    pub(super) fn new(opener: &Opener) -> Self {
        let shards: Rc<RefCell<Option<Rc<Shards>>>> = Rc::default();
        let (mut published, held) = (opener.current.published(), Rc::clone(&shards));
        let eviction = actix_rt::spawn(async move {
            while published.changed().await.is_ok() {
                let newest = *published.borrow_and_update();
                // Drop the actors only after the borrow has ended. Calls in flight still hold them.
                let old = held.borrow_mut().take_if(|shards| shards.generation().number != newest);
                drop(old);
            }
        });
        Self {
            current: Arc::clone(&opener.current),
            stats: Arc::clone(&opener.stats),
            process: Arc::clone(&opener.process),
            adapters: Arc::clone(&opener.adapters),
            shards,
            _eviction: AbortOnDropHandle::new(eviction),
            id_prefix: format!("{:08x}-{:x}-", opener.boot, opener.current.next_arbiter()),
            ids: Cell::new(0),
        }
    }

    pub(super) fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.current.load())
    }

    pub(super) fn shards(&self, generation: &Arc<Generation>) -> Result<Rc<Shards>, Fault> {
        let mut held = self.shards.borrow_mut();
        if let Some(shards) = held.as_ref().filter(|shards| shards.generation().number == generation.number) {
            return Ok(Rc::clone(shards));
        }
        let opened = Shards::open(Arc::clone(generation), &self.adapters).map_err(|error| {
            tracing::error!(%error, "failed to open services");
            Fault::new(Code::Internal, "SERVICE_OPEN", "the gateway failed to open its services")
        })?;
        let shards = Rc::new(opened);
        *held = Some(Rc::clone(&shards));
        Ok(shards)
    }

    fn find_route(&self, head: &mut Head<'_>) -> Result<Admission, Fault> {
        if !head.is_accepted && self.current.is_draining() {
            return Err(Fault::new(Code::Unavailable, "DRAINING", "the gateway is stopping").with_retry(Retry::Same));
        }
        let generation = self.current.load();
        let found = generation.plan.table.find(head).map_err(|miss| {
            self.stats.unmatched.fetch_add(1, Ordering::Relaxed);
            no_route(&generation, head, miss)
        })?;
        let route = &generation.plan.routes[found.route];
        let entry = &route.entries[found.entry];
        for policy in &generation.routes[found.route].policies {
            policy.head(head)?;
        }
        head.context.span.record("route", &*route.name);
        let bound = entry.address().path.bind(head.path);
        let params: Record = bound.map(|(name, range)| (name.clone(), Value::from(&head.path[range]))).collect();
        let shards = self.shards(&generation)?;
        let fence = route.owner_lock(found.entry).map(|lock| self.process.singletons.begin(lock)).transpose()?;
        Ok(Admission {
            entry: Arc::clone(entry),
            params,
            request_headers: Arc::clone(&route.headers.request),
            exchange: Box::new(RouteExchange {
                shards,
                route: found.route,
                entry: found.entry,
                fence,
                is_in_turn: false,
            }),
        })
    }
}

impl Ingress for DataArbiter {
    fn admit(&self, head: &mut Head<'_>) -> Result<Admission, Fault> {
        let found = self.find_route(head);
        if let Err(fault) = &found {
            self.refused(head.listener, head.context, fault);
        }
        found
    }

    fn new_id(&self) -> ByteString {
        let number = self.ids.get();
        self.ids.set(number + 1);
        let mut id = String::with_capacity(self.id_prefix.len() + 16);
        id.push_str(&self.id_prefix);
        // Writing to a string cannot fail.
        let _ = write!(id, "{number:x}");
        id.into()
    }

    fn refused(&self, listener: &str, context: &RequestContext, fault: &Fault) {
        self.stats.refused.fetch_add(1, Ordering::Relaxed);
        self.process.faults.log(Place::Listener(listener), Some(context), fault);
    }

    fn entries(&self, listener: &str) -> Vec<Arc<dyn EntrySpec>> {
        let generation = self.current.load();
        let mut found = Vec::new();
        for route in &generation.plan.routes {
            for (at, entry) in
                route.entries.iter().enumerate().filter(|(_, entry)| entry.address().listener == listener)
            {
                if route.owner_lock(at).is_none_or(|lock| self.process.singletons.is_owned(lock)) {
                    found.push(Arc::clone(entry));
                }
            }
        }
        found
    }

    fn is_draining(&self) -> bool {
        self.current.is_draining()
    }
}

fn no_route(generation: &Generation, head: &Head<'_>, miss: Miss) -> Fault {
    match miss {
        Miss::RepeatedHeader(name) => header_twice(&name),
        Miss::Path => Fault::caller(Code::NotFound, Reason::NO_ROUTE, "no route matches this path"),
        Miss::Method => {
            let methods = generation.plan.table.methods(head);
            if methods.iter().any(|method| *method == head.method) {
                // A route has this method, but requires other headers.
                return Fault::caller(
                    Code::NotFound,
                    Reason::NO_ROUTE,
                    "no route matches this path with these headers",
                );
            }
            let allow = methods.iter().map(|method| &**method).collect::<Vec<_>>().join(", ");
            Fault::caller(Code::Unimplemented, "METHOD", "the method is not allowed at this path")
                .with_http_status(405)
                .with_detail("allow", allow)
        }
    }
}

pub(super) struct RouteExchange {
    pub(super) shards: Rc<Shards>,
    pub(super) route: usize,
    pub(super) entry: usize,
    /// The lock of the entry, if one instance of the cluster reads it at a time.
    pub(super) fence: Option<Fence>,
    /// The message comes from the queue of the route.
    pub(super) is_in_turn: bool,
}

impl Exchange for RouteExchange {
    fn refuse(self: Box<Self>, context: &RequestContext, fault: Fault) -> Outcome {
        self.count(Some(Arc::new(context.clone()))).finish(Outcome::Failed(fault), Phases::default())
    }

    fn dispatch(self: Box<Self>, message: Message) -> LocalFuture<'static, Outcome> {
        let span = message.context.as_ref().map_or_else(Span::none, |context| context.span.clone());
        if self.has_policies() {
            return traced(span, self.dispatch_by_policies(message, None));
        }
        traced(span, async move { self.follow(message).await })
    }

    fn dispatch_ordered(self: Box<Self>, message: Message, guard: Rc<OrderGuard>) -> LocalFuture<'static, Outcome> {
        if self.has_policies() {
            let span = message.context.as_ref().map_or_else(Span::none, |context| context.span.clone());
            return traced(span, self.dispatch_by_policies(message, Some(guard)));
        }
        self.dispatch(message)
    }
}

/// Runs the dispatch of a message within its span, if spans are recorded.
fn traced(span: Span, dispatch: impl Future<Output = Outcome> + 'static) -> LocalFuture<'static, Outcome> {
    if span.is_disabled() { Box::pin(dispatch) } else { Box::pin(dispatch.instrument(span)) }
}

impl RouteExchange {
    pub(super) fn route(&self) -> &RoutePlan {
        &self.shards.generation().plan.routes[self.route]
    }

    /// Begins a request in the statistics of the route.
    pub(super) fn count(&self, context: Option<Arc<RequestContext>>) -> Counted {
        Counted::begin(&self.shards.generation().routes[self.route], context)
    }

    fn has_policies(&self) -> bool {
        !self.shards.generation().routes[self.route].policies.is_empty()
    }

    /// Executes the route's steps.
    pub(super) async fn follow(&self, message: Message) -> Outcome {
        let route = self.route();
        let counted = self.count(message.context.clone());
        if let Some(name) = message.headers.repeated(&route.headers.repeatable) {
            let phases = Phases::default();
            return counted.finish(Outcome::Failed(header_twice(name)), phases);
        }
        let entry = &route.entries[self.entry];
        let request = Request { message, binding: Arc::clone(entry.binding()) };
        let now = Instant::now();
        let deadline = route.policies.deadline.of(&request.message, now);
        let budget = Mutex::new(Budget::new(deadline));
        let mut run = Run::new(&self.shards, route, &request, entry.cancels(), &budget, deadline, now);
        run.under(self.fence.clone());
        let outcome = run.execute().await;
        let phases = run.phases(Instant::now());
        run.discard();
        discard(request.message.body);
        counted.finish(outcome, phases)
    }
}
