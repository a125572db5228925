//! Messages and outcomes on the wire. Fields are added, and never reused.

use bytes::Bytes;
use prost::{Message, Oneof};

/// A name and a value.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pair {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// A body.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Body {
    /// 0 empty, 1 null, 2 JSON, 3 XML, 4 protobuf, 5 Avro, 6 opaque.
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) bytes: Bytes,
    /// The name of its type in a contract.
    #[prost(string, optional, tag = "3")]
    pub(crate) of_type: Option<String>,
}

/// What is known about a request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Context {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, optional, tag = "2")]
    pub(crate) peer: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub(crate) tls: Option<Tls>,
    #[prost(string, optional, tag = "4")]
    pub(crate) principal: Option<String>,
    /// A record in JSON.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) claims: Bytes,
    #[prost(string, optional, tag = "6")]
    pub(crate) traceparent: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub(crate) tracestate: Option<String>,
}

/// A TLS session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tls {
    #[prost(string, optional, tag = "1")]
    pub(crate) server_name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) certificate_sha256: Option<String>,
}

/// A time.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

/// A message, a request or a reply.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stored {
    /// The entry that accepted it.
    #[prost(string, tag = "1")]
    pub(crate) entry: String,
    #[prost(string, tag = "2")]
    pub(crate) id: String,
    #[prost(string, tag = "3")]
    pub(crate) source: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) context: Option<Context>,
    #[prost(string, optional, tag = "5")]
    pub(crate) content_type: Option<String>,
    #[prost(uint32, optional, tag = "6")]
    pub(crate) status: Option<u32>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) headers: Vec<Pair>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) trailers: Vec<Pair>,
    /// A record in JSON.
    #[prost(bytes = "bytes", tag = "9")]
    pub(crate) params: Bytes,
    #[prost(string, optional, tag = "10")]
    pub(crate) query: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "11")]
    pub(crate) key: Option<Bytes>,
    #[prost(message, optional, tag = "12")]
    pub(crate) time: Option<Time>,
    /// A record in JSON.
    #[prost(bytes = "bytes", optional, tag = "13")]
    pub(crate) event: Option<Bytes>,
    #[prost(message, optional, tag = "14")]
    pub(crate) body: Option<Body>,
}

/// What came of a message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Outcome {
    #[prost(oneof = "Result", tags = "1, 2, 3")]
    pub(crate) result: Option<Result>,
}

/// See [`Outcome`].
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Result {
    #[prost(message, tag = "1")]
    Replied(Box<Stored>),
    #[prost(message, tag = "2")]
    Accepted(Accepted),
    #[prost(message, tag = "3")]
    Failed(Fault),
}

/// See [`Result::Accepted`].
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Accepted {}

/// A fault.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Fault {
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
    #[prost(string, tag = "3")]
    pub(crate) message: String,
    /// 0 never, 1 at once, 2 after `retry_ms`.
    #[prost(uint32, tag = "4")]
    pub(crate) retry: u32,
    #[prost(uint64, tag = "5")]
    pub(crate) retry_ms: u64,
    #[prost(message, repeated, tag = "6")]
    pub(crate) details: Vec<Pair>,
    /// 0 the caller, 1 the gateway, 2 the service of this name.
    #[prost(uint32, tag = "7")]
    pub(crate) origin: u32,
    #[prost(string, tag = "8")]
    pub(crate) service_name: String,
    #[prost(uint32, optional, tag = "9")]
    pub(crate) http_status: Option<u32>,
    /// The status of the service, with its headers.
    #[prost(bytes = "bytes", optional, tag = "10")]
    pub(crate) service_status: Option<Bytes>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) service_headers: Vec<Pair>,
}
