//! The engine of locks and sequences outside of the gateway.

use std::io;
use std::sync::Arc;

use crossdock_engines::Options;
use crossdock_ports::LockEngine;

use crate::config::ClusterConfig;

/// A running engine.
pub(crate) struct External {
    /// Which engine, and how it is used.
    pub(crate) identity: String,
    locks: Arc<dyn LockEngine>,
    running: crossdock_engines::Running,
}

impl External {
    /// Starts an engine for this instance.
    ///
    /// # Errors
    /// The thread cannot be started, or a file of the settings cannot be used.
    pub(crate) fn start(options: Options, cluster: Option<&ClusterConfig>) -> io::Result<Self> {
        let label = match cluster {
            Some(cluster) => format!("crossdock instance {}", cluster.settings.id),
            None => format!("crossdock process {}", std::process::id()),
        };
        let identity = options.identity();
        let (locks, running) = crossdock_engines::start(Options { label, ..options })?;
        Ok(Self { identity, locks, running })
    }

    pub(crate) fn locks(&self) -> Arc<dyn LockEngine> {
        Arc::clone(&self.locks)
    }

    /// Ends the session of this instance, so that what it holds is free at once.
    pub(crate) async fn stop(self) {
        self.locks.close().await;
        let _ = actix_rt::task::spawn_blocking(move || drop(self.running)).await;
    }
}
