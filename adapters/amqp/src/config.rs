//! Settings as written; `checked` has what they become.

mod addresses;
mod checked;
pub(crate) mod cycles;
mod key;

use std::time::Duration as StdDuration;

use crossdock_settings::{Duration, Named, OneOrMany, Secret, Size, Spanned, choices, settings};
use crossdock_transport::ClientTlsSettings;

pub(crate) use addresses::Addresses;
pub(crate) use checked::{Entry, Listener, Operation, Rejected, Service};

choices! {
    /// How a body that the gateway makes is written.
    pub(crate) enum BodyFormat {
        /// JSON.
        Json = "json",
        /// XML below a root element that `root` names.
        Xml = "xml",
        /// Protobuf, by the contract.
        Protobuf = "protobuf",
        /// Text or bytes as they are.
        Raw = "raw",
    }
}

choices! {
    /// Whether the queue is asked for before it is used.
    pub(crate) enum Declare {
        /// It is taken to be there.
        Never = "never",
        /// It has to be there.
        Check = "check",
        /// It is made where it is not there: durable, and of the kind `queue_type`.
        Create = "create",
    }
}

choices! {
    /// What a queue is made of.
    pub(crate) enum QueueType {
        /// Kept by several brokers; counts deliveries.
        Quorum = "quorum",
        /// Kept by one broker.
        Classic = "classic",
    }
}

choices! {
    /// Where messages go that will never succeed.
    pub(crate) enum Reject {
        /// To the queue that `dead_letter` names, with the reason.
        DeadLetter = "dead_letter",
        /// Back to the broker, whose own policy for the queue sets them aside.
        Broker = "broker",
        /// Nowhere: they are lost.
        Discard = "discard",
    }
}

const fn seconds(count: u64) -> Duration {
    Duration(StdDuration::from_secs(count))
}

settings! {
    /// an amqp listener
    pub(crate) struct ListenerSettings {
        /// The broker: `amqp://user:password@host:port/vhost`, or `amqps://`; several addresses of it are tried in turn.
        pub(crate) url: OneOrMany<Spanned<Secret>>,
        /// For making a connection.
        pub(crate) connect_timeout: Duration = seconds(5),
        /// How often a quiet connection is asked whether it is alive.
        pub(crate) heartbeat: Duration = seconds(20),
        /// Whom to trust, and the certificate that the gateway shows, where an address is `amqps://`.
        pub(crate) tls: Option<ClientTlsSettings>,
    }

    /// an amqp entry
    pub(crate) struct EntrySettings {
        /// The listener, as crossdock.yaml names it.
        pub(crate) listen: String,
        /// The queue that is consumed.
        pub(crate) queue: Spanned<String>,
        /// Whether the queue is asked for first.
        pub(crate) declare: Declare = Declare::Check,
        /// The kind of a queue that is made.
        pub(crate) queue_type: QueueType = QueueType::Quorum,
        /// Messages under way at once.
        pub(crate) prefetch: u16 = 32,
        /// Consumers of a higher priority get the queue's messages as long as they take them; 0 where nothing is said.
        pub(crate) priority: Option<i32>,
        /// What a message may weigh.
        pub(crate) max: Size = Size(1024 * 1024),
        /// The field of `req` that the body becomes; its own fields are those of `req` where nothing is said.
        pub(crate) body: Option<String>,
        /// Where messages go that will never succeed.
        pub(crate) reject: Reject = Reject::DeadLetter,
        /// The queue of messages that will never succeed.
        pub(crate) dead_letter: Option<Spanned<String>>,
        /// Tries of a message whose failure may pass; where the service cannot be reached, there is no limit.
        pub(crate) attempts: u32 = 5,
        /// The wait before the second try; it doubles with each.
        pub(crate) backoff: Duration = Duration(StdDuration::from_millis(200)),
        /// The longest wait between two tries.
        pub(crate) backoff_max: Duration = seconds(30),
        /// Queues that a message may ask to be answered in, besides those that the broker made for its sender.
        pub(crate) reply_to: Vec<String>,
        /// How an answer that the route makes is written.
        pub(crate) answer: BodyFormat = BodyFormat::Json,
        /// The root element of an answer in XML: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
    }

    /// an amqp service
    pub(crate) struct ServiceSettings {
        /// The broker: `amqp://user:password@host:port/vhost`, or `amqps://`; several addresses of it are tried in turn.
        pub(crate) url: OneOrMany<Spanned<Secret>>,
        /// What can be asked of it, by name.
        pub(crate) operations: Named<OperationSettings>,
        /// How bodies are written where an operation says nothing.
        pub(crate) format: BodyFormat = BodyFormat::Json,
        /// What a reply may weigh.
        pub(crate) max: Size = Size(8 * 1024 * 1024),
        /// The queue of replies that come when nobody waits for them any more; they are dropped where nothing is said.
        pub(crate) late_reply: Option<Spanned<String>>,
        /// For making a connection.
        pub(crate) connect_timeout: Duration = seconds(5),
        /// How often a quiet connection is asked whether it is alive.
        pub(crate) heartbeat: Duration = seconds(20),
        /// Whom to trust, and the certificate that the gateway shows, where an address is `amqps://`.
        pub(crate) tls: Option<ClientTlsSettings>,
    }

    /// an amqp operation
    pub(crate) struct OperationSettings {
        /// The queue that takes its messages; in the place of `exchange` and `key`.
        pub(crate) queue: Option<Spanned<String>>,
        /// The exchange that takes its messages.
        pub(crate) exchange: Option<Spanned<String>>,
        /// The routing key: `orders.{region}` has a field of the message in it.
        pub(crate) key: Option<Spanned<String>>,
        /// A reply is waited for.
        pub(crate) reply: bool = false,
        /// Messages survive a restart of the broker, where their queue does. Requests need not: their caller waits.
        pub(crate) persistent: Option<bool>,
        /// The priority of its messages, in queues that have priorities.
        pub(crate) priority: Option<u8>,
        /// A message that no queue takes is a failure.
        pub(crate) mandatory: bool = true,
        /// What the contract says of it: `pkg.Service/Method`.
        pub(crate) r#as: Option<Spanned<String>>,
        /// How the body is written.
        pub(crate) format: Option<BodyFormat>,
        /// The root element of a body in XML: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
    }
}
