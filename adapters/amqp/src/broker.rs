//! Connections to brokers, shared by all data arbiters: opened on demand, and reopened forever.

mod dial;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossdock_message::Fault;
use crossdock_ports::AdapterError;
use crossdock_transport::Dialer;
use futures_util::StreamExt as _;
use lapin::uri::AMQPUri;
use lapin::{Connection, Event};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Addresses;
use crate::error::unreachable;
use crate::frames::Returns;

/// The first and the longest delay between two attempts to connect.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that lasts this long resets the backoff; a shorter one may have been closed because of a message.
const STABLE_TIME: Duration = Duration::from_secs(10);
/// How often the status of a connection is polled, in case no event reports its loss.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// For closing a connection gracefully.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

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
        let dialers = addresses.dialers()?.into();
        let broker =
            Arc::new(Broker { addresses: addresses.clone(), dialers, purpose, runtime, state: OnceLock::new() });
        open.insert(key, Arc::downgrade(&broker));
        Ok(broker)
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

/// A dialer for each address.
type Dialers = Arc<[(AMQPUri, Arc<Dialer>)]>;

/// A connection to a broker that is reopened when it is lost.
#[derive(Debug)]
pub(crate) struct Broker {
    addresses: Addresses,
    dialers: Dialers,
    purpose: Purpose,
    runtime: Handle,
    state: OnceLock<watch::Receiver<State>>,
}

#[derive(Debug, Clone)]
enum State {
    /// There is no connection, with the reason.
    Down(String),
    Up(Live),
}

/// An open connection; it may be lost at any time.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// Distinguishes this connection from earlier ones.
    pub(crate) number: u64,
    pub(crate) connection: Arc<Connection>,
    /// Messages returned on it.
    pub(crate) returns: Arc<Returns>,
    /// Cancelled once the connection is lost.
    ended: CancellationToken,
}

impl Live {
    pub(crate) fn is_up(&self) -> bool {
        !self.ended.is_cancelled() && self.connection.status().connected()
    }

    /// Completes once the connection is lost. lapin never completes a call that it accepts while its connection is closing, so every caller that
    /// awaits lapin must await this too. Cancel safe.
    pub(crate) async fn lost(&self) {
        self.ended.cancelled().await;
    }
}

impl Broker {
    /// The addresses without credentials, for logs.
    pub(crate) fn name(&self) -> &str {
        &self.addresses.redacted
    }

    /// The connection; waits for one up to the connect timeout.
    ///
    /// # Errors
    /// UNAVAILABLE; can be retried unchanged.
    pub(crate) async fn connection(&self) -> Result<Live, Fault> {
        let mut state = self.state();
        let mut reason = "the connect timeout expired".to_owned();
        let waiting = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Up(live) if live.is_up() => return Some(live.clone()),
                    State::Up(_) => {}
                    State::Down(problem) if problem.is_empty() => {}
                    State::Down(problem) => {
                        reason.clone_from(problem);
                        return None;
                    }
                }
                state.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(self.addresses.connect_timeout, waiting).await;
        found.ok().flatten().ok_or_else(|| unreachable(reason))
    }

    /// The connection; waits for one without limit. Cancel safe.
    pub(crate) async fn wait_for_connection(&self) -> Live {
        let mut state = self.state();
        loop {
            if let State::Up(live) = &*state.borrow_and_update()
                && live.is_up()
            {
                return live.clone();
            }
            if state.changed().await.is_err() {
                // The process is exiting.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Spawns a task that outlives the caller.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    fn state(&self) -> watch::Receiver<State> {
        let start = || {
            let (sender, state) = watch::channel(State::Down(String::new()));
            self.runtime.spawn(maintain(self.addresses.clone(), Arc::clone(&self.dialers), self.purpose, sender));
            state
        };
        self.state.get_or_init(start).clone()
    }
}

/// Maintains a connection until all users have dropped it.
async fn maintain(addresses: Addresses, dialers: Dialers, purpose: Purpose, state: watch::Sender<State>) {
    let mut delay = BACKOFF;
    let mut number = 0;
    let mut reported = String::new();
    let broker = addresses.redacted.clone();
    loop {
        let connected = tokio::select! {
            connected = connect(&dialers, addresses.connect_timeout, purpose) => connected,
            () = state.closed() => return,
        };
        match connected {
            Ok((connection, returns)) => {
                number += 1;
                let since = Instant::now();
                tracing::info!(%broker, ?purpose, number, "connected to the broker");
                let connection = Arc::new(connection);
                let ended = CancellationToken::new();
                // Cancelled however this attempt ends.
                let _ended = ended.clone().drop_guard();
                state.send_replace(State::Up(Live { number, connection: Arc::clone(&connection), returns, ended }));
                let problem = tokio::select! {
                    problem = wait_lost(&connection, &broker) => problem,
                    () = state.closed() => {
                        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "OK".into())).await;
                        return;
                    }
                };
                tracing::warn!(%broker, ?purpose, number, %problem, "broker connection lost");
                // Callers now wait for the next connection instead of failing.
                state.send_replace(State::Down(String::new()));
                reported = String::new();
                if since.elapsed() >= STABLE_TIME {
                    delay = BACKOFF;
                    continue;
                }
            }
            Err(problem) => {
                if problem != reported {
                    tracing::warn!(%broker, ?purpose, %problem, "broker unreachable; retrying");
                    reported.clone_from(&problem);
                }
                state.send_replace(State::Down(problem));
            }
        }
        // Jitter, so that instances do not reconnect to a restarted broker at the same time.
        let jittered = delay.mul_f64(0.5 + 0.5 * random_fraction());
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = state.closed() => return,
        }
        delay = (delay * 2).min(BACKOFF_MAX);
    }
}

/// A random number from 0 to 1.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    f64::from(u16::try_from(RandomState::new().hash_one(0) & 0xffff).unwrap_or(0)) / f64::from(u16::MAX)
}

async fn connect(dialers: &Dialers, time: Duration, purpose: Purpose) -> Result<(Connection, Arc<Returns>), String> {
    let name = match purpose {
        Purpose::Publish => "crossdock publishes",
        Purpose::Reply => "crossdock answers",
        Purpose::Quarantine => "crossdock tries",
        Purpose::Consume => "crossdock consumes",
    };
    let mut problem = String::new();
    for (uri, dialer) in &**dialers {
        match tokio::time::timeout(time, dial::connect(uri.clone(), Arc::clone(dialer), name)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => problem = error.to_string(),
            Err(_) => "the connect timeout expired".clone_into(&mut problem),
        }
    }
    Err(problem)
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
