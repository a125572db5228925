//! An instance of the cluster and its clients.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossdock_zab::{Epoch, LogId, MemberChange, Refusal, Role, ServerId, Zxid};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::backup::BackupFile;
use crate::driver::Driver;
use crate::error::{RequestError, StartError};
use crate::latency::Latencies;
use crate::machines::{CLUSTER, MachineId, Machines};
use crate::platform::{self, Thread, network};
use crate::replica::{Published, Replica};
use crate::request::{ClientRequest, Proposed, Reply, Saved};
use crate::settings::{Limits, Settings};
use crate::state_machine::StateMachine;
use crate::status::Status;
use crate::transport::Transport;
use crate::wal;
use crate::wire::{ClusterChange, Envelope, Numbered};

/// Requests that wait for the driver.
const REQUESTS_LEN_MAX: usize = 10_000;
/// Bookkeeping bytes of a command.
const OVERHEAD_BYTES: usize = 256;
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
    client: Client,
    machines: BTreeSet<MachineId>,
    address: SocketAddr,
    /// Dropping it ends the driver and the connections.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<Thread>,
}

/// Runs the driver and the connections until stopped. They share one thread because each mostly waits for the other.
async fn run(mut driver: Driver, transport: Arc<Transport>, listener: network::Bound, stopped: oneshot::Receiver<()>) {
    let listener = match network::accept_from(listener) {
        Ok(listener) => listener,
        Err(problem) => return driver.finish(Err(problem)),
    };
    let (stop, connections_stopped) = oneshot::channel();
    let connections = platform::spawn(transport.run(listener, connections_stopped));
    tokio::select! {
        biased;
        _ = stopped => {}
        () = driver.drive() => {}
    }
    driver.end_state().await;
    // They are closed before this waits for the disk.
    drop(stop);
    let _ = connections.await;
    driver.finish(Ok(()));
}

impl Node {
    /// Starts an instance: opens its log, binds its address, and looks for a leader.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings, machines: Machines) -> Result<Self, StartError> {
        settings.check().map_err(StartError::Settings)?;
        if let Some(tls) = &settings.tls {
            tls.check().map_err(|problem| StartError::Settings(problem.to_string()))?;
        }
        let listener = settings.members[&settings.id].address.listen();
        let listener = listener.map_err(|(address, source)| StartError::Listen { address, source })?;
        let address = listener.local_addr().map_err(StartError::Socket)?;
        let (to_driver, incoming) = mpsc::channel(INCOMING_LEN_MAX);
        let (requests, request_queue) = mpsc::channel(REQUESTS_LEN_MAX);
        let ids = machines.versions_max().into_keys().collect();
        let (driver, status, latencies) = Driver::open(settings, machines, incoming, request_queue)?;
        let client = Client {
            requests,
            status,
            latencies,
            room: Arc::new(Semaphore::new(settings.limits.commands)),
            reserved_room: Arc::new(Semaphore::new(settings.limits.reserved_commands)),
            origin: driver.origin(),
            // 0 is for markers.
            next_request: Arc::new(AtomicU64::new(1)),
            limits: settings.limits,
            payload_max: settings.zab(LogId(0), false).payload_max,
            data: settings.data.as_path().into(),
            backups: Arc::new(Semaphore::new(1)),
        };
        let (stop, stopped) = oneshot::channel();
        let transport = Transport::new(settings, driver.own(), to_driver);
        let thread = platform::spawn_runtime("zab", run(driver, transport, listener, stopped));
        let thread = Some(thread.map_err(StartError::Thread)?);
        Ok(Self { client, machines: ids, address, stop: Some(stop), thread })
    }

    /// The address where it listens for other instances.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle for requests.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A handle for one of its machines.
    ///
    /// # Panics
    /// The machine is not one of this instance: a command for it would stop all instances.
    #[must_use]
    pub fn replica<M: StateMachine>(&self, published: &Published<M>) -> Replica<M> {
        assert!(self.machines.contains(&published.id()), "{:?} is not a machine of this instance", published.id());
        Replica::new(self.client(), published.clone())
    }

    /// Transfers leadership if this instance leads, then stops it, so that the outcome of its own clients' commands is
    /// known. Waits up to a second for a successor; commands that followers just forwarded may remain open. If
    /// cancelled, it stops without the transfer.
    pub async fn shut_down(self) {
        let client = self.client();
        let is_leading = |status: &Status| matches!(status.role, Role::Leading(_));
        let has_followers = client.status().peers.iter().any(|peer| peer.votes && peer.follows);
        if is_leading(&client.status()) && has_followers && client.transfer_leadership(None).await.is_ok() {
            let stepped_down = client.until(|status| !is_leading(status) || status.stopped.is_some());
            let _ = tokio::time::timeout(TRANSFER_TIMEOUT, stepped_down).await;
        }
        // The disk may be slow, and must not block the caller's thread.
        let _ = platform::run_blocking(move || self.stop()).await;
    }

    /// Stops the instance without a leadership transfer. Waits up to five seconds for a disk that hangs.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command and how to propose it.
