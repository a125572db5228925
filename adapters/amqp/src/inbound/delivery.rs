//! One delivery, from its head to its settlement.

use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_adapter_api::{EntrySpec, Head, Outcome, Turn, failpoint, take_body_apart};
use crossdock_message::{BodyType, ByteString, Code, Fault, Message, RequestContext};
use crossdock_transport::bodies::Reservation;
use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{Acker, BasicProperties};
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::waits::Waits;
use crate::config::{Entry, Rejected};
use crate::error::unconfirmed;
use crate::mapping::{self, DeliveryFields};
use crate::publisher::Publication;
use crate::publisher::answers::DIRECT_REPLY_PREFIX;
use crate::settle::{Settlement, settle};

/// Queues that a broker made for whoever asks: no message gets anywhere else by them.
const OWN_QUEUES: [&str; 2] = [DIRECT_REPLY_PREFIX, "amq.gen-"];
/// Tries to send an answer that fail for a reason of its own.
const ANSWERS_MAX: u32 = 5;
/// For a settlement to be handed to the broker.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// What a stop waits for a confirmation.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How often a message may be set aside without a wait; then the wait doubles each time.
const HOPS_FREE: u32 = 8;
const HOP_WAIT: Duration = Duration::from_secs(1);
/// Long enough that a circle is no load, and short enough that those behind it, of whose prefetch it holds a place, do not wait long.
const HOP_WAIT_MAX: Duration = Duration::from_secs(5);
/// What a delivery waits for its consumer to end; longer than it takes to see that routes were changed.
const LET_GO_TIME: Duration = Duration::from_secs(5);

/// What a delivery is handled with.
pub(super) struct Handling {
    pub(super) worker: Rc<Worker>,
    pub(super) spec: Arc<dyn EntrySpec>,
    pub(super) stop: CancellationToken,
    /// The channel, told from all others.
    pub(super) source: u64,
}

/// Handles a delivery until it is settled, or nobody can settle it any more.
pub(super) async fn handle(handling: Handling, delivery: Delivery) {
    let Some(entry) = handling.spec.as_any().downcast_ref::<Entry>() else { return };
    failpoint("amqp.received");
    let Delivery { data, properties, acker, redelivered, .. } = delivery;
    let one = One {
        entry,
        properties,
        held: Reservation::forced(data.len()),
        body: Bytes::from(data),
        acker,
        redelivered,
        arrived: Instant::now(),
        id: OnceCell::new(),
    };
    let decided = AssertUnwindSafe(handling.decide(&one)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(queue = %entry.queue, "a delivery made the gateway fail; it comes again");
        Decided::Requeue
    });
    failpoint("amqp.decided");
    let settling = async {
        match decided {
            Decided::Settled | Decided::Leave => Ok(true),
            Decided::Acknowledge => one.acker.ack(BasicAckOptions::default()).await,
            Decided::Requeue => one.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await,
            Decided::GiveBack => one.acker.nack(BasicNackOptions { requeue: false, multiple: false }).await,
        }
    };
    if !matches!(tokio::time::timeout(SETTLE_TIME, settling).await, Ok(Ok(true))) {
        tracing::debug!(queue = %entry.queue, "a delivery was not settled: its channel is gone, and it comes again");
    }
    failpoint("amqp.settled");
}

/// A delivery.
struct One<'e> {
    entry: &'e Entry,
    properties: BasicProperties,
    body: Bytes,
    /// The memory of its body, which stays with it through all tries.
    #[expect(dead_code, reason = "counts until it is dropped")]
    held: Reservation,
    acker: Acker,
    redelivered: bool,
    arrived: Instant,
    /// What the gateway called it when it was tried first; the same in every try here.
    id: OnceCell<ByteString>,
}

impl One<'_> {
    /// Where its sender wants to be answered.
    fn reply_to(&self) -> Option<&ShortString> {
        self.properties.reply_to().as_ref().filter(|queue| !queue.as_str().is_empty())
    }

    /// Tries that the broker has counted (quorum queues). What says so on a first delivery is not the broker's.
    fn delivered_before(&self) -> u32 {
        let count = self.properties.headers().as_ref().and_then(|table| table.inner().get("x-delivery-count"));
        match count.filter(|_| self.redelivered) {
            Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).unwrap_or(0),
            Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or(0),
            _ => 0,
        }
    }
}

