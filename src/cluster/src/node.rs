//! An instance of the cluster and its clients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossdock_zab::{Epoch, LogId, MemberChange, Role, ServerId, Zxid};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::{ClientRequest, Driver};
use crate::error::{RequestError, StartError};
use crate::latency::Latencies;
use crate::settings::Settings;
use crate::state_machine::StateMachine;
use crate::status::Status;
use crate::transport::Transport;
use crate::wal;

/// Requests that wait for the driver.
const REQUESTS_LEN_MAX: usize = 10_000;
/// How long a leader that shuts down waits for a successor.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);
/// Events from connections that wait for the driver.
const INCOMING_LEN_MAX: usize = 10_000;

/// Creates the log of an instance, before its first start or after it lost its log. It joins the cluster of the other
/// instances; with `founds`, it may form a new cluster with them.
///
/// Neither endangers what is acknowledged: an instance that lost its log follows without a vote, whatever its new log is
/// for, until it has recovered everything. That takes a majority of all voters with their logs.
///
/// # Errors
/// [`wal::Error::Exists`] if there is one; [`wal::Error::Io`].
pub fn init(settings: &Settings, founds: bool) -> Result<LogId, wal::Error> {
    wal::Wal::create(&settings.data, settings.identity(), settings.log, founds).map(|wal| wal.id())
}

/// A running instance.
pub struct Node {
    requests: mpsc::Sender<ClientRequest>,
    status: watch::Receiver<Status>,
    latencies: Arc<Latencies>,
    address: SocketAddr,
    /// Dropping it ends the driver and the connections.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Runs the driver and the connections until stopped. They share one thread because each mostly waits for the other.
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
    // Do not wait for blocking tasks on a disk that hangs.
    runtime.shutdown_background();
    ended
}

impl Node {
    /// Starts an instance: opens its log, binds its address, and looks for a leader.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings, state_machine: Box<dyn StateMachine>) -> Result<Self, StartError> {
        let Some(member) = settings.members.get(&settings.id) else {
            return Err(StartError::Settings(format!("server {} is not one of the members", settings.id)));
        };
        if !settings.members.values().any(|member| member.votes) {
            return Err(StartError::Settings("no member votes".to_owned()));
        }
        settings.check_network().map_err(StartError::Settings)?;
        if let Some(tls) = &settings.tls {
            tls.check().map_err(|problem| StartError::Settings(problem.to_string()))?;
        }
        let listener = member.address.listen();
        let listener = listener.map_err(|(address, source)| StartError::Listen { address, source })?;
        let address = listener.local_addr().map_err(StartError::Socket)?;
        listener.set_nonblocking(true).map_err(StartError::Socket)?;
        let (to_driver, incoming) = mpsc::channel(INCOMING_LEN_MAX);
        let (requests, request_queue) = mpsc::channel(REQUESTS_LEN_MAX);
        let (mut driver, status, latencies) = Driver::open(settings, state_machine, incoming, request_queue)?;
        let (stop, stopped) = oneshot::channel();
        let transport = Transport::new(settings, driver.own(), to_driver);
        let thread = std::thread::Builder::new().name("zab".to_owned()).spawn(move || {
            let ended = run(&mut driver, transport, listener, stopped);
            driver.finish(ended);
        });
        let thread = Some(thread.map_err(StartError::Thread)?);
        Ok(Self { requests, status, latencies, address, stop: Some(stop), thread })
    }

    /// The address where it listens for other instances.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle for requests.
    #[must_use]
    pub fn client(&self) -> Client {
        let latencies = Arc::clone(&self.latencies);
        Client { requests: self.requests.clone(), status: self.status.clone(), latencies }
    }

    /// Transfers leadership if this instance leads, then stops it, so that the outcome of its own clients' commands is
    /// known. Waits up to a second for a successor; commands that followers just forwarded may remain open. If
    /// cancelled, it stops without the transfer.
    pub async fn shut_down(self) {
        let mut client = self.client();
        let is_leading = |status: &Status| matches!(status.role, Role::Leading(_));
        let has_followers = client.status().peers.iter().any(|peer| peer.votes && peer.follows);
        if is_leading(&client.status()) && has_followers && client.transfer_leadership(None).await.is_ok() {
            let stepped_down = client.until(|status| !is_leading(status) || status.stopped.is_some());
            let _ = tokio::time::timeout(TRANSFER_TIMEOUT, stepped_down).await;
        }
        // The disk may be slow, and must not block the caller's thread.
        let _ = tokio::task::spawn_blocking(move || self.stop()).await;
    }

    /// Stops the instance without a leadership transfer. Waits up to five seconds for a disk that hangs.
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

