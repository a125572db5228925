//! Connections to brokers, shared by all data arbiters: opened on demand, and reopened forever.

mod dial;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crossdock_delivery::{Connector, Supervised};
use crossdock_message::Fault;
use crossdock_ports::{AdapterError, PortStatus};
use crossdock_transport::Dialer;
use futures_util::StreamExt as _;
use lapin::uri::AMQPUri;
use lapin::{Connection, Event};
use tokio::runtime::{Handle, Runtime};

use crate::config::Addresses;
use crate::error::unreachable;
use crate::frames::Returns;

/// How often the status of a connection is polled, in case no event reports its loss.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The purpose of a connection. Publishing and consuming are separate: a blocked publisher must not delay acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Publishing.
    Publish,
    /// Publishing replies, whose addresses come from requests.
    Reply,
    /// Publishing a message that may make the broker close the connection.
    Quarantine,
    /// Consuming.
    Consume,
}

/// All connections of the process.
#[derive(Debug, Default)]
pub(crate) struct Brokers {
    runtime: OnceLock<Runtime>,
    open: Mutex<HashMap<(u64, Purpose), Weak<Broker>>>,
}

impl Brokers {
    /// The connection to a broker for a purpose; opened on first use.
    pub(crate) fn broker(&self, addresses: &Addresses, purpose: Purpose) -> Result<Arc<Broker>, AdapterError> {
        let runtime = self.runtime()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, broker| broker.strong_count() > 0);
        let key = (addresses.fingerprint(), purpose);
        if let Some(broker) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(broker);
        }
        let connector = AmqpConnector { addresses: addresses.clone(), dialers: addresses.dialers()?.into(), purpose };
        let broker = Arc::new(Broker(Supervised::new(connector, runtime)));
        open.insert(key, Arc::downgrade(&broker));
        Ok(broker)
    }

    /// The status of the connection to a broker for a purpose; `None` if nothing uses one.
    pub(crate) fn status(&self, addresses: &Addresses, purpose: Purpose) -> Option<PortStatus> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Some(open.get(&(addresses.fingerprint(), purpose))?.upgrade()?.status())
    }

    /// One thread for all connections, in addition to lapin's own threads.
    fn runtime(&self) -> Result<Handle, AdapterError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle().clone());
        }
        let built =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("amqp").enable_all().build();
        let built =
            built.map_err(|error| AdapterError::Settings(format!("failed to start the AMQP thread: {error}")))?;
        Ok(self.runtime.get_or_init(|| built).handle().clone())
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last owner may be a task, which must not block.
            runtime.shutdown_background();
        }
    }
}

/// A connection to a broker for one purpose, which is reopened when it is lost.
#[derive(Debug)]
pub(crate) struct Broker(Supervised<AmqpConnector>);

/// An open connection; it may be lost at any time. lapin never completes a call that it accepts while its connection is closing, so every caller
/// that awaits lapin must await [`Live::lost`](crossdock_delivery::Live::lost) too.
pub(crate) type Live = crossdock_delivery::Live<Link>;

/// A connection, and the messages returned on it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    connection: Arc<Connection>,
    pub(crate) returns: Arc<Returns>,
}

impl std::ops::Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

pub(crate) fn is_up(live: &Live) -> bool {
    Supervised::<AmqpConnector>::is_up(live)
}

impl Broker {
    /// The addresses without credentials, for logs.
    pub(crate) fn name(&self) -> &str {
        self.0.connector().broker()
    }

    /// Whether there is a connection, or none has been needed yet.
    pub(crate) fn status(&self) -> PortStatus {
        self.0.problem().map_or(PortStatus::Up, PortStatus::Down)
    }

    /// The connection; waits for one up to the connect timeout.
    ///
    /// # Errors
    /// UNAVAILABLE; can be retried unchanged.
    pub(crate) async fn connection(&self) -> Result<Live, Fault> {
        let timeout = self.0.connector().addresses.connect_timeout;
        self.0.connection(timeout).await.map_err(unreachable)
    }

    /// The connection; waits for one without limit. Cancel safe.
    pub(crate) async fn wait_for_connection(&self) -> Live {
        self.0.wait_for_connection().await
    }

    /// Spawns a task that outlives the caller.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }
}

/// Connects to the first reachable address of a broker.
#[derive(Debug)]
struct AmqpConnector {
    addresses: Addresses,
    dialers: Arc<[(AMQPUri, Arc<Dialer>)]>,
    purpose: Purpose,
}

impl Connector for AmqpConnector {
    type Connection = Link;

    fn broker(&self) -> &str {
        &self.addresses.redacted
    }

    fn purpose(&self) -> &'static str {
        match self.purpose {
            Purpose::Publish => "Publish",
            Purpose::Reply => "Reply",
            Purpose::Quarantine => "Quarantine",
            Purpose::Consume => "Consume",
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        let name = match self.purpose {
            Purpose::Publish => "crossdock publishes",
            Purpose::Reply => "crossdock answers",
            Purpose::Quarantine => "crossdock tries",
            Purpose::Consume => "crossdock consumes",
        };
        let mut problem = String::new();
        for (uri, dialer) in &*self.dialers {
            let connecting = dial::connect(uri.clone(), Arc::clone(dialer), name);
            match tokio::time::timeout(self.addresses.connect_timeout, connecting).await {
                Ok(Ok((connection, returns))) => return Ok(Link { connection: Arc::new(connection), returns }),
                Ok(Err(error)) => problem = error.to_string(),
                Err(_) => "the connect timeout expired".clone_into(&mut problem),
            }
        }
        Err(problem)
    }

    fn is_up(link: &Link) -> bool {
        link.status().connected()
    }

    async fn lost(&self, link: &Link) -> String {
        wait_lost(link, self.broker()).await
    }

    async fn close(link: Link) {
        // The process no longer uses the connection, so an error does not matter.
        let _ = link.connection.close(200, "OK".into()).await;
    }
}

/// Waits until a connection is lost; returns the reason.
async fn wait_lost(connection: &Connection, broker: &str) -> String {
    let mut events = connection.events_listener();
    loop {
        tokio::select! {
            event = events.next() => match event {
                // Channel errors are reported here too.
                Some(Event::Error(error)) if !connection.status().connected() => return error.to_string(),
                Some(Event::Error(error)) => tracing::debug!(%broker, problem = %error, "channel closed"),
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(%broker, %reason, "broker blocked publishing");
                }
                Some(Event::ConnectionUnblocked) => tracing::info!(%broker, "broker unblocked publishing"),
                Some(_) => {}
                None => return "the connection was closed".to_owned(),
            },
            () = tokio::time::sleep(STATUS_INTERVAL) => {}
        }
        if !connection.status().connected() {
            return "the connection was closed".to_owned();
        }
    }
}
