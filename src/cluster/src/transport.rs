//! Connections to the other instances, one for each. A connection delivers messages in order until both ends learn that
//! it ended.
//!
//! The instance with the higher id dials. Each side first sends a [`Hello`], which must match the membership.

mod error;
mod handshakes;
mod link;
mod live;
mod outbox;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossdock_tls::PeerCertificate;
use crossdock_zab::{ClusterId, Link, LogId, Message, ServerId, Session, Summary, Zxid};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use self::error::LinkError;
use self::handshakes::Handshakes;
pub(crate) use self::outbox::{NotQueued, Outbox, WeakOutbox};
use crate::address::Address;
use crate::machines::MachineId;
use crate::platform::in_instance;
use crate::platform::network::{self, Listener, Stream};
use crate::settings::Settings;
use crate::temporary_file::TemporaryFile;
use crate::wire::{Hello, MachineVersion};

/// Delay between attempts to reach a peer; doubles up to the maximum.
const RETRY_DELAY: Duration = Duration::from_millis(20);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(500);
/// Timeout to open a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Something to send to a peer.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(Message),
    /// A snapshot file, sent beside the messages. It replaces one that is still being sent.
    Snapshot {
        session: Session,
        zxid: Zxid,
        path: PathBuf,
    },
    /// The follower has left the session: a snapshot for it is of no use any more.
    NoSnapshot(Session),
}

/// An event for the driver.
#[derive(Debug)]
pub(crate) enum Incoming {
    Up {
        peer: ServerId,
        link: Link,
        log: LogId,
        /// The highest version of each machine that it understands.
        machines: BTreeMap<MachineId, u32>,
        outbox: Outbox,
    },
    Down {
        peer: ServerId,
        link: Link,
    },
    Message {
        peer: ServerId,
        link: Link,
        message: Message,
        /// Its share of the receive buffer, released when dropped.
        room: OwnedSemaphorePermit,
    },
    /// A large transfer has advanced.
    Progress {
        peer: ServerId,
        link: Link,
    },
    Snapshot {
        peer: ServerId,
        link: Link,
        session: Session,
        summary: Summary,
        file: TemporaryFile,
    },
}

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It dialled that peer.
    Dialled(ServerId),
    /// It accepted the connection; the number of its handshake.
    Accepted { handshake: u64 },
}

/// What this instance says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) log: LogId,
    /// The id of its cluster; 0 until that is formed. The driver sets it.
    pub(crate) cluster: Arc<AtomicU64>,
    /// The highest version of each machine that it understands.
    pub(crate) machines: Arc<BTreeMap<MachineId, u32>>,
}

/// State shared by all connections of an instance.
pub(crate) struct Transport {
    settings: Settings,
    own: Own,
    links: AtomicU64,
    driver: mpsc::Sender<Incoming>,
    /// The last logged problem of an incoming connection.
    last_logged: Mutex<String>,
    live: live::Live,
    handshakes: Handshakes,
}

