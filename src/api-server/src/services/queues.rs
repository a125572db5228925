//! Queues.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use crossdock_api::consume_request::Request as Consume;
use crossdock_api::queues_server::Queues;
use crossdock_api::settlement::Fate;
use crossdock_api::{
    ConsumeRequest, Delivery, EnqueueRequest, EnqueueResponse, Header, ListQueuesRequest, ListQueuesResponse,
    OpenConsumer, QueueState, Settlement,
};
use crossdock_embedded::{Consumer, NewMessage};
use crossdock_message::{Body, Format, Message};
use crossdock_stored::{digest, restore, store};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::{Ending, Events, Methods, caller};
use crate::access::Action;
use crate::status::of_enqueue;

/// The window of ids, unless a message says another one.
const WINDOW: Duration = Duration::from_secs(600);
/// Deliveries that may be unsettled at a time, and the most.
const UNSETTLED: usize = 16;
const UNSETTLED_MAX: usize = 1_000;
/// How long the last status of a stream waits for its client.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
const LISTED: u32 = 100;
const LISTED_MAX: u32 = 10_000;

/// The message as a queue has it.
fn message_of(request: &EnqueueRequest) -> Result<Message, Status> {
    let mut message = Message::new("".into(), "".into());
    for Header { name, value } in &request.headers {
        let appended = message.headers.append(name.to_lowercase(), value.clone());
        appended.map_err(|problem| Status::invalid_argument(format!("the header `{name}` is not valid: {problem}")))?;
    }
    if !request.content_type.is_empty() {
        message.content_type = Some(request.content_type.as_str().into());
    }
    if !request.body.is_empty() {
        message.body = Body::present(request.body.clone().into(), Format::of_media_type(&request.content_type));
    }
    Ok(message)
}

#[tonic::async_trait]
impl Queues for Methods {
    async fn enqueue(&self, request: Request<EnqueueRequest>) -> Result<Response<EnqueueResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        caller.check(Action::Enqueue, &request.queue)?;
        let message = message_of(&request)?;
        let unstorable = |problem: crossdock_stored::Error| Status::internal(problem.to_string());
        let window = if request.window_ms == 0 { WINDOW } else { Duration::from_millis(request.window_ms) };
        let new = NewMessage {
            key: request.key,
            payload: store("", &message).map_err(unstorable)?,
            delay: Duration::from_millis(request.delay_ms),
            digest: digest("", &message).map_err(unstorable)?,
            id: (!request.id.is_empty()).then_some((request.id, window)),
        };
        let own_digest = new.digest;
        let placed = self.engine.enqueue(&request.queue, new).await.map_err(|problem| of_enqueue(&problem))?;
        if placed.duplicate_of.is_some_and(|digest| digest != own_digest) {
            return Err(Status::already_exists("the id was used by a different message"));
        }
        Ok(Response::new(EnqueueResponse { position: placed.position, is_duplicate: placed.is_duplicate() }))
    }

    type ConsumeStream = Events<Delivery>;

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let caller = caller(&request)?;
        let mut requests = request.into_inner();
        let Some(ConsumeRequest { request: Some(Consume::Open(OpenConsumer { queue, unsettled })) }) =
            requests.message().await?
        else {
            return Err(Status::invalid_argument("the first request must be `open`"));
        };
        caller.check(Action::Consume, &queue)?;
        let unsettled = if unsettled == 0 { UNSETTLED } else { (unsettled as usize).min(UNSETTLED_MAX) };
        let (deliveries, receiver) = mpsc::channel(1);
        let consuming = Consuming {
            consumer: self.engine.consume(&queue),
            deliveries,
            open: HashMap::new(),
            last: 0,
            unsettled,
            ending: self.ending(&caller),
        };
        // It ends with the streams.
        tokio::spawn(consuming.run(requests));
        let events = futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|delivery| (delivery, receiver))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        let caller = caller(&request)?;
        let ListQueuesRequest { prefix, limit } = request.into_inner();
        caller.check(Action::State, &prefix)?;
        let view = self.engine.read().await.map_err(|problem| Status::unavailable(problem.to_string()))?;
        let limit = if limit == 0 { LISTED } else { limit.min(LISTED_MAX) } as usize;
        let mut found = view.queues.iter().filter(|(name, _)| name.starts_with(&prefix));
        let queues = found.by_ref().take(limit).map(|(name, queue)| QueueState {
            name: name.to_string(),
            messages: queue.len() as u64,
            delayed: queue.delayed() as u64,
            dead_letters: queue.dead_len() as u64,
            consumers: u32::try_from(queue.slots().consumers().len()).unwrap_or(u32::MAX),
        });
        let queues = queues.collect();
        Ok(Response::new(ListQueuesResponse { queues, has_more: found.next().is_some() }))
    }
}

