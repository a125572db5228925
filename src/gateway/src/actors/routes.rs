//! Loads, checks and publishes generations of the routes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, ActorFutureExt as _, Addr, AtomicResponse, Context, Handler, WrapFuture as _};
use crossdock_ports::Adapter;

use super::guardian::{Apply, Guardian};
use crate::config::Config;
use crate::error::{ApplyError, LoadError};
use crate::generation::{CurrentGeneration, Generation};
use crate::process::ProcessState;
use crate::stats::Stats;

/// Reads the settings again.
pub(crate) type Source = Arc<dyn Fn() -> Result<Config, LoadError> + Send + Sync>;

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
}

/// Reads the settings again and publishes a new generation; on an error, the current one stays in force.
#[derive(actix::Message)]
#[rtype(result = "Result<u64, ApplyError>")]
pub(crate) struct ReloadRoutes;

impl Routes {
    /// Creates the next generation: every step that can fail, before anything changes.
    fn prepare(&self, config: Config) -> Result<Generation, ApplyError> {
        // Locks would be refused message by message.
        if config.cluster.is_some() != self.process.coordination.is_some() {
            return Err(ApplyError::ClusterChanged);
        }
        let number = self.current.load().number + 1;
        let mut generation =
            Generation::new(number, config.plan, config.listeners, config.limits, &self.stats, &self.process);
        generation.files = config.files;
        for service in &generation.services {
            service.try_open(&self.adapters)?;
        }
        Ok(generation)
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

    fn publish(&self, generation: Generation) -> u64 {
        let number = generation.number;
        tracing::info!(generation = number, routes = generation.plan.routes.len(), "routes are in force");
        self.current.publish(generation);
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
        let source = Arc::clone(&self.source);
        // Contracts take long to compile; the control thread also serves health checks and the admin API.
        let loading = tokio::task::spawn_blocking(move || source());
        let reloading = loading.into_actor(self).then(|loaded, routes, _| {
            let loaded = loaded.map_err(|error| ApplyError::Panicked(error.to_string())).and_then(|loaded| Ok(loaded?));
            let prepared = loaded.and_then(|config| routes.prepare(config));
            let guardian = routes.guardian.clone();
            let applying = async move {
                let generation = prepared?;
                match guardian.send(Apply(generation.listeners.clone())).await {
                    Ok(applied) => applied.map(|_| generation),
                    Err(_) => Err(ApplyError::Stopping),
                }
            };
            applying.into_actor(routes)
        });
        AtomicResponse::new(Box::pin(reloading.map(|applied, routes, _| match applied {
            Ok(generation) => Ok(routes.publish(generation)),
            Err(error) => Err(routes.reject(error)),
        })))
    }
}