/// A handle for requests to an instance. Clones use the same instance.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<ClientRequest>,
    status: watch::Receiver<Status>,
    latencies: Arc<Latencies>,
}

impl Client {
    /// Proposes a command. Returns its zxid and the response once it is durable on a quorum and applied here.
    ///
    /// If the future is dropped, the outcome is unknown.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn propose(&self, payload: Bytes) -> Result<(Zxid, Bytes), RequestError> {
        self.request(|reply| ClientRequest::Propose { payload, in_epoch: None, reply }).await
    }

    /// Proposes a command if this instance leads that epoch. It is never forwarded: a leader that was deposed without
    /// knowing it cannot decide anything. Otherwise like [`Client::propose`].
    ///
    /// # Errors
    /// See [`RequestError`]; [`Refusal::OtherEpoch`](crossdock_zab::Refusal::OtherEpoch) if it does not lead it.
    pub async fn propose_in(&self, epoch: Epoch, payload: Bytes) -> Result<(Zxid, Bytes), RequestError> {
        self.request(|reply| ClientRequest::Propose { payload, in_epoch: Some(epoch), reply }).await
    }

    /// Adds or removes a voter. Returns the zxid of the change once it is durable on a quorum.
    ///
    /// If the future is dropped, the outcome is unknown.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn change_members(&self, change: MemberChange) -> Result<Zxid, RequestError> {
        self.request(|reply| ClientRequest::ChangeMembers { change, reply }).await.map(|(zxid, _)| zxid)
    }

    async fn request<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> ClientRequest,
    ) -> Result<T, RequestError> {
        let (reply, response) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| RequestError::Ended)?;
        response.await.unwrap_or(Err(RequestError::Ended))
    }

    /// Answers a query linearizably: the state includes everything that was acknowledged before this call.
    ///
    /// # Errors
    /// See [`RequestError`]; a query can always be sent again.
    pub async fn read(&self, query: Bytes) -> Result<Bytes, RequestError> {
        self.request(|reply| ClientRequest::Read { query, reply }).await
    }

    /// Answers a query from this instance's state, however old that is.
    ///
    /// # Errors
    /// [`RequestError::Ended`].
    pub async fn read_stale(&self, query: Bytes) -> Result<Bytes, RequestError> {
        let (reply, response) = oneshot::channel();
        self.requests.send(ClientRequest::ReadStale { query, reply }).await.map_err(|_| RequestError::Ended)?;
        response.await.map_err(|_| RequestError::Ended)
    }

    /// Asks this instance to transfer leadership, if it leads.
    ///
    /// # Errors
    /// [`RequestError::Ended`].
    pub async fn transfer_leadership(&self, to: Option<ServerId>) -> Result<(), RequestError> {
        self.requests.send(ClientRequest::TransferLeadership(to)).await.map_err(|_| RequestError::Ended)
    }

    /// The current status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The latency histograms.
    #[must_use]
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Waits until the condition holds for the status.
    ///
    /// # Errors
    /// [`RequestError::Ended`].
    pub async fn until(&mut self, holds: impl FnMut(&Status) -> bool) -> Result<Status, RequestError> {
        let status = self.status.wait_for(holds).await.map_err(|_| RequestError::Ended)?;
        Ok(status.clone())
    }
}
