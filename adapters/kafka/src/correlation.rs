//! The headers by which a request names the address of its reply, and a reply its request.
//!
//! | convention | topic | partition | correlation id |
//! | --- | --- | --- | --- |
//! | Spring Kafka | `kafka_replyTopic` | `kafka_replyPartition`, 4 bytes, big-endian | `kafka_correlationId`, bytes |
//! | Zilla | `zilla:reply-to` | – | `zilla:correlation-id` |
//! | plain | `reply-to` | `reply-partition`, decimal | `correlation-id` |
//!
//! A responder copies the bytes of the correlation id, whatever they are.

use std::fmt;

use bytes::Bytes;
use crossdock_message::{ByteString, Code, Fault};
use rdkafka::message::{Header, OwnedHeaders};

use crate::config::Convention;
use crate::received::ReceivedRecord;

/// Identifies a request among all requests of all instances.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CorrelationId {
    /// The random number of the data arbiter that sent it.
    pub(crate) sender: u64,
    /// The number of the request.
    pub(crate) number: u64,
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.sender, self.number)
    }
}

impl CorrelationId {
    /// As text: 32 hexadecimal digits.
    pub(crate) fn to_text(self) -> ByteString {
        format!("{self:?}").into()
    }

    fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.sender) << 64) | u128::from(self.number)).to_be_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sender, number) = bytes.split_first_chunk::<8>()?;
        Some(Self { sender: u64::from_be_bytes(*sender), number: u64::from_be_bytes(number.try_into().ok()?) })
    }

    fn from_text(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 32 && !text.contains(['+', '-']))?;
        let half = |range| u64::from_str_radix(text.get(range)?, 16).ok();
        Some(Self { sender: half(0..16)?, number: half(16..32)? })
    }
}

/// Where the reply to a request is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplyAddress {
    pub(crate) topic: String,
    pub(crate) partition: Option<i32>,
    /// The bytes of the correlation id as received.
    pub(crate) id: Option<Bytes>,
}

struct Names {
    topic: &'static str,
    partition: Option<&'static str>,
    id: &'static str,
}

impl Convention {
    const fn names(self) -> Names {
        match self {
            Self::Spring => {
                Names { topic: "kafka_replyTopic", partition: Some("kafka_replyPartition"), id: "kafka_correlationId" }
            }
            Self::Zilla => Names { topic: "zilla:reply-to", partition: None, id: "zilla:correlation-id" },
            Self::Plain => Names { topic: "reply-to", partition: Some("reply-partition"), id: "correlation-id" },
        }
    }

    /// Whether a request can name a partition.
    pub(crate) const fn has_partition(self) -> bool {
        self.names().partition.is_some()
    }

    /// Adds the headers of a request.
    pub(crate) fn add_to_request(
        self,
        headers: OwnedHeaders,
        id: CorrelationId,
        topic: &str,
        partition: Option<i32>,
    ) -> OwnedHeaders {
        let names = self.names();
        let mut headers = headers.insert(Header { key: names.topic, value: Some(topic) });
        if let (Some(key), Some(number)) = (names.partition, partition) {
            headers = match self {
                Self::Spring => headers.insert(Header { key, value: Some(&number.to_be_bytes()) }),
                Self::Zilla | Self::Plain => headers.insert(Header { key, value: Some(&number.to_string()) }),
            };
        }
        match self {
            Self::Spring => headers.insert(Header { key: names.id, value: Some(&id.to_bytes()) }),
            Self::Zilla | Self::Plain => headers.insert(Header { key: names.id, value: Some(&*id.to_text()) }),
        }
    }

    /// The address in the headers of a request; `None` if it is no request.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a topic or partition that cannot be read.
    pub(crate) fn reply_address(self, record: &ReceivedRecord) -> Result<Option<ReplyAddress>, Fault> {
        let names = self.names();
        let Some(topic) = record.value_of(names.topic).filter(|topic| !topic.is_empty()) else { return Ok(None) };
        let malformed = |name: &str| {
            let problem = format!("the header `{name}` of the request cannot be read");
            Fault::caller(Code::InvalidArgument, "REPLY_TO", problem)
        };
        let topic = std::str::from_utf8(topic).map_err(|_| malformed(names.topic))?.to_owned();
        let partition = match names.partition.and_then(|name| Some((name, record.value_of(name)?))) {
            None => None,
            Some((name, bytes)) => {
                let number = match self {
                    Self::Spring => <[u8; 4]>::try_from(&**bytes).ok().map(i32::from_be_bytes),
                    Self::Zilla | Self::Plain => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
                };
                Some(number.filter(|number| *number >= 0).ok_or_else(|| malformed(name))?)
            }
        };
        Ok(Some(ReplyAddress { topic, partition, id: record.value_of(names.id).cloned() }))
    }

