//! `idempotency: { scope: cluster }`: messages with the same key are processed once, whichever instances they arrive at.
//!
//! A message is processed under the lock of its key. Its result is stored before it is answered, together with the release of the
//! lock, so that a duplicate which waits for the lock finds the result.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossdock_coordination::limits::{NAME_BYTES_MAX, RESULT_BYTES_MAX};
use crossdock_coordination::{Mode, Refusal, hash_of, hex_of};
use crossdock_embedded::{AcquireError, CommandError, Engine, Held, LockRequest, NewResult, Wait};
use crossdock_message::{BodyType, ByteString, Code, Fault, Retry};
use crossdock_ports::{EntrySpec, LocalFuture, Outcome};
use crossdock_routing::expression::Expression;
use crossdock_routing::{IdempotencyPolicy, RoutePlan};
use crossdock_stored::{digest, restore_outcome, store_outcome};

use tokio::sync::Semaphore;

use super::{Admitted, Answer, Arrival, Arrived, Policy, turn_timeout};
use crate::data::reply::{encode_reply, stored_within};
use crate::process::{Fence, carried_out, key_reused, not_granted};
use crate::stats::RouteStats;

/// Messages of a route that wait for their locks at a time, on an instance: it has 10 000 requests for all that it does.
const WAITING_MAX: usize = 2_000;
/// What the engine may be late by.
const GRACE: Duration = Duration::from_millis(50);
/// How long storing an answer is tried, at most and beyond the deadline of the message.
const REMEMBER_TIMEOUT: Duration = Duration::from_secs(10);
const REMEMBER_GRACE: Duration = Duration::from_millis(500);

pub(super) struct IdempotencyInCluster {
    key: Expression,
    window: Duration,
    keys_max: usize,
    route: ByteString,
    entries: Vec<Arc<dyn EntrySpec>>,
    stats: Arc<RouteStats>,
    engine: Option<Engine>,
    /// Messages that may wait for the locks of their keys at a time.
    waiting: Arc<Semaphore>,
}

impl IdempotencyInCluster {
    pub(super) fn new(
        route: &RoutePlan,
        plan: &IdempotencyPolicy,
        stats: &Arc<RouteStats>,
        engine: Option<&Engine>,
    ) -> Self {
        Self {
            key: plan.key.clone(),
            window: plan.window,
            keys_max: plan.keys_max,
            route: route.name.clone(),
            entries: route.entries.clone(),
            stats: Arc::clone(stats),
            engine: engine.cloned(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }
}

impl Policy for IdempotencyInCluster {
    fn arrive(&self, arrival: &Arrival<'_>) -> Result<Option<Box<dyn Arrived>>, Fault> {
        let Some(engine) = self.engine.clone() else {
            return Err(Fault::new(Code::Internal, "NO_CLUSTER", "the instance is not a member of a cluster"));
        };
        let key = arrival.key(&self.key, "idempotency")?;
        let entry = &self.entries[arrival.entry];
        let content = digest(&entry.address().to_string(), &arrival.request.message).map_err(|problem| {
            let message = "the message cannot be compared with others of its key";
            Fault::new(Code::Internal, "UNSTORABLE", message).with_cause(problem.to_string())
        })?;
        Ok(Some(Box::new(Once {
            engine,
            route: self.route.clone(),
            key,
            content,
            wants_reply: arrival.guard.is_none() && entry.answer().is_some(),
            permits: Arc::clone(&self.waiting),
            until: arrival.until,
            window: self.window,
            keys_max: self.keys_max,
            entry: Arc::clone(entry),
            stats: Arc::clone(&self.stats),
        })))
    }
}

/// A message that is to be processed once.
struct Once {
    engine: Engine,
    route: ByteString,
    key: ByteString,
    content: u64,
    /// Whether a caller waits for the reply.
    wants_reply: bool,
    permits: Arc<Semaphore>,
    until: Option<Instant>,
    window: Duration,
    keys_max: usize,
    entry: Arc<dyn EntrySpec>,
    stats: Arc<RouteStats>,
}

/// A name, or a digest of it if it would be too long. What is found by it is compared with the whole key.
fn shortened(name: String) -> String {
    // With room for what comes before it.
    if name.len() <= NAME_BYTES_MAX - 20 {
        return name;
    }
    hex_of(&hash_of(name.as_bytes()))
}

impl Once {
    fn group(&self) -> String {
        shortened(self.route.to_string())
    }

    /// The result of an earlier message with the key.
    fn known(&self) -> Option<Outcome> {
        let (result, content) = self.engine.result(&self.group(), &self.key)?;
        self.stats.duplicates.fetch_add(1, Ordering::Relaxed);
        if content != self.content {
            return Some(Outcome::Failed(key_reused()));
        }
        if !self.wants_reply {
            return Some(Outcome::Accepted);
        }
        let reply_type = self.entry.call_type().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
        Some(restore_outcome(result, reply_type).unwrap_or_else(|problem| {
            let message = "the message was already processed, and its result cannot be read";
            Outcome::Failed(Fault::new(Code::Internal, "OUTCOME", message).with_cause(problem.to_string()))
        }))
    }

    async fn lock(&self) -> Result<Held, Fault> {
        let _permit = self.permits.try_acquire().map_err(|_| {
            let message = "too many messages of the route wait for their turn";
            Fault::new(Code::ResourceExhausted, "TURNS", message).with_retry(Retry::Same)
        })?;
        let lock = format!("idempotency/{}", shortened(format!("{}/{}", self.route, self.key)));
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let mut request = LockRequest::new(&lock, Mode::Exclusive, left.map_or(Wait::Forever, Wait::For));
        request.metadata = format!("route {}", self.route);
        let acquired = match self.until {
            None => self.engine.acquire(&request).await,
            // An instance without a session waits for one. The engine itself says when a lock was not available in time.
            Some(until) => tokio::time::timeout_at((until + GRACE).into(), self.engine.acquire(&request))
                .await
                .unwrap_or(Err(AcquireError::Command(CommandError::TimedOut))),
        };
        acquired.map_err(|problem| match problem {
            AcquireError::NotAvailable | AcquireError::TimedOut => turn_timeout(),
            problem => not_granted(&problem.into()),
        })
    }
}

impl Arrived for Once {
    fn admit(self: Box<Self>) -> LocalFuture<'static, Result<Option<Box<dyn Admitted>>, Answer>> {
        Box::pin(async move {
            if let Some(outcome) = self.known() {
                return Err(outcome.into());
            }
            let held = self.lock().await.map_err(Outcome::Failed)?;
            // The grant comes after what the previous holder stored.
            match self.known() {
                Some(outcome) => Err(outcome.into()),
                None => Ok(Some(Box::new(Processing { message: *self, held: Arc::new(held) }) as Box<dyn Admitted>)),
            }
        })
    }
}

struct Processing {
    message: Once,
    held: Arc<Held>,
}

impl Admitted for Processing {
    /// No call begins once the lock of the key is lost.
    fn fence(&self, outer: Option<Fence>) -> Option<Fence> {
        Some(Fence::without_token(self.held.clone(), outer))
    }

