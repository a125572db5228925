//! Lists, replays and drops the records of a dead letter topic.
//!
//! Records of a log cannot be deleted one by one. Which of them are replayed or dropped is therefore kept as the offsets of a group,
//! `GROUP-dead-letters`: all before the committed offset, and those behind it that its metadata lists.

mod handled;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_delivery::dead_letter::{self as letter, DROPPED, REPLAYS};
use crossdock_message::{ByteString, Code, Fault};
use crossdock_ports::{AdapterError, Choice, DeadLetter, DeadLetters, EntrySpec, LocalFuture, Visit};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};

use self::handled::Handled;
use crate::client::Monitor;
use crate::config::{Cluster, Entry, Listener, RejectPolicy};
use crate::error::unreachable;
use crate::mapping::{self, CONTENT_TYPE};
use crate::producer::{Batching, Producer, Producers, Record};
use crate::received::ReceivedRecord;

/// For each answer of the brokers.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_TIME: Duration = Duration::from_millis(200);
/// A record that was replayed this often is not replayed again: its routes would never process it.
const REPLAYS_MAX: u32 = 10;
/// The headers that Spring's `DeadLetterPublishingRecoverer` adds start with this.
const SPRING_PREFIX: &str = "kafka_dlt-";
const SPRING_SOURCE: &str = "kafka_dlt-original-topic";
const SPRING_ERROR: &str = "kafka_dlt-exception-message";

/// A dead letter topic.
pub(crate) struct DeadLetterTopic {
    topic: Arc<str>,
    /// Topics to which its records may be replayed: those whose entries name it. The header of a record alone is not trusted.
    sources: Vec<String>,
    cluster: Cluster,
    group: String,
    producer: Arc<Producer>,
}

/// The dead letter topics that the entries of a listener name.
pub(crate) fn topics(
    listener: &Listener,
    entries: &[Arc<dyn EntrySpec>],
    producers: &Producers,
) -> Result<Vec<DeadLetterTopic>, AdapterError> {
    let mut sources: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in entries.iter().filter_map(|entry| entry.as_any().downcast_ref::<Entry>()) {
        if let RejectPolicy::DeadLetter(dead) = &entry.reject_policy {
            sources.entry(dead).or_default().push(entry.topic.clone());
        }
    }
    let topic = |(topic, sources): (&str, Vec<String>)| {
        Ok(DeadLetterTopic {
            topic: topic.into(),
            sources,
            cluster: listener.cluster.clone(),
            group: format!("{}-dead-letters", listener.group),
            producer: producers.producer(&listener.cluster, Batching::default())?,
        })
    };
    sources.into_iter().map(topic).collect()
}

impl DeadLetters for DeadLetterTopic {
    fn name(&self) -> &str {
        &self.topic
    }

    fn visit<'a>(
        &'a self,
        max: usize,
        choose: &'a mut dyn FnMut(&DeadLetter) -> Choice,
    ) -> LocalFuture<'a, Result<Visit, Fault>> {
        Box::pin(async move {
            let reader = Arc::new(Reader::open(self)?);
            let opened = Arc::clone(&reader);
            let partitions = blocking(move || opened.partitions()).await?;
            let mut visit = Visit::default();
            for partition in partitions {
                if visit.seen >= max || self.visit_partition(&reader, partition, max, &mut visit, choose).await? {
                    break;
                }
            }
            Ok(visit)
        })
    }
}

impl DeadLetterTopic {
    /// Visits the records of a partition that are not handled yet; returns whether the visit is to stop.
    async fn visit_partition(
        &self,
        reader: &Arc<Reader>,
        partition: i32,
        max: usize,
        visit: &mut Visit,
        choose: &mut dyn FnMut(&DeadLetter) -> Choice,
    ) -> Result<bool, Fault> {
        let started = Arc::clone(reader);
        let Some((mut handled, end)) = blocking(move || started.start(partition)).await? else { return Ok(false) };
        loop {
            if visit.seen >= max {
                return Ok(true);
            }
            let polling = Arc::clone(reader);
            let Some(record) = blocking(move || polling.next(end)).await? else { return Ok(false) };
            if !handled.visit(record.offset) {
                continue;
            }
            visit.seen += 1;
            let letter = parse(&record);
            let chosen = choose(&letter);
            match chosen {
                Choice::Keep => {
                    handled.keep(record.offset);
                    continue;
                }
                Choice::Stop => return Ok(true),
                Choice::Replay | Choice::Drop if !handled.fits(record.offset) => {
                    let message =
                        "too many dead letters behind older ones are handled; replay or drop the oldest ones first";
                    visit.failed.push((letter.id, Fault::new(Code::ResourceExhausted, "SCATTERED", message)));
                    handled.keep(record.offset);
                    continue;
                }
                Choice::Replay => match self.replay(&record, &letter).await {
                    Ok(()) => visit.replayed += 1,
                    Err(fault) => {
                        visit.failed.push((letter.id, fault));
                        handled.keep(record.offset);
                        continue;
                    }
                },
                Choice::Drop => visit.dropped += 1,
            }
            handled.mark(record.offset);
            let (committing, state) = (Arc::clone(reader), handled.clone());
            blocking(move || committing.commit(partition, &state)).await?;
        }
    }

