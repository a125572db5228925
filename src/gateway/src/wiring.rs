//! The composition root: starts everything from checked settings, in the order services, routes, listeners, and stops it in reverse.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor as _, Addr};
use actix_rt::task::JoinHandle;
use crossdock_api_server::ApiServer;
use crossdock_cluster::{Machines, Node, StartError};
use crossdock_embedded::{Engine, Options};
use crossdock_ports::{Adapter, Claim, Enqueue};
use crossdock_routing::Plan;
use crossdock_settings::{Diagnostics, Secret};
use crossdock_zab::Role;
use tokio_util::sync::CancellationToken;

use crate::actors::{Apply, Guardian, Listening, ReloadRoutes, Routes, StopAll};
use crate::admin::{Admin, AdminState};
use crate::config::{ClusterConfig, Config, PushedFiles, load_config_with};
use crate::data::{Opener, deliver};
use crate::error::{ApplyError, LoadError};
use crate::external::External;
use crate::generation::{CurrentGeneration, Generation, try_open};
use crate::process::{Claims, ProcessState, Queues};
use crate::pushed::{self, Kept};
use crate::stats::{Stats, WINDOW_STEP};

/// Starts gateways.
pub struct Gateway {
    adapters: Arc<[Arc<dyn Adapter>]>,
}

/// A running gateway.
pub struct Running {
    current: Arc<CurrentGeneration>,
    process: Arc<ProcessState>,
    guardian: Addr<Guardian>,
    routes: Addr<Routes>,
    listening: Vec<Listening>,
    admin: Option<Admin>,
    cluster: Option<Member>,
    external: Option<External>,
    api: Option<ApiServer>,
    ordered: Option<Ordered>,
    drain: Duration,
}

/// Delivers the messages of routes with an order over all instances.
struct Ordered {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Ordered {
    fn start(opener: Opener, engine: Engine) -> Self {
        let stop = CancellationToken::new();
        let delivering = deliver(opener, engine, stop.clone());
        let task = actix_rt::spawn(async move {
            if let Err(problem) = delivering.await {
                tracing::error!(%problem, "messages with an order over all instances are not delivered by this instance");
            }
        });
        Self { stop, task }
    }
}

/// The plan of one generation.
pub struct PlanInForce(Arc<Generation>);

impl Deref for PlanInForce {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0.plan
    }
}

/// This instance as a member of a cluster.
struct Member {
    node: Node,
    engine: Engine,
    running: crossdock_embedded::Running,
}

impl Member {
    fn start(ClusterConfig { settings, session, .. }: &ClusterConfig) -> Result<Self, ApplyError> {
        let mut machines = Machines::new();
        let published = crossdock_embedded::add(&mut machines);
        let node = Node::start(settings, machines).map_err(ApplyError::Cluster)?;
        let options = Options { ttl: *session, label: format!("instance {}", settings.id) };
        let started = Engine::start(node.replica(&published), options);
        let (engine, running) = started.map_err(|problem| ApplyError::Cluster(StartError::Thread(problem)))?;
        tracing::info!(id = %settings.id, address = %node.address(), "cluster node started");
        Ok(Self { node, engine, running })
    }

    /// Closes the session of this instance, so that what it holds is free at once, and stops the node.
    async fn stop(self) {
        let Self { node, engine, running } = self;
        engine.close().await;
        drop(running);
        node.shut_down().await;
    }
}

/// Reads the settings of a folder and logs warnings.
///
/// # Errors
/// [`LoadError`], with the diagnostics in readable form.
pub fn read_folder(folder: &Path, adapters: &[Arc<dyn Adapter>]) -> Result<Config, LoadError> {
    read_folder_as(folder, adapters, None, |diagnostics| diagnostics.render(false))
}

/// Reads only `crossdock.yaml` of a folder: the plan has no routes.
///
/// # Errors
/// As [`read_folder`].
pub fn read_settings(folder: &Path, adapters: &[Arc<dyn Adapter>]) -> Result<Config, LoadError> {
    read_folder_as(folder, adapters, Some(&PushedFiles::new()), |diagnostics| diagnostics.render(false))
}

/// Like [`read_folder`], with routes that were pushed, and another format of the diagnostics.
fn read_folder_as(
    folder: &Path,
    adapters: &[Arc<dyn Adapter>],
    pushed: Option<&PushedFiles>,
    format_errors: impl FnOnce(&Diagnostics) -> String,
) -> Result<Config, LoadError> {
    let mut diagnostics = Diagnostics::new();
    match load_config_with(folder, adapters, &[], pushed, &mut diagnostics) {
        Ok(Some(config)) => {
            let warnings = diagnostics.render_short();
            if !warnings.is_empty() {
                tracing::warn!("settings have warnings:\n{warnings}");
            }
            Ok(config)
        }
        Ok(None) => Err(LoadError::Invalid(format_errors(&diagnostics))),
        Err(error) => Err(error),
    }
}

impl Gateway {
    /// A gateway with these adapters.
    #[must_use]
    pub fn new(adapters: Vec<Arc<dyn Adapter>>) -> Self {
        Self { adapters: adapters.into() }
    }

