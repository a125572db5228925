//! One queue, consumed over every connection that there is for it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossdock_adapter_api::{EntrySpec, failpoint};
use crossdock_transport::bodies;
use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::delivery::{Handling, handle};
use super::waits::Waits;
use crate::broker::Live;
use crate::config::{Declare, Entry, QueueType};

/// A consumer that lives this long begins anew with short waits; what ends sooner may be ended by what it is sent.
const STEADY_TIME: Duration = Duration::from_secs(10);
/// For a consumer to begin, and for each of the two steps of its end.
const BEGIN_TIME: Duration = Duration::from_secs(10);
const END_TIME: Duration = Duration::from_secs(3);

/// How often it is looked whether there is memory for another body.
const ROOM_INTERVAL: Duration = Duration::from_millis(50);

/// Numbers for channels, so that each is told from all others.
static CHANNELS: AtomicU64 = AtomicU64::new(0);

/// Consumes a queue until `stop`; then finishes what is in flight, and leaves the rest to the broker.
pub(super) async fn consume(worker: Rc<Worker>, spec: Arc<dyn EntrySpec>, stop: CancellationToken) {
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else { return };
    let queue = entry.queue.as_str();
    let mut waits = Waits::new();
    let mut told = String::new();
    // Deliveries of connections that were lost are finished too, though nobody can settle them any more.
    let mut in_flight = JoinSet::new();
    loop {
        let live = tokio::select! {
            () = stop.cancelled() => break,
            live = worker.consuming.live_at_last() => live,
        };
        let begun = Instant::now();
        let problem =
            match tokio::time::timeout(BEGIN_TIME, begin(&live, entry)).await.unwrap_or_else(|_| Err(too_late())) {
                Ok((channel, consumer)) => {
                    tracing::info!(listener = %worker.name, queue, prefetch = entry.prefetch, "consuming");
                    told = String::new();
                    let consuming = Consuming { worker: &worker, spec: &spec, live: &live, channel, stop: &stop };
                    let Some(problem) = consuming.run(consumer, &mut in_flight).await else { break };
                    if begun.elapsed() >= STEADY_TIME {
                        waits = Waits::new();
                    }
                    problem
                }
                Err(error) => error.to_string(),
            };
        if problem != told {
            tracing::warn!(listener = %worker.name, queue, %problem, "the queue is not consumed; trying again");
            told = problem;
        }
        if !waits.next(&stop).await {
            break;
        }
    }
    while in_flight.join_next().await.is_some() {}
}

fn too_late() -> lapin::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

async fn begin(live: &Live, entry: &Entry) -> lapin::Result<(Channel, Consumer)> {
    // A channel of its own: what one queue does wrong closes no other's.
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

/// A queue that is consumed on one channel.
struct Consuming<'a> {
    worker: &'a Rc<Worker>,
    spec: &'a Arc<dyn EntrySpec>,
    live: &'a Live,
    channel: Channel,
    stop: &'a CancellationToken,
}

impl Consuming<'_> {
    /// Gives the reason why it ended, but where it was stopped.
    async fn run(&self, mut consumer: Consumer, in_flight: &mut JoinSet<()>) -> Option<String> {
        let source = CHANNELS.fetch_add(1, Ordering::Relaxed);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(_) = in_flight.join_next(), if !in_flight.is_empty() => {}
                // What it does not take stays unacknowledged at its prefetch, so that the broker holds the rest back.
                () = tokio::time::sleep(ROOM_INTERVAL), if !bodies::has_room() => {}
                delivery = consumer.next(), if bodies::has_room() => match delivery {
                    Some(Ok(delivery)) => {
                        let (worker, spec) = (Rc::clone(self.worker), Arc::clone(self.spec));
                        let handling = Handling { worker, spec, stop: self.stop.clone(), source };
                        in_flight.spawn_local(handle(handling, delivery));
                    }
                    Some(Err(error)) => return Some(error.to_string()),
                    None => return Some("the broker cancelled the consumer".to_owned()),
                },
                // lapin's own account of it comes first.
                () = self.live.lost() => return Some("the connection was lost".to_owned()),
            }
        }
        failpoint("amqp.draining");
        let cancelling = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        let _ = tokio::time::timeout(END_TIME, cancelling).await;
        // Settled first: what the channel still holds when it is closed is delivered to others.
        while in_flight.join_next().await.is_some() {}
        let _ = tokio::time::timeout(END_TIME, self.channel.close(200, "OK".into())).await;
        None
    }
}
