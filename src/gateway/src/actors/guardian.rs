//! Starts, supervises and restarts hosts; abandons one that fails too often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, ResponseFuture, WrapFuture as _};
use crossdock_ports::{Inbound, OpenIngress};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::host::Host;
use crate::config::ListenerConfig;
use crate::error::ApplyError;
use crate::process::ProcessState;

/// The maximum number of restarts within [`RESTART_WINDOW`]; then a host is abandoned.
const RESTARTS_MAX: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A running listener: its name, its adapter, and its bound address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) name: String,
    pub(crate) adapter: &'static str,
    pub(crate) address: String,
}

/// The supervisor of all hosts.
pub(crate) struct Guardian {
    arbiters: usize,
    ingress: Arc<dyn OpenIngress>,
    process: Arc<ProcessState>,
    hosts: BTreeMap<String, HostState>,
    runs: u64,
    /// The number of running hosts, which a stop waits for.
    running: watch::Sender<usize>,
    is_stopping: bool,
}

struct HostState {
    config: ListenerConfig,
    address: String,
    stop: CancellationToken,
    run: u64,
    is_up: bool,
    failures: Vec<Instant>,
}

/// Starts and stops hosts to match the list. New listeners are opened first; if one fails, nothing changes.
#[derive(actix::Message)]
#[rtype(result = "Result<Vec<Listening>, ApplyError>")]
pub(crate) struct Apply(pub(crate) Vec<ListenerConfig>);

/// A run of a host has ended.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct HostEnded {
    pub(super) name: String,
    pub(super) run: u64,
    pub(super) error: Option<String>,
}

/// Stops all hosts; the response follows when the last one has finished its messages in flight.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct StopAll;

impl Guardian {
    pub(crate) fn new(arbiters: usize, ingress: Arc<dyn OpenIngress>, process: Arc<ProcessState>) -> Self {
        let (hosts, running) = (BTreeMap::new(), watch::Sender::new(0));
        Self { arbiters, ingress, process, hosts, runs: 0, running, is_stopping: false }
    }

    fn run(
        &mut self,
        config: &ListenerConfig,
        inbound: Box<dyn Inbound>,
        context: &Context<Self>,
    ) -> (u64, CancellationToken) {
        let name = &config.name;
        self.process.listeners.started(name, config.adapter.name(), inbound.address(), inbound.status());
        self.runs += 1;
        let stop = CancellationToken::new();
        let host = Host {
            name: name.clone(),
            run: self.runs,
            inbound: Some(inbound),
            arbiters: self.arbiters,
            ingress: Arc::clone(&self.ingress),
            stop: stop.clone(),
            guardian: context.address(),
        };
        host.start();
        self.running.send_modify(|running| *running += 1);
        (self.runs, stop)
    }

    fn apply(&mut self, listeners: &[ListenerConfig], context: &Context<Self>) -> Result<Vec<Listening>, ApplyError> {
        let mut opened = Vec::new();
        for listener in listeners {
            match self.hosts.get(&listener.name) {
                Some(host) if host.config.spec.fingerprint() == listener.spec.fingerprint() => {}
                Some(_) => {
                    return Err(ApplyError::ListenerChanged(listener.name.clone()));
                }
                None => {
                    let inbound = listener.adapter.open_inbound(&listener.name, &*listener.spec);
                    let inbound =
                        inbound.map_err(|source| ApplyError::Listener { name: listener.name.clone(), source })?;
                    opened.push((listener.clone(), inbound));
                }
            }
        }
        self.hosts.retain(|name, host| {
            let kept = listeners.iter().any(|listener| listener.name == *name);
            if !kept {
                tracing::info!(listener = %name, "listener removed; stopping");
                host.stop.cancel();
                self.process.listeners.removed(name);
            }
            kept
        });
        for (config, inbound) in opened {
            let address = inbound.address();
            tracing::info!(listener = %config.name, adapter = config.adapter.name(), %address, "listener started");
            let (run, stop) = self.run(&config, inbound, context);
            self.hosts.insert(
                config.name.clone(),
                HostState { config, address, stop, run, is_up: true, failures: Vec::new() },
            );
        }
        let listening = self.hosts.values().map(|host| Listening {
            name: host.config.name.clone(),
            adapter: host.config.adapter.name(),
            address: host.address.clone(),
        });
        Ok(listening.collect())
    }

    fn ended(&mut self, ended: HostEnded, context: &mut Context<Self>) {
        self.running.send_modify(|running| *running = running.saturating_sub(1));
        let HostEnded { name, run, error } = ended;
        let Some(host) = self.hosts.get_mut(&name).filter(|host| host.run == run) else { return };
        host.is_up = false;
        if self.is_stopping || host.stop.is_cancelled() {
            return;
        }
        let now = Instant::now();
        host.failures.retain(|at| now.saturating_duration_since(*at) < RESTART_WINDOW);
        host.failures.push(now);
        let failures = host.failures.len();
        let error = error.unwrap_or_else(|| "the listener ended unexpectedly".to_owned());
        self.process.listeners.failed(&name, &error);
        if failures > RESTARTS_MAX {
            tracing::error!(listener = %name, %error, failures, "listener failed too often; not restarted until the gateway restarts");
            return;
        }
        let delay = BACKOFF_MIN.saturating_mul(1 << (failures - 1).min(8)).min(BACKOFF_MAX);
        tracing::error!(listener = %name, %error, delay_ms = delay.as_millis(), "listener failed; restarting");
        let waiting = tokio::time::sleep(delay)
            .into_actor(self)
            .map(move |(), guardian, context| guardian.restart(&name, context));
        context.spawn(waiting);
    }

    fn restart(&mut self, name: &str, context: &mut Context<Self>) {
        let Some(host) = self.hosts.get(name).filter(|host| !host.is_up && !host.stop.is_cancelled()) else { return };
        let config = host.config.clone();
        match config.adapter.open_inbound(name, &*config.spec) {
            Ok(inbound) => {
                let (run, stop) = self.run(&config, inbound, context);
                if let Some(host) = self.hosts.get_mut(name) {
                    (host.run, host.stop, host.is_up) = (run, stop, true);
                }
            }
            Err(error) => {
                let run = host.run;
                self.running.send_modify(|running| *running += 1);
                self.ended(HostEnded { name: name.to_owned(), run, error: Some(error.to_string()) }, context);
            }
        }
    }
}

impl Actor for Guardian {
    type Context = Context<Self>;
}

impl Handler<Apply> for Guardian {
    type Result = Result<Vec<Listening>, ApplyError>;

    fn handle(&mut self, Apply(listeners): Apply, context: &mut Context<Self>) -> Self::Result {
        self.apply(&listeners, context)
    }
}

impl Handler<HostEnded> for Guardian {
    type Result = ();

    fn handle(&mut self, ended: HostEnded, context: &mut Context<Self>) {
        self.ended(ended, context);
    }
}

impl Handler<StopAll> for Guardian {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopAll, _: &mut Context<Self>) -> Self::Result {
        self.is_stopping = true;
        for host in self.hosts.values() {
            host.stop.cancel();
        }
        let mut running = self.running.subscribe();
        Box::pin(async move {
            // An error means that the guardian is gone, and with it all hosts.
            let _ = running.wait_for(|running| *running == 0).await;
        })
    }
}
