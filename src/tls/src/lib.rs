//! TLS of listeners, of calls to services, and between the instances of a cluster.
//!
//! | module | contents |
//! | --- | --- |
//! | `settings` | TLS as route files and `crossdock.yaml` write it |
//! | `config` | configurations of rustls from settings; the one crypto provider of the process |
//! | `mutual` | mutual TLS between peers that know each other by name |

mod config;
mod mutual;
mod settings;

pub use config::{client, server};
pub use mutual::{MutualTls, PeerCertificate};
pub use settings::{ClientTlsSettings, ServerTlsSettings};

/// TLS cannot be configured: a file is unusable, or there is no trusted authority. The text names the file and the problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);