    async fn replay(&self, record: &ReceivedRecord, letter: &DeadLetter) -> Result<(), Fault> {
        let refused = |reason, message: String| Err(Fault::new(Code::FailedPrecondition, reason, message));
        if letter.is_partial {
            let message = "its headers were dropped when it was dead-lettered, so it cannot be replayed unchanged";
            return Err(Fault::new(Code::DataLoss, "HEADERS_DROPPED", message));
        }
        let source = letter.source.as_deref().unwrap_or_default();
        let Some(topic) = self.sources.iter().find(|topic| *topic == source) else {
            return match source {
                "" => refused("SOURCE", "the record does not name the topic that it came from".to_owned()),
                topic => refused("SOURCE", format!("no route consumes `{topic}` with this dead letter topic")),
            };
        };
        let replays = mapping::replays(record);
        if replays >= REPLAYS_MAX {
            return refused("REPLAYS", format!("it was replayed {replays} times and failed each time; drop it"));
        }
        let is_original = |name: &str| !letter::is_added(name) && !name.starts_with(SPRING_PREFIX);
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 1);
        for (key, value) in record.headers.iter().filter(|(name, _)| is_original(name)) {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        headers = headers.insert(Header { key: REPLAYS, value: Some(&(replays + 1).to_string()) });
        let replayed = Record {
            topic,
            // In the order of its key, even if its sender chose the partition.
            partition: mapping::original_partition(record),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers,
            timestamp: record.timestamp,
        };
        self.producer.send(replayed).await
    }
}

fn parse(record: &ReceivedRecord) -> DeadLetter {
    let text = |name: &str| record.exact_text(name);
    let headers = record.headers.iter().filter(|(name, _)| !letter::is_added(name));
    let headers = headers.filter_map(|(name, value)| {
        Some((ByteString::from(name.as_str()), ByteString::try_from(value.clone()?).ok()?))
    });
    let mut found = DeadLetter {
        id: record.position(),
        content_type: text(CONTENT_TYPE),
        headers: headers.collect(),
        is_partial: record.has_unreadable_headers || text(DROPPED).is_some(),
        body: record.value.clone().unwrap_or_default(),
        ..DeadLetter::default()
    };
    letter::read_headers(&mut found, text);
    found.source = found.source.or_else(|| text(SPRING_SOURCE));
    found.error = found.error.or_else(|| text(SPRING_ERROR));
    found
}

/// Runs a call of librdkafka that blocks.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|_| Err(unreachable("the client failed")))
}

/// Reads a topic without joining a group. Its calls block.
struct Reader {
    topic: Arc<str>,
    consumer: BaseConsumer<Monitor>,
}

impl Reader {
    fn open(of: &DeadLetterTopic) -> Result<Self, Fault> {
        let mut config = of.cluster.client_config();
        config
            .set("group.id", &of.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest");
        let monitor = Monitor::new(&of.cluster, "read dead letters");
        // The error may contain values of settings.
        let consumer = config
            .create_with_context(monitor)
            .map_err(|_: KafkaError| unreachable("a consumer cannot be created: check `tls` and `sasl`"))?;
        let reader = Self { topic: Arc::clone(&of.topic), consumer };
        // A bearer token is only asked for while the client is polled.
        reader.consumer.poll(POLL_TIME);
        Ok(reader)
    }

    fn fault(&self, error: &KafkaError) -> Fault {
        let of_client = self.consumer.context().status().problem().map(str::to_owned);
        let of_error =
            || error.rdkafka_error_code().map_or_else(|| "the client failed".to_owned(), |code| code.to_string());
        unreachable(of_client.unwrap_or_else(of_error))
    }

    fn partitions(&self) -> Result<Vec<i32>, Fault> {
        let metadata =
            self.consumer.fetch_metadata(Some(&self.topic), RESPONSE_TIMEOUT).map_err(|error| self.fault(&error))?;
        let found = metadata.topics().iter().find(|found| *found.name() == *self.topic);
        let mut partitions: Vec<_> =
            found.map_or_else(Vec::new, |found| found.partitions().iter().map(MetadataPartition::id).collect());
        if partitions.is_empty() {
            let message = format!("the topic `{}` does not exist", self.topic);
            return Err(Fault::new(Code::Unavailable, "NO_TOPIC", message));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Starts to read a partition; returns what is handled and the current end, or `None` if there is nothing to visit.
    fn start(&self, partition: i32) -> Result<Option<(Handled, i64)>, Fault> {
        let fault = |error| self.fault(&error);
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, partition);
        let committed = self.consumer.committed_offsets(list, RESPONSE_TIMEOUT).map_err(fault)?;
        let (start, end) = self.consumer.fetch_watermarks(&self.topic, partition, RESPONSE_TIMEOUT).map_err(fault)?;
        let handled =
            match committed.elements().first().map(|element| (element.offset(), element.metadata().to_owned())) {
                Some((Offset::Offset(next), metadata)) => Handled::read(next, &metadata).starting_at(start),
                _ => Handled::none(start),
            };
        if handled.next() >= end {
            return Ok(None);
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, partition, Offset::Offset(handled.next())).map_err(fault)?;
        self.consumer.assign(&list).map_err(fault)?;
        Ok(Some((handled, end)))
    }

    /// The next record before `end`.
    fn next(&self, end: i64) -> Result<Option<ReceivedRecord>, Fault> {
        let until = Instant::now() + RESPONSE_TIMEOUT;
        while Instant::now() < until {
            match self.consumer.poll(POLL_TIME) {
                Some(Ok(message)) => {
                    let record = ReceivedRecord::copy(&message, Arc::clone(&self.topic));
                    return Ok(Some(record).filter(|record| record.offset < end));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                // The client retries.
                Some(Err(_)) | None => {}
            }
        }
        Err(unreachable(self.consumer.context().status().problem().unwrap_or("they do not respond")))
    }

    fn commit(&self, partition: i32, handled: &Handled) -> Result<(), Fault> {
        let fault = |error| self.fault(&error);
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, partition, Offset::Offset(handled.next())).map_err(fault)?;
        if let Some(mut element) = list.find_partition(&self.topic, partition) {
            element.set_metadata(handled.metadata());
        }
        self.consumer.commit(&list, CommitMode::Sync).map_err(fault)
    }
}
