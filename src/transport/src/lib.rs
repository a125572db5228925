//! Connections for adapters over TCP: listening, dialling, TLS, limits on their number, addresses of host names; and
//! HTTP/2's own part of a connection, which more than one adapter speaks over.
//!
//! What is said over them is the adapters' own.

mod accept;
pub mod bodies;
pub mod descriptors;
mod dial;
mod endpoint;
mod gate;
pub mod http2;
mod listen;
mod mutual;
pub mod names;
mod serve;
mod settings;
mod stream;
pub mod tls;

pub use accept::{Accepted, accept};
pub use dial::{Dialer, Dialled, unreachable, within_deadline};
pub use endpoint::{Endpoint, is_hop_by_hop, static_headers};
pub use gate::{Gate, Place};
pub use listen::{bind_address, listen};
pub use mutual::{MutualTls, PeerCertificate};
pub use serve::serve;
pub use settings::{ClientTlsSettings, ServerTlsSettings};
pub use stream::{MaybeTls, ReadToEnd, Replayed};
