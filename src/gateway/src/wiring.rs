//! The one composition root: builds everything from checked settings, in the order services → routes → inbound, and
//! takes it down in reverse.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor as _, Addr};
use crossdock_cluster::{Node, StartError};
use crossdock_ports::Adapter;
use crossdock_routing::Plan;
use crossdock_settings::Diagnostics;

use crate::actors::{Apply, Guardian, Listening, ReloadRoutes, Routes, StopAll};
use crate::admin::{Admin, AdminState};
use crate::cluster_state::EmptyState;
use crate::config::{Config, load_config};
use crate::data::Opener;
use crate::generation::{CurrentGeneration, Generation, ServiceShare};
use crate::process::ProcessState;
use crate::stats::{Stats, WINDOW_STEP};

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings are wrong; the text shows where and what to write.
    #[error("{0}")]
    Settings(String),
    /// A listener, the admin listener or a service cannot be opened.
    #[error("{0}")]
    Open(String),
}

/// Makes gateways.
pub struct Gateway {
    adapters: Arc<[Arc<dyn Adapter>]>,
}

/// A gateway that runs.
pub struct Running {
    current: Arc<CurrentGeneration>,
    process: Arc<ProcessState>,
    guardian: Addr<Guardian>,
    routes: Addr<Routes>,
    listening: Vec<Listening>,
    admin: Option<Admin>,
    cluster: Option<Node>,
    drain: Duration,
}

/// The plan of one generation.
pub struct PlanInForce(Arc<Generation>);

impl Deref for PlanInForce {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0.plan
    }
}

/// Makes this instance one of its cluster.
fn start_cluster(settings: &crossdock_cluster::Settings) -> Result<Node, RunError> {
    // Alone it has promised nothing to anybody.
    let settings = crossdock_cluster::Settings { create: settings.members.len() == 1, ..settings.clone() };
    let node = Node::start(&settings, Box::new(EmptyState)).map_err(|problem| {
        let help = match &problem {
            StartError::Log(crossdock_cluster::wal::Error::Missing(_)) => {
                "\nbefore its first start, and only then, make the log with `crossdock cluster init`; if it had one and lost it, say `crossdock cluster \
                 init --lost`"
            }
            _ => "",
        };
        RunError::Open(format!("cluster: {problem}{help}"))
    })?;
    tracing::info!(id = %settings.id, address = %node.address(), "takes part in the cluster");
    Ok(node)
}

/// Opens a service for a moment, so that a file that cannot be used is found before anything depends on it.
pub(crate) fn try_open(service: &ServiceShare, adapters: &[Arc<dyn Adapter>]) -> Result<(), String> {
    let plan = &service.plan;
    let Some(adapter) = adapters.iter().find(|adapter| adapter.name() == plan.adapter) else {
        return Err(format!("service `{}`: the adapter `{}` is not there", plan.name, plan.adapter));
    };
    for endpoint in 0..plan.spec.endpoints().len() {
        adapter.open_outbound(&*plan.spec, endpoint).map_err(|error| format!("service `{}`: {error}", plan.name))?;
    }
    Ok(())
}

/// Reads the settings of a folder, and logs warnings.
///
/// # Errors
/// The diagnostics, for people.
pub fn read_folder(folder: &Path, adapters: &[Arc<dyn Adapter>]) -> Result<Config, String> {
    read_folder_as(folder, adapters, |diagnostics| diagnostics.render(false))
}

/// As [`read_folder`], with the diagnostics told in another way.
fn read_folder_as(
    folder: &Path,
    adapters: &[Arc<dyn Adapter>],
    tell: impl FnOnce(&Diagnostics) -> String,
) -> Result<Config, String> {
    let mut diagnostics = Diagnostics::new();
    match load_config(folder, adapters, &mut diagnostics) {
        Ok(Some(config)) => {
            let warnings = diagnostics.render_short();
            if !warnings.is_empty() {
                tracing::warn!("settings:\n{warnings}");
            }
            Ok(config)
        }
        Ok(None) => Err(tell(&diagnostics)),
        Err(problem) => Err(problem),
    }
}

impl Gateway {
    /// A gateway with these adapters.
    #[must_use]
    pub fn new(adapters: Vec<Arc<dyn Adapter>>) -> Self {
        Self { adapters: adapters.into() }
    }

    /// Starts with the settings of a folder, read already; a reload reads the folder again. Has to be called on a local
    /// task set.
    ///
    /// # Errors
    /// [`RunError::Open`] where something cannot be opened.
    pub async fn start(&self, config: Config, folder: PathBuf) -> Result<Running, RunError> {
        let adapters = Arc::clone(&self.adapters);
        // Reloads are told without the lines of the files: they may hold what does not belong into a log.
        self.start_from(config, move || read_folder_as(&folder, &adapters, Diagnostics::render_short)).await
    }

