//! What a route does by the key of each message: one after another, and each once.
//!
//! All of it is of the whole process and outlives generations, so that a reload changes no order and forgets nothing.

mod lanes;
mod window;

use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crossdock_adapter_api::{Hold, Outcome, Turn};
use crossdock_message::{Body, ByteString, Code, Deadline, Fault, Limits, Message, Retry};
use crossdock_routing::expression::{Expression, Meter, Request, Scope};
use crossdock_routing::{IdempotencyPlan, RoutePlan};

use self::lanes::{Lane, Lanes};
use self::window::{Known, Window};
use super::counted::Counted;
use super::ingress::RouteExchange;
use super::steps::deadline_of;
use crate::host::SystemHost;
use crate::stats::Phases;

/// Bytes of a key.
const KEY_LEN_MAX: usize = 512;

/// The keys of one route.
#[derive(Debug, Default)]
pub(crate) struct Keyed {
    /// Messages that wait for those before them.
    order: Arc<Lanes>,
    /// Messages that wait for another of the same key.
    twins: Arc<Lanes>,
    window: Window,
    hasher: RandomState,
}

/// The key of a message.
///
/// # Errors
/// INVALID_ARGUMENT where there is none, or it is too long.
fn key_of(expression: &Expression, what: &str, scope: &Scope<'_>) -> Result<ByteString, Fault> {
    let text = expression.evaluate_optional(scope)?.and_then(|value| value.scalar_text());
    let problem = match &text {
        Some(text) if text.is_empty() => "is empty",
        Some(text) if text.len() > KEY_LEN_MAX => "is longer than 512 bytes",
        Some(_) => "",
        None => "is not there",
    };
    match text.filter(|_| problem.is_empty()) {
        // A copy: what is read from a body holds the whole body.
        Some(text) => Ok(ByteString::from(&*text)),
        None => {
            let message = format!("the key of `{what}`, `{}`, {problem}", expression.source());
            Err(Fault::caller(Code::InvalidArgument, "KEY", message))
        }
    }
}

/// A message that has a key.
struct Asked<'m> {
    message: &'m Message,
    /// The route's entry that it came by.
    entry: usize,
    /// Somebody waits for what comes of it.
    wants_reply: bool,
}

/// A message that is the only one of its key that is carried out now.
struct Only {
    keyed: Arc<Keyed>,
    key: ByteString,
    content: u64,
    lane: Lane,
}

impl Keyed {
    /// Forgets which messages were carried out.
    pub(crate) fn forget(&self) {
        self.window.clear();
    }

    /// Waits until no other message of the key is carried out.
    ///
    /// # Errors
    /// The outcome of a message that was the same. RESOURCE_EXHAUSTED where too many wait. INVALID_ARGUMENT where the key is that of
    /// a message that was another.
    async fn only(self: Arc<Self>, key: ByteString, asked: &Asked<'_>) -> Result<Only, Outcome> {
        let content = self.content(asked);
        let place = self.twins.enter(&key, None).map_err(Outcome::Failed)?;
        let lane = place.await.map_err(|_| Outcome::Failed(lanes::broken()))?;
        match self.window.get(&key, Instant::now()) {
            None => Ok(Only { keyed: self, key, content, lane }),
            Some(known) => {
                lane.done();
                Err(known.outcome(content, asked.wants_reply))
            }
        }
    }

