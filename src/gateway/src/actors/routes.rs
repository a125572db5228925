//! Loads, checks and publishes generations of the routes.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, ActorFuture, ActorFutureExt as _, Addr, AtomicResponse, Context, Handler, WrapFuture as _};
use crossdock_ports::Adapter;

use super::guardian::{Apply, Guardian};
use crate::config::{Config, ListenerConfig, PushedFiles};
use crate::error::{ApplyError, LoadError};
use crate::generation::{CurrentGeneration, Generation, try_open};
use crate::process::ProcessState;
use crate::stats::Stats;

/// Reads the settings again, with the routes of a generation that was pushed instead of those of the folder.
pub(crate) type Source = Arc<dyn Fn(Option<&PushedFiles>) -> Result<Config, LoadError> + Send + Sync>;

/// A generation that was pushed to all instances of the cluster: its number there, and its files.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub(crate) number: u64,
    pub(crate) files: Arc<PushedFiles>,
}

/// The error of the last reload; `None` if it succeeded or there was none.
pub(crate) type LastError = Arc<Mutex<Option<String>>>;

/// The actor that replaces the current generation.
pub(crate) struct Routes {
    pub(crate) source: Source,
    pub(crate) adapters: Arc<[Arc<dyn Adapter>]>,
    pub(crate) current: Arc<CurrentGeneration>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) process: Arc<ProcessState>,
    pub(crate) guardian: Addr<Guardian>,
    pub(crate) last_error: LastError,
    /// The generation of the cluster, which a reload takes. If a switch to it failed, it is not served yet.
    pub(crate) pushed: Option<Pushed>,
    /// The number in the cluster of the generation that is served.
    pub(crate) served: Option<u64>,
    /// The number of a generation of the cluster that can be put into force, with its settings.
    pub(crate) prepared: Option<(u64, Config)>,
}

/// Reads the settings again and publishes a new generation; on an error, the current one stays in force.
#[derive(actix::Message)]
#[rtype(result = "Result<u64, ApplyError>")]
pub(crate) struct ReloadRoutes;

/// Prepares a generation that was pushed, so that it can be put into force at once.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ApplyError>")]
pub(crate) struct PrepareRoutes(pub(crate) Pushed);

/// Forgets the generation that is prepared: the cluster has rejected it.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct DiscardPrepared;

/// Puts a generation into force that was pushed; usually one that is prepared. On an error, the current one stays in force, and a
/// reload tries this one again.
#[derive(actix::Message)]
#[rtype(result = "Result<u64, ApplyError>")]
pub(crate) struct SwitchRoutes(pub(crate) Pushed);

impl Routes {
    /// Loads and checks a generation that was pushed.
    fn load_pushed(&self, pushed: &Pushed) -> impl ActorFuture<Self, Output = Result<Config, ApplyError>> + use<> {
        let (source, files) = (Arc::clone(&self.source), Arc::clone(&pushed.files));
        let loading = tokio::task::spawn_blocking(move || source(Some(&files)));
        loading.into_actor(self).map(move |loaded, routes: &mut Self, _| {
            let config = loaded.map_err(|error| ApplyError::Panicked(error.to_string()))??;
            let identity = |listener: &ListenerConfig| (listener.name.clone(), listener.spec.fingerprint());
            let current = routes.current.load();
            if !config.listeners.iter().map(identity).eq(current.listeners.iter().map(identity)) {
                return Err(ApplyError::ListenersChanged);
            }
            routes.check(config)
        })
    }

    /// Every step that can fail. It changes nothing: what is checked may never be in force.
    fn check(&self, config: Config) -> Result<Config, ApplyError> {
        // Locks would be refused message by message.
        if config.cluster.is_some() != self.process.coordination.is_some() {
            return Err(ApplyError::ClusterChanged);
        }
        if config.coordination.as_ref().map(crossdock_engines::Options::identity) != self.process.engine_identity {
            return Err(ApplyError::EngineChanged);
        }
        try_open(&config.plan.services, &self.adapters)?;
        Ok(config)
    }

