//! Connections for adapters over TCP: listening, dialling, TLS, limits on their number.
//!
//! What is said over them is the adapters' own.

mod accept;
mod dial;
mod endpoint;
mod gate;
mod listen;
mod settings;
mod stream;
pub mod tls;

pub use accept::{Accepted, accept};
pub use dial::{Dialer, Dialled, unreachable};
pub use endpoint::{Endpoint, is_hop_by_hop, static_headers};
pub use gate::{Gate, Place};
pub use listen::{bind_address, listen};
pub use settings::{ClientTlsSettings, ServerTlsSettings};
pub use stream::MaybeTls;
