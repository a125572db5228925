//! Processes one delivery, from its receipt to its settlement.

use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_delivery::{Settlement, cycle_delay, failpoint, settle};
use crossdock_message::{BodyType, ByteString, Code, ConfirmedSends, Fault, Message, RequestContext};
use crossdock_offload::encode_and_take_body;
use crossdock_ports::{EntrySpec, Head, OrderGuard, Outcome};
use crossdock_transport::bodies::Reservation;
use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{Acker, BasicProperties};
use tokio_util::sync::CancellationToken;

use super::{ListenerContext, retry_backoff};
use crate::config::{Entry, RejectPolicy};
use crate::error::unconfirmed;
use crate::mapping::{self, DeliveryFields};
use crate::publisher::Publication;
use crate::publisher::replies::DIRECT_REPLY_PREFIX;
use crate::reason;

/// Prefixes of queues that the broker names for a requester; any request may name them in `reply_to`.
const PRIVATE_REPLY_QUEUES: [&str; 2] = [DIRECT_REPLY_PREFIX, "amq.gen-"];
/// Attempts to send a reply whose outcome is unknown or whose failure it may have caused.
const REPLY_ATTEMPTS_MAX: u32 = 5;
/// For sending a settlement to the broker.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop waits for a publisher confirm.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a delivery without a route waits for its consumer to stop; longer than the interval at which route changes are detected.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Context for processing a delivery.
pub(super) struct DeliveryHandler {
    pub(super) listener: Rc<ListenerContext>,
    pub(super) spec: Arc<dyn EntrySpec>,
    pub(super) stop: CancellationToken,
    /// The channel id, unique within the process.
    pub(super) source: u64,
}

/// Processes a delivery until it is settled or can no longer be settled.
pub(super) async fn handle(handler: DeliveryHandler, delivery: Delivery) {
    let Some(entry) = handler.spec.as_any().downcast_ref::<Entry>() else { return };
    failpoint("amqp.received");
    let Delivery { data, properties, acker, redelivered, .. } = delivery;
    let received = ReceivedMessage {
        entry,
        properties,
        reservation: Reservation::forced(data.len()),
        body: Bytes::from(data),
        acker,
        redelivered,
        received_at: Instant::now(),
        id: OnceCell::new(),
        sends: Arc::default(),
    };
    let disposition = AssertUnwindSafe(handler.process(&received)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(queue = %entry.queue, "delivery handler panicked; message requeued");
        Disposition::Requeue
    });
    failpoint("amqp.decided");
    let settling = async {
        match disposition {
            Disposition::Settled | Disposition::LeaveUnsettled => Ok(true),
            Disposition::Acknowledge => received.acker.ack(BasicAckOptions::default()).await,
            Disposition::Requeue => received.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await,
            Disposition::Nack => received.acker.nack(BasicNackOptions { requeue: false, multiple: false }).await,
        }
    };
    if !matches!(tokio::time::timeout(SETTLE_TIMEOUT, settling).await, Ok(Ok(true))) {
        tracing::debug!(queue = %entry.queue, "delivery not settled: channel closed; message will be redelivered");
    }
    failpoint("amqp.settled");
}

/// A received message that is not settled yet.
struct ReceivedMessage<'e> {
    entry: &'e Entry,
    properties: BasicProperties,
    body: Bytes,
    /// The memory of its body, reserved through all attempts.
    #[expect(dead_code, reason = "releases the memory when dropped")]
    reservation: Reservation,
    acker: Acker,
    redelivered: bool,
    received_at: Instant,
    /// The id that the gateway assigned at the first attempt; the same for every attempt here.
    id: OnceCell<ByteString>,
    /// What was sent for it in all attempts.
    sends: Arc<ConfirmedSends>,
}

impl ReceivedMessage<'_> {
    /// The queue for the reply.
    fn reply_to(&self) -> Option<&ShortString> {
        self.properties.reply_to().as_ref().filter(|queue| !queue.as_str().is_empty())
    }

    /// Earlier deliveries that the broker counted (quorum queues). On a first delivery, the header can only come from the sender.
    fn prior_deliveries(&self) -> u32 {
        let count = self.properties.headers().as_ref().and_then(|table| table.inner().get("x-delivery-count"));
        match count.filter(|_| self.redelivered) {
            Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).unwrap_or(0),
            Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or(0),
            _ => 0,
        }
    }
}

/// What to do with a delivery.
enum Disposition {
    /// Nothing: it is already settled.
    Settled,
    Acknowledge,
    /// Leave it unsettled: the channel is about to be closed, and then all its deliveries are redelivered together. Requeued individually,
    /// it could be redelivered ahead of its predecessors.
    LeaveUnsettled,
    /// Requeue it now.
    Requeue,
    /// Nack it without requeue: the policy of the queue applies.
    Nack,
}