    /// Stores the outcome for duplicates before it is answered. A failure is not stored, so that the next message with the key is processed.
    fn end(self: Box<Self>, outcome: &mut Outcome) -> Option<LocalFuture<'_, ()>> {
        if matches!(outcome, Outcome::Failed(_)) {
            return None;
        }
        Some(Box::pin(async move {
            if !self.message.wants_reply {
                return self.remember(&Outcome::Accepted).await;
            }
            encode_reply(outcome, &*self.message.entry).await;
            if let Outcome::Failed(fault) = &*outcome {
                // It was processed, so that this is what duplicates get as well.
                let cause = fault.cause.as_deref().and_then(|cause| cause.text.as_deref());
                let (route, reason, problem) = (&*self.message.route, fault.reason.as_str(), &*fault.message);
                tracing::error!(route, reason, problem, cause, "reply of a processed message cannot be encoded");
            }
            self.remember(outcome).await;
        }))
    }
}

impl Processing {
    async fn remember(&self, outcome: &Outcome) {
        let message = &self.message;
        let result = stored_within(outcome, RESULT_BYTES_MAX).unwrap_or_else(|_| {
            // It always can be stored.
            store_outcome(&Outcome::Failed(carried_out())).unwrap_or_default()
        });
        // Its caller may have a deadline; duplicates wait for the lock meanwhile.
        let longest = Instant::now() + REMEMBER_TIMEOUT;
        let deadline = message.until.map_or(longest, |until| longest.min(until.max(Instant::now()) + REMEMBER_GRACE));
        let result = NewResult {
            group: message.group(),
            key: message.key.to_string(),
            digest: message.content,
            window: message.window,
            keys_max: message.keys_max as u64,
            result,
        };
        let Err(problem) = self.held.remember(result, deadline.into()).await else { return };
        // The message was processed, which its caller learns all the same.
        message.stats.forgotten.fetch_add(1, Ordering::Relaxed);
        let cause = match problem {
            CommandError::Refused(Refusal::NotHeld | Refusal::NoSession) => "the lock of the key was lost".to_owned(),
            CommandError::Refused(Refusal::Full) => "the results of all routes exceed their limit".to_owned(),
            other => other.to_string(),
        };
        tracing::warn!(
            route = &*message.route,
            cause,
            "idempotency key is not remembered: a duplicate would be processed"
        );
    }
}
