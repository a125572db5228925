//! Lists, replays and drops the messages of a dead letter queue.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_message::{Code, Fault};
use crossdock_ports::{AdapterError, Choice, DeadLetter, DeadLetters, EntrySpec, LocalFuture, Visit};
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use crate::broker::{Broker, Brokers, Live, Purpose};
use crate::config::{Entry, Listener, RejectPolicy};
use crate::error::unreachable;
use crate::mapping;
use crate::publisher::{Publication, Publisher};

/// Timeout for each response of the broker.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a visit waits until the messages that it keeps are back in the queue. They are never lost: another consumer may take them first.
const REQUEUE_TIMEOUT: Duration = Duration::from_secs(1);
const REQUEUE_INTERVAL: Duration = Duration::from_millis(10);

/// A dead letter queue.
pub(crate) struct DeadLetterQueue {
    queue: ShortString,
    /// Queues to which its messages may be replayed: those whose entries name it. The header of a message alone is not trusted.
    sources: Vec<ShortString>,
    consuming: Arc<Broker>,
    publisher: Rc<Publisher>,
}

/// The dead letter queues that the entries of a listener name.
pub(crate) fn queues(
    listener: &Listener,
    entries: &[Arc<dyn EntrySpec>],
    brokers: &Brokers,
) -> Result<Vec<DeadLetterQueue>, AdapterError> {
    let mut sources: BTreeMap<String, Vec<ShortString>> = BTreeMap::new();
    for entry in entries.iter().filter_map(|entry| entry.as_any().downcast_ref::<Entry>()) {
        if let RejectPolicy::DeadLetter(dead) = &entry.reject_policy {
            sources.entry(dead.to_string()).or_default().push(entry.queue.clone());
        }
    }
    let queue = |(queue, sources): (String, Vec<ShortString>)| {
        let consuming = brokers.broker(&listener.addresses, Purpose::Consume)?;
        let publishing = brokers.broker(&listener.addresses, Purpose::Publish)?;
        let publisher = Publisher::new(publishing, ShortString::default(), None);
        Ok(DeadLetterQueue { queue: queue.as_str().into(), sources, consuming, publisher })
    };
    sources.into_iter().map(queue).collect()
}

impl DeadLetters for DeadLetterQueue {
    fn name(&self) -> &str {
        self.queue.as_str()
    }

    fn visit<'a>(
        &'a self,
        max: usize,
        choose: &'a mut dyn FnMut(&DeadLetter) -> Choice,
    ) -> LocalFuture<'a, Result<Visit, Fault>> {
        Box::pin(async move {
            let live = self.consuming.connection().await?;
            let channel = with_timeout(live.connection.create_channel()).await?;
            let visited = self.visit_on(&channel, max, choose).await;
            // Requeues unsettled messages.
            let _ = with_timeout(channel.close(200, "OK".into())).await;
            let (visit, message_count) = visited?;
            let kept = message_count.saturating_sub(visit.replayed + visit.dropped);
            // The visit has succeeded, whatever the broker answers now.
            let _ = tokio::time::timeout(REQUEUE_TIMEOUT, self.requeued(&live, kept)).await;
            Ok(visit)
        })
    }
}

impl DeadLetterQueue {
    /// Waits until the queue has `kept` messages. The broker confirms that a channel is closed before it requeues the channel's messages, so a visit
    /// that starts at once could miss them.
    async fn requeued(&self, live: &Live, kept: usize) -> lapin::Result<()> {
        let channel = live.connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        loop {
            let queue = channel.queue_declare(self.queue.clone(), options, FieldTable::default()).await?;
            if usize::try_from(queue.message_count()).unwrap_or(usize::MAX) >= kept {
                return Ok(());
            }
            tokio::time::sleep(REQUEUE_INTERVAL).await;
        }
    }

    /// Visits messages; also returns how many the queue had before.
    async fn visit_on(
        &self,
        channel: &Channel,
        max: usize,
        choose: &mut dyn FnMut(&DeadLetter) -> Choice,
    ) -> Result<(Visit, usize), Fault> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = with_timeout(channel.queue_declare(self.queue.clone(), options, FieldTable::default())).await?;
        // Messages that arrive during the visit may be replayed ones that failed again.
        let message_count = usize::try_from(queue.message_count()).unwrap_or(usize::MAX);
        let count = max.min(message_count);
        let mut visit = Visit::default();
        while visit.seen < count {
            let got = match with_timeout(channel.basic_get(self.queue.clone(), BasicGetOptions::default())).await {
                Ok(Some(got)) => got,
                Ok(None) => break,
                // Report what has been done so far.
                Err(fault) => {
                    visit.failed.push(("the rest".into(), fault));
                    break;
                }
            };
            visit.seen += 1;
            let (properties, acker) = (got.delivery.properties, got.delivery.acker);
            let letter = mapping::parse_dead_letter(&properties, Bytes::from(got.delivery.data));
            let chosen = choose(&letter);
            match chosen {
                Choice::Keep => continue,
                Choice::Stop => break,
                Choice::Drop => {}
                Choice::Replay => match self.replay(&properties, &letter).await {
                    Ok(()) => visit.replayed += 1,
                    Err(fault) => {
                        visit.failed.push((letter.id, fault));
                        continue;
                    }
                },
            }
            match with_timeout(acker.ack(BasicAckOptions::default())).await {
                Ok(_) => visit.dropped += usize::from(chosen == Choice::Drop),
                Err(fault) => {
                    visit.failed.push((letter.id, fault));
                    break;
                }
            }
        }
        Ok((visit, message_count))
    }

    async fn replay(&self, properties: &BasicProperties, letter: &DeadLetter) -> Result<(), Fault> {
        if letter.is_partial {
            let message = "its headers were dropped when it was dead-lettered, so it cannot be replayed unchanged";
            return Err(Fault::new(Code::DataLoss, "HEADERS_DROPPED", message));
        }
        let source = letter.source.as_deref().unwrap_or_default();
        let Some(key) = self.sources.iter().find(|queue| queue.as_str() == source) else {
            let message = match source {
                "" => "the message does not name the queue that it came from".to_owned(),
                queue => format!("no route consumes `{queue}` with this dead letter queue"),
            };
            return Err(Fault::new(Code::FailedPrecondition, "SOURCE", message));
        };
        let (key, properties) = (key.clone(), mapping::replay_properties(properties));
        let publication = Publication { key, mandatory: true, properties, body: letter.body.clone() };
        self.publisher.publish_within(RESPONSE_TIMEOUT, publication).await
    }
}

async fn with_timeout<T>(operation: impl Future<Output = lapin::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(RESPONSE_TIMEOUT, operation).await {
        Ok(answer) => answer.map_err(unreachable),
        Err(_) => Err(unreachable("it does not respond")),
    }
}
