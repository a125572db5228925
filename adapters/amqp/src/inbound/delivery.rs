//! One delivery, from its head to its settlement.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_adapter_api::{EntrySpec, Head, Outcome, encode_body};
use crossdock_message::{BodyType, Code, Fault, Message};
use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use lapin::{Acker, BasicProperties};
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::config::{Entry, Rejected};
use crate::mapping::{self, DeliveryFields};
use crate::publisher::Publication;
use crate::settle::{Settlement, settle};

/// Queues that a broker made for whoever asks: no message gets anywhere else by them.
const OWN_QUEUES: [&str; 2] = ["amq.rabbitmq.reply-to.", "amq.gen-"];
/// Waits between two tries to set a message aside.
const ASIDE_BACKOFF: Duration = Duration::from_millis(200);
const ASIDE_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a delivery is handled with.
pub(super) struct Handling {
    pub(super) worker: Rc<Worker>,
    pub(super) spec: Arc<dyn EntrySpec>,
    pub(super) stop: CancellationToken,
}

/// Handles a delivery until it is settled, or nobody can settle it any more.
pub(super) async fn handle(handling: Handling, delivery: Delivery) {
    let Some(entry) = handling.spec.as_any().downcast_ref::<Entry>() else { return };
    let Delivery { data, properties, acker, redelivered, .. } = delivery;
    let body = Bytes::from(data);
    let decided = if properties.reply_to().is_some() {
        handling.answer(entry, &properties, body, &acker).await
    } else if entry.acknowledge_first {
        let acknowledged = matches!(acker.ack(BasicAckOptions::default()).await, Ok(true));
        if redelivered {
            // An acknowledgement of it may have been lost on its way, and the work done.
            tracing::warn!(queue = %entry.queue, "a message came again and may have been carried out; it was dropped");
        } else if acknowledged && let Outcome::Failed(fault) = handling.dispatch(entry, &properties, body).await {
            tracing::warn!(queue = %entry.queue, code = %fault.code, reason = %fault.reason, "a message failed, and is not tried again");
        }
        return;
    } else {
        handling.take(entry, &properties, body, &acker).await
    };
    let settled = match decided {
        Decided::Acknowledge => acker.ack(BasicAckOptions::default()).await,
        Decided::Requeue => acker.nack(BasicNackOptions { requeue: true, multiple: false }).await,
        Decided::GiveBack => acker.nack(BasicNackOptions { requeue: false, multiple: false }).await,
    };
    if !matches!(settled, Ok(true)) {
        tracing::debug!(queue = %entry.queue, "a delivery was not settled: its channel is gone, and it comes again");
    }
}

/// How a delivery ends.
enum Decided {
    Acknowledge,
    /// It comes again.
    Requeue,
    /// The broker does with it what its policy says.
    GiveBack,
}