impl Transport {
    pub(crate) fn new(settings: &Settings, own: Own, driver: mpsc::Sender<Incoming>) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            own,
            links: AtomicU64::new(0),
            driver,
            last_logged: Mutex::default(),
            live: live::Live::new(),
            handshakes: Handshakes::default(),
        })
    }

    /// Connects to all peers until the sender is dropped, and then closes all connections.
    pub(crate) async fn run(self: Arc<Self>, listener: Listener, mut stopped: oneshot::Receiver<()>) {
        let mut tasks = tokio::task::JoinSet::new();
        for (peer, member) in self.settings.members.range(..self.settings.id) {
            tasks.spawn(in_instance(Arc::clone(&self).dial(*peer, member.address.clone())));
        }
        let mut last_logged = String::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stopped => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.handshakes.start(|number| tasks.spawn(in_instance(Arc::clone(&self).accept(stream, number))));
                }
                Err(problem) => {
                    let problem = problem.to_string();
                    if problem != last_logged {
                        tracing::warn!(%problem, "failed to accept a cluster connection; repeats are not logged");
                        last_logged = problem;
                    }
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
            while tasks.try_join_next().is_some() {}
        }
        tasks.shutdown().await;
    }

    async fn dial(self: Arc<Self>, peer: ServerId, address: Address) {
        let mut delay = RETRY_DELAY;
        let mut last_logged = String::new();
        loop {
            let problem = match tokio::time::timeout(DIAL_TIMEOUT, self.connect(&address)).await {
                Ok(Ok(stream)) => match self.serve(stream, End::Dialled(peer)).await {
                    Ok(ended) => {
                        // The handshake succeeded, so retry quickly.
                        delay = RETRY_DELAY;
                        ended.err().map_or_else(|| "the connection ended".to_owned(), |error| error.to_string())
                    }
                    Err(error) => error.to_string(),
                },
                Ok(Err(problem)) => problem.to_string(),
                Err(_) => LinkError::TimedOut("connecting").to_string(),
            };
            if problem != last_logged {
                tracing::info!(%peer, %address, %problem, "no connection to another instance; retrying");
                last_logged = problem;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }

    /// Opens a connection. Without TLS, it comes from this instance's own address, which identifies it to the peer.
    async fn connect(&self, address: &Address) -> std::io::Result<Stream> {
        let address = match address {
            Address::Ip(address) => *address,
            Address::Name { host, port } => return network::connect_to_host(host, *port).await,
        };
        let own = self.settings.members.get(&self.settings.id).and_then(|member| member.address.ip());
        let own = own.filter(|own| self.settings.tls.is_none() && own.is_ipv4() == address.is_ipv4());
        network::connect(address, own).await
    }

    async fn accept(self: Arc<Self>, stream: Stream, handshake: u64) {
        let ended = self.serve(stream, End::Accepted { handshake }).await;
        self.handshakes.end(handshake);
        let problem = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) | Err(error) => error.to_string(),
        };
        let mut last_logged = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if *last_logged != problem {
            tracing::warn!(%problem, "cluster connection refused or ended; repeats are not logged");
            *last_logged = problem;
        }
    }

    /// Performs the handshake, then exchanges messages until the connection ends. Returns how it ended.
    ///
    /// # Errors
    /// The handshake failed.
    async fn serve(&self, stream: Stream, end: End) -> Result<Result<(), LinkError>, LinkError> {
        let dialled = match end {
            End::Dialled(peer) => Some(peer),
            End::Accepted { .. } => None,
        };
        stream.set_nodelay(true)?;
        let source = stream.peer_addr()?.ip();
        let own_hello = |peer: ServerId| Hello {
            version: *self.settings.versions.end(),
            version_min: *self.settings.versions.start(),
            cluster: self.settings.cluster.clone(),
            server: self.settings.id.0,
            peer: peer.0,
            log: self.own.log.0,
            cluster_id: self.own.cluster.load(Ordering::Relaxed),
            machines: self
                .own
                .machines
                .iter()
                .map(|(id, version)| MachineVersion { machine: id.0, version: *version })
                .collect(),
        };
        let (stream, certificate) = self.start_tls(stream, dialled).await?;
        let mut stream = link::Frames::new(stream);
        if let Some(peer) = dialled {
            stream.send_hello(own_hello(peer)).await?;
        }
        let hello = stream.receive_hello().await?;
        // Registered until the connection ends.
        let registration = match self.check_peer(&hello, dialled, certificate.as_ref(), source) {
            Ok(registration) => registration,
            Err(problem) => {
                stream.send_refusal(&problem).await;
                return Err(problem);
            }
        };
        let (peer, log) = (ServerId(hello.server), LogId(hello.log));
        if let End::Accepted { handshake } = end {
            self.handshakes.end(handshake);
        }
        if dialled.is_none() {
            stream.send_hello(own_hello(peer)).await?;
        }
        let link = Link(self.links.fetch_add(1, Ordering::Relaxed) + 1);
        let (outbox, outgoing) = outbox::outbox(self.settings.limits.messages, self.settings.queue_bytes());
        let machines = hello.machines.iter().map(|machine| (MachineId(machine.machine), machine.version)).collect();
        let up = Incoming::Up { peer, link, log, machines, outbox };
        if self.driver.send(up).await.is_err() {
            return Ok(Ok(()));
        }
        let ended = stream.exchange(self, (peer, link), outgoing, &registration).await;
        let _ = self.driver.send(Incoming::Down { peer, link }).await;
        Ok(ended)
    }

    /// Checks who the peer is.
    fn check_peer(
        &self,
        hello: &Hello,
        dialled: Option<ServerId>,
        certificate: Option<&PeerCertificate>,
        source: IpAddr,
    ) -> Result<live::Registration<'_>, LinkError> {
        let peer = ServerId(hello.server);
        self.check_hello(hello, dialled)?;
        if certificate.is_some_and(|certificate| !certificate.is_for(&self.settings.certificate_name(peer))) {
            return Err(LinkError::Certificate(self.settings.certificate_name(peer)));
        }
        let is_authenticated = self.settings.tls.is_some();
        if dialled.is_none() && !is_authenticated {
            self.check_source(peer, source)?;
        }
        self.live.register(peer, LogId(hello.log), is_authenticated || dialled.is_some())
    }

    /// Starts TLS if configured. The dialling side verifies the peer's name here; the accepting side gets the peer's
    /// certificate and checks it after the Hello.
    async fn start_tls(
        &self,
        stream: Stream,
        dialled: Option<ServerId>,
    ) -> Result<(link::Stream, Option<PeerCertificate>), LinkError> {
        let Some(tls) = &self.settings.tls else { return Ok((Box::new(stream), None)) };
        let begun = async {
            let (stream, certificate) = match dialled {
                Some(peer) => (tls.connect(stream, &self.settings.certificate_name(peer)).await?, None),
                None => {
                    let (stream, certificate) = tls.accept(stream).await?;
                    (stream, Some(certificate))
                }
            };
            Ok::<(link::Stream, _), std::io::Error>((Box::new(stream), certificate))
        };
        match tokio::time::timeout(DIAL_TIMEOUT, begun).await {
            Ok(begun) => begun.map_err(LinkError::Tls),
            Err(_) => Err(LinkError::TimedOut("in the TLS handshake")),
        }
    }

    /// Checks the source address of an unauthenticated connection.
    ///
    /// # Errors
    /// It is not the peer's address, or not a loopback address where the network is not trusted.
    fn check_source(&self, peer: ServerId, source: IpAddr) -> Result<(), LinkError> {
        let source = source.to_canonical();
        let member = self.settings.members.get(&peer).and_then(|member| Some(member.address.ip()?.to_canonical()));
        let same = member.is_some_and(|member| member == source || (member.is_loopback() && source.is_loopback()));
        if same && (self.settings.is_network_trusted || source.is_loopback()) {
            return Ok(());
        }
        Err(LinkError::Source { peer, source_address: source })
    }

    fn check_hello(&self, hello: &Hello, dialled: Option<ServerId>) -> Result<(), LinkError> {
        let peer = ServerId(hello.server);
        let (own, least) = (&self.settings.versions, hello.version_min);
        if least > *own.end() || hello.version < *own.start() {
            return Err(LinkError::Version { peer, theirs: least..=hello.version, ours: own.clone() });
        }
        if hello.cluster != self.settings.cluster {
            return Err(LinkError::OtherCluster { peer, cluster: hello.cluster.clone() });
        }
        if hello.log == 0 {
            return Err(LinkError::NoLog(peer));
        }
        let (own, theirs) = (self.own.cluster.load(Ordering::Relaxed), hello.cluster_id);
        if own != 0 && theirs != 0 && own != theirs {
            return Err(LinkError::OtherClusterId { peer, theirs: ClusterId(theirs), own: ClusterId(own) });
        }
        // The higher id dials.
        let own = self.settings.id;
        let expected =
            dialled.map_or(peer > own && self.settings.members.contains_key(&peer), |dialled| dialled == peer);
        if hello.peer != own.0 || !expected {
            return Err(LinkError::Unexpected { from: peer, to: hello.peer });
        }
        Ok(())
    }
}
