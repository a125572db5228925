//! Connections to brokers, shared by all data arbiters: made when they are needed, and made anew for ever.

mod dial;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossdock_adapter_api::AdapterError;
use crossdock_message::Fault;
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

/// Waits between two tries to connect: the first, and the longest.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that lives this long begins anew with short waits; what ends sooner may be ended by what is sent over it.
const STEADY_TIME: Duration = Duration::from_secs(10);
/// How often a connection is looked at that says nothing of itself.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// For a connection to be closed as the protocol wants it.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// What a connection is for: one that is blocked for publishing must not hold back acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Publishing.
    Publish,
    /// Publishing answers, whose addresses come from requests.
    Answer,
    /// Publishing what may end the connection.
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
    /// The connection to these addresses for that purpose; not made before somebody asks for it.
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

    /// One thread for the connections of all brokers, besides those that lapin runs.
    fn runtime(&self) -> Result<Handle, AdapterError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle().clone());
        }
        let built =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("amqp").enable_all().build();
        let built = built.map_err(|error| AdapterError::Settings(format!("no thread for AMQP: {error}")))?;
        Ok(self.runtime.get_or_init(|| built).handle().clone())
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last owner may be a task.
            runtime.shutdown_background();
        }
    }
}

/// What makes connections to each address.
type Dialers = Arc<[(AMQPUri, Arc<Dialer>)]>;

/// One connection to a broker, whichever it is at the moment.
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
    /// There is none, and why.
    Down(String),
    Up(Live),
}

/// A connection that was there a moment ago.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// Tells this connection from those before it.
    pub(crate) number: u64,
    pub(crate) connection: Arc<Connection>,
    /// Messages that were returned on it.
    pub(crate) returns: Arc<Returns>,
    /// Cancelled once it is lost.
    ended: CancellationToken,
}

impl Live {
    /// Whether it is still there.
    pub(crate) fn is_up(&self) -> bool {
        !self.ended.is_cancelled() && self.connection.status().connected()
    }

    /// Completes once the connection is lost. lapin never completes a call that it accepted just as its connection ended, so whatever awaits
    /// lapin awaits this as well. Cancel safe.
    pub(crate) async fn lost(&self) {
        self.ended.cancelled().await;
    }
}

impl Broker {
    /// For people.
    pub(crate) fn name(&self) -> &str {
        &self.addresses.shown
    }

    /// A connection; waits for one as long as making one may take.
    ///
    /// # Errors
    /// UNAVAILABLE, to be tried again as it is.
    pub(crate) async fn live(&self) -> Result<Live, Fault> {
        let mut state = self.state();
        let mut why = "no connection in time".to_owned();
        let waiting = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Up(live) if live.is_up() => return Some(live.clone()),
                    State::Up(_) => {}
                    State::Down(problem) if problem.is_empty() => {}
                    State::Down(problem) => {
                        why.clone_from(problem);
                        return None;
                    }
                }
                state.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(self.addresses.connect_timeout, waiting).await;
        found.ok().flatten().ok_or_else(|| unreachable(why))
    }

    /// A connection, however long it takes.
    pub(crate) async fn live_at_last(&self) -> Live {
        let mut state = self.state();
        loop {
            if let State::Up(live) = &*state.borrow_and_update()
                && live.is_up()
            {
                return live.clone();
            }
            if state.changed().await.is_err() {
                // The process ends.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Runs what outlives whoever asks for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    fn state(&self) -> watch::Receiver<State> {
        let start = || {
            let (sender, state) = watch::channel(State::Down(String::new()));
            self.runtime.spawn(keep(self.addresses.clone(), Arc::clone(&self.dialers), self.purpose, sender));
            state
        };
        self.state.get_or_init(start).clone()
    }
}

/// Keeps a connection until nobody needs it any more.
async fn keep(addresses: Addresses, dialers: Dialers, purpose: Purpose, state: watch::Sender<State>) {
    let mut wait = BACKOFF;
    let mut number = 0;
    let mut told = String::new();
    let broker = addresses.shown.clone();
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
                // However this ends, nobody waits for the connection any more.
                let _ended = ended.clone().drop_guard();
                state.send_replace(State::Up(Live { number, connection: Arc::clone(&connection), returns, ended }));
                let lost = tokio::select! {
                    problem = lost(&connection, &broker) => problem,
                    () = state.closed() => {
                        let _ = tokio::time::timeout(CLOSE_TIME, connection.close(200, "OK".into())).await;
                        return;
                    }
                };
                tracing::warn!(%broker, ?purpose, number, problem = %lost, "the connection to the broker was lost");
                // Those who ask now wait for the next connection rather than fail.
                state.send_replace(State::Down(String::new()));
                told = String::new();
                if since.elapsed() >= STEADY_TIME {
                    wait = BACKOFF;
                    continue;
                }
            }
            Err(problem) => {
                if problem != told {
                    tracing::warn!(%broker, ?purpose, %problem, "the broker cannot be reached; trying again");
                    told.clone_from(&problem);
                }
                state.send_replace(State::Down(problem));
            }
        }
        // Instances that lost the same broker do not come back at the same moment.
        let spread = wait.mul_f64(0.5 + 0.5 * random_share());
        tokio::select! {
            () = tokio::time::sleep(spread) => {}
            () = state.closed() => return,
        }
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}

/// A number from 0 to 1 that differs from instance to instance.
fn random_share() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    f64::from(u16::try_from(RandomState::new().hash_one(0) & 0xffff).unwrap_or(0)) / f64::from(u16::MAX)
}

async fn connect(dialers: &Dialers, time: Duration, purpose: Purpose) -> Result<(Connection, Arc<Returns>), String> {
    let name = match purpose {
        Purpose::Publish => "crossdock publishes",
        Purpose::Answer => "crossdock answers",
        Purpose::Quarantine => "crossdock tries",
        Purpose::Consume => "crossdock consumes",
    };
    let mut problem = String::new();
    for (uri, dialer) in &**dialers {
        match tokio::time::timeout(time, dial::connect(uri.clone(), Arc::clone(dialer), name)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => problem = error.to_string(),
            Err(_) => "no connection in time".clone_into(&mut problem),
        }
    }
    Err(problem)
}

/// Waits until a connection is lost; gives the reason.
async fn lost(connection: &Connection, broker: &str) -> String {
    let mut events = connection.events_listener();
    loop {
        tokio::select! {
            event = events.next() => match event {
                // Errors of channels are told here too.
                Some(Event::Error(error)) if !connection.status().connected() => return error.to_string(),
                Some(Event::Error(error)) => tracing::debug!(%broker, problem = %error, "a channel was closed"),
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(%broker, %reason, "the broker takes no messages for now");
                }
                Some(Event::ConnectionUnblocked) => tracing::info!(%broker, "the broker takes messages again"),
                Some(_) => {}
                None => return "it was closed".to_owned(),
            },
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        if !connection.status().connected() {
            return "it was closed".to_owned();
        }
    }
}