/// The current routes no longer consume the queue.
struct NotRouted;

impl DeliveryHandler {
    async fn process(&self, received: &ReceivedMessage<'_>) -> Disposition {
        if received.reply_to().is_some() {
            self.process_request(received).await
        } else if received.entry.is_at_most_once {
            self.process_at_most_once(received).await
        } else {
            self.process_with_retries(received).await
        }
    }

    /// Processes a message at most once: it is acknowledged first.
    async fn process_at_most_once(&self, received: &ReceivedMessage<'_>) -> Disposition {
        let queue = &received.entry.queue;
        if received.redelivered {
            // Its acknowledgement may have been lost after it was processed.
            tracing::warn!(%queue, "message redelivered, may have been processed; dropped");
            return Disposition::Acknowledge;
        }
        let acknowledged = tokio::time::timeout(SETTLE_TIMEOUT, received.acker.ack(BasicAckOptions::default())).await;
        if matches!(acknowledged, Ok(Ok(true)))
            && let Ok(Outcome::Failed(fault)) = self.dispatch(received, None).await
        {
            tracing::warn!(%queue, code = %fault.code, reason = %fault.reason, "message failed; not retried");
        }
        Disposition::Settled
    }

    /// Processes a message: retries it until it succeeds or is rejected.
    async fn process_with_retries(&self, received: &ReceivedMessage<'_>) -> Disposition {
        let mut counted_attempts = received.prior_deliveries();
        let mut attempts = 0;
        // An invalid expiration is reported by the first attempt.
        let expiry = mapping::expiry(&received.properties, received.received_at).ok().flatten();
        let guard = Rc::new(OrderGuard::new(self.source));
        loop {
            if self.stop.is_cancelled() {
                // Its predecessors may have been left unsettled already.
                return Disposition::LeaveUnsettled;
            }
            attempts += 1;
            let Ok(outcome) = self.dispatch(received, Some(&guard)).await else { return self.wait_for_release().await };
            let settlement = match settle(outcome, &received.entry.retry, counted_attempts + 1, attempts) {
                // Report why the last attempt failed, rather than that the message expired.
                Settlement::Retry { delay, fault, .. } if expiry.is_some_and(|at| at <= Instant::now() + delay) => {
                    Settlement::Reject(fault)
                }
                other => other,
            };
            match settlement {
                Settlement::Acknowledge => {
                    guard.settled();
                    return Disposition::Acknowledge;
                }
                Settlement::Reject(fault) => {
                    let disposition = self.reject(received, &fault, counted_attempts + 1).await;
                    if !matches!(disposition, Disposition::LeaveUnsettled) {
                        guard.settled();
                    }
                    return disposition;
                }
                Settlement::Retry { delay, counts, .. } => {
                    counted_attempts += u32::from(counts);
                    tokio::select! {
                        () = self.stop.cancelled() => return Disposition::LeaveUnsettled,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
            if !received.acker.usable() {
                // The broker has redelivered it to another consumer.
                return Disposition::LeaveUnsettled;
            }
        }
    }

    /// Waits for this consumer to stop, which follows from the change of the routes.
    async fn wait_for_release(&self) -> Disposition {
        match tokio::time::timeout(RELEASE_TIMEOUT, self.stop.cancelled()).await {
            Ok(()) => Disposition::LeaveUnsettled,
            Err(_) => Disposition::Requeue,
        }
    }

    /// Processes a request. It is executed once, even if its reply is sent several times.
    async fn process_request(&self, received: &ReceivedMessage<'_>) -> Disposition {
        let entry = received.entry;
        let Some(queue) = received.reply_to().filter(|queue| is_reply_allowed(queue.as_str(), entry)) else {
            let problem = "the `reply_to` of the message is not listed in `reply_to` of the route";
            return self.reject(received, &Fault::caller(Code::PermissionDenied, "REPLY_TO", problem), 1).await;
        };
        let Ok(outcome) = self.dispatch(received, None).await else { return self.wait_for_release().await };
        let reply = match outcome {
            Outcome::Replied(message) => encode_reply(entry, message).await,
            Outcome::Accepted => encode_reply(entry, Message::new(String::new().into(), String::new().into())).await,
            Outcome::Failed(fault) => mapping::fault_reply(&fault),
        };
        self.send_reply(received, queue, reply).await
    }

    async fn send_reply(
        &self,
        received: &ReceivedMessage<'_>,
        queue: &ShortString,
        reply: (BasicProperties, Bytes),
    ) -> Disposition {
        let with_id = |properties: BasicProperties| match received.properties.correlation_id() {
            Some(id) => properties.with_correlation_id(id.clone()),
            None => properties,
        };
        let (mut properties, mut body) = (with_id(reply.0), reply.1);
        let mut backoff = retry_backoff();
        let mut unconfirmed = 0;
        let mut is_replaced = false;
        loop {
            let publication =
                Publication { key: queue.clone(), mandatory: true, properties: properties.clone(), body: body.clone() };
            match self.publish_with_stop_grace(self.listener.replies.publish(publication)).await {
                Ok(()) => return Disposition::Acknowledge,
                // The requester is gone.
                Err(fault) if fault.reason == reason::UNROUTABLE => return Disposition::Acknowledge,
                Err(fault) if [reason::REFUSED, reason::HEADERS_TOO_LARGE].contains(&fault.reason) && !is_replaced => {
                    // The request was executed: tell the requester that its reply cannot be delivered.
                    let fault = Fault::new(Code::Internal, "ANSWER_REFUSED", "the broker refuses the reply");
                    let (fault_properties, fault_body) = mapping::fault_reply(&fault);
                    (properties, body) = (with_id(fault_properties), fault_body);
                    is_replaced = true;
                    continue;
                }
                Err(fault) if [reason::REFUSED, reason::REPLY_ADDRESS].contains(&fault.reason) => {
                    return self.reject(received, &fault, 1).await;
                }
                Err(fault)
                    if fault.reason == reason::UNCONFIRMED
                        || !matches!(fault.code, Code::Unavailable | Code::ResourceExhausted) =>
                {
                    unconfirmed += 1;
                    if unconfirmed == REPLY_ATTEMPTS_MAX {
                        tracing::warn!(queue = %received.entry.queue, problem = %fault, "reply dropped after repeated failures");
                        return Disposition::Acknowledge;
                    }
                }
                Err(_) => {}
            }
            if !backoff.wait(self.stop.cancelled()).await || !received.acker.usable() {
                return Disposition::LeaveUnsettled;
            }
        }
    }

    async fn dispatch(
        &self,
        received: &ReceivedMessage<'_>,
        guard: Option<&Rc<OrderGuard>>,
    ) -> Result<Outcome, NotRouted> {
        let dispatching = AssertUnwindSafe(self.try_dispatch(received, guard)).catch_unwind();
        match dispatching.await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!(queue = %received.entry.queue, "route panicked");
                Ok(Outcome::Failed(Fault::new(Code::Internal, "PANIC", "the gateway failed to process the message")))
            }
        }
    }

    async fn try_dispatch(
        &self,
        received: &ReceivedMessage<'_>,
        guard: Option<&Rc<OrderGuard>>,
    ) -> Result<Outcome, NotRouted> {
        let path = mapping::queue_path(received.entry.queue.as_str());
        let fields = DeliveryFields(&received.properties);
        let mut context = self.request_context(received);
        let listener = &self.listener.name;
        let mut head = Head {
            context: &mut context,
            listener,
            method: mapping::CONSUME,
            path: &path,
            headers: &fields,
            is_accepted: false,
        };
        let admission = match self.listener.ingress.admit(&mut head) {
            Ok(admission) => admission,
            Err(fault) if matches!(fault.code, Code::NotFound | Code::Unimplemented) => return Err(NotRouted),
            Err(fault) => return Ok(Outcome::Failed(fault)),
        };
        failpoint("amqp.routed");
        // The entry of the current route, which may be newer than this consumer.
        let spec = Arc::clone(&admission.entry);
        let entry = spec.as_any().downcast_ref::<Entry>().ok_or(NotRouted)?;
        let context = Arc::new(context);
        match message(received, entry, &context, listener, &admission.request_headers) {
            Ok(message) => Ok(match guard {
                Some(guard) => admission.exchange.dispatch_ordered(message, Rc::clone(guard)).await,
                None => admission.exchange.dispatch(message).await,
            }),
            Err(fault) => Ok(admission.exchange.refuse(&context, fault)),
        }
    }

    /// The context of one attempt. The id is that of the first attempt.
    fn request_context(&self, received: &ReceivedMessage<'_>) -> RequestContext {
        let id = received.id.get_or_init(|| self.listener.ingress.new_id()).clone();
        let mut context = RequestContext::new(id, received.received_at);
        context.trace = mapping::trace(&received.properties);
        received.sends.begin_attempt();
        context.sends = Some(Arc::clone(&received.sends));
        context.span = tracing::debug_span!("request", protocol = "amqp", listener = %self.listener.name, id = %context.id, route = tracing::field::Empty);
        context
    }

    /// Rejects a message by the policy of its entry. A dead letter is acknowledged only once the broker has confirmed it.
    async fn reject(&self, received: &ReceivedMessage<'_>, fault: &Fault, attempts: u32) -> Disposition {
        let queue = &received.entry.queue;
        let log = |action| tracing::warn!(%queue, code = %fault.code, reason = %fault.reason, attempts, "{action}");
        let dead = match &received.entry.reject_policy {
            RejectPolicy::Discard => {
                log("message discarded");
                return Disposition::Acknowledge;
            }
            RejectPolicy::Broker => {
                log("message nacked without requeue");
                return Disposition::Nack;
            }
            RejectPolicy::DeadLetter(dead) => dead,
        };
        if !self.delay_cycle(received, dead).await {
            return Disposition::LeaveUnsettled;
        }
        let mut backoff = retry_backoff();
        let mut with_headers = true;
        loop {
            let properties =
                mapping::dead_letter_properties(&received.properties, queue.as_str(), fault, attempts, with_headers);
            let publication =
                Publication { key: dead.clone(), mandatory: true, properties, body: received.body.clone() };
            match self.publish_with_stop_grace(self.listener.publisher.publish(publication)).await {
                Ok(()) => {
                    log("message dead-lettered");
                    return Disposition::Acknowledge;
                }
                Err(problem) if problem.reason == reason::HEADERS_TOO_LARGE && with_headers => {
                    with_headers = false;
                    continue;
                }
                Err(problem) => {
                    tracing::warn!(%queue, dead_letter = %dead, %problem, "dead-lettering failed; retrying");
                }
            }
            if !backoff.wait(self.stop.cancelled()).await || !received.acker.usable() {
                return Disposition::LeaveUnsettled;
            }
        }
    }

    /// Delays a message that circulates between dead letter queues; returns `false` if it can no longer be settled here.
    async fn delay_cycle(&self, received: &ReceivedMessage<'_>, dead: &ShortString) -> bool {
        let count = mapping::dead_letter_count(&received.properties);
        let Some(delay) = cycle_delay(count) else { return true };
        let queue = &received.entry.queue;
        tracing::error!(%queue, dead_letter = %dead, count, ?delay, "dead letter cycle detected; message delayed");
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(delay) => received.acker.usable(),
        }
    }

