//! Settings as written; `checked` holds the validated form.

mod addresses;
mod checked;
pub(crate) mod cycles;
mod key;

use std::time::Duration as StdDuration;

use crossdock_cloudevents::{EntryEnvelope, Envelope};
use crossdock_ports::BodyFormat;
use crossdock_settings::{Duration, Named, OneOrMany, Secret, Size, Spanned, choices, settings};
use crossdock_transport::ClientTlsSettings;

pub(crate) use addresses::Addresses;
pub(crate) use checked::{Entry, Listener, Operation, RejectPolicy, Service};

choices! {
    /// How the queue is declared before it is consumed.
    pub(crate) enum Declare {
        /// Not declared: it is assumed to exist.
        Never = "never",
        /// Declared passively: it must exist.
        Check = "check",
        /// Created if missing: durable, of type `queue_type`.
        Create = "create",
    }
}

choices! {
    /// The type of a queue that is created.
    pub(crate) enum QueueType {
        /// Replicated; counts deliveries.
        Quorum = "quorum",
        /// Not replicated.
        Classic = "classic",
    }
}

choices! {
    /// What happens to a message that will never succeed.
    pub(crate) enum Reject {
        /// It is published to the queue that `dead_letter` names, with the reason.
        DeadLetter = "dead_letter",
        /// It is nacked without requeue: the broker dead-letters it by the queue's policy.
        Broker = "broker",
        /// It is acknowledged and lost.
        Discard = "discard",
    }
}

const fn seconds(count: u64) -> Duration {
    Duration(StdDuration::from_secs(count))
}

settings! {
    /// an amqp listener
    pub(crate) struct ListenerSettings {
        /// The broker: `amqp://user:password@host:port/vhost`, or `amqps://`; a list of addresses is tried in order.
        pub(crate) url: OneOrMany<Spanned<Secret>>,
        /// Timeout for opening a connection.
        pub(crate) connect_timeout: Duration = seconds(5),
        /// The heartbeat interval of the connection.
        pub(crate) heartbeat: Duration = seconds(20),
        /// Trusted authorities and the client certificate, for `amqps://` addresses.
        pub(crate) tls: Option<ClientTlsSettings>,
    }

    /// an amqp entry
    pub(crate) struct EntrySettings {
        /// The name of the listener in crossdock.yaml.
        pub(crate) listen: String,
        /// The queue to consume.
        pub(crate) queue: Spanned<String>,
        /// How the queue is declared first.
        pub(crate) declare: Declare = Declare::Check,
        /// The type of a queue that is created.
        pub(crate) queue_type: QueueType = QueueType::Quorum,
        /// The maximum number of unacknowledged messages.
        pub(crate) prefetch: u16 = 32,
        /// The consumer priority: the broker prefers consumers with a higher one while they have capacity. The default is 0.
        pub(crate) priority: Option<i32>,
        /// The maximum size of a message body.
        pub(crate) max: Size = Size(1024 * 1024),
        /// How messages are framed.
        pub(crate) envelope: EntryEnvelope = EntryEnvelope::Plain,
        /// The field of `req` that holds the body; without it, the fields of the body are the fields of `req`.
        pub(crate) body: Option<String>,
        /// What happens to a message that will never succeed.
        pub(crate) reject: Reject = Reject::DeadLetter,
        /// The dead letter queue.
        pub(crate) dead_letter: Option<Spanned<String>>,
        /// The maximum number of attempts after a failure that may be temporary; there is no limit while the service is unreachable.
        pub(crate) attempts: u32 = 5,
        /// The delay before the second attempt; it doubles with each attempt.
        pub(crate) backoff: Duration = Duration(StdDuration::from_millis(200)),
        /// The longest delay between two attempts.
        pub(crate) backoff_max: Duration = seconds(30),
        /// Queues that a request may name in `reply_to`, in addition to queues that the broker named for the requester.
        pub(crate) reply_to: Vec<String>,
        /// The encoding of a reply that the route produces.
        pub(crate) answer: BodyFormat = BodyFormat::Json,
        /// The root element of an XML reply: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
    }

    /// an amqp service
    pub(crate) struct ServiceSettings {
        /// The broker: `amqp://user:password@host:port/vhost`, or `amqps://`; a list of addresses is tried in order.
        pub(crate) url: OneOrMany<Spanned<Secret>>,
        /// The operations by name.
        pub(crate) operations: Named<OperationSettings>,
        /// The default encoding of request bodies.
        pub(crate) format: BodyFormat = BodyFormat::Json,
        /// The maximum size of a reply body.
        pub(crate) max: Size = Size(8 * 1024 * 1024),
        /// The queue for late replies, which arrive after their caller stopped waiting; without it they are dropped.
        pub(crate) late_reply: Option<Spanned<String>>,
        /// Timeout for opening a connection.
        pub(crate) connect_timeout: Duration = seconds(5),
        /// The heartbeat interval of the connection.
        pub(crate) heartbeat: Duration = seconds(20),
        /// Trusted authorities and the client certificate, for `amqps://` addresses.
        pub(crate) tls: Option<ClientTlsSettings>,
    }

    /// an amqp operation
    pub(crate) struct OperationSettings {
        /// The queue to publish to; replaces `exchange` and `key`.
        pub(crate) queue: Option<Spanned<String>>,
        /// The exchange to publish to.
        pub(crate) exchange: Option<Spanned<String>>,
        /// The routing key; `orders.{region}` inserts a field of the message.
        pub(crate) key: Option<Spanned<String>>,
        /// The message is a request: wait for its reply.
        pub(crate) reply: bool = false,
        /// Messages in a durable queue survive a restart of the broker. The default is true for messages and false for requests, whose caller waits.
        pub(crate) persistent: Option<bool>,
        /// The message priority, for priority queues.
        pub(crate) priority: Option<u8>,
        /// An unroutable message is an error.
        pub(crate) mandatory: bool = true,
        /// The contract method: `pkg.Service/Method`.
        pub(crate) r#as: Option<Spanned<String>>,
        /// The encoding of the body.
        pub(crate) format: Option<BodyFormat>,
        /// The root element of an XML body: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
        /// How messages are framed.
        pub(crate) envelope: Envelope = Envelope::Plain,
    }
}
