//! Creates topics that do not exist.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use crate::client::Monitor;
use crate::config::Cluster;

/// For the answer of the brokers.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked whether the brokers know a new topic.
const INTERVAL: Duration = Duration::from_millis(50);
/// The brokers' default (KIP-464).
const DEFAULT: i32 = -1;

/// Creates those of the topics that do not exist, with the brokers' default number of partitions and replicas. If the future is dropped, they may be
/// created.
///
/// # Errors
/// Why one of them cannot be created.
pub(crate) async fn create(cluster: Cluster, topics: Vec<String>) -> Result<(), String> {
    let created = tokio::task::spawn_blocking(move || create_blocking(&cluster, &topics)).await;
    created.unwrap_or_else(|_| Err("the client failed".to_owned()))
}

/// Like [`create`], for a thread that may block: closing the client takes a moment.
pub(crate) fn create_blocking(cluster: &Cluster, topics: &[String]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let monitor = Monitor::new(cluster, "create topics");
    // The error may contain values of settings.
    let admin: AdminClient<Monitor> = cluster
        .client_config()
        .create_with_context(monitor)
        .map_err(|_: KafkaError| "a client cannot be created: check `tls` and `sasl`".to_owned())?;
    let new = topics.iter().map(|topic| NewTopic::new(topic, DEFAULT, TopicReplication::Fixed(DEFAULT)));
    let new: Vec<_> = new.collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let created = runtime.block_on(admin.create_topics(&new, &options));
    let of_client = || admin.inner().context().status().problem().map(str::to_owned);
    let created = created.map_err(|error| {
        of_client()
            .unwrap_or_else(|| error.rdkafka_error_code().map_or("the client failed".into(), |code| code.to_string()))
    })?;
    for result in created {
        match result {
            Ok(topic) => tracing::info!(brokers = %cluster.brokers, topic, "topic created"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(format!("the topic `{topic}` cannot be created: {code}")),
        }
    }
    // A client that asks for a new topic too early asks again after half a minute.
    let until = Instant::now() + TIMEOUT;
    for topic in topics {
        while !has_leaders(&admin, topic) && Instant::now() < until {
            std::thread::park_timeout(INTERVAL);
        }
    }
    Ok(())
}

/// Whether a broker knows the leaders of all partitions of a topic.
fn has_leaders(admin: &AdminClient<Monitor>, topic: &str) -> bool {
    let Ok(metadata) = admin.inner().fetch_metadata(Some(topic), TIMEOUT) else { return false };
    let partitions = metadata.topics().iter().filter(|found| found.name() == topic).flat_map(MetadataTopic::partitions);
    let mut leaders = partitions.map(MetadataPartition::leader).peekable();
    leaders.peek().is_some() && leaders.all(|leader| leader >= 0)
}
