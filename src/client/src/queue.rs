//! Queues.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use crossdock_api::consume_request::Request as Consume;
use crossdock_api::queues_client::QueuesClient;
use crossdock_api::settlement::Fate;
use crossdock_api::{ConsumeRequest, EnqueueRequest, EnqueueResponse, Header, OpenConsumer, Settlement};
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status, Streaming};

use crate::client::{CALL_TIMEOUT, Client, Error, is_of_connection};
use crate::lock::millis;

/// A message to add to a queue.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Messages of the same key are delivered one after another; without one, a message has no order.
    pub key: String,
    /// Up to 1 MiB with the headers.
    pub body: Bytes,
    /// The media type of the body.
    pub content_type: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// It is delivered after this time.
    pub delay: Duration,
    /// An id, and how long it is remembered: another message with it is a duplicate.
    pub id: Option<(String, Duration)>,
}

impl Client {
    /// Adds a message to a queue; returns once a majority of the cluster has it. With an id, it can be repeated after any error.
    ///
    /// # Errors
    /// See [`Error`]. Without an id, a message may have been added if the status is UNKNOWN.
    pub async fn enqueue(&self, queue: &str, message: Message) -> Result<EnqueueResponse, Error> {
        let Message { key, body, content_type, headers, delay, id } = message;
        let is_repeatable = id.is_some();
        let late_code = if is_repeatable { Code::Unavailable } else { Code::Unknown };
        let (id, window) = id.unwrap_or_default();
        let request = EnqueueRequest {
            queue: queue.to_owned(),
            key,
            body,
            content_type,
            headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            delay_ms: millis(delay),
            id,
            window_ms: millis(window),
        };
        self.call(request, async |channel, request| {
            let mut queues = QueuesClient::new(channel);
            let adding = tokio::time::timeout(CALL_TIMEOUT.mul_f64(0.95), queues.enqueue(request));
            let late = || Status::new(late_code, "the instance did not answer in time");
            let added = adding.await.unwrap_or_else(|_| Err(late()));
            // If the connection failed, the message may have been added.
            let is_unknown = |status: &Status| !is_repeatable && is_of_connection(status);
            added.map_err(|status| if is_unknown(&status) { Status::unknown(status.message()) } else { status })
        })
        .await
    }

    /// Consumes a queue, together with all other consumers. Up to `unsettled` deliveries are open at a time.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn consume(&self, queue: &str, unsettled: u32) -> Result<Consumer, Error> {
        let open = OpenConsumer { queue: queue.to_owned(), unsettled };
        let opened = self.call(open, async |channel, request| {
            let (settlements, requests) = mpsc::channel(64);
            let (metadata, extensions, open) = request.into_parts();
            let _ = settlements.send(ConsumeRequest { request: Some(Consume::Open(open)) }).await;
            let (end, ended) = oneshot::channel();
            let requests = Requests { settlements: requests, ended };
            let request = tonic::Request::from_parts(metadata, extensions, requests);
            let answered = QueuesClient::new(channel).consume(request).await?;
            Ok(answered.map(|deliveries| Consumer { deliveries, settlements, _end: end }))
        });
        opened.await
    }
}

/// The requests of a consumer.
struct Requests {
    settlements: mpsc::Receiver<ConsumeRequest>,
    /// The consumer was dropped.
    ended: oneshot::Receiver<()>,
}

impl tonic::codegen::tokio_stream::Stream for Requests {
    type Item = ConsumeRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ConsumeRequest>> {
        if Pin::new(&mut self.ended).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.settlements.poll_recv(context)
    }
}

/// A consumer of a queue. If it is dropped or its instance fails, what is unsettled is delivered again.
#[derive(Debug)]
pub struct Consumer {
    deliveries: Streaming<crossdock_api::Delivery>,
    settlements: mpsc::Sender<ConsumeRequest>,
    _end: oneshot::Sender<()>,
}

/// A message that is delivered. If it is dropped, it stays unsettled until the consumer ends.
#[derive(Debug)]
pub struct Delivery {
    /// What was delivered.
    pub message: crossdock_api::Delivery,
    settlements: mpsc::Sender<ConsumeRequest>,
}

impl Consumer {
    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// UNAVAILABLE if the instance stops or has failed: consume again.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        match self.deliveries.message().await? {
            Some(message) => Ok(Delivery { message, settlements: self.settlements.clone() }),
            None => Err(Status::unavailable("the instance has ended the stream").into()),
        }
    }
}

impl Delivery {
    /// The message was processed: the next one of its key can be delivered. Returns once that is on its way; if the instance fails then, or has lost
    /// this part of the queue, the message is delivered again.
    ///
    /// # Errors
    /// UNAVAILABLE if the stream has ended: the message is delivered again.
    pub async fn done(self) -> Result<(), Error> {
        self.settle(Fate::Done(true)).await
    }

    /// The message is delivered again after a time, before those behind it.
    ///
    /// # Errors
    /// As [`Delivery::done`].
    pub async fn retry(self, after: Duration) -> Result<(), Error> {
        self.settle(Fate::RetryAfterMs(millis(after))).await
    }

    /// The message becomes a dead letter, for this reason.
    ///
    /// # Errors
    /// As [`Delivery::done`].
    pub async fn reject(self, reason: &str) -> Result<(), Error> {
        self.settle(Fate::Reject(reason.to_owned())).await
    }

    async fn settle(self, fate: Fate) -> Result<(), Error> {
        let settlement = Settlement { delivery: self.message.delivery, fate: Some(fate) };
        let request = ConsumeRequest { request: Some(Consume::Settle(settlement)) };
        let sent = self.settlements.send(request).await;
        sent.map_err(|_| Status::unavailable("the stream has ended; the message is delivered again").into())
    }
}