/// How a delivery ends.
enum Decided {
    /// It was settled already.
    Settled,
    Acknowledge,
    /// It stays unsettled, and comes again with all others of its channel once that is closed, which happens soon: one by one, it could
    /// come again before those that were before it.
    Leave,
    /// It comes again now.
    Requeue,
    /// The broker does with it what its policy says.
    GiveBack,
}

/// The routes do not name the queue any more: it is another's to consume.
struct NotOurs;

impl Handling {
    async fn decide(&self, one: &One<'_>) -> Decided {
        if one.reply_to().is_some() {
            self.answer(one).await
        } else if one.entry.acknowledge_first {
            self.take_once(one).await
        } else {
            self.take(one).await
        }
    }

    /// A message that is carried out once or not at all.
    async fn take_once(&self, one: &One<'_>) -> Decided {
        let queue = &one.entry.queue;
        if one.redelivered {
            // An acknowledgement of it may have been lost on its way, and the work done.
            tracing::warn!(%queue, "a message came again and may have been carried out; it was dropped");
            return Decided::Acknowledge;
        }
        let acknowledged = tokio::time::timeout(SETTLE_TIME, one.acker.ack(BasicAckOptions::default())).await;
        if matches!(acknowledged, Ok(Ok(true)))
            && let Ok(Outcome::Failed(fault)) = self.dispatch(one, None).await
        {
            tracing::warn!(%queue, code = %fault.code, reason = %fault.reason, "a message failed, and is not tried again");
        }
        Decided::Settled
    }

