//! Errors of loading settings and putting them into force.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crossdock_cluster::{StartError, wal};
use crossdock_ports::AdapterError;

/// Why the settings of a folder cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no readable `crossdock.yaml`.
    #[error(
        "cannot read `{}`: {source}\nwrite `--config FOLDER` with the folder that contains crossdock.yaml",
        path.display()
    )]
    Main {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A folder has too many route files.
    #[error("`{}` has more than {max} route files", folder.display())]
    TooManyFiles {
        /// The folder.
        folder: PathBuf,
        /// The limit.
        max: usize,
    },
    /// The settings are invalid; the text has the diagnostics.
    #[error("{0}")]
    Invalid(String),
}

/// Why settings cannot be put into force, at the start or by a reload.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The settings cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Loading the settings panicked.
    #[error("loading the settings failed: {0}")]
    Panicked(String),
    /// A listener cannot be opened.
    #[error("listener `{name}`: {source}")]
    Listener {
        /// Its name.
        name: String,
        /// The cause.
        source: AdapterError,
    },
    /// The settings of an open listener have changed.
    #[error("the settings of listener `{0}` have changed: they take effect after a restart")]
    ListenerChanged(String),
    /// `cluster:` was added or removed.
    #[error("`cluster` was added to crossdock.yaml, or removed: that takes effect after a restart")]
    ClusterChanged,
    /// `coordination:` was added, removed or changed.
    #[error("`coordination` has changed in crossdock.yaml: that takes effect after a restart")]
    EngineChanged,
    /// The engine of locks and sequences cannot be started.
    #[error("the engine of `coordination` cannot be started: {0}")]
    Engine(io::Error),
    /// A generation that was pushed needs other listeners than those that are open.
    #[error("the listeners in crossdock.yaml have changed: reload the settings of the instance first")]
    ListenersChanged,
    /// A service cannot be opened.
    #[error("service `{name}`: {source}")]
    Service {
        /// Its name.
        name: String,
        /// The cause.
        source: AdapterError,
    },
    /// A service has an unknown adapter.
    #[error("service `{service}`: there is no adapter `{adapter}`")]
    UnknownAdapter {
        /// The name of the service.
        service: String,
        /// The name of the adapter.
        adapter: &'static str,
    },
    /// The admin listener cannot be opened.
    #[error("admin listener {address}: {source}")]
    Admin {
        /// Its address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The cluster node cannot be started.
    #[error("cluster: {0}{help}", help = cluster_help(.0))]
    Cluster(StartError),
    /// The API of the cluster cannot be started.
    #[error("api: {0}")]
    Api(crossdock_api_server::StartError),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

fn cluster_help(error: &StartError) -> &'static str {
    match error {
        StartError::Log(wal::Error::Missing(_)) => {
            "\nif the instance had a log, check that its volume is mounted. Otherwise, run `crossdock cluster init --bootstrap` on all \
             members of a new cluster, or `crossdock cluster init` on an instance that joins an existing one"
        }
        _ => "",
    }
}
