//! Settings as written.

use std::time::Duration as StdDuration;

use crossdock_ports::BodyFormat;
use crossdock_settings::{Duration, Named, Spanned, settings};

settings! {
    /// a queue entry
    pub(crate) struct EntrySettings {
        /// The queue of the cluster.
        pub(crate) queue: Spanned<String>,
        /// The field of `req` that holds the body; without it, the fields of the body are the fields of `req`.
        pub(crate) body: Option<String>,
        /// How many messages of different keys each instance processes at the same time.
        pub(crate) concurrency: usize = 64,
        /// The maximum number of attempts after a failure that may be temporary; there is no limit while the service is unreachable.
        pub(crate) attempts: u32 = 5,
        /// The delay before the second attempt; it doubles with each attempt.
        pub(crate) backoff: Duration = Duration(StdDuration::from_millis(200)),
        /// The longest delay between two attempts.
        pub(crate) backoff_max: Duration = Duration(StdDuration::from_secs(30)),
    }

    /// a queue service
    pub(crate) struct ServiceSettings {
        /// The operations by name.
        pub(crate) operations: Named<OperationSettings>,
        /// The default encoding of bodies.
        pub(crate) format: BodyFormat = BodyFormat::Json,
    }

    /// a queue operation
    pub(crate) struct OperationSettings {
        /// The queue of the cluster.
        pub(crate) queue: Spanned<String>,
        /// Messages of the same key are delivered one after another; `{customer}` inserts a field of the message. Without it, they have no order.
        pub(crate) key: Option<Spanned<String>>,
        /// The message is delivered after this time, and takes its place in the order then.
        pub(crate) delay: Option<Duration>,
        /// A message with the same id within `window` is a duplicate, and not added; `{order}` inserts a field of the message.
        pub(crate) id: Option<Spanned<String>>,
        /// How long ids are remembered; one hour by default.
        pub(crate) window: Option<Duration>,
        /// The contract method: `pkg.Service/Method`.
        pub(crate) r#as: Option<Spanned<String>>,
        /// The encoding of the body.
        pub(crate) format: Option<BodyFormat>,
        /// The root element of an XML body: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
    }
}