    /// Starts with settings that were read from a folder; a reload reads the folder again. Must be called on a local task set.
    ///
    /// # Errors
    /// [`ApplyError`] if a listener or service cannot be opened.
    pub async fn start(&self, config: Config, folder: PathBuf) -> Result<Running, ApplyError> {
        self.start_from(config, None, Self::folder_source(&self.adapters, folder)).await
    }

    /// Like [`Gateway::start`], for a member of a cluster that cannot use the routes in its folder, and needs them only if none were
    /// pushed to the cluster.
    ///
    /// # Errors
    /// As [`Gateway::start`], and `problem` if none were pushed.
    pub async fn start_without_routes(
        &self,
        settings: Config,
        problem: LoadError,
        folder: PathBuf,
    ) -> Result<Running, ApplyError> {
        self.start_from(settings, Some(problem), Self::folder_source(&self.adapters, folder)).await
    }

    fn folder_source(
        adapters: &Arc<[Arc<dyn Adapter>]>,
        folder: PathBuf,
    ) -> impl Fn(Option<&PushedFiles>) -> Result<Config, LoadError> + Send + Sync + use<> {
        let adapters = Arc::clone(adapters);
        // Errors of reloads are logged without source lines, which may contain secrets.
        move |pushed| read_folder_as(&folder, &adapters, pushed, Diagnostics::render_short)
    }

    /// Like [`Gateway::start`], with settings from any source, which is read immediately.
    ///
    /// # Errors
    /// As [`Gateway::start`], and [`LoadError`] if the settings are invalid.
    pub async fn start_with(
        &self,
        source: impl Fn() -> Result<Config, LoadError> + Send + Sync + 'static,
    ) -> Result<Running, ApplyError> {
        let config = source()?;
        self.start_from(config, None, move |_| source()).await
    }

    /// Lets adapters use the queues and locks of the cluster.
    fn connect(&self, engine: &Engine) {
        let queues: Arc<dyn Enqueue> = Arc::new(Queues(engine.clone()));
        let claims: Arc<dyn Claim> = Arc::new(Claims(engine.clone()));
        for adapter in &*self.adapters {
            adapter.connect_queues(Arc::clone(&queues));
            adapter.connect_claims(Arc::clone(&claims));
        }
    }

    async fn start_from(
        &self,
        config: Config,
        lacks_routes: Option<LoadError>,
        source: impl Fn(Option<&PushedFiles>) -> Result<Config, LoadError> + Send + Sync + 'static,
    ) -> Result<Running, ApplyError> {
        let cluster = config.cluster.as_ref().map(Member::start).transpose()?;
        let kept = config.cluster.as_ref().map(|cluster| Kept::new(&cluster.settings.data));
        let pushed = match (&cluster, &kept) {
            (Some(member), Some(kept)) => pushed::at_start(&member.engine, kept).await?,
            _ => None,
        };
        let config = match &pushed {
            Some(pushed) => {
                tracing::info!(pushed = pushed.number, "routes are those of the cluster");
                if lacks_routes.is_some() {
                    tracing::warn!("the routes in the folder of the settings are invalid: they are not used");
                }
                source(Some(&pushed.files))?
            }
            None => lacks_routes.map_or(Ok(config), Err)?,
        };
        let stats = Stats::new(Instant::now());
        let external = config.coordination.map(|options| External::start(options, config.cluster.as_ref()));
        let external = external.transpose().map_err(ApplyError::Engine)?;
        let own = cluster.as_ref().map(|member| member.engine.clone());
        if let Some(engine) = &own {
            self.connect(engine);
        }
        let process = Arc::new(ProcessState::new(own, external.as_ref()));
        try_open(&config.plan.services, &self.adapters)?;
        let mut first = Generation::new(1, config.plan, config.listeners.clone(), config.limits, &stats, &process);
        first.files = config.files;
        let current = Arc::new(CurrentGeneration::new(first));
        let opener = Opener {
            current: Arc::clone(&current),
            stats: Arc::clone(&stats),
            process: Arc::clone(&process),
            adapters: Arc::clone(&self.adapters),
            boot: rand::random(),
        };
        let ordered = cluster.as_ref().map(|member| Ordered::start(opener.clone(), member.engine.clone()));
        let guardian = Guardian::new(config.workers, Arc::new(opener), Arc::clone(&process)).start();
        let listening = guardian.send(Apply(config.listeners)).await.map_err(|_| ApplyError::Stopping)??;
        let last_error = Arc::new(Mutex::new(None));
        let routes = Routes {
            source: Arc::new(source),
            adapters: Arc::clone(&self.adapters),
            current: Arc::clone(&current),
            stats: Arc::clone(&stats),
            process: Arc::clone(&process),
            guardian: guardian.clone(),
            last_error: Arc::clone(&last_error),
            served: pushed.as_ref().map(|pushed| pushed.number),
            pushed: pushed.clone(),
            prepared: None,
        };
        let options = config.cluster.and_then(|cluster| cluster.api).zip(cluster.as_ref());
        let api = options.map(|(options, member)| {
            let started = ApiServer::start(options, member.engine.clone(), member.node.client())?;
            tracing::info!(address = %started.address(), "API of the cluster started");
            Ok(started)
        });
        let api = api.transpose().map_err(ApplyError::Api)?;
        let state = AdminState {
            api: api.as_ref().map(|api| Arc::clone(api.counts())),
            current: Arc::clone(&current),
            adapters: Arc::clone(&self.adapters),
            stats: Arc::clone(&stats),
            process: Arc::clone(&process),
            last_error,
            token: None,
            cluster: None,
        };
        let admin = config.admin.map(|admin| open_admin(admin, state, cluster.as_ref())).transpose()?;
        let routes = routes.start();
        if process.locks.is_some() {
            actix_rt::spawn(compete_for_entries(Arc::clone(&current), Arc::clone(&process)));
        }
        if let (Some(member), Some(kept)) = (&cluster, kept) {
            let at_start = pushed.map(|pushed| pushed.number);
            actix_rt::spawn(pushed::follow(member.engine.clone(), routes.clone(), at_start, kept));
        }
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
            routes,
            listening,
            admin,
            cluster,
            external,
            api,
            ordered,
            drain: config.drain,
        })
    }
}