#[derive(Debug, Clone)]
pub struct Proposal {
    payload: Bytes,
    in_epoch: Option<Epoch>,
    numbered: Option<Numbered>,
    is_reserved: bool,
}

impl Proposal {
    /// A command, as the machine defines it.
    #[must_use]
    pub fn new(payload: Bytes) -> Self {
        Self { payload, in_epoch: None, numbered: None, is_reserved: false }
    }

    /// Only if this instance leads that epoch. It is never forwarded: a leader that was deposed without knowing it cannot
    /// decide anything. Otherwise it is refused with [`Refusal::OtherEpoch`](crossdock_zab::Refusal::OtherEpoch).
    #[must_use]
    pub fn in_epoch(mut self, epoch: Epoch) -> Self {
        self.in_epoch = Some(epoch);
        self
    }

    /// The command of this number of an [opened](Client::open_client) client; the first one has the number 1. However often
    /// it is sent, through any instance, it is executed once, and only after all commands of the client with lower numbers.
    #[must_use]
    pub fn numbered(mut self, client: Zxid, number: u64) -> Self {
        self.numbered = Some(Numbered { client: client.to_u64(), number });
        self
    }

    /// Uses capacity that is reserved for what must not fail under load, such as keep-alives.
    #[must_use]
    pub fn reserved(mut self) -> Self {
        self.is_reserved = true;
        self
    }
}

/// A handle for requests to an instance. Clones use the same instance.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<ClientRequest>,
    status: watch::Receiver<Status>,
    latencies: Arc<Latencies>,
    /// Bytes of commands that may wait.
    room: Arc<Semaphore>,
    reserved_room: Arc<Semaphore>,
    /// This run of the instance, in its commands.
    origin: u64,
    next_request: Arc<AtomicU64>,
    limits: Limits,
    /// Maximum length of a command in bytes.
    payload_max: usize,
    /// The data folder.
    data: Arc<Path>,
    /// One backup at a time: each takes as much of the disk as the state.
    backups: Arc<Semaphore>,
}