    fn reject(&self, error: ApplyError) -> ApplyError {
        self.stats.reloads_failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            generation = self.current.load().number,
            "reload rejected; current routes stay in force:\n{error}"
        );
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        error
    }

    /// Puts the next generation into force: that of the cluster with this number, if there is one.
    fn publish(&mut self, config: Config, served: Option<u64>) -> u64 {
        let number = self.current.load().number + 1;
        let mut generation =
            Generation::new(number, config.plan, config.listeners, config.limits, &self.stats, &self.process);
        generation.files = config.files;
        tracing::info!(
            generation = number,
            pushed = served,
            routes = generation.plan.routes.len(),
            "routes are in force"
        );
        self.current.publish(generation);
        self.served = served;
        self.stats.reloads.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        number
    }
}

impl Actor for Routes {
    type Context = Context<Self>;
}

impl Handler<ReloadRoutes> for Routes {
    /// Reloads are atomic: the next one starts when this one has ended.
    type Result = AtomicResponse<Self, Result<u64, ApplyError>>;

    fn handle(&mut self, _: ReloadRoutes, _: &mut Context<Self>) -> Self::Result {
        // It may differ with the settings that are read now.
        self.prepared = None;
        let source = Arc::clone(&self.source);
        let pushed = self.pushed.clone();
        let number = pushed.as_ref().map(|pushed| pushed.number);
        // Contracts take long to compile; the control thread also serves health checks and the admin API.
        let loading = tokio::task::spawn_blocking(move || source(pushed.as_ref().map(|pushed| &*pushed.files)));
        let reloading = loading.into_actor(self).then(|loaded, routes, _| {
            let loaded = loaded.map_err(|error| ApplyError::Panicked(error.to_string())).and_then(|loaded| Ok(loaded?));
            let checked = loaded.and_then(|config| routes.check(config));
            let guardian = routes.guardian.clone();
            let applying = async move {
                let config = checked?;
                match guardian.send(Apply(config.listeners.clone())).await {
                    Ok(applied) => applied.map(|_| config),
                    Err(_) => Err(ApplyError::Stopping),
                }
            };
            applying.into_actor(routes)
        });
        AtomicResponse::new(Box::pin(reloading.map(move |applied, routes, _| match applied {
            Ok(config) => Ok(routes.publish(config, number)),
            Err(error) => Err(routes.reject(error)),
        })))
    }
}

impl Handler<PrepareRoutes> for Routes {
    type Result = AtomicResponse<Self, Result<(), ApplyError>>;

    fn handle(&mut self, PrepareRoutes(pushed): PrepareRoutes, _: &mut Context<Self>) -> Self::Result {
        self.prepared = None;
        let number = pushed.number;
        AtomicResponse::new(Box::pin(self.load_pushed(&pushed).map(move |loaded, routes, _| match loaded {
            Ok(config) => {
                tracing::info!(pushed = number, "generation of the routes is prepared");
                routes.prepared = Some((number, config));
                Ok(())
            }
            Err(error) => {
                tracing::error!(pushed = number, "generation of the routes cannot be prepared:\n{error}");
                Err(error)
            }
        })))
    }
}

impl Handler<DiscardPrepared> for Routes {
    type Result = ();

    fn handle(&mut self, _: DiscardPrepared, _: &mut Context<Self>) {
        self.prepared = None;
    }
}

impl Handler<SwitchRoutes> for Routes {
    type Result = AtomicResponse<Self, Result<u64, ApplyError>>;

    fn handle(&mut self, SwitchRoutes(pushed): SwitchRoutes, _: &mut Context<Self>) -> Self::Result {
        let number = pushed.number;
        let prepared = self.prepared.take().filter(|(prepared, _)| *prepared == number);
        let ready: Pin<Box<dyn ActorFuture<Self, Output = _>>> = match prepared {
            // A reload has put it into force.
            _ if self.served == Some(number) => {
                self.pushed = Some(pushed);
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return AtomicResponse::new(Box::pin(actix::fut::ready(Ok(self.current.load().number))));
            }
            Some((_, config)) => Box::pin(actix::fut::ready(Ok(config))),
            // This instance was not connected when it was prepared, or its settings were read again.
            None => Box::pin(self.load_pushed(&pushed)),
        };
        self.pushed = Some(pushed);
        AtomicResponse::new(Box::pin(ready.map(move |ready, routes, _| match ready {
            Ok(config) => Ok(routes.publish(config, Some(number))),
            Err(error) => Err(routes.reject(error)),
        })))
    }
}
