//! `idempotency`: messages with the same key are processed once by this instance.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossdock_message::{Body, ByteString, Fault};
use crossdock_ports::{LocalFuture, Outcome};
use crossdock_routing::IdempotencyPolicy;
use crossdock_routing::expression::Expression;

use super::{Admitted, Answer, Arrival, Arrived, Policy, wait_until};
use crate::process::{DedupEntry, KeyLock, RouteState, predecessor_redelivered};
use crate::stats::RouteStats;

pub(super) struct Idempotency {
    key: Expression,
    window: Duration,
    keys_max: usize,
    state: Arc<RouteState>,
    stats: Arc<RouteStats>,
}

impl Idempotency {
    pub(super) fn new(plan: &IdempotencyPolicy, state: &Arc<RouteState>, stats: &Arc<RouteStats>) -> Self {
        let (window, keys_max) = (plan.window, plan.keys_max);
        Self { key: plan.key.clone(), window, keys_max, state: Arc::clone(state), stats: Arc::clone(stats) }
    }

    /// A hash that distinguishes a duplicate from another message with the same key.
    fn content(&self, arrival: &Arrival<'_>) -> u64 {
        let mut hasher = self.state.hasher.build_hasher();
        let message = &arrival.request.message;
        (arrival.entry, message.content_type.as_deref()).hash(&mut hasher);
        match &message.body {
            Body::Empty => 0_u8.hash(&mut hasher),
            Body::Raw { chunks, .. } => (1_u8, &chunks.to_bytes()[..]).hash(&mut hasher),
            Body::Value(value) => (2_u8, format!("{value:?}")).hash(&mut hasher),
            Body::Stream(_) => 3_u8.hash(&mut hasher),
            Body::Null => 4_u8.hash(&mut hasher),
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

impl Policy for Idempotency {
    fn arrive(&self, arrival: &Arrival<'_>) -> Result<Option<Box<dyn Arrived>>, Fault> {
        Ok(Some(Box::new(Waiting {
            key: arrival.key(&self.key, "idempotency")?,
            content: self.content(arrival),
            wants_reply: arrival.guard.is_none(),
            until: arrival.until,
            window: self.window,
            keys_max: self.keys_max,
            state: Arc::clone(&self.state),
            stats: Arc::clone(&self.stats),
        })))
    }
}

struct Waiting {
    key: ByteString,
    content: u64,
    /// Whether a caller waits for the reply.
    wants_reply: bool,
    until: Option<Instant>,
    window: Duration,
    keys_max: usize,
    state: Arc<RouteState>,
    stats: Arc<RouteStats>,
}

impl Waiting {
    /// Waits until no other message with the key is in flight. Joins the queue only now that the message holds its `order` lock: otherwise
    /// two messages could wait for each other.
    async fn lock(&self) -> Result<KeyLock, Fault> {
        let ticket = self.state.duplicates.join(&self.key, None)?;
        wait_until(self.until, ticket).await?.map_err(|_| predecessor_redelivered())
    }
}

impl Arrived for Waiting {
    fn admit(self: Box<Self>) -> LocalFuture<'static, Result<Option<Box<dyn Admitted>>, Answer>> {
        Box::pin(async move {
            let lock = self.lock().await.map_err(Outcome::Failed)?;
            match self.state.processed.get(&self.key, Instant::now()) {
                None => Ok(Some(Box::new(Processing { message: *self, lock }) as Box<dyn Admitted>)),
                Some(entry) => {
                    lock.settled();
                    self.stats.duplicates.fetch_add(1, Ordering::Relaxed);
                    Err(entry.outcome(self.content, self.wants_reply).into())
                }
            }
        })
    }
}

struct Processing {
    message: Waiting,
    lock: KeyLock,
}

impl Admitted for Processing {
    /// Stores the outcome for duplicates. A failure is not stored, so that the next message with the key is processed.
    fn end(self: Box<Self>, outcome: &mut Outcome) -> Option<LocalFuture<'_, ()>> {
        let Self { message, lock } = *self;
        if let Some(entry) = DedupEntry::of(outcome, message.content) {
            message.state.processed.put(message.key, entry, message.window, message.keys_max, Instant::now());
        }
        lock.settled();
        None
    }
}