    /// A message: tried until it is done, or will never be.
    async fn take(&self, one: &One<'_>) -> Decided {
        let mut attempts = one.delivered_before();
        let mut tries = 0;
        // One that is no number of milliseconds is the first try's fault.
        let expiry = mapping::expiry(&one.properties, one.arrived).ok().flatten();
        let turn = Rc::new(Turn::new(self.source));
        loop {
            if self.stop.is_cancelled() {
                // Those before it may have been left already.
                return Decided::Leave;
            }
            tries += 1;
            let Ok(outcome) = self.dispatch(one, Some(&turn)).await else { return self.let_go().await };
            let settlement = match settle(outcome, one.entry, attempts + 1, tries) {
                // Its reason is that of the last try, not that the time was over.
                Settlement::Again { wait, fault, .. } if expiry.is_some_and(|at| at <= Instant::now() + wait) => {
                    Settlement::SetAside(fault)
                }
                other => other,
            };
            match settlement {
                Settlement::Acknowledge => {
                    turn.done();
                    return Decided::Acknowledge;
                }
                Settlement::SetAside(fault) => {
                    let decided = self.set_aside(one, &fault, attempts + 1).await;
                    if !matches!(decided, Decided::Leave) {
                        turn.done();
                    }
                    return decided;
                }
                Settlement::Again { wait, counts, .. } => {
                    attempts += u32::from(counts);
                    tokio::select! {
                        () = self.stop.cancelled() => return Decided::Leave,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
            if !one.acker.usable() {
                // It was delivered to somebody else: another try here would be one too many.
                return Decided::Leave;
            }
        }
    }

    /// Waits for this consumer's end, which the change of the routes brings.
    async fn let_go(&self) -> Decided {
        match tokio::time::timeout(LET_GO_TIME, self.stop.cancelled()).await {
            Ok(()) => Decided::Leave,
            Err(_) => Decided::Requeue,
        }
    }

    /// A request: its sender waits, and hears what became of it. It is carried out once, however often its answer is sent.
    async fn answer(&self, one: &One<'_>) -> Decided {
        let entry = one.entry;
        let Some(queue) = one.reply_to().filter(|queue| may_reply(queue.as_str(), entry)) else {
            let problem = "the message asks to be answered in a queue that `reply_to` of the route does not list";
            return self.set_aside(one, &Fault::caller(Code::PermissionDenied, "REPLY_TO", problem), 1).await;
        };
        let Ok(outcome) = self.dispatch(one, None).await else { return self.let_go().await };
        let answer = match outcome {
            Outcome::Replied(reply) => written(entry, reply).await,
            Outcome::Accepted => written(entry, Message::new(String::new().into(), String::new().into())).await,
            Outcome::Failed(fault) => mapping::fault_answer(&fault),
        };
        self.send_answer(one, queue, answer).await
    }

    async fn send_answer(&self, one: &One<'_>, queue: &ShortString, answer: (BasicProperties, Bytes)) -> Decided {
        let with_id = |properties: BasicProperties| match one.properties.correlation_id() {
            Some(id) => properties.with_correlation_id(id.clone()),
            None => properties,
        };
        let (mut properties, mut body) = (with_id(answer.0), answer.1);
        let mut waits = Waits::new();
        let mut unconfirmed = 0;
        let mut is_replaced = false;
        loop {
            let publication =
                Publication { key: queue.clone(), mandatory: true, properties: properties.clone(), body: body.clone() };
            match self.while_running(self.worker.answers.publish(publication)).await {
                Ok(()) => return Decided::Acknowledge,
                // Whoever asked is gone.
                Err(fault) if fault.reason == "UNROUTABLE" => return Decided::Acknowledge,
                Err(fault) if matches!(&*fault.reason, "REFUSED" | "HEADERS_TOO_LARGE") && !is_replaced => {
                    // The caller receives an error: the reply exists but cannot be decoded.
                    let told = Fault::new(Code::Internal, "ANSWER_REFUSED", "the broker refuses the answer");
                    let (of_fault, text) = mapping::fault_answer(&told);
                    (properties, body) = (with_id(of_fault), text);
                    is_replaced = true;
                    continue;
                }
                Err(fault) if matches!(&*fault.reason, "REFUSED" | "REPLY_ADDRESS") => {
                    return self.set_aside(one, &fault, 1).await;
                }
                Err(fault) if fault.reason == "UNCONFIRMED" || fault.code != Code::Unavailable => {
                    unconfirmed += 1;
                    if unconfirmed == ANSWERS_MAX {
                        tracing::warn!(queue = %one.entry.queue, problem = %fault, "an answer cannot be sent; it was given up");
                        return Decided::Acknowledge;
                    }
                }
                Err(_) => {}
            }
            if !waits.next(&self.stop).await || !one.acker.usable() {
                return Decided::Leave;
            }
        }
    }

    async fn dispatch(&self, one: &One<'_>, turn: Option<&Rc<Turn>>) -> Result<Outcome, NotOurs> {
        let once = AssertUnwindSafe(self.once(one, turn)).catch_unwind();
        match once.await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!(queue = %one.entry.queue, "a message made the gateway fail");
                Ok(Outcome::Failed(Fault::new(Code::Internal, "PANIC", "the gateway failed on this message")))
            }
        }
    }

    async fn once(&self, one: &One<'_>, turn: Option<&Rc<Turn>>) -> Result<Outcome, NotOurs> {
        let worker = &self.worker;
        let path = mapping::path_of_queue(one.entry.queue.as_str());
        let fields = DeliveryFields(&one.properties);
        let mut context = self.request_context(one);
        let listener = &worker.name;
        let mut head =
            Head { context: &mut context, listener, method: mapping::CONSUME, path: &path, headers: &fields };
        let admission = match worker.ingress.admit(&mut head) {
            Ok(admission) => admission,
            Err(fault) if matches!(fault.code, Code::NotFound | Code::Unimplemented) => return Err(NotOurs),
            Err(fault) => return Ok(Outcome::Failed(fault)),
        };
        failpoint("amqp.routed");
        // The route's own, where it was changed after this queue's consumer began.
        let spec = Arc::clone(&admission.entry);
        let entry = spec.as_any().downcast_ref::<Entry>().ok_or(NotOurs)?;
        let context = Arc::new(context);
        match message(one, entry, &context, &worker.name, &admission.request_headers) {
            Ok(message) => Ok(match turn {
                Some(turn) => admission.exchange.dispatch_in(message, Rc::clone(turn)).await,
                None => admission.exchange.dispatch(message).await,
            }),
            Err(fault) => Ok(admission.exchange.refuse(&context, fault)),
        }
    }

    /// The context of one attempt. The id is that of the first attempt.
    fn request_context(&self, one: &One<'_>) -> RequestContext {
        let id = one.id.get_or_init(|| self.worker.ingress.new_id()).clone();
        let mut context = RequestContext::new(id, one.arrived);
        context.trace = mapping::trace(&one.properties);
        context.span = tracing::debug_span!("request", protocol = "amqp", listener = %self.worker.name, id = %context.id, route = tracing::field::Empty);
        context
    }

    /// Sets a message aside as its entry wants it. It is acknowledged only once it is safe elsewhere.
    async fn set_aside(&self, one: &One<'_>, fault: &Fault, attempts: u32) -> Decided {
        let queue = &one.entry.queue;
        tracing::warn!(%queue, code = %fault.code, reason = %fault.reason, attempts, "a message was set aside");
        let dead = match &one.entry.rejected {
            Rejected::Discard => return Decided::Acknowledge,
            Rejected::Broker => return Decided::GiveBack,
            Rejected::DeadLetter(dead) => dead,
        };
        if !self.wait_for_hops(one, dead).await {
            return Decided::Leave;
        }
        let mut waits = Waits::new();
        let mut with_headers = true;
        loop {
            let properties = mapping::dead_letter(&one.properties, queue.as_str(), fault, attempts, with_headers);
            let publication = Publication { key: dead.clone(), mandatory: true, properties, body: one.body.clone() };
            match self.while_running(self.worker.publisher.publish(publication)).await {
                Ok(()) => return Decided::Acknowledge,
                Err(problem) if problem.reason == "HEADERS_TOO_LARGE" && with_headers => {
                    with_headers = false;
                    continue;
                }
                Err(problem) => {
                    tracing::warn!(%queue, dead_letter = %dead, %problem, "a message cannot be set aside yet");
                }
            }
            if !waits.next(&self.stop).await || !one.acker.usable() {
                return Decided::Leave;
            }
        }
    }

    /// Slows down a message that goes round in a circle of dead letter queues; gives whether to go on.
    async fn wait_for_hops(&self, one: &One<'_>, dead: &ShortString) -> bool {
        let Some(over) = mapping::hops(&one.properties).checked_sub(HOPS_FREE) else { return true };
        let wait = HOP_WAIT.saturating_mul(1 << over.min(16)).min(HOP_WAIT_MAX);
        let (queue, hops) = (&one.entry.queue, over + HOPS_FREE);
        tracing::error!(%queue, dead_letter = %dead, hops, ?wait, "a message goes round in a circle of dead letter queues");
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => one.acker.usable(),
        }
    }

