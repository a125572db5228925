//! TCP connections for adapters: listening, dialling, TLS, connection limits, name resolution, and the parts of HTTP/2 that adapters share.
//!
//! The crate knows no application protocol; those belong to the adapters.

mod accept;
pub mod bodies;
pub mod descriptors;
mod dial;
mod endpoint;
pub mod http2;
mod limiter;
mod listen;
pub mod names;
mod peer;
mod serve;
mod stop;
mod stream;
pub mod tls;

pub use accept::{AcceptedStream, accept};
pub use crossdock_tls::{ClientTlsSettings, ServerTlsSettings};
pub use dial::{Dialer, DialledStream, unreachable, within_deadline};
pub use endpoint::{Endpoint, is_hop_by_hop, static_headers};
pub use limiter::{ConnectionLimiter, Permit};
pub use listen::{bind_address, listen};
pub use peer::Peer;
pub use serve::serve;
pub use stop::with_token;
pub use stream::{MaybeTls, ReadToEnd, Rewind};