    /// As [`Gateway::start`], with settings from anywhere, which are read at once.
    ///
    /// # Errors
    /// As [`Gateway::start`], and [`RunError::Settings`] where the settings are wrong.
    pub async fn start_with(
        &self,
        source: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
    ) -> Result<Running, RunError> {
        let config = source().map_err(RunError::Settings)?;
        self.start_from(config, source).await
    }

    async fn start_from(
        &self,
        config: Config,
        source: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
    ) -> Result<Running, RunError> {
        let cluster = config.cluster.as_ref().map(start_cluster).transpose()?;
        let stats = Stats::new(Instant::now());
        let process = Arc::<ProcessState>::default();
        let mut first = Generation::new(1, config.plan, config.listeners.clone(), config.limits, &stats, &process);
        first.files = config.files;
        for service in &first.services {
            try_open(service, &self.adapters).map_err(RunError::Open)?;
        }
        let current = Arc::new(CurrentGeneration::new(first));
        let opener = Opener {
            current: Arc::clone(&current),
            stats: Arc::clone(&stats),
            process: Arc::clone(&process),
            adapters: Arc::clone(&self.adapters),
            boot: rand::random(),
        };
        let guardian = Guardian::new(config.workers, Arc::new(opener)).start();
        let gone = |_| RunError::Open("the guardian is gone".to_owned());
        let listening = guardian.send(Apply(config.listeners)).await.map_err(gone)?.map_err(RunError::Open)?;
        let last_error = Arc::new(Mutex::new(None));
        let routes = Routes {
            source: Arc::new(source),
            adapters: Arc::clone(&self.adapters),
            current: Arc::clone(&current),
            stats: Arc::clone(&stats),
            process: Arc::clone(&process),
            guardian: guardian.clone(),
            last_error: Arc::clone(&last_error),
        };
        let state = AdminState {
            current: Arc::clone(&current),
            stats: Arc::clone(&stats),
            process: Arc::clone(&process),
            last_error,
            token: None,
            cluster: None,
        };
        let admin = match config.admin {
            None => None,
            Some((address, token)) => {
                let token = token.map(|token| token.reveal().to_owned());
                let state = AdminState { token, cluster: cluster.as_ref().map(Node::client), ..state };
                let opened = Admin::open(address, state);
                let admin = opened.map_err(|error| RunError::Open(format!("admin listener {address}: {error}")))?;
                tracing::info!(address = %admin.address(), "admin listens");
                Some(admin)
            }
        };
        actix_rt::spawn(async move {
            let mut ticks = tokio::time::interval(WINDOW_STEP);
            loop {
                ticks.tick().await;
                stats.sample(Instant::now());
            }
        });
        Ok(Running {
            current,
            process,
            guardian,
            routes: routes.start(),
            listening,
            admin,
            cluster,
            drain: config.drain,
        })
    }
}

impl Running {
    /// The address that a listener got.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&str> {
        self.listening.iter().find(|listening| listening.name == name).map(|listening| listening.address.as_str())
    }

    /// All listeners: name, adapter, address.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.listening.iter().map(|listening| (listening.name.as_str(), listening.adapter, listening.address.as_str()))
    }

    /// The address of the admin listener.
    #[must_use]
    pub fn admin(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// The files besides YAML that the generation in force was read from.
    #[must_use]
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.current.load().files.clone()
    }

    /// The plan in force. It stays the same until it is dropped, whatever is reloaded.
    #[must_use]
    pub fn plan(&self) -> PlanInForce {
        PlanInForce(Arc::clone(&self.current.load()))
    }

    /// Forgets the outcomes of all messages, for tests of routes that must not see one another's.
    pub fn forget_processed(&self) {
        self.process.forget_processed();
    }

    /// The number of the generation in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().number
    }

    /// Reads the settings again. Gives the number of the generation in force.
    ///
    /// # Errors
    /// What is wrong with the new settings; the old ones serve on.
    pub async fn reload(&self) -> Result<u64, String> {
        self.routes.send(ReloadRoutes).await.unwrap_or_else(|_| {
            tracing::error!("the actor of the routes is gone: restart the gateway to read them again");
            Err("the actor of the routes is gone".to_owned())
        })
    }

    /// Stops: not ready, nothing new, what is in flight to its end. Says whether all of it ended in time.
    pub async fn stop(self) -> bool {
        self.current.drain();
        let stopped = tokio::time::timeout(self.drain, self.guardian.send(StopAll)).await.is_ok();
        if let Some(cluster) = self.cluster {
            cluster.shut_down().await;
        }
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        stopped
    }
}