    /// Adds the correlation id to the headers of a reply.
    pub(crate) fn add_to_reply(self, headers: OwnedHeaders, id: Option<&Bytes>) -> OwnedHeaders {
        match id {
            Some(id) => headers.insert(Header { key: self.names().id, value: Some(&**id) }),
            None => headers,
        }
    }

    /// The request that a reply belongs to; `None` if it is none of a gateway's.
    pub(crate) fn id_of(self, reply: &ReceivedRecord) -> Option<CorrelationId> {
        let bytes = reply.value_of(self.names().id)?;
        match self {
            Self::Spring => CorrelationId::from_bytes(bytes),
            Self::Zilla | Self::Plain => CorrelationId::from_text(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::received::tests::record_with_headers;

    const ID: CorrelationId = CorrelationId { sender: 0xfedc_ba98_7654_3210, number: 7 };

    fn received(headers: &OwnedHeaders) -> ReceivedRecord {
        use rdkafka::message::Headers as _;
        let pairs = headers.iter().map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice)));
        record_with_headers(pairs.collect())
    }

    #[test]
    fn a_reply_finds_its_request_by_every_convention() {
        for (convention, partition) in [
            (Convention::Spring, Some(258)),
            (Convention::Spring, None),
            (Convention::Zilla, None),
            (Convention::Plain, Some(3)),
        ] {
            let request = received(&convention.add_to_request(OwnedHeaders::new(), ID, "replies", partition));
            let address = convention.reply_address(&request).expect("valid").expect("a request");
            assert_eq!((&*address.topic, address.partition), ("replies", partition));
            let reply = received(&convention.add_to_reply(OwnedHeaders::new(), address.id.as_ref()));
            assert_eq!(convention.id_of(&reply), Some(ID));
        }
    }

    #[test]
    fn springs_headers_are_binary() {
        let headers = Convention::Spring.add_to_request(OwnedHeaders::new(), ID, "replies", Some(258));
        let request = received(&headers);
        assert_eq!(request.value_of("kafka_replyPartition").map(|value| &**value), Some(&[0, 0, 1, 2][..]));
        assert_eq!(request.value_of("kafka_correlationId").map(Bytes::len), Some(16));
    }

    #[test]
    fn malformed_addresses_are_refused_and_foreign_ids_ignored() {
        let with = |headers: &[(&str, &'static [u8])]| {
            record_with_headers(
                headers.iter().map(|(name, value)| ((*name).to_owned(), Some(Bytes::from_static(value)))).collect(),
            )
        };
        assert_eq!(Convention::Spring.reply_address(&with(&[])), Ok(None));
        assert_eq!(Convention::Spring.reply_address(&with(&[("kafka_replyTopic", b"")])), Ok(None));
        for headers in [
            &[("kafka_replyTopic", &b"\xff"[..])][..],
            &[("kafka_replyTopic", b"t"), ("kafka_replyPartition", b"1")],
            &[("kafka_replyTopic", b"t"), ("kafka_replyPartition", b"\xff\xff\xff\xff")],
        ] {
            assert!(Convention::Spring.reply_address(&with(headers)).is_err(), "{headers:?}");
        }
        for partition in [&b"x"[..], b"-1", b"", b"99999999999"] {
            let request = with(&[("reply-to", b"t"), ("reply-partition", partition)]);
            assert!(Convention::Plain.reply_address(&request).is_err(), "{partition:?}");
        }
        for id in [&b""[..], b"x", b"0123456789abcdef0123456789abcde", b"+123456789abcdef0123456789abcdef", b"\xff"] {
            assert_eq!(Convention::Plain.id_of(&with(&[("correlation-id", id)])), None, "{id:?}");
            assert_eq!(Convention::Spring.id_of(&with(&[("kafka_correlationId", id)])), None, "{id:?}");
        }
    }
}
