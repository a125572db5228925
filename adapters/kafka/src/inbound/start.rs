//! Finds out where to start in partitions for which the group has no offset.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Start;

/// For each answer of the brokers. The polling thread waits for it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The partitions with the offsets to start at, where the group has none. These are committed first: otherwise the next owner of a partition would start
/// at a later end, and skip what was written meanwhile. Blocks.
///
/// # Errors
/// The brokers do not tell.
pub(super) fn resolve<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    start: Start,
    list: &TopicPartitionList,
) -> Result<TopicPartitionList, KafkaError> {
    if start == Start::Earliest {
        // As the client does by itself.
        return Ok(list.clone());
    }
    let committed = consumer.committed_offsets(list.clone(), RESPONSE_TIMEOUT)?;
    let mut starts = TopicPartitionList::new();
    for element in committed.elements().iter().filter(|element| !matches!(element.offset(), Offset::Offset(_))) {
        let offset = first_offset(consumer, start, element.topic(), element.partition())?;
        starts.add_partition_offset(element.topic(), element.partition(), Offset::Offset(offset))?;
    }
    let mut resolved = list.clone();
    if starts.count() > 0 {
        consumer.commit(&starts, CommitMode::Sync)?;
        for element in starts.elements() {
            resolved.set_partition_offset(element.topic(), element.partition(), element.offset())?;
        }
    }
    Ok(resolved)
}

fn first_offset<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    start: Start,
    topic: &str,
    partition: i32,
) -> Result<i64, KafkaError> {
    if let Start::At(millis) = start {
        let mut times = TopicPartitionList::with_capacity(1);
        times.add_partition_offset(topic, partition, Offset::Offset(millis))?;
        let found = consumer.offsets_for_times(times, RESPONSE_TIMEOUT)?;
        if let Some(Offset::Offset(offset)) =
            found.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset)
        {
            return Ok(offset);
        }
    }
    // There is no record that late.
    consumer.fetch_watermarks(topic, partition, RESPONSE_TIMEOUT).map(|(_, end)| end)
}
