//! Settings as written; `checked` holds the validated form.

mod checked;
mod cluster;
mod partitions;
mod registry;
mod start;
mod token;

use std::time::Duration as StdDuration;

use crossdock_cloudevents::{EntryEnvelope, Envelope};
use crossdock_ports::BodyFormat;
use crossdock_settings::{Duration, Named, OneOrMany, Secret, Size, Spanned, choices, settings};
use crossdock_tls::ClientTlsSettings;

pub(crate) use checked::{Entry, Listener, Operation, RejectPolicy, Replies, RetryTopic, Service, Subject};
pub(crate) use cluster::Cluster;
pub(crate) use partitions::ReplyPartitions;
pub(crate) use registry::{RegistryAccess, RegistryLogin};
pub(crate) use start::Start;
pub(crate) use token::TokenSource;

choices! {
    /// How the gateway authenticates to the brokers (RFC 4422).
    pub(crate) enum Mechanism {
        /// User name and password in plain text: only over TLS.
        Plain = "PLAIN",
        /// A challenge with SHA-256 (RFC 7677).
        ScramSha256 = "SCRAM-SHA-256",
        /// A challenge with SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
        /// A bearer token (RFC 7628), from `token`.
        OauthBearer = "OAUTHBEARER",
    }
}

choices! {
    /// The protocol of consumer groups.
    pub(crate) enum GroupProtocol {
        /// Assignment by a member of the group, cooperatively.
        Classic = "classic",
        /// Assignment by the brokers (KIP-848).
        Consumer = "consumer",
    }
}

choices! {
    /// Which records are processed one after another.
    pub(crate) enum Order {
        /// All records of a partition.
        Partition = "partition",
        /// Records of a partition with the same key; those without a key are processed concurrently.
        Key = "key",
        /// None.
        None = "none",
    }
}

choices! {
    /// What happens if a topic does not exist.
    pub(crate) enum Declare {
        /// It is waited for: others create it later.
        Never = "never",
        /// That is reported.
        Check = "check",
        /// It is created, with the brokers' default number of partitions and replicas.
        Create = "create",
    }
}

choices! {
    /// What happens to a record that will never succeed.
    pub(crate) enum Reject {
        /// It is written to the topic that `dead_letter` names, with the reason.
        DeadLetter = "dead_letter",
        /// It is skipped and lost.
        Discard = "discard",
    }
}

choices! {
    /// The compression of record batches.
    pub(crate) enum Compression {
        /// None.
        None = "none",
        /// gzip.
        Gzip = "gzip",
        /// Snappy.
        Snappy = "snappy",
        /// LZ4.
        Lz4 = "lz4",
        /// Zstandard.
        Zstd = "zstd",
    }
}

choices! {
    /// The headers by which requests and replies find one another.
    pub(crate) enum Convention {
        /// Those of Spring Kafka: `kafka_replyTopic`, `kafka_replyPartition`, `kafka_correlationId`.
        Spring = "spring",
        /// Those of Zilla: `zilla:reply-to`, `zilla:correlation-id`.
        Zilla = "zilla",
        /// `reply-to`, `reply-partition`, `correlation-id`.
        Plain = "plain",
    }
}

const fn millis(count: u64) -> Duration {
    Duration(StdDuration::from_millis(count))
}

