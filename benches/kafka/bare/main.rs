//! Minimal loops over rdkafka as a reference, and load generators for the benchmark.
//!
//! ```text
//! bare-kafka create BROKERS PARTITIONS TOPIC…    creates topics
//! bare-kafka fill BROKERS TOPIC COUNT SIZE       writes records with 1 000 keys
//! bare-kafka move BROKERS FROM TO COUNT          consumes, writes, and commits each offset once its record is confirmed
//! bare-kafka wait BROKERS TOPIC COUNT            waits until a topic has that many records; prints the rate since the first ones, per second
//! bare-kafka pace BROKERS FROM TO COUNT          writes records one by one, 5 ms apart, and waits for each in TO; prints the median and 99th percentile of
//!                                                the time in between, in milliseconds
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};

const KEYS: usize = 1_000;
/// The records that wait for their confirms.
const UNCONFIRMED_MAX: usize = 1_000;
/// How often offsets are committed, in records.
const COMMIT_INTERVAL: usize = 10_000;
/// The time between records of which each is measured.
const PACE: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(60);

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [command, brokers, rest @ ..] = arguments.as_slice() else {
        return Err("usage: bare-kafka COMMAND BROKERS …".into());
    };
    match (*command, rest) {
        ("create", [partitions, topics @ ..]) => create(brokers, partitions.parse()?, topics),
        ("fill", [topic, count, size]) => fill(brokers, topic, count.parse()?, size.parse()?),
        ("move", [from, to, count]) => move_records(brokers, from, to, count.parse()?),
        ("wait", [topic, count]) => wait(brokers, topic, count.parse()?),
        ("pace", [from, to, count]) => pace(brokers, from, to, count.parse()?),
        _ => Err(format!("unknown command or wrong arguments: `{command}`").into()),
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn create(brokers: &str, partitions: i32, topics: &[&str]) -> Result {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create()?;
    let topics: Vec<_> =
        topics.iter().map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(1))).collect();
    for result in block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
        result.map_err(|(topic, code)| format!("{topic}: {code}"))?;
    }
    Ok(())
}

/// Waits for a future that another thread completes.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(result) => return result,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// Counts confirms.
#[derive(Default)]
struct Confirms {
    confirmed: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl ClientContext for Confirms {}

impl ProducerContext for Confirms {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.confirmed } else { &self.failed };
        counter.fetch_add(1, Ordering::Release);
    }
}

/// An idempotent producer with the settings of the gateway.
struct Writer {
    producer: ThreadedProducer<Confirms>,
    confirmed: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    sent: usize,
}

impl Writer {
    fn new(brokers: &str) -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let confirms = Confirms::default();
        let (confirmed, failed) = (Arc::clone(&confirms.confirmed), Arc::clone(&confirms.failed));
        let mut config = config(brokers);
        config.set("enable.idempotence", "true").set("linger.ms", "1").set("compression.type", "lz4");
        config.set("partitioner", "murmur2_random");
        Ok(Self { producer: config.create_with_context(confirms)?, confirmed, failed, sent: 0 })
    }

    fn unconfirmed(&self) -> usize {
        self.sent - self.confirmed.load(Ordering::Acquire)
    }

    fn write(&mut self, topic: &str, key: &[u8], value: &[u8]) -> Result {
        while self.unconfirmed() >= UNCONFIRMED_MAX {
            std::thread::park_timeout(Duration::from_micros(100));
        }
        if self.failed.load(Ordering::Relaxed) > 0 {
            return Err("a record was not confirmed".into());
        }
        self.producer.send(BaseRecord::to(topic).key(key).payload(value)).map_err(|(error, _)| error)?;
        self.sent += 1;
        Ok(())
    }
}

