//! An instance of the cluster, for those who use it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossdock_zab::{Fatal, Refusal, Role, ServerId, Zxid};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::{Ask, Driver};
use crate::latency::Latencies;
use crate::machine::Machine;
use crate::settings::Settings;
use crate::transport::Transport;
use crate::wal;

/// What is asked of an instance and waits for its driver.
const ASKS_MAX: usize = 10_000;
/// For another to take the office of one that leaves.
const HAND_OVER_TIME: Duration = Duration::from_secs(1);
/// What came from others and waits for it.
const INCOMING_MAX: usize = 10_000;

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] wal::Error),
    /// The address cannot be listened at.
    #[error("{address} cannot be listened at")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The settings do not name this instance, or a majority cannot be.
    #[error("{0}")]
    Settings(String),
    /// A snapshot's state is not one.
    #[error("the state of a snapshot cannot be taken: {0}")]
    State(String),
    /// The system gave no thread.
    #[error("no thread for the cluster")]
    Thread(#[source] io::Error),
}

/// Why something that was asked was not done, or is not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It was not taken: it can be asked again.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The leader changed meanwhile: whether it is done, nobody knows.
    #[error("the leader changed: whether it is done is not known")]
    Unknown,
    /// The instance has ended.
    #[error("the instance has ended")]
    Ended,
}

/// What an instance is and has, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This instance.
    pub id: ServerId,
    /// What it is.
    pub role: Role,
    /// The phase of the protocol that it is in.
    pub phase: &'static str,
    /// The end of its log.
    pub last: Zxid,
    /// The last transaction that it has applied.
    pub applied: Zxid,
    /// The other instances, as it sees them; renewed with each tick.
    pub peers: Vec<Peer>,
    /// Syncs of its log.
    pub syncs: u64,
    /// Why it has stopped for good.
    pub stopped: Option<Stopped>,
}

/// Another instance, as one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The other instance.
    pub id: ServerId,
    /// It votes.
    pub votes: bool,
    /// There is a connection.
    pub is_connected: bool,
    /// It follows this one, has its history, and gets all that is new.
    pub follows: bool,
    /// How many transactions are not known to be durable there; nothing where this instance does not lead, the other does not vote, or is so
    /// far behind that nobody counts them.
    pub lag: Option<usize>,
}

/// Why an instance stopped for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Its protocol forbids to go on.
    Protocol(Fatal),
    /// Its log cannot be written.
    Log(String),
    /// It was asked to.
    Asked,
}

/// Makes the log of an instance: once, before its first start.
///
/// # Errors
/// [`wal::Error::Exists`] where there is one; [`wal::Error::Io`].
pub fn init(settings: &Settings) -> Result<(), wal::Error> {
    wal::Wal::create(&settings.data, settings.identity(), settings.log).map(drop)
}

/// Makes the log of an instance that has lost its own, whose id stays: it follows without a vote until it has all again, in an epoch that began
/// after its loss was known. As many others as are a majority of all voters must have kept their logs.
///
/// # Errors
/// As [`init`].
pub fn init_again(settings: &Settings) -> Result<(), wal::Error> {
    wal::Wal::create_again(&settings.data, settings.identity(), settings.log).map(drop)
}

/// An instance that runs.
pub struct Node {
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
    latencies: Arc<Latencies>,
    address: SocketAddr,
    /// Its end ends the driver and the connections.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Drives the instance and keeps its connections, until it is told to stop or must: one thread for both, as what one of them does the
/// other waits for.
fn run(
    driver: &mut Driver,
    transport: Arc<Transport>,
    listener: std::net::TcpListener,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let connections = tokio::spawn(transport.run(listener));
        tokio::select! {
            () = driver.drive() => {}
            _ = stopped => {}
        }
        connections.abort();
        Ok(())
    });
    // Whoever looks at a file of a disk that does not answer is not waited for.
    runtime.shutdown_background();
    ended
}