settings! {
    /// a login to kafka brokers
    pub(crate) struct SaslSettings {
        /// The mechanism.
        pub(crate) mechanism: Mechanism,
        /// The user name.
        pub(crate) username: Option<String>,
        /// The password.
        pub(crate) password: Option<Spanned<Secret>>,
        /// Where a bearer token comes from.
        pub(crate) token: Option<TokenSettings>,
    }

    /// where a bearer token comes from
    pub(crate) struct TokenSettings {
        /// A file, which is read again before the token expires.
        pub(crate) file: Option<String>,
        /// A program with its arguments, which prints the token; run again before the token expires, for at most ten seconds.
        pub(crate) command: Vec<String>,
        /// How long a token is used that does not say when it expires.
        pub(crate) lifetime: Duration = millis(300_000),
    }

    /// a schema registry
    pub(crate) struct RegistrySettings {
        /// The address: `http://host:port` or `https://host:port/base`.
        pub(crate) url: Spanned<String>,
        /// TLS settings for an `https` address.
        pub(crate) tls: Option<ClientTlsSettings>,
        /// The user name.
        pub(crate) username: Option<String>,
        /// The password.
        pub(crate) password: Option<Spanned<Secret>>,
        /// A bearer token, instead of a user name and a password.
        pub(crate) token: Option<Spanned<Secret>>,
    }

    /// a kafka listener
    pub(crate) struct ListenerSettings {
        /// Brokers by which the cluster is found: `host:port`, or a list.
        pub(crate) brokers: OneOrMany<Spanned<String>>,
        /// TLS to the brokers: `tls: {}` for the authorities of the system.
        pub(crate) tls: Option<ClientTlsSettings>,
        /// Authentication to the brokers.
        pub(crate) sasl: Option<SaslSettings>,
        /// Settings of librdkafka for its connections, such as `socket.keepalive.enable`.
        pub(crate) properties: Option<Named<String>>,
        /// The consumer group. All instances with the same group share the partitions of its topics.
        pub(crate) group: Spanned<String>,
        /// The protocol of the group.
        pub(crate) protocol: GroupProtocol = GroupProtocol::Classic,
        /// A name of this instance, unique in the group, with which it keeps its partitions over a restart (static membership). Only with
        /// `protocol: classic`.
        pub(crate) instance: Option<Spanned<String>>,
        /// Where the group starts in a partition for which it has no offset: `earliest`, `latest`, or a time (RFC 3339), such as
        /// `2026-01-31T06:00:00Z`, for records from then on.
        pub(crate) start: Start = Start::Earliest,
        /// The rack of this instance: the nearest replica is read (KIP-392).
        pub(crate) rack: Option<String>,
        /// How long the brokers wait for a silent instance before they reassign its partitions. Only with `protocol: classic`.
        pub(crate) session_timeout: Duration = millis(45_000),
        /// How often offsets are committed.
        pub(crate) commit_interval: Duration = millis(1_000),
    }

    /// a kafka entry
    pub(crate) struct EntrySettings {
        /// The name of the listener in crossdock.yaml.
        pub(crate) listen: String,
        /// The topic to consume.
        pub(crate) topic: Spanned<String>,
        /// What happens if the topic or its dead letter topic does not exist.
        pub(crate) declare: Declare = Declare::Check,
        /// Which records are processed one after another.
        pub(crate) order: Order = Order::Partition,
        /// The maximum number of records that are processed at the same time.
        pub(crate) concurrency: usize = 64,
        /// The maximum distance, in records, between the first record of a partition that is not settled and the last one that is being processed.
        pub(crate) window: usize = 1_000,
        /// The maximum size of the records of a partition that were read and are not settled.
        pub(crate) window_size: Size = Size(64 << 20),
        /// The maximum size of a record's value.
        pub(crate) max: Size = Size(1 << 20),
        /// The format of values without a `content-type` header.
        pub(crate) format: BodyFormat = BodyFormat::Raw,
        /// How records are framed.
        pub(crate) envelope: EntryEnvelope = EntryEnvelope::Plain,
        /// The schema registry that knows the types of the values: each value begins with the number of its schema (Confluent's wire format).
        pub(crate) registry: Option<RegistrySettings>,
        /// The field of `req` that holds the value; without it, the fields of the value are the fields of `req`.
        pub(crate) body: Option<String>,
        /// What happens to a record that will never succeed.
        pub(crate) reject: Reject = Reject::DeadLetter,
        /// The dead letter topic.
        pub(crate) dead_letter: Option<Spanned<String>>,
        /// The maximum number of attempts after a failure that may be temporary; there is no limit while the service is unreachable.
        pub(crate) attempts: u32 = 5,
        /// The delay before the second attempt; it doubles with each attempt.
        pub(crate) backoff: Duration = millis(200),
        /// The longest delay between two attempts.
        pub(crate) backoff_max: Duration = millis(30_000),
        /// Topics in which a record waits after a failure that may be temporary, instead of holding its partition: after the first one in the first topic,
        /// and so on; the last failure dead-letters it. While the service is unreachable, records stay in the last one. Only with `order: none`.
        pub(crate) retry: Vec<RetryTopicSettings>,
        /// Records that name one of these topics for their reply are requests. Without it, no record is a request.
        pub(crate) reply_to: Vec<Spanned<String>>,
        /// The headers of requests and replies.
        pub(crate) reply_headers: Convention = Convention::Spring,
        /// The encoding of a reply that the route produces.
        pub(crate) answer: BodyFormat = BodyFormat::Json,
        /// The root element of an XML reply: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
    }

    /// a retry topic
    pub(crate) struct RetryTopicSettings {
        /// The topic.
        pub(crate) topic: Spanned<String>,
        /// How long a record waits in it.
        pub(crate) after: Duration,
    }

    /// where the replies to requests arrive
    pub(crate) struct RepliesSettings {
        /// The topic.
        pub(crate) topic: Spanned<String>,
        /// What happens if it does not exist.
        pub(crate) declare: Declare = Declare::Check,
        /// The partitions for this instance, and others must have their own; or `cluster` for one that no other instance of the cluster uses.
        /// Without it, every instance reads all partitions and ignores replies to others.
        pub(crate) partitions: ReplyPartitions = ReplyPartitions::All,
        /// The headers of requests and replies.
        pub(crate) headers: Convention = Convention::Spring,
        /// The topic for late replies, which arrive after their caller stopped waiting; without it they are dropped.
        pub(crate) late: Option<Spanned<String>>,
        /// The maximum size of a reply's value.
        pub(crate) max: Size = Size(8 << 20),
    }

    /// a kafka service
    pub(crate) struct ServiceSettings {
        /// Brokers by which the cluster is found: `host:port`, or a list.
        pub(crate) brokers: OneOrMany<Spanned<String>>,
        /// TLS to the brokers: `tls: {}` for the authorities of the system.
        pub(crate) tls: Option<ClientTlsSettings>,
        /// Authentication to the brokers.
        pub(crate) sasl: Option<SaslSettings>,
        /// Settings of librdkafka for its connections, such as `socket.keepalive.enable`.
        pub(crate) properties: Option<Named<String>>,
        /// The operations by name.
        pub(crate) operations: Named<OperationSettings>,
        /// The default encoding of values.
        pub(crate) format: BodyFormat = BodyFormat::Json,
        /// The compression of record batches.
        pub(crate) compression: Compression = Compression::Lz4,
        /// How long a record waits for others to be sent with.
        pub(crate) linger: Duration = millis(1),
        /// Where the replies to requests arrive.
        pub(crate) replies: Option<RepliesSettings>,
        /// The schema registry with the subjects of the operations.
        pub(crate) registry: Option<RegistrySettings>,
    }

    /// a kafka operation
    pub(crate) struct OperationSettings {
        /// The topic to write to.
        pub(crate) topic: Spanned<String>,
        /// What happens if the topic does not exist.
        pub(crate) declare: Declare = Declare::Check,
        /// The key: text with fields of the message in braces, such as `{customer}`. Without it, the key of the message, if its source had one.
        pub(crate) key: Option<Spanned<String>>,
        /// The partition, from 0; by default Kafka's partitioner chooses by the key.
        pub(crate) partition: Option<i32>,
        /// The record is a request: wait for its reply.
        pub(crate) reply: bool = false,
        /// The contract method: `pkg.Service/Method`.
        pub(crate) r#as: Option<Spanned<String>>,
        /// The encoding of the value.
        pub(crate) format: Option<BodyFormat>,
        /// The root element of an XML value that the gateway encodes: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
        /// How records are framed.
        pub(crate) envelope: Envelope = Envelope::Plain,
        /// The subject in the schema registry by whose schema the value is written.
        pub(crate) subject: Option<Spanned<String>>,
        /// The version of the subject; the newest one without it.
        pub(crate) version: Option<u32>,
        /// The full name of the message if the schema is one of protobuf; its first message without it.
        pub(crate) message: Option<String>,
    }
}
