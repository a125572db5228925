//! Processes one record, from its receipt to its settlement.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossdock_delivery::{Settlement, failpoint, settle};
use crossdock_message::{ByteString, Code, ConfirmedSends, Deadline, Fault, Message, RequestContext};
use crossdock_ports::{EntrySpec, Head, OrderGuard, Outcome};
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::member::Delivery;
use super::set_aside::{self, Origin};
use super::topics::Topic;
use super::{ListenerContext, ROUTES_INTERVAL, retry_backoff};
use crate::config::Entry;
use crate::mapping;
use crate::received::{ReceivedRecord, TypedValue};
use crate::registry::unusable;
use crate::transaction::Participant;

/// How long a record waits after its handler panicked.
const PANIC_DELAY: Duration = Duration::from_secs(1);

/// Processes an admitted record until it is settled, or its partition is being revoked; returns whether it is settled. Its offset is committed first
/// if it `is_at_most_once`, whatever the current route says: that was decided when it was admitted, as was that its offset is not stored.
pub(super) async fn handle(context: &Rc<ListenerContext>, delivery: &Delivery, is_at_most_once: bool) -> bool {
    let Some(handler) = Handler::begin(context, delivery).await else { return false };
    loop {
        match AssertUnwindSafe(handler.process(is_at_most_once)).catch_unwind().await {
            Ok(is_settled) => return is_settled,
            Err(_) => {
                tracing::error!(topic = %delivery.record.topic, "record handler panicked; retrying");
                if !Box::pin(handler.sleep(PANIC_DELAY)).await {
                    return false;
                }
            }
        }
    }
}

pub(super) fn entry(spec: &dyn EntrySpec) -> Option<&Entry> {
    spec.as_any().downcast_ref()
}

/// The current routes do not consume the topic.
pub(super) struct NotRouted;

pub(super) struct Handler<'h> {
    pub(super) context: &'h Rc<ListenerContext>,
    /// The entry when the record was started.
    spec: Arc<dyn EntrySpec>,
    pub(super) delivery: &'h Delivery,
    permits: Arc<Semaphore>,
    /// Released while the record waits for its next attempt, so that others can be processed.
    permit: RefCell<Option<OwnedSemaphorePermit>>,
    received_at: Instant,
    /// The id that the gateway assigned at the first attempt; the same for every attempt here.
    id: OnceCell<ByteString>,
    /// Its part of the open transaction, if it is processed in one.
    pub(super) participant: RefCell<Option<Arc<Participant>>>,
    /// What was sent for it in all attempts.
    sends: Arc<ConfirmedSends>,
}

impl<'h> Handler<'h> {
    /// Begins to process a record, once `concurrency` allows; `None` if it is left to the next owner of its partition.
    pub(super) async fn begin(context: &'h Rc<ListenerContext>, delivery: &'h Delivery) -> Option<Self> {
        let Topic { spec, permits, .. } = context.topics.get(&delivery.record.topic)?;
        if !set_aside::wait_until_due(entry(&*spec)?, delivery).await {
            return None;
        }
        let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
        if !context.member.assignment().begin(&delivery.id) {
            return None;
        }
        failpoint("kafka.received");
        Some(Handler {
            context,
            spec,
            delivery,
            permits,
            permit: RefCell::new(Some(permit)),
            received_at: Instant::now(),
            id: OnceCell::new(),
            participant: RefCell::default(),
            sends: Arc::default(),
        })
    }
}