impl Handling {
    /// A message: tried until it is done, or will never be.
    async fn take(&self, entry: &Entry, properties: &BasicProperties, body: Bytes, acker: &Acker) -> Decided {
        // What the broker counted came before (quorum queues).
        let mut attempts = delivered_before(properties);
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.dispatch(entry, properties, body.clone()).await;
            match settle(outcome, entry, attempts + 1, tries) {
                Settlement::Acknowledge => return Decided::Acknowledge,
                Settlement::SetAside(fault) => {
                    return self.set_aside(entry, properties, body, &fault, attempts + 1, acker).await;
                }
                Settlement::Again { wait, counts } => {
                    attempts += u32::from(counts);
                    tokio::select! {
                        () = self.stop.cancelled() => return Decided::Requeue,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
            if !acker.usable() {
                // It was delivered to somebody else: another try here would be one too many.
                return Decided::Requeue;
            }
        }
    }

    /// A request: its sender waits, and hears what became of it.
    async fn answer(&self, entry: &Entry, properties: &BasicProperties, body: Bytes, acker: &Acker) -> Decided {
        let Some(queue) = properties.reply_to().clone().filter(|queue| may_reply(queue.as_str(), entry)) else {
            let problem = "the message asks to be answered in a queue that `reply_to` of the route does not list";
            let fault = Fault::caller(Code::PermissionDenied, "REPLY_TO", problem);
            return self.set_aside(entry, properties, body, &fault, 1, acker).await;
        };
        let outcome = self.dispatch(entry, properties, body).await;
        let (reply, body) = match outcome {
            Outcome::Replied(reply) => written(entry, &reply),
            Outcome::Accepted => written(entry, &Message::new(String::new().into(), String::new().into())),
            Outcome::Failed(fault) => mapping::fault_answer(&fault),
        };
        let reply = match properties.correlation_id() {
            Some(id) => reply.with_correlation_id(id.clone()),
            None => reply,
        };
        let publication = Publication { key: queue, mandatory: true, properties: reply, body };
        match self.worker.publisher.publish(publication).await {
            Ok(()) => Decided::Acknowledge,
            // Whoever asked is gone.
            Err(fault) if fault.reason == "UNROUTABLE" => Decided::Acknowledge,
            Err(_) => Decided::Requeue,
        }
    }

    async fn dispatch(&self, entry: &Entry, properties: &BasicProperties, body: Bytes) -> Outcome {
        let once = AssertUnwindSafe(self.once(entry, properties, body)).catch_unwind();
        match once.await {
            Ok(outcome) => outcome.unwrap_or_else(Outcome::Failed),
            Err(_) => {
                tracing::error!(queue = %entry.queue, "a message made the gateway fail");
                Outcome::Failed(Fault::new(Code::Internal, "PANIC", "the gateway failed on this message"))
            }
        }
    }

    async fn once(&self, entry: &Entry, properties: &BasicProperties, body: Bytes) -> Result<Outcome, Fault> {
        let worker = &self.worker;
        let path = mapping::path_of_queue(entry.queue.as_str());
        let fields = DeliveryFields(properties);
        let head = Head { listener: &worker.name, method: mapping::CONSUME, path: &path, headers: &fields };
        let admission = worker.ingress.admit(&head)?;
        if body.len() as u64 > entry.body_len_max {
            let problem = format!("the body is larger than the {} bytes that this route takes", entry.body_len_max);
            return Err(Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", problem));
        }
        if properties
            .content_encoding()
            .as_ref()
            .is_some_and(|coding| !coding.as_str().eq_ignore_ascii_case("identity"))
        {
            let problem = "a compressed body is not taken here; send it as it is";
            return Err(Fault::caller(Code::InvalidArgument, "CONTENT_ENCODING", problem));
        }
        let (id, now) = (admission.id.clone(), Instant::now());
        let call = entry.call.as_ref();
        let message = mapping::request(properties, body, id, &worker.name, &admission.carry, call, now)?;
        Ok(admission.exchange.dispatch(message).await)
    }

    /// Sets a message aside as its entry wants it. It is acknowledged only once it is safe elsewhere.
    async fn set_aside(
        &self,
        entry: &Entry,
        properties: &BasicProperties,
        body: Bytes,
        fault: &Fault,
        attempts: u32,
        acker: &Acker,
    ) -> Decided {
        tracing::warn!(queue = %entry.queue, code = %fault.code, reason = %fault.reason, attempts, "a message was set aside");
        let dead = match &entry.rejected {
            Rejected::Discard => return Decided::Acknowledge,
            Rejected::Broker => return Decided::GiveBack,
            Rejected::DeadLetter(dead) => dead,
        };
        let mut wait = ASIDE_BACKOFF;
        loop {
            let publication = Publication {
                key: dead.clone(),
                mandatory: true,
                properties: mapping::dead_letter(properties, entry.queue.as_str(), fault, attempts),
                body: body.clone(),
            };
            match self.worker.publisher.publish(publication).await {
                Ok(()) => return Decided::Acknowledge,
                Err(problem) => {
                    tracing::warn!(queue = %entry.queue, dead_letter = %dead, %problem, "a message cannot be set aside yet");
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Decided::Requeue,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(ASIDE_BACKOFF_MAX);
            if !acker.usable() {
                return Decided::Requeue;
            }
        }
    }
}

/// The properties and body of an answer.
fn written(entry: &Entry, reply: &Message) -> (BasicProperties, Bytes) {
    let of_type = entry.call.as_ref().map(|call| &*call.reply as &dyn BodyType);
    match encode_body(reply, &entry.answer, of_type) {
        Ok(body) => (mapping::call_properties(reply, &body, false), body.chunks.to_bytes()),
        // What the gateway cannot write is its own fault.
        Err(fault) => mapping::fault_answer(&Fault { code: Code::Internal, ..fault }),
    }
}

fn may_reply(queue: &str, entry: &Entry) -> bool {
    OWN_QUEUES.iter().any(|own| queue.starts_with(own)) || entry.reply_to.iter().any(|listed| listed == queue)
}

fn delivered_before(properties: &BasicProperties) -> u32 {
    let count = properties.headers().as_ref().and_then(|table| table.inner().get("x-delivery-count"));
    match count {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).unwrap_or(0),
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or(0),
        _ => 0,
    }
}
