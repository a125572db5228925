//! Consumes one queue, over successive connections.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossdock_delivery::failpoint;
use crossdock_ports::EntrySpec;
use crossdock_transport::bodies;
use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::delivery::{DeliveryHandler, handle};
use super::{ListenerContext, retry_backoff};
use crate::broker::Live;
use crate::config::{Declare, Entry, QueueType};

/// A consumer that lasts this long resets the backoff; a shorter one may have been closed because of a message.
const STABLE_TIME: Duration = Duration::from_secs(10);
/// For starting a consumer, and for each of the two steps of stopping it.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// How often available memory for another body is polled.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// The next channel id, unique within the process.
static NEXT_CHANNEL_ID: AtomicU64 = AtomicU64::new(0);

/// Consumes a queue until `stop` is cancelled; then finishes deliveries in flight and leaves the others unsettled.
pub(super) async fn consume(listener: Rc<ListenerContext>, spec: Arc<dyn EntrySpec>, stop: CancellationToken) {
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else { return };
    let queue = entry.queue.as_str();
    let mut backoff = retry_backoff();
    let mut reported = String::new();
    // Includes deliveries of lost connections: they are finished, although they can no longer be settled.
    let mut in_flight = JoinSet::new();
    listener.statuses.down(queue, "starting");
    loop {
        let live = tokio::select! {
            () = stop.cancelled() => break,
            live = listener.consuming.wait_for_connection() => live,
        };
        let started = Instant::now();
        let problem = match tokio::time::timeout(START_TIMEOUT, start(&live, entry))
            .await
            .unwrap_or_else(|_| Err(timed_out()))
        {
            Ok((channel, consumer)) => {
                tracing::info!(listener = %listener.name, queue, prefetch = entry.prefetch, "queue consumer started");
                reported = String::new();
                listener.statuses.clear(queue);
                let active = ActiveConsumer { listener: &listener, spec: &spec, live: &live, channel, stop: &stop };
                let Some(problem) = active.run(consumer, &mut in_flight).await else { break };
                if started.elapsed() >= STABLE_TIME {
                    backoff = retry_backoff();
                }
                problem
            }
            Err(error) => error.to_string(),
        };
        listener.statuses.down(queue, &problem);
        if problem != reported {
            tracing::warn!(listener = %listener.name, queue, %problem, "queue consumer stopped; retrying");
            reported = problem;
        }
        if !backoff.wait(stop.cancelled()).await {
            break;
        }
    }
    listener.statuses.clear(queue);
    while in_flight.join_next().await.is_some() {}
}

fn timed_out() -> lapin::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

async fn start(live: &Live, entry: &Entry) -> lapin::Result<(Channel, Consumer)> {
    // A separate channel, so that a channel error does not affect other queues.
    let channel = live.connection.create_channel().await?;
    declare(&channel, &entry.queue, entry.declare, entry.queue_type).await?;
    channel.basic_qos(entry.prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut arguments = FieldTable::default();
    if let Some(priority) = entry.priority {
        // RabbitMQ, "Consumer Priorities".
        arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
    }
    let tag = ShortString::default();
    let consumer = channel.basic_consume(entry.queue.clone(), tag, options, arguments).await?;
    Ok((channel, consumer))
}

async fn declare(channel: &Channel, queue: &ShortString, declare: Declare, kind: QueueType) -> lapin::Result<()> {
    let (options, arguments) = match declare {
        Declare::Never => return Ok(()),
        Declare::Check => {
            (QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() }, FieldTable::default())
        }
        Declare::Create => {
            let mut arguments = FieldTable::default();
            if kind == QueueType::Quorum {
                arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            }
            (QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }, arguments)
        }
    };
    channel.queue_declare(queue.clone(), options, arguments).await.map(drop)
}

/// A consumer on one channel.
struct ActiveConsumer<'a> {
    listener: &'a Rc<ListenerContext>,
    spec: &'a Arc<dyn EntrySpec>,
    live: &'a Live,
    channel: Channel,
    stop: &'a CancellationToken,
}

impl ActiveConsumer<'_> {
    /// Consumes until stopped; returns the reason if it ends earlier.
    async fn run(&self, mut consumer: Consumer, in_flight: &mut JoinSet<()>) -> Option<String> {
        let source = NEXT_CHANNEL_ID.fetch_add(1, Ordering::Relaxed);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(_) = in_flight.join_next(), if !in_flight.is_empty() => {}
                // Deliveries that are not taken stay unacknowledged, and the prefetch makes the broker hold back the others.
                () = tokio::time::sleep(MEMORY_INTERVAL), if !bodies::has_room() => {}
                delivery = consumer.next(), if bodies::has_room() => match delivery {
                    Some(Ok(delivery)) => {
                        let (listener, spec) = (Rc::clone(self.listener), Arc::clone(self.spec));
                        let handler = DeliveryHandler { listener, spec, stop: self.stop.clone(), source };
                        in_flight.spawn_local(handle(handler, delivery));
                    }
                    Some(Err(error)) => return Some(error.to_string()),
                    None => return Some("the broker cancelled the consumer".to_owned()),
                },
                // After `consumer.next()`, which reports lapin's own error.
                () = self.live.lost() => return Some("the connection was lost".to_owned()),
            }
        }
        failpoint("amqp.draining");
        let cancelling = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        let _ = tokio::time::timeout(STOP_STEP_TIMEOUT, cancelling).await;
        // Settle before closing: the broker redelivers what is unsettled when the channel is closed.
        while in_flight.join_next().await.is_some() {}
        let _ = tokio::time::timeout(STOP_STEP_TIMEOUT, self.channel.close(200, "OK".into())).await;
        None
    }
}
