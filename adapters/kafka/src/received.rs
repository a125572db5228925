//! Records as received.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{BodyType, ByteString, Format};
use crossdock_ports::Fields;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

/// The memory of a header besides its name and value.
const HEADER_OVERHEAD: usize = 96;

/// A record as received. Header names are case-sensitive in Kafka, and values are bytes or null.
#[derive(Debug)]
pub(crate) struct ReceivedRecord {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
    /// Headers whose names are not UTF-8 are left out.
    pub(crate) has_unreadable_headers: bool,
    /// Milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
}

/// A value with the type that a schema registry knows, without the number of its schema.
#[derive(Debug)]
pub(crate) struct TypedValue {
    pub(crate) value: Bytes,
    pub(crate) format: Format,
    /// `None` for JSON, which says itself what it is.
    pub(crate) of_type: Option<Arc<dyn BodyType>>,
}

impl ReceivedRecord {
    /// Copies a record out of librdkafka's memory, in which one small record would keep its whole batch. `topic` is its topic, which most records
    /// share.
    pub(crate) fn copy(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Self {
        let (headers, has_unreadable_headers) = headers(message);
        Self {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers,
            has_unreadable_headers,
            timestamp: message.timestamp().to_millis(),
        }
    }

    /// The bytes that its key, value and headers occupy.
    pub(crate) fn len(&self) -> usize {
        let len = |(name, value): &(String, Option<Bytes>)| {
            HEADER_OVERHEAD + name.len() + value.as_ref().map_or(0, Bytes::len)
        };
        let headers = self.headers.iter().map(len);
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>()
    }

    /// Its position, which identifies it in the cluster: the same for every attempt.
    pub(crate) fn position(&self) -> ByteString {
        format!("{}/{}/{}", self.topic, self.partition, self.offset).into()
    }

    /// The values of a header; names are case-insensitive here.
    pub(crate) fn values<'r>(&'r self, name: &str) -> impl Iterator<Item = Option<&'r Bytes>> {
        let name = name.to_owned();
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(&name)).map(|(_, value)| value.as_ref())
    }

    /// The only value of a header, if it is text; names are case-insensitive here.
    pub(crate) fn text(&self, name: &str) -> Option<ByteString> {
        let mut values = self.values(name);
        let (Some(Some(value)), None) = (values.next(), values.next()) else { return None };
        ByteString::try_from(value.clone()).ok()
    }

    /// The last value of a header with exactly this name, unless it is null.
    pub(crate) fn value_of(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().rev().find(|(key, _)| key == name)?.1.as_ref()
    }

    /// The last value of a header with exactly this name, if it is text.
    pub(crate) fn exact_text(&self, name: &str) -> Option<ByteString> {
        ByteString::try_from(self.value_of(name)?.clone()).ok()
    }
}

impl Fields for ReceivedRecord {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next().flatten().map(|value| &**value)
    }

    fn is_repeated(&self, name: &str) -> bool {
        self.values(name).nth(1).is_some()
    }
}

/// The headers, and whether some are left out: rdkafka panics on a name that is not UTF-8.
fn headers(message: &BorrowedMessage<'_>) -> (Vec<(String, Option<Bytes>)>, bool) {
    let Some(headers) = message.headers() else { return (Vec::new(), false) };
    let read = |index| {
        let header = std::panic::catch_unwind(AssertUnwindSafe(|| headers.try_get(index))).ok().flatten()?;
        Some((header.key.to_owned(), header.value.map(Bytes::copy_from_slice)))
    };
    let readable: Vec<_> = (0..headers.count()).filter_map(read).collect();
    let has_unreadable = readable.len() < headers.count();
    (readable, has_unreadable)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record without key and value.
    pub(crate) fn record_with_headers(headers: Vec<(String, Option<Bytes>)>) -> ReceivedRecord {
        ReceivedRecord {
            topic: "t".into(),
            partition: 0,
            offset: 7,
            key: None,
            value: None,
            headers,
            has_unreadable_headers: false,
            timestamp: None,
        }
    }

    #[test]
    fn a_position_names_topic_partition_and_offset() {
        assert_eq!(record_with_headers(Vec::new()).position(), "t/0/7");
    }
}