impl Handler<'_> {
    pub(super) fn record(&self) -> &ReceivedRecord {
        &self.delivery.record
    }

    /// The entry of the current route, which may have changed since the last attempt.
    pub(super) fn current_spec(&self) -> Arc<dyn EntrySpec> {
        self.context.topics.get(&self.record().topic).map_or_else(|| Arc::clone(&self.spec), |topic| topic.spec)
    }

    /// Where the record was first received, if it comes from a retry topic.
    pub(super) fn origin(&self) -> Option<Origin> {
        Origin::of(self.record(), &entry(&*self.spec)?.retry_topics)
    }

    /// Processes the record; returns whether it is settled.
    async fn process(&self, is_at_most_once: bool) -> bool {
        let spec = self.current_spec();
        let Some(entry) = entry(&*spec) else { return false };
        // Boxed, here and below: the task of each record would be as large as its rarest case.
        if (is_at_most_once || !entry.reply_to.is_empty()) && !Box::pin(self.schema_known(entry)).await {
            return false;
        }
        if is_at_most_once && !Box::pin(self.commit()).await {
            return false;
        }
        match (entry.reply_address(self.record()), is_at_most_once) {
            (Ok(None), false) => self.process_with_retries().await,
            (Ok(None), true) => Box::pin(self.process_once()).await,
            (Ok(Some(address)), _) => Box::pin(self.process_request(entry, &address)).await,
            (Err(fault), _) => Box::pin(self.reject(&fault, &entry.reject_policy, 1)).await,
        }
    }

    /// Commits the offset of a record that is processed at most once; `false` if its partition is being revoked.
    async fn commit(&self) -> bool {
        let (topic, partition, offset) = (&self.record().topic, self.record().partition, self.record().offset);
        let mut backoff = retry_backoff();
        loop {
            match self.context.commits.commit(&self.delivery.id).await {
                Ok(()) => return true,
                Err(error) => tracing::warn!(%topic, partition, offset, %error, "offset not committed; retrying"),
            }
            if !backoff.wait(self.delivery.stop.cancelled()).await {
                return false;
            }
        }
    }

    /// Processes a record whose offset is committed.
    async fn process_once(&self) -> bool {
        let (topic, partition, offset) = (&self.record().topic, self.record().partition, self.record().offset);
        match self.dispatch(None).await {
            Ok(Outcome::Failed(fault)) => {
                tracing::warn!(%topic, partition, offset, code = %fault.code, reason = %fault.reason, "record failed; not retried");
            }
            Err(NotRouted) => tracing::warn!(%topic, partition, offset, "record dropped: its route was removed"),
            Ok(_) => {}
        }
        true
    }

    /// Retries the record until it succeeds or is rejected.
    async fn process_with_retries(&self) -> bool {
        let (mut counted_attempts, mut attempts) = (self.origin().map_or(0, |origin| origin.attempts), 0);
        let guard = Rc::new(OrderGuard::new(self.delivery.id.assignment));
        loop {
            let spec = self.current_spec();
            if attempts > 0
                && let Some(entry) = entry(&*spec)
                && !matches!(entry.reply_address(self.record()), Ok(None))
            {
                // The entry takes it for a request now.
                return Box::pin(self.process(false)).await;
            }
            let Ok(outcome) = self.dispatch(Some(&guard)).await else {
                // The route may come back before its partitions are revoked.
                if !Box::pin(self.sleep(ROUTES_INTERVAL)).await {
                    return false;
                }
                continue;
            };
            attempts += 1;
            let spec = self.current_spec();
            let Some(entry) = entry(&*spec) else { return false };
            match settle(outcome, &entry.retry, counted_attempts + 1, attempts) {
                Settlement::Acknowledge => {
                    guard.settled();
                    return true;
                }
                Settlement::Reject(fault) => {
                    let is_settled = Box::pin(self.reject(&fault, &entry.reject_policy, counted_attempts + 1)).await;
                    if is_settled {
                        guard.settled();
                    }
                    return is_settled;
                }
                Settlement::Retry { delay, counts, fault } => {
                    counted_attempts += u32::from(counts);
                    let is_movable = !entry.retry_topics.is_empty();
                    if is_movable && Box::pin(self.move_to_retry_topic(entry, &fault, counted_attempts)).await {
                        guard.settled();
                        return true;
                    }
                    if !Box::pin(self.sleep(delay)).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits without a permit; `false` if the partition is being revoked.
    pub(super) async fn sleep(&self, time: Duration) -> bool {
        self.permit.take();
        let waiting = async {
            tokio::time::sleep(time).await;
            // The semaphore is never closed.
            *self.permit.borrow_mut() = Arc::clone(&self.permits).acquire_owned().await.ok();
        };
        tokio::select! {
            biased;
            () = self.delivery.stop.cancelled() => false,
            () = waiting => true,
        }
    }

    pub(super) async fn dispatch(&self, guard: Option<&Rc<OrderGuard>>) -> Result<Outcome, NotRouted> {
        match AssertUnwindSafe(self.try_dispatch(guard)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!(topic = %self.record().topic, "route panicked");
                Ok(Outcome::Failed(Fault::new(Code::Internal, "PANIC", "the gateway failed to process the record")))
            }
        }
    }

    async fn try_dispatch(&self, guard: Option<&Rc<OrderGuard>>) -> Result<Outcome, NotRouted> {
        let record = self.record();
        let spec = self.current_spec();
        // A record of a retry topic belongs to the entry that consumes it, whatever topic it came from.
        let path = mapping::topic_path(entry(&*spec).map_or(&record.topic, |entry| &entry.topic));
        let origin = self.origin();
        let time = origin.as_ref().map_or(record.timestamp, |origin| origin.timestamp);
        let id = origin.map_or_else(|| record.position(), |origin| origin.position);
        let mut context = self.request_context();
        let listener = &self.context.name;
        let mut head = Head {
            context: &mut context,
            listener,
            method: mapping::CONSUME,
            path: &path,
            headers: record,
            // What may begin during a stop was decided before.
            is_accepted: true,
        };
        let admission = match self.context.ingress.admit(&mut head) {
            Ok(admission) => admission,
            Err(fault) if matches!(fault.code, Code::NotFound | Code::Unimplemented) => return Err(NotRouted),
            Err(fault) => return Ok(Outcome::Failed(fault)),
        };
        failpoint("kafka.routed");
        let spec = Arc::clone(&admission.entry);
        let entry = entry(&*spec).ok_or(NotRouted)?;
        let context = Arc::new(context);
        if record.value.as_ref().is_some_and(|value| value.len() as u64 > entry.body_len_max) {
            let problem = format!("the value exceeds the limit of {} bytes", entry.body_len_max);
            let fault = Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", problem);
            return Ok(admission.exchange.refuse(&context, fault));
        }
        let headers = &admission.request_headers;
        let typed = match Box::pin(self.typed(entry)).await {
            Ok(typed) => typed,
            Err(fault) => return Ok(admission.exchange.refuse(&context, fault)),
        };
        let message = mapping::request(record, (id, time), &context, listener, headers, entry, typed);
        match message.and_then(|message| with_deadline(message, record, entry)) {
            Ok(message) => Ok(match guard {
                Some(guard) => admission.exchange.dispatch_ordered(message, Rc::clone(guard)).await,
                None => admission.exchange.dispatch(message).await,
            }),
            Err(fault) => Ok(admission.exchange.refuse(&context, fault)),
        }
    }

    /// The value with its type, if a schema registry knows it.
    async fn typed(&self, entry: &Entry) -> Result<Option<TypedValue>, Fault> {
        let (Some(access), Some(value)) = (&entry.registry, &self.record().value) else { return Ok(None) };
        let registry = self.context.registry(access)?;
        tokio::select! {
            biased;
            typed = registry.read(value) => typed.map(Some),
            () = self.delivery.stop.cancelled() => Err(unusable("the partition is being revoked")),
        }
    }

    /// Waits until the registry can be asked for the schema of a record that is processed once: an outage must not lose it. `false` if its partition is
    /// being revoked.
    async fn schema_known(&self, entry: &Entry) -> bool {
        let (topic, partition, offset) = (&self.record().topic, self.record().partition, self.record().offset);
        let mut backoff = retry_backoff();
        loop {
            match self.typed(entry).await {
                Err(fault) if fault.code == Code::Unavailable => {
                    tracing::warn!(%topic, partition, offset, reason = %fault.reason, "schema of a record unknown; retrying");
                }
                // Whatever else is wrong with it is the outcome of the record.
                _ => return true,
            }
            if !backoff.wait(self.delivery.stop.cancelled()).await {
                return false;
            }
        }
    }

    /// The context of one attempt. The id is that of the first attempt.
    fn request_context(&self) -> RequestContext {
        let id = self.id.get_or_init(|| self.context.ingress.new_id()).clone();
        let mut context = RequestContext::new(id, self.received_at);
        context.trace = mapping::trace(self.record());
        context.transaction =
            self.participant.borrow().clone().map(|participant| participant as Arc<dyn Any + Send + Sync>);
        if context.transaction.is_none() {
            self.sends.begin_attempt();
            context.sends = Some(Arc::clone(&self.sends));
        }
        context.span = tracing::debug_span!("request", protocol = "kafka", listener = %self.context.name, id = %context.id, route = tracing::field::Empty);
        context
    }
}

/// Sets the deadline of a request.
fn with_deadline(mut message: Message, record: &ReceivedRecord, entry: &Entry) -> Result<Message, Fault> {
    if entry.reply_address(record)?.is_some() {
        #[expect(clippy::disallowed_methods, reason = "only the wall clock tells how old a record is")]
        let now = SystemTime::now();
        let left = mapping::time_left(record, now)?;
        message.deadline = left.and_then(|left| Instant::now().checked_add(left)).map(Deadline::at);
    }
    Ok(message)
}