fn fill(brokers: &str, topic: &str, count: usize, size: usize) -> Result {
    let mut writer = Writer::new(brokers)?;
    let value = format!("{{\"pad\":\"{}\"}}", "x".repeat(size.saturating_sub(10)));
    for number in 0..count {
        writer.write(topic, (number % KEYS).to_string().as_bytes(), value.as_bytes())?;
    }
    writer.producer.flush(TIMEOUT)?;
    Ok(())
}

fn move_records(brokers: &str, from: &str, to: &str, count: usize) -> Result {
    let mut writer = Writer::new(brokers)?;
    let mut config = config(brokers);
    config.set("group.id", from).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[from])?;
    let mut next = HashMap::new();
    while writer.sent < count {
        // Nothing arrives before the partitions are assigned.
        let Some(message) = consumer.poll(TIMEOUT) else { continue };
        let message = message?;
        writer.write(to, message.key().unwrap_or_default(), message.payload().unwrap_or_default())?;
        next.insert(message.partition(), message.offset() + 1);
        if writer.sent % COMMIT_INTERVAL == 0 || writer.sent == count {
            writer.producer.flush(TIMEOUT)?;
            let mut offsets = TopicPartitionList::new();
            for (partition, offset) in &next {
                offsets.add_partition_offset(from, *partition, Offset::Offset(*offset))?;
            }
            consumer.commit(&offsets, CommitMode::Async)?;
        }
    }
    Ok(())
}

fn wait(brokers: &str, topic: &str, count: i64) -> Result {
    let consumer: BaseConsumer = config(brokers).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let (begun, mut first) = (Instant::now(), None);
    while begun.elapsed() < TIMEOUT * 5 {
        let mut written = 0;
        for partition in 0..partitions {
            // A new partition may not have a leader yet.
            let found = consumer.fetch_watermarks(topic, i32::try_from(partition)?, TIMEOUT);
            written += found.map_or(0, |(_, end)| end);
        }
        if written > 0 {
            let (since, before) = *first.get_or_insert((Instant::now(), written));
            if written >= count {
                #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 records")]
                let per_second = (count - before) as f64 / since.elapsed().as_secs_f64();
                println!("{per_second:.0}");
                return Ok(());
            }
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Err("not all records were written in time".into())
}

fn pace(brokers: &str, from: &str, to: &str, count: usize) -> Result {
    const WARM_UP: usize = 100;
    let consumer: BaseConsumer = config(brokers).set("group.id", "pace").set("fetch.wait.max.ms", "100").create()?;
    let metadata = consumer.fetch_metadata(Some(to), TIMEOUT)?;
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
        // A new partition may not have a leader yet.
        let begun = Instant::now();
        let end = loop {
            match consumer.fetch_watermarks(to, partition.id(), TIMEOUT) {
                Ok((_, end)) => break end,
                Err(error) if begun.elapsed() > TIMEOUT => return Err(error.into()),
                Err(_) => std::thread::park_timeout(Duration::from_millis(100)),
            }
        };
        partitions.add_partition_offset(to, partition.id(), Offset::Offset(end))?;
    }
    consumer.assign(&partitions)?;
    let producer: ThreadedProducer<Confirms> =
        config(brokers).set("linger.ms", "0").create_with_context(Confirms::default())?;
    let mut times = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        let begun = Instant::now();
        let (key, value) = ((number % KEYS).to_string(), format!("{{\"n\":{number}}}"));
        producer.send(BaseRecord::to(from).key(&key).payload(&value)).map_err(|(error, _)| error)?;
        loop {
            // A poll also ends for other events.
            match consumer.poll(TIMEOUT).transpose()? {
                Some(message) if message.payload() == Some(value.as_bytes()) => break,
                _ if begun.elapsed() > TIMEOUT => return Err("a record did not arrive".into()),
                _ => {}
            }
        }
        if number >= WARM_UP {
            times.push(begun.elapsed());
        }
        std::thread::park_timeout(PACE.saturating_sub(begun.elapsed()));
    }
    times.sort_unstable();
    let millis = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
    println!("{:.2} {:.2}", millis(50), millis(99));
    Ok(())
}