    /// What is being published; a stop waits for it only a little.
    async fn while_running(&self, publishing: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(STOP_TIME).await;
        };
        tokio::select! {
            published = publishing => published,
            () = stopped => Err(unconfirmed("the gateway is stopping")),
        }
    }
}

fn message(
    one: &One<'_>,
    entry: &Entry,
    context: &Arc<RequestContext>,
    source: &ByteString,
    request_headers: &[ByteString],
) -> Result<Message, Fault> {
    if one.body.len() as u64 > entry.body_len_max {
        let problem = format!("the body is larger than the {} bytes that this route takes", entry.body_len_max);
        return Err(Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", problem));
    }
    if mapping::is_unreadable(&one.properties) {
        let problem = "its properties are not text, or nested more than 64 levels deep";
        return Err(Fault::caller(Code::InvalidArgument, "PROPERTIES", problem));
    }
    let coding = one.properties.content_encoding().as_ref();
    if coding.is_some_and(|coding| !coding.as_str().eq_ignore_ascii_case("identity")) {
        let problem = "a compressed body is not taken here; send it as it is";
        return Err(Fault::caller(Code::InvalidArgument, "CONTENT_ENCODING", problem));
    }
    mapping::request(&one.properties, one.body.clone(), context, source, request_headers, entry.call.as_ref())
}

/// The properties and body of an answer.
async fn written(entry: &Entry, mut reply: Message) -> (BasicProperties, Bytes) {
    let of_type = entry.call.as_ref().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
    let encoded = take_body_apart(&mut reply, &entry.answer, of_type.as_ref()).await;
    match encoded.and_then(|body| Ok((mapping::call_properties(&reply, &body, false)?, body.chunks.to_bytes()))) {
        Ok((properties, body)) => (properties, body),
        // What the gateway cannot write is its own fault.
        Err(fault) => mapping::fault_answer(&Fault { code: Code::Internal, ..fault }),
    }
}

fn may_reply(queue: &str, entry: &Entry) -> bool {
    OWN_QUEUES.iter().any(|own| queue.starts_with(own)) || entry.reply_to.iter().any(|listed| listed == queue)
}
