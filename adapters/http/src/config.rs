//! Settings as written; `checked` has them as validated.

mod checked;

use std::time::Duration as StdDuration;

use crossdock_cloudevents::{EntryEnvelope, Envelope};
use crossdock_settings::{Duration, Named, OneOrMany, Secret, Size, Spanned, choices, settings};
use crossdock_transport::http2::Limits;
use crossdock_transport::{ClientTlsSettings, ServerTlsSettings};

pub(crate) use checked::{Entry, Listener, Operation, Service, TypedBody, TypedEntry, UnlistedQuery};

choices! {
    /// The format of a body that the gateway writes.
    pub(crate) enum BodyFormat {
        /// JSON.
        Json = "json",
        /// XML, with the root element that `root` names.
        Xml = "xml",
        /// Text or bytes, unchanged.
        Raw = "raw",
    }
}

choices! {
    /// The format of a stream of messages.
    pub(crate) enum StreamFormat {
        /// One JSON document per line.
        Ndjson = "ndjson",
        /// Server-sent events, one JSON document each.
        Sse = "sse",
    }
}

const fn seconds(count: u64) -> Duration {
    Duration(StdDuration::from_secs(count))
}

impl ListenerSettings {
    /// The limits of HTTP/2 connections. The sizes have been checked to fit into `u32`.
    pub(crate) fn http2_limits(&self) -> Limits {
        let to_u32 = |size: Size| u32::try_from(size.0).unwrap_or(u32::MAX);
        Limits {
            streams: self.streams,
            head_len_max: to_u32(self.head),
            stream_window: to_u32(self.stream_window),
            connection_window: to_u32(self.connection_window),
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
        /// Serve TLS.
        pub(crate) tls: Option<ServerTlsSettings>,
        /// Maximum number of connections. Default: three quarters of the process's limit on open files.
        pub(crate) connections: Option<usize>,
        /// Maximum number of connections from one address. Default: half of `connections`.
        pub(crate) connections_per_address: Option<usize>,
        /// Maximum size of a request head.
        pub(crate) head: Size = Size(64 * 1024),
        /// Maximum number of header fields.
        pub(crate) headers: usize = 96,
        /// Maximum size of a request target.
        pub(crate) target: Size = Size(8 * 1024),
        /// Time from the first byte of a head to its last.
        pub(crate) head_timeout: Duration = seconds(5),
        /// Time for a body, plus one second for every 16 KiB of its length.
        pub(crate) body_timeout: Duration = seconds(10),
        /// How long a connection is kept open without a request.
        pub(crate) idle_timeout: Duration = seconds(75),
        /// How long a client may read nothing of a response that is ready.
        pub(crate) write_timeout: Duration = seconds(30),
        /// Serve HTTP/2 too: negotiated by ALPN with TLS, with prior knowledge without TLS.
        pub(crate) http2: bool = true,
        /// Maximum number of concurrent streams on an HTTP/2 connection.
        pub(crate) streams: u32 = 100,
        /// Flow-control window of an HTTP/2 stream.
        pub(crate) stream_window: Size = Size(64 * 1024),
        /// Flow-control window of an HTTP/2 connection.
        pub(crate) connection_window: Size = Size(1024 * 1024),
        /// Interval of PING frames on a quiet HTTP/2 connection.
        pub(crate) keep_alive: Duration = seconds(60),
        /// Time for the client to acknowledge a PING frame.
        pub(crate) keep_alive_timeout: Duration = seconds(20),
    }

    /// an http entry
    pub(crate) struct EntrySettings {
        /// The listener's name in crossdock.yaml.
        pub(crate) listen: String,
        /// Take methods and paths from the `google.api.http` annotation of the route's method.
        pub(crate) annotations: bool = false,
        /// Accept GET on this path.
        pub(crate) get: Option<Spanned<String>>,
        /// Accept POST on this path.
        pub(crate) post: Option<Spanned<String>>,
        /// Accept PUT on this path.
        pub(crate) put: Option<Spanned<String>>,
        /// Accept PATCH on this path.
        pub(crate) patch: Option<Spanned<String>>,
        /// Accept DELETE on this path.
        pub(crate) delete: Option<Spanned<String>>,
        /// Headers that a request must have, with these values.
        pub(crate) headers: Named<String>,
        /// Query parameters that become fields of `req`: `name` may occur once; `name...` may be repeated and is a list; `name[]` is a
        /// list too, from a parameter with the brackets in its name. `"*"` accepts all parameters, and an operation with `query: "*"`
        /// receives them unchanged. Any other parameter is rejected.
        pub(crate) query: Option<OneOrMany<String>>,
        /// Query parameters that are ignored.
        pub(crate) ignore_query: Vec<String>,
        /// The field of `req` that holds the body. Default: the body's fields are fields of `req`.
        pub(crate) body: Option<String>,
        /// How requests are framed.
        pub(crate) envelope: EntryEnvelope = EntryEnvelope::Plain,
        /// Maximum size of a body.
        pub(crate) max: Size = Size(1024 * 1024),
        /// The format of a response that the gateway writes.
        pub(crate) answer: BodyFormat = BodyFormat::Json,
        /// The root element of an XML response: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
        /// Which calls to services are cancelled when the client disconnects: all with `true`, none with `false`. Default: the
        /// idempotent ones.
        pub(crate) cancels: Option<bool>,
        /// The format of a streamed response. A streamed request is always `ndjson`.
        pub(crate) stream: Option<StreamFormat>,
    }

    /// an http service
    pub(crate) struct ServiceSettings {
        /// The URL of the service, or several of equivalent endpoints: `http://host:port/base`.
        pub(crate) url: OneOrMany<Spanned<String>>,
        /// The operations of the service, by name.
        pub(crate) operations: Named<OperationSettings>,
        /// The default body format of operations.
        pub(crate) format: BodyFormat = BodyFormat::Json,
        /// Headers that are added to every request.
        pub(crate) headers: Named<Spanned<Secret>>,
        /// Maximum size of a response body.
        pub(crate) max: Size = Size(8 * 1024 * 1024),
        /// Time to establish a connection.
        pub(crate) connect_timeout: Duration = seconds(2),
        /// Maximum number of idle connections on each core.
        pub(crate) idle_connections: usize = 256,
        /// How long an idle connection is kept open.
        pub(crate) idle_timeout: Duration = seconds(30),
        /// Trust anchors and client certificate, for `https`.
        pub(crate) tls: Option<ClientTlsSettings>,
    }

    /// an http operation
    pub(crate) struct OperationSettings {
        /// Send GET to this path.
        pub(crate) get: Option<Spanned<String>>,
        /// Send POST to this path.
        pub(crate) post: Option<Spanned<String>>,
        /// Send PUT to this path.
        pub(crate) put: Option<Spanned<String>>,
        /// Send PATCH to this path.
        pub(crate) patch: Option<Spanned<String>>,
        /// Send DELETE to this path.
        pub(crate) delete: Option<Spanned<String>>,
        /// The method of a contract that describes the operation: `pkg.Service/Method`.
        pub(crate) r#as: Option<Spanned<String>>,
        /// Fields that become query parameters if present: a list becomes one parameter per item, a record one per field
        /// (`name.inner`). `name[]` is the field `name` with the brackets in the parameter's name. `"*"` adds all fields that are sent
        /// nowhere else.
        pub(crate) query: Option<OneOrMany<Spanned<String>>>,
        /// The body format. An operation with `get:` or `delete:` has a body only if this or `root` is given.
        pub(crate) format: Option<BodyFormat>,
        /// The root element of an XML body: `Name` or `{namespace}Name`.
        pub(crate) root: Option<Spanned<String>>,
        /// How requests are framed.
        pub(crate) envelope: Envelope = Envelope::Plain,
    }
}