impl Node {
    /// Starts an instance: reads its log, takes its address, and begins to look for a leader.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings, machine: Box<dyn Machine>) -> Result<Self, StartError> {
        let Some(member) = settings.members.get(&settings.id) else {
            return Err(StartError::Settings(format!("server {} is not among the members", settings.id)));
        };
        if !settings.members.values().any(|member| member.votes) {
            return Err(StartError::Settings("no member votes".to_owned()));
        }
        settings.check_network().map_err(StartError::Settings)?;
        if let Some(tls) = &settings.tls {
            tls.check().map_err(|problem| StartError::Settings(problem.to_string()))?;
        }
        let address = member.address;
        let listen = |source| StartError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (to_driver, incoming) = mpsc::channel(INCOMING_MAX);
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (mut driver, status, latencies) = Driver::open(settings, machine, incoming, asked)?;
        let (stop, stopped) = oneshot::channel();
        let transport = Transport::new(settings, to_driver);
        let thread = std::thread::Builder::new().name("zab".to_owned()).spawn(move || {
            let ended = run(&mut driver, transport, listener, stopped);
            driver.end(ended);
        });
        let thread = Some(thread.map_err(StartError::Thread)?);
        Ok(Self { asks, status, latencies, address, stop: Some(stop), thread })
    }

    /// Where it listens for other instances.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle to ask it.
    #[must_use]
    pub fn client(&self) -> Client {
        let latencies = Arc::clone(&self.latencies);
        Client { asks: self.asks.clone(), status: self.status.clone(), latencies }
    }

    /// Ends the instance; where it leads, another takes its office first, so that no command is left open. Others have to be there
    /// within a second; what followers have passed to it just then may be open all the same. Cancelled, it ends without all this.
    pub async fn leave(self) {
        let mut client = self.client();
        let is_leading = |status: &Status| matches!(status.role, Role::Leading(_));
        let has_followers = client.status().peers.iter().any(|peer| peer.votes && peer.follows);
        if is_leading(&client.status()) && has_followers && client.hand_over(None).await.is_ok() {
            let handed_over = client.until(|status| !is_leading(status) || status.stopped.is_some());
            let _ = tokio::time::timeout(HAND_OVER_TIME, handed_over).await;
        }
        // The disk may take its time; others of this thread do not wait for it.
        let _ = tokio::task::spawn_blocking(move || self.stop()).await;
    }

    /// Ends the instance, without waiting for others. A disk that does not answer is waited for for five seconds.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks an instance. Copies ask the same one.
#[derive(Debug, Clone)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
    latencies: Arc<Latencies>,
}

impl Client {
    /// Has a command applied on all instances; gives its place and its answer once it is durable on a majority and applied here.
    ///
    /// Dropping the future leaves it open whether it is.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn propose(&self, payload: Bytes) -> Result<(Zxid, Bytes), AskError> {
        let (done, answer) = oneshot::channel();
        self.asks.send(Ask::Propose { payload, done }).await.map_err(|_| AskError::Ended)?;
        answer.await.unwrap_or(Err(AskError::Ended))
    }

    /// Asks a question of a state that has all that was done before it was asked.
    ///
    /// # Errors
    /// See [`AskError`]; a question can always be asked again.
    pub async fn read(&self, question: Bytes) -> Result<Bytes, AskError> {
        let (done, answer) = oneshot::channel();
        self.asks.send(Ask::Read { question, done }).await.map_err(|_| AskError::Ended)?;
        answer.await.unwrap_or(Err(AskError::Ended))
    }

    /// Asks a question of this instance's state, however old it is.
    ///
    /// # Errors
    /// [`AskError::Ended`].
    pub async fn read_stale(&self, question: Bytes) -> Result<Bytes, AskError> {
        let (done, answer) = oneshot::channel();
        self.asks.send(Ask::ReadStale { question, done }).await.map_err(|_| AskError::Ended)?;
        answer.await.map_err(|_| AskError::Ended)
    }

    /// Asks this instance, where it leads, to leave its office to another.
    ///
    /// # Errors
    /// [`AskError::Ended`].
    pub async fn hand_over(&self, to: Option<ServerId>) -> Result<(), AskError> {
        self.asks.send(Ask::HandOver(to)).await.map_err(|_| AskError::Ended)
    }

    /// What the instance is and has, now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How long things have taken.
    #[must_use]
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Waits until the status is such.
    ///
    /// # Errors
    /// [`AskError::Ended`].
    pub async fn until(&mut self, holds: impl FnMut(&Status) -> bool) -> Result<Status, AskError> {
        let status = self.status.wait_for(holds).await.map_err(|_| AskError::Ended)?;
        Ok(status.clone())
    }
}