    /// What tells a message from another of the same key.
    fn content(&self, asked: &Asked<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let message = asked.message;
        (asked.entry, message.content_type.as_deref()).hash(&mut hasher);
        match &message.body {
            Body::Empty => 0_u8.hash(&mut hasher),
            Body::Raw { chunks, .. } => (1_u8, &chunks.to_bytes()[..]).hash(&mut hasher),
            Body::Value(value) => (2_u8, format!("{value:?}")).hash(&mut hasher),
            Body::Stream(_) => 3_u8.hash(&mut hasher),
        }
        for (name, value) in message.headers.iter() {
            (&**name, &**value).hash(&mut hasher);
        }
        for (name, value) in message.params.iter() {
            (&**name, format!("{value:?}")).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Only {
    /// The message was carried out: its outcome is that of all that come with its key from now on. A failure is forgotten, so that
    /// the next may do better.
    fn finish(self, plan: &IdempotencyPlan, outcome: &Outcome) {
        let Self { keyed, key, content, lane } = self;
        if let Some(known) = Known::of(outcome, content) {
            keyed.window.put(key, known, plan.window, plan.keys_max, Instant::now());
        }
        lane.done();
    }
}

impl Hold for Lane {
    fn done(self: Box<Self>) {
        Lane::done(*self);
    }
}

impl RouteExchange {
    /// Follows a route that does something by key. Nothing is awaited before the message has its place in the order.
    pub(super) async fn keyed(self: Box<Self>, message: Message, turn: Option<Rc<Turn>>) -> Outcome {
        let now = Instant::now();
        let generation = Arc::clone(self.shards.generation());
        let (route, keyed) = (&generation.plan.routes[self.route], &generation.keyed[self.route]);
        let request = Request { message, binding: Arc::clone(route.entries[self.entry].binding()) };
        let (order, only) = match keys(route, &request, &generation.limits) {
            Ok(keys) => keys,
            Err(fault) => return self.failed(fault),
        };
        let place = match order.filter(|_| !turn.as_ref().is_some_and(|turn| turn.is_held())) {
            None => None,
            Some(key) => match keyed.order.enter(&key, turn.as_ref().map(|turn| turn.source())) {
                Ok(place) => Some(place),
                Err(fault) => return self.failed(fault),
            },
        };
        let mut message = request.message;
        // Whoever waits for an answer waits for a turn as well; a message of a queue has its time once it has its turn.
        let until = match (&turn, message.deadline) {
            (None, None) => Some(now + route.deadline_default),
            (None, Some(deadline)) => Some(deadline.instant().min(now + route.deadline_max)),
            (Some(_), _) => None,
        };
        if let Some(until) = until {
            message.deadline = Some(Deadline::at(until));
        }
        let lane = match place {
            None => None,
            Some(place) => match until {
                None => Some(place.await),
                Some(until) => match tokio::time::timeout_at(until.into(), place).await {
                    Ok(lane) => Some(lane),
                    Err(_) => return self.failed(late()),
                },
            },
        };
        let own = match (lane, &turn) {
            (None, _) => None,
            (Some(Err(_)), _) => return self.failed(lanes::broken()),
            (Some(Ok(lane)), Some(turn)) => {
                turn.hold(Box::new(lane));
                None
            }
            (Some(Ok(lane)), None) => Some(lane),
        };
        let (keyed, wants_reply) = (Arc::clone(keyed), turn.is_none());
        let Some(lane) = own else { return self.in_turn(only, message, keyed, wants_reply).await };
        // It goes on where its caller leaves: what comes after it has to come after its end.
        let carrying_out = actix_rt::spawn(async move {
            let outcome = self.in_turn(only, message, keyed, wants_reply).await;
            lane.done();
            outcome
        });
        carrying_out.await.unwrap_or_else(panicked)
    }

    async fn in_turn(
        self: Box<Self>,
        only: Option<ByteString>,
        message: Message,
        keyed: Arc<Keyed>,
        wants_reply: bool,
    ) -> Outcome {
        match only {
            None => self.follow(message).await,
            Some(key) => self.once(key, message, keyed, wants_reply).await,
        }
    }

    /// Carries a message out that was not carried out before. It goes on where its caller leaves, so that what came of it is known.
    async fn once(self: Box<Self>, key: ByteString, message: Message, keyed: Arc<Keyed>, wants_reply: bool) -> Outcome {
        let until = message.deadline.map(Deadline::instant);
        let asked = Asked { message: &message, entry: self.entry, wants_reply };
        let waiting = keyed.only(key, &asked);
        let only = match until {
            None => waiting.await,
            Some(until) => match tokio::time::timeout_at(until.into(), waiting).await {
                Ok(only) => only,
                Err(_) => return self.failed(late()),
            },
        };
        let only = match only {
            Ok(only) => only,
            Err(outcome) => return self.without_steps(outcome),
        };
        let carrying_out = actix_rt::spawn(async move {
            let outcome = self.follow(message).await;
            if let Some(plan) = &self.route().idempotency {
                only.finish(plan, &outcome);
            }
            outcome
        });
        carrying_out.await.unwrap_or_else(panicked)
    }

    fn failed(&self, fault: Fault) -> Outcome {
        self.without_steps(Outcome::Failed(fault))
    }

    /// The outcome of a message that did not get to the steps; it counts as one all the same.
    fn without_steps(&self, outcome: Outcome) -> Outcome {
        Counted::begin(&self.shards.generation().routes[self.route]).finish(outcome, Phases::default())
    }
}

type Keys = (Option<ByteString>, Option<ByteString>);

/// The keys of a message: for the order, and for being carried out once.
fn keys(route: &RoutePlan, request: &Request, limits: &Limits) -> Result<Keys, Fault> {
    let meter = Meter::new(deadline_of(route, &request.message, Instant::now()));
    let scope = Scope {
        request,
        current: &request.message,
        reply: None,
        variables: &[],
        item: None,
        host: &SystemHost,
        meter: &meter,
        limits,
    };
    let order = route.order.as_ref().map(|by| key_of(by, "order", &scope)).transpose()?;
    let only = route.idempotency.as_ref().map(|plan| key_of(&plan.key, "idempotency", &scope)).transpose()?;
    Ok((order, only))
}

fn panicked<E>(_: E) -> Outcome {
    Outcome::Failed(Fault::new(Code::Internal, "PANIC", "the gateway failed on this message"))
}

fn late() -> Fault {
    let message = "the time was spent waiting for the messages before this one";
    Fault::new(Code::DeadlineExceeded, "TURN", message).with_retry(Retry::Same)
}
