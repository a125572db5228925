//! Settings as written; `checked` has what they become.

mod checked;

use std::time::Duration as StdDuration;

use crossdock_settings::{Duration, Named, OneOrMany, Secret, Size, Spanned, choices, settings};
use crossdock_transport::http2::Limits;
use crossdock_transport::{ClientTlsSettings, ServerTlsSettings};

pub(crate) use checked::{Entry, Listener, Operation, QueryRest, Service, TypedBody, TypedEntry};

choices! {
    /// How a body that the gateway makes is written.
    pub(crate) enum BodyFormat {
        /// JSON.
        Json = "json",
        /// XML below a root element that `root` names.
        Xml = "xml",
        /// Text or bytes as they are.
        Raw = "raw",
    }
}

choices! {
    /// How a stream is written, one message after another.
    pub(crate) enum StreamFormat {
        /// One JSON document a line.
        Ndjson = "ndjson",
        /// Server-sent events, each with one JSON document.
        Sse = "sse",
    }
}

const fn seconds(count: u64) -> Duration {
    Duration(StdDuration::from_secs(count))
}

impl ListenerSettings {
    /// Of its connections of HTTP/2. Sizes were checked to fit.
    pub(crate) fn http2_limits(&self) -> Limits {
        let small = |size: Size| u32::try_from(size.0).unwrap_or(u32::MAX);
        Limits {
            streams: self.streams,
            head_len_max: small(self.head),
            stream_window: small(self.stream_window),
            connection_window: small(self.connection_window),
            keep_alive: self.keep_alive.0,
            keep_alive_timeout: self.keep_alive_timeout.0,
            idle_timeout: self.idle_timeout.0,
            write_timeout: self.write_timeout.0,
            date: true,
        }
    }
}

settings! {
    /// an http listener
    pub(crate) struct ListenerSettings {
        /// Address and port, such as `127.0.0.1:8080`.
        pub(crate) bind: Spanned<String>,
        /// Speak TLS.
        pub(crate) tls: Option<ServerTlsSettings>,
        /// Connections at once; where nothing is said, as many as the process may have open: three quarters of its limit on open files.
        pub(crate) connections: Option<usize>,
        /// Connections at once from one address; half of all where nothing is said.
        pub(crate) connections_per_address: Option<usize>,
        /// What a head may weigh.
        pub(crate) head: Size = Size(64 * 1024),
        /// Header lines of one head.
        pub(crate) headers: usize = 96,
        /// What a target may weigh.
        pub(crate) target: Size = Size(8 * 1024),
        /// From the first byte of a head to its last.
        pub(crate) head_timeout: Duration = seconds(5),
        /// For a body, besides what its length justifies at 16 KiB a second.
        pub(crate) body_timeout: Duration = seconds(10),
        /// Without a request.
        pub(crate) idle_timeout: Duration = seconds(75),
        /// Without a byte of an answer being taken.
        pub(crate) write_timeout: Duration = seconds(30),
        /// Speak HTTP/2 too: to callers who ask for it with TLS, and to those who begin with it without.
        pub(crate) http2: bool = true,
        /// Requests at once on one connection of HTTP/2.
        pub(crate) streams: u32 = 100,
        /// What may be on its way to one request of HTTP/2 without having been taken.
        pub(crate) stream_window: Size = Size(64 * 1024),
        /// What may be on its way on one connection of HTTP/2 without having been taken.
        pub(crate) connection_window: Size = Size(1024 * 1024),
        /// How often a quiet connection of HTTP/2 is asked whether it is alive.
        pub(crate) keep_alive: Duration = seconds(60),
        /// How long it may take to say so.
        pub(crate) keep_alive_timeout: Duration = seconds(20),
    }

    /// an http entry
    pub(crate) struct EntrySettings {
        /// The listener, as crossdock.yaml names it.
        pub(crate) listen: String,
        /// Methods and paths are those that the contract's `google.api.http` says for the route's method.
        pub(crate) annotations: bool = false,
        /// The path that GET is taken on.
        pub(crate) get: Option<Spanned<String>>,
        /// The path that POST is taken on.
        pub(crate) post: Option<Spanned<String>>,
        /// The path that PUT is taken on.
        pub(crate) put: Option<Spanned<String>>,
        /// The path that PATCH is taken on.
        pub(crate) patch: Option<Spanned<String>>,
        /// The path that DELETE is taken on.
        pub(crate) delete: Option<Spanned<String>>,
        /// Headers that must have these values.
        pub(crate) headers: Named<String>,
        /// Query parameters that become fields of `req`: `name` may stand once; `name...` any number of times, and is a list; so is
        /// `name[]`, of a parameter with the brackets in its name. `"*"` takes all, and an operation with `query: "*"` gets them unchanged.
        /// Any other parameter is refused.
        pub(crate) query: Option<OneOrMany<String>>,
        /// Query parameters that are ignored.
        pub(crate) ignore_query: Vec<String>,
        /// The field of `req` that the body becomes; its own fields are those of `req` where nothing is said.
        pub(crate) body: Option<String>,
        /// What a body may weigh.
        pub(crate) max: Size = Size(1024 * 1024),
        /// How an answer that the route makes is written.
        pub(crate) answer: BodyFormat = BodyFormat::Json,
        /// The root element of an answer in XML: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
        /// Calls to services are given up where the caller leaves: all of them with `true`, none with `false`; where nothing is said,
        /// those that are idempotent.
        pub(crate) cancels: Option<bool>,
        /// How a stream is written; a stream of requests is read as `ndjson`.
        pub(crate) stream: Option<StreamFormat>,
    }

    /// an http service
    pub(crate) struct ServiceSettings {
        /// The address, or several that do the same: `http://host:port/base`.
        pub(crate) url: OneOrMany<Spanned<String>>,
        /// What can be asked of it, by name.
        pub(crate) operations: Named<OperationSettings>,
        /// How bodies are written where an operation says nothing.
        pub(crate) format: BodyFormat = BodyFormat::Json,
        /// Headers of every request.
        pub(crate) headers: Named<Spanned<Secret>>,
        /// What a reply may weigh.
        pub(crate) max: Size = Size(8 * 1024 * 1024),
        /// For making a connection.
        pub(crate) connect_timeout: Duration = seconds(2),
        /// Connections that are kept open without a call, on each core.
        pub(crate) idle_connections: usize = 256,
        /// How long a connection is kept open without a call.
        pub(crate) idle_timeout: Duration = seconds(30),
        /// Trust and identity, for `https`.
        pub(crate) tls: Option<ClientTlsSettings>,
    }

    /// an http operation
    pub(crate) struct OperationSettings {
        /// GET on this path.
        pub(crate) get: Option<Spanned<String>>,
        /// POST on this path.
        pub(crate) post: Option<Spanned<String>>,
        /// PUT on this path.
        pub(crate) put: Option<Spanned<String>>,
        /// PATCH on this path.
        pub(crate) patch: Option<Spanned<String>>,
        /// DELETE on this path.
        pub(crate) delete: Option<Spanned<String>>,
        /// What the contract says of it: `pkg.Service/Method`.
        pub(crate) r#as: Option<Spanned<String>>,
        /// Fields that become query parameters where they are there: a list becomes one for each item, `name[]` the field `name` with the
        /// brackets in the parameter's name, a record `name.inner`. `"*"` writes all fields that have no other place.
        pub(crate) query: Option<OneOrMany<Spanned<String>>>,
        /// How the body is written. An operation with `get:` or `delete:` takes a body only where this or `root` is written.
        pub(crate) format: Option<BodyFormat>,
        /// The root element of a body in XML: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
    }
}
