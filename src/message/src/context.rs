//! What is known about a request since it arrived.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use crate::{ConfirmedSends, Record, Value};

/// The W3C trace context, as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole `traceparent`.
    pub parent: ByteString,
    /// The whole `tracestate`.
    pub state: Option<ByteString>,
}

/// The TLS session of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsIdentity {
    /// The host name that the caller asked for (RFC 6066 §3).
    pub server_name: Option<ByteString>,
    /// The SHA-256 of the caller's verified certificate in lower-case hexadecimal; `None` if it did not present one.
    pub certificate_sha256: Option<ByteString>,
}

/// What is known about a request besides the request itself: where it came from, who sent it, and how it is traced.
///
/// The adapter creates it when a request arrives; policies that authenticate the caller set `principal` and `claims` before the body is
/// read. From then on it is shared, unchanged, by the message and everything that is done for it.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Identifies the request in logs, unique in this gateway.
    pub id: ByteString,
    /// The address of the connection's other end; `None` for a message of a broker.
    pub peer: Option<SocketAddr>,
    /// The TLS session that it arrived on.
    pub tls: Option<Arc<TlsIdentity>>,
    /// The authenticated caller.
    pub principal: Option<ByteString>,
    /// What the caller's credentials say about it.
    pub claims: Record,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
    /// The span of its processing; disabled unless spans are recorded.
    pub span: tracing::Span,
    /// When its head had been received.
    pub received_at: Instant,
    /// The transaction that acknowledges the message, for outbound ports of the same adapter to join.
    pub transaction: Option<Arc<dyn Any + Send + Sync>>,
    /// What earlier attempts to process the message have sent; `None` if it is processed once, or in a transaction.
    pub sends: Option<Arc<ConfirmedSends>>,
}

impl RequestContext {
    /// The context of a request that has just arrived, from nobody known.
    #[must_use]
    pub fn new(id: ByteString, received_at: Instant) -> Self {
        Self {
            id,
            peer: None,
            tls: None,
            principal: None,
            claims: Record::new(),
            trace: None,
            span: tracing::Span::none(),
            received_at,
            transaction: None,
            sends: None,
        }
    }

    /// The same context for work that must not join the transaction.
    #[must_use]
    pub fn without_transaction(self: &Arc<Self>) -> Arc<Self> {
        if self.transaction.is_none() {
            return Arc::clone(self);
        }
        Arc::new(Self { transaction: None, ..Self::clone(self) })
    }

    /// `auth` in expressions: `principal` and `claims`.
    #[must_use]
    pub fn auth(&self) -> Value {
        let mut auth = Record::new();
        if let Some(principal) = &self.principal {
            auth.set("principal", Value::Text(principal.clone()));
        }
        auth.set("claims", Value::Record(self.claims.clone()));
        Value::Record(auth)
    }

    /// `peer` in expressions: `address`, `port`, `server_name` and `certificate_sha256`, as far as they are known.
    #[must_use]
    pub fn peer(&self) -> Value {
        let mut peer = Record::new();
        if let Some(address) = self.peer {
            // An IPv4 address has one spelling, whichever kind of socket accepted it.
            peer.set("address", Value::Text(address.ip().to_canonical().to_string().into()));
            peer.set("port", Value::Int(i64::from(address.port())));
        }
        if let Some(tls) = &self.tls {
            let fields = [("server_name", &tls.server_name), ("certificate_sha256", &tls.certificate_sha256)];
            for (name, value) in fields {
                if let Some(value) = value {
                    peer.set(name, Value::Text(value.clone()));
                }
            }
        }
        Value::Record(peer)
    }
}