fn open_admin(
    (address, token): (SocketAddr, Option<Secret>),
    state: AdminState,
    cluster: Option<&Member>,
) -> Result<Admin, ApplyError> {
    let token = token.map(|token| token.reveal().to_owned());
    let state = AdminState { token, cluster: cluster.map(|member| member.node.client()), ..state };
    let admin = Admin::open(address, state).map_err(|source| ApplyError::Admin { address, source })?;
    tracing::info!(address = %admin.address(), "admin server started");
    Ok(admin)
}

/// Competes for the entries of each generation that one instance of the cluster reads at a time.
async fn compete_for_entries(current: Arc<CurrentGeneration>, process: Arc<ProcessState>) {
    let Some(locks) = &process.locks else { return };
    let mut published = current.published();
    loop {
        published.borrow_and_update();
        let generation = Arc::clone(&current.load());
        let routes = generation.plan.routes.iter().map(|route| &**route);
        process.singletons.compete(locks, process.coordination.as_ref(), routes);
        if published.changed().await.is_err() || current.is_draining() {
            return;
        }
    }
}

impl Running {
    /// The address of a listener.
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

    /// The files other than YAML that the current generation was read from.
    #[must_use]
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.current.load().files.clone()
    }

    /// The plan of the current generation. Reloads do not change it.
    #[must_use]
    pub fn plan(&self) -> PlanInForce {
        PlanInForce(Arc::clone(&self.current.load()))
    }

    /// Clears all dedup caches, so that route tests do not affect each other.
    pub fn forget_processed(&self) {
        self.process.forget_processed();
    }

    /// The number of the current generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().number
    }

    /// Reads the settings again. Returns the number of the new generation.
    ///
    /// # Errors
    /// [`ApplyError`] if the new settings cannot be put into force; the old ones stay in force.
    pub async fn reload(&self) -> Result<u64, ApplyError> {
        self.routes.send(ReloadRoutes).await.unwrap_or_else(|_| {
            tracing::error!("routes actor stopped; restart the gateway to reload routes");
            Err(ApplyError::Stopping)
        })
    }

    /// Whether this instance leads its cluster.
    #[must_use]
    pub fn leads(&self) -> bool {
        let role = self.cluster.as_ref().map(|member| member.node.client().status().role);
        matches!(role, Some(Role::Leading(_)))
    }

    /// Ends as if the process had been killed: nothing is finished, and the cluster is not told. For demonstrations.
    pub async fn kill(self) {
        if let Some(Member { node, engine: _, running }) = self.cluster {
            node.stop();
            drop(running);
        }
        self.current.drain();
        let stopping = self.guardian.send(StopAll);
        actix_rt::spawn(async move {
            let _ = stopping.await;
        });
        if let Some(Ordered { stop, .. }) = self.ordered {
            stop.cancel();
        }
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
    }

    /// Stops: readiness fails, nothing new is accepted, and messages in flight complete. Returns whether all of them completed in time.
    pub async fn stop(self) -> bool {
        self.current.drain();
        if let Some(locks) = &self.process.locks {
            self.process.singletons.leave(locks);
        }
        let until = tokio::time::Instant::now() + self.drain;
        let mut stopped = tokio::time::timeout_at(until, self.guardian.send(StopAll)).await.is_ok();
        // Callers may have waited for messages of its queues until now.
        if let Some(Ordered { stop, task }) = self.ordered {
            stop.cancel();
            stopped &= tokio::time::timeout_at(until, task).await.is_ok();
        }
        end_api(self.api).await;
        if let Some(external) = self.external {
            external.stop().await;
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        stopped
    }
}

/// Ends the API, whose calls may go on for a while.
async fn end_api(api: Option<ApiServer>) {
    let _ = actix_rt::task::spawn_blocking(move || drop(api)).await;
}