impl Client {
    /// Proposes commands for a machine, each once there is room for it.
    pub(crate) async fn propose_to(
        &self,
        machine: MachineId,
        proposals: Vec<Proposal>,
    ) -> Vec<Result<(Zxid, Bytes), RequestError>> {
        let (mut proposed, mut outcomes) = (Vec::with_capacity(proposals.len()), Vec::with_capacity(proposals.len()));
        for proposal in proposals {
            let Proposal { payload, in_epoch, numbered, is_reserved } = proposal;
            if payload.len() > self.payload_max {
                // It must not take the room of others.
                let (reply, outcome) = Reply::new(None);
                reply.send(Err(Refusal::TooLong.into()));
                outcomes.push(outcome);
                continue;
            }
            let (room, limit) = if is_reserved {
                (&self.reserved_room, self.limits.reserved_commands)
            } else {
                (&self.room, self.limits.commands)
            };
            let bytes = u32::try_from((payload.len() + OVERHEAD_BYTES).min(limit)).unwrap_or(u32::MAX);
            let room = match Arc::clone(room).try_acquire_many_owned(bytes) {
                Ok(permit) => Some(permit),
                Err(_) => {
                    // Those before it make room once they are answered.
                    self.send_all(&mut proposed).await;
                    // The semaphore is never closed.
                    Arc::clone(room).acquire_many_owned(bytes).await.ok()
                }
            };
            let (reply, outcome) = Reply::new(room);
            let request = self.next_request.fetch_add(1, Ordering::Relaxed);
            let envelope = Envelope { machine: machine.0, payload, origin: self.origin, request, numbered };
            let payload = Bytes::from(envelope.encode_to_vec());
            proposed.push(Proposed { payload, request, in_epoch, is_reserved, reply });
            outcomes.push(outcome);
        }
        self.send_all(&mut proposed).await;
        let mut all = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            all.push(outcome.await.unwrap_or(Err(RequestError::Ended)));
        }
        all
    }

    async fn send_all(&self, proposed: &mut Vec<Proposed>) {
        if !proposed.is_empty() {
            // If the driver has ended, the replies are dropped.
            let _ = self.requests.send(ClientRequest::Propose(std::mem::take(proposed))).await;
        }
    }

    /// Opens a client whose commands are [numbered](Proposal::numbered), and returns its id. If that is not used for an
    /// hour, it may be forgotten.
    ///
    /// # Errors
    /// See [`RequestError`]. If the outcome is unknown, open another one.
    pub async fn open_client(&self) -> Result<Zxid, RequestError> {
        self.change_clients(ClusterChange { open: true, ..ClusterChange::default() }).await
    }

    /// Forgets a client: none of its commands is executed from then on.
    ///
    /// # Errors
    /// See [`RequestError`]; it can always be called again.
    pub async fn close_client(&self, client: Zxid) -> Result<(), RequestError> {
        self.change_clients(ClusterChange { close: client.to_u64(), ..ClusterChange::default() }).await.map(drop)
    }

    async fn change_clients(&self, change: ClusterChange) -> Result<Zxid, RequestError> {
        let proposal = Proposal::new(change.encode_to_vec().into());
        let outcome = self.propose_to(CLUSTER, vec![proposal]).await.pop();
        outcome.unwrap_or(Err(RequestError::Ended)).map(|(zxid, _)| zxid)
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

    async fn request<T>(&self, make: impl FnOnce(Reply<T>) -> ClientRequest) -> Result<T, RequestError> {
        let (reply, outcome) = Reply::new(None);
        self.requests.send(make(reply)).await.map_err(|_| RequestError::Ended)?;
        outcome.await.unwrap_or(Err(RequestError::Ended))
    }

    /// Waits until everything that was acknowledged before this call, by any instance, is applied here. Returns a zxid that
    /// covers it. Calls that wait at the same time share one round trip to the leader.
    ///
    /// # Errors
    /// See [`RequestError`]; it can always be called again.
    pub async fn barrier(&self) -> Result<Zxid, RequestError> {
        self.request(ClientRequest::Barrier).await
    }

    /// Waits until this transaction is applied here.
    ///
    /// # Errors
    /// See [`RequestError`]; it can always be called again.
    pub async fn applied(&self, zxid: Zxid) -> Result<(), RequestError> {
        self.request(|reply| ClientRequest::Applied(zxid, reply)).await.map(drop)
    }

    /// The hash over all transactions through a committed one, which is the same on all instances. `None` if it is not
    /// committed here, or not in memory any more.
    ///
    /// # Errors
    /// [`RequestError::Ended`].
    pub async fn hash_at(&self, zxid: Zxid) -> Result<Option<u64>, RequestError> {
        self.request(|reply| ClientRequest::HashAt(zxid, reply)).await
    }

    /// Writes the state of all machines to a file, as a [backup](crate::backup): everything that was acknowledged before this call, by any
    /// instance. Returns the last transaction in it, and its bytes. The content is durable then.
    ///
    /// # Errors
    /// See [`RequestError`]. The inner error says why the file could not be written, or that there is another backup.
    pub async fn save(&self, path: PathBuf) -> Result<Result<(Zxid, u64), String>, RequestError> {
        Ok(self.write_backup(path).await?.map(|(file, zxid, len)| {
            file.keep();
            (zxid, len)
        }))
    }

    /// Like [`Client::save`], to a temporary file in the data folder.
    ///
    /// # Errors
    /// As [`Client::save`].
    pub async fn save_temporary(&self) -> Result<Result<BackupFile, String>, RequestError> {
        // What a crash leaves of such a file is deleted at the next start.
        let path = self.data.join(format!("unfinished-backup-{:016x}", platform::random()));
        Ok(self.write_backup(path).await?.map(|(file, ..)| file))
    }

    async fn write_backup(&self, path: PathBuf) -> Result<Saved, RequestError> {
        let Ok(permit) = Arc::clone(&self.backups).try_acquire_owned() else {
            return Ok(Err("another backup is being taken, or read".to_owned()));
        };
        self.barrier().await?;
        let file = BackupFile::new(path, permit);
        self.request(|reply| ClientRequest::Save { file, reply }).await
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
    pub async fn until(&self, holds: impl FnMut(&Status) -> bool) -> Result<Status, RequestError> {
        let mut watching = self.status.clone();
        let status = watching.wait_for(holds).await.map_err(|_| RequestError::Ended)?;
        Ok(status.clone())
    }
}
