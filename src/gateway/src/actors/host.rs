//! Runs one listener, and notifies the guardian when it ends.

use std::sync::Arc;

use actix::{Actor, Addr, Context};
use crossdock_ports::{AdapterError, Inbound, OpenIngress};
use tokio_util::sync::CancellationToken;

use super::guardian::{Guardian, HostEnded};

/// The actor of one listener.
pub(super) struct Host {
    pub(super) name: String,
    /// Distinguishes this run from earlier ones.
    pub(super) run: u64,
    pub(super) inbound: Option<Box<dyn Inbound>>,
    pub(super) arbiters: usize,
    pub(super) ingress: Arc<dyn OpenIngress>,
    pub(super) stop: CancellationToken,
    pub(super) guardian: Addr<Guardian>,
}

impl Actor for Host {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        let Some(inbound) = self.inbound.take() else { return };
        let (arbiters, ingress, stop) = (self.arbiters, Arc::clone(&self.ingress), self.stop.clone());
        let (name, run, guardian) = (self.name.clone(), self.run, self.guardian.clone());
        actix_rt::spawn(async move {
            // A separate task, so that a panic of the adapter becomes an error here.
            let running = actix_rt::spawn(inbound.run(arbiters, ingress, Box::pin(stop.cancelled_owned())));
            let result = running.await.unwrap_or_else(|error| Err(AdapterError::Stopped(error.to_string())));
            let error = result.err().map(|error| error.to_string());
            if guardian.send(HostEnded { name, run, error }).await.is_err() {
                tracing::debug!("guardian is gone");
            }
        });
    }
}
