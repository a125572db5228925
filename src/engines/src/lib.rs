//! Locks and sequences by engines outside of the gateway: ZooKeeper, etcd, Consul and Redis.
//!
//! ```text
//!   LockEngine ─▶ engine ─▶ Backend: zookeeper, etcd, consul, redis
//!                   │
//!                   ├ keeps the session of this instance alive, and opens another one when it is lost
//!                   ├ repeats requests whose outcome is not known
//!                   └ releases what was dropped
//! ```
//!
//! What an engine grants is only known to be held while its session is known to live; the token of a grant protects services from a holder that
//! does not know yet that it lost the lock.

mod backend;
mod consul;
mod engine;
mod etcd;
mod life;
mod marks;
mod options;
mod redis;
mod servers;
mod turns;
mod zookeeper;

use std::io;
use std::sync::Arc;

use crossdock_ports::{EngineRow, LockEngine};

use crate::backend::Backend;
pub use crate::engine::Running;
pub use crate::options::{Kind, Login, Options};

impl Kind {
    /// What the engine offers.
    #[must_use]
    pub fn row(self) -> EngineRow {
        match self {
            Self::Zookeeper => zookeeper::Zookeeper::ROW,
            Self::Etcd => etcd::Etcd::ROW,
            Self::Consul => consul::Consul::ROW,
            Self::Redis => redis::Redis::ROW,
        }
    }
}

/// Starts an engine. It opens a session as soon as its servers can be reached.
///
/// # Errors
/// The thread cannot be started, or a file of the options cannot be used.
pub fn start(options: Options) -> io::Result<(Arc<dyn LockEngine>, Running)> {
    match options.kind {
        Kind::Zookeeper => engine::start(move || Ok(zookeeper::Zookeeper::new(&options))),
        Kind::Etcd => engine::start(move || etcd::Etcd::new(&options)),
        Kind::Consul => engine::start(move || consul::Consul::new(&options)),
        Kind::Redis => engine::start(move || redis::Redis::new(&options)),
    }
}