/// A stream that consumes a queue. What is unsettled when it ends is delivered again.
struct Consuming {
    consumer: Consumer,
    deliveries: mpsc::Sender<Result<Delivery, Status>>,
    /// By their numbers.
    open: HashMap<u64, crossdock_embedded::Delivery>,
    last: u64,
    unsettled: usize,
    ending: Ending,
}

type Permit = mpsc::OwnedPermit<Result<Delivery, Status>>;

/// The next message, once its client can take it. `None` if there will be none any more. Cancel safe.
async fn next(
    deliveries: &mpsc::Sender<Result<Delivery, Status>>,
    consumer: &Consumer,
) -> Option<(Permit, crossdock_embedded::Delivery)> {
    let permit = deliveries.clone().reserve_owned().await.ok()?;
    Some((permit, consumer.next().await?))
}

impl Consuming {
    async fn run(mut self, mut requests: Streaming<ConsumeRequest>) {
        let mut settling = FuturesUnordered::new();
        let problem = loop {
            let has_room = self.open.len() + settling.len() < self.unsettled;
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(ConsumeRequest { request: Some(Consume::Settle(settlement)) })) => {
                        match self.settle(settlement) {
                            Ok(settled) => settling.push(settled),
                            Err(status) => break Some(status),
                        }
                    }
                    Ok(Some(_)) => break Some(Status::invalid_argument("further requests must be `settle`")),
                    // The client settles nothing any more.
                    Ok(None) | Err(_) => break None,
                },
                Some(()) = settling.next() => {}
                status = self.ending.status() => break Some(status),
                () = self.deliveries.closed() => break None,
                delivery = next(&self.deliveries, &self.consumer), if has_room => match delivery {
                    Some((permit, delivery)) => self.deliver(permit, delivery).await,
                    None => break Some(Status::unavailable("the instance has ended; use another one")),
                },
            }
        };
        // What the client has settled takes effect.
        while settling.next().await.is_some() {}
        // What is unsettled is delivered again, also if the client does not read what is said last.
        let Self { deliveries, consumer, open, .. } = self;
        drop((consumer, open));
        if let Some(status) = problem {
            let _ = timeout(LAST_TIMEOUT, deliveries.send(Err(status))).await;
        }
    }

    async fn deliver(&mut self, permit: Permit, delivery: crossdock_embedded::Delivery) {
        let (place, message) = (delivery.place(), delivery.message());
        let stored = match restore(message.payload.clone()) {
            Ok(stored) => stored,
            Err(problem) => {
                tracing::warn!(position = place.position, %problem, "message of a queue cannot be read");
                let _ = delivery.reject("UNREADABLE: this release cannot read the message", Bytes::new()).await;
                return;
            }
        };
        self.last += 1;
        let told = Delivery {
            delivery: self.last,
            key: place.key.to_string(),
            body: stored.body(),
            content_type: stored.content_type().unwrap_or_default().to_owned(),
            headers: stored
                .headers()
                .map(|(name, value)| Header { name: name.to_owned(), value: value.to_owned() })
                .collect(),
            position: place.position,
            attempts: message.attempts,
            token: delivery.validity().token().0,
        };
        self.open.insert(self.last, delivery);
        permit.send(Ok(told));
    }

    /// Settles a delivery. If its part of the queue was lost meanwhile, it has no effect: the next holder delivers the message again.
    fn settle(&mut self, settlement: Settlement) -> Result<impl Future<Output = ()> + use<>, Status> {
        let Some(delivery) = self.open.remove(&settlement.delivery) else {
            return Err(Status::invalid_argument(format!("there is no unsettled delivery {}", settlement.delivery)));
        };
        let Some(fate) = settlement.fate else {
            return Err(Status::invalid_argument("a settlement needs `done`, `retry_after_ms` or `reject`"));
        };
        Ok(async move {
            let settled = match fate {
                Fate::Done(_) => delivery.done(Bytes::new()).await,
                Fate::RetryAfterMs(millis) => delivery.retry(Duration::from_millis(millis), true).await,
                Fate::Reject(reason) => delivery.reject(&reason, Bytes::new()).await,
            };
            if let Err(problem) = settled {
                tracing::debug!(%problem, "settlement of a client without effect");
            }
        })
    }
}