    /// Awaits a publication; after a stop for at most [`STOP_GRACE`].
    async fn publish_with_stop_grace(&self, publishing: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            published = publishing => published,
            () = stopped => Err(unconfirmed("the gateway is stopping")),
        }
    }
}

fn message(
    received: &ReceivedMessage<'_>,
    entry: &Entry,
    context: &Arc<RequestContext>,
    source: &ByteString,
    request_headers: &[ByteString],
) -> Result<Message, Fault> {
    if received.body.len() as u64 > entry.body_len_max {
        let problem = format!("the body exceeds the limit of {} bytes", entry.body_len_max);
        return Err(Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", problem));
    }
    if mapping::is_unreadable(&received.properties) {
        let problem = "the properties contain text that is not UTF-8, unknown types, or more than 64 nesting levels";
        return Err(Fault::caller(Code::InvalidArgument, "PROPERTIES", problem));
    }
    let coding = received.properties.content_encoding().as_ref();
    if coding.is_some_and(|coding| !coding.as_str().eq_ignore_ascii_case("identity")) {
        let problem = "the content encoding is not supported; send the body without one";
        return Err(Fault::caller(Code::InvalidArgument, "CONTENT_ENCODING", problem));
    }
    mapping::request(&received.properties, received.body.clone(), context, source, request_headers, entry)
}

/// Encodes a reply as properties and body.
async fn encode_reply(entry: &Entry, mut reply: Message) -> (BasicProperties, Bytes) {
    let of_type = entry.call.as_ref().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
    let encoded = encode_and_take_body(&mut reply, &entry.reply_format, of_type.as_ref()).await;
    match encoded.and_then(|body| {
        Ok((mapping::call_properties(&reply, body.content_type.as_ref(), &[], false)?, body.chunks.to_bytes()))
    }) {
        Ok((properties, body)) => (properties, body),
        // A reply that cannot be encoded is an internal error, not the requester's.
        Err(fault) => mapping::fault_reply(&Fault { code: Code::Internal, ..fault }),
    }
}

fn is_reply_allowed(queue: &str, entry: &Entry) -> bool {
    PRIVATE_REPLY_QUEUES.iter().any(|own| queue.starts_with(own)) || entry.reply_to.iter().any(|listed| listed == queue)
}
