//! One connection with each other instance: messages in order, or an end that both hear of.
//!
//! The instance with the higher id dials. A connection begins with a [`Hello`] from each side; whoever is no member of the cluster, or not the
//! one that it is taken for, gets no further.

mod link;
mod live;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossdock_transport::PeerCertificate;
use crossdock_zab::{Link, Message, ServerId, Session, Zxid};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::settings::Settings;
use crate::wire::Hello;

/// Messages that wait for a peer. One that takes them too slowly is left.
const QUEUE_LEN_MAX: usize = 20_000;
/// Waits between two tries to reach a peer.
const DIAL_WAIT: Duration = Duration::from_millis(20);
const DIAL_WAIT_MAX: Duration = Duration::from_millis(500);
/// For a connection to be made.
const DIAL_TIME: Duration = Duration::from_secs(2);

/// Something for a peer.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(Message),
    /// The file of a snapshot.
    Snapshot {
        session: Session,
        zxid: Zxid,
        path: PathBuf,
    },
}

/// What a connection tells the driver.
#[derive(Debug)]
pub(crate) enum Incoming {
    Up {
        peer: ServerId,
        link: Link,
        sender: mpsc::Sender<Outgoing>,
    },
    Down {
        peer: ServerId,
        link: Link,
    },
    Message {
        peer: ServerId,
        link: Link,
        message: Message,
        /// Its part of what may wait; given back with this.
        room: OwnedSemaphorePermit,
    },
    /// Something large gets on.
    Progress {
        peer: ServerId,
        link: Link,
    },
    Snapshot {
        peer: ServerId,
        link: Link,
        session: Session,
        zxid: Zxid,
        path: PathBuf,
    },
}

/// What all connections of an instance share.
pub(crate) struct Transport {
    settings: Settings,
    links: AtomicU64,
    driver: mpsc::Sender<Incoming>,
    /// The last problem of a connection that was taken.
    told: Mutex<String>,
    live: live::Live,
}

impl Transport {
    pub(crate) fn new(settings: &Settings, driver: mpsc::Sender<Incoming>) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            links: AtomicU64::new(0),
            driver,
            told: Mutex::default(),
            live: live::Live::new(),
        })
    }

    /// Connects with all others, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut tasks = tokio::task::JoinSet::new();
        for (peer, member) in self.settings.members.range(..self.settings.id) {
            tasks.spawn(Arc::clone(&self).dial(*peer, member.address));
        }
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tasks.spawn(Arc::clone(&self).accepted(stream));
                }
                Err(problem) => {
                    tracing::warn!(%problem, "an instance's connection could not be taken");
                    tokio::time::sleep(DIAL_WAIT).await;
                }
            }
            while tasks.try_join_next().is_some() {}
        }
    }

    async fn dial(self: Arc<Self>, peer: ServerId, address: SocketAddr) {
        let mut wait = DIAL_WAIT;
        let mut told = String::new();
        loop {
            let problem = match tokio::time::timeout(DIAL_TIME, self.connected(address)).await {
                Ok(Ok(stream)) => match self.meet(stream, Some(peer)).await {
                    Ok(ended) => {
                        // They have talked: it is worth to try again at once.
                        wait = DIAL_WAIT;
                        ended.err().unwrap_or_else(|| "the connection ended".to_owned())
                    }
                    Err(problem) => problem,
                },
                Ok(Err(problem)) => problem.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            if problem != told {
                tracing::info!(%peer, %address, %problem, "no connection with another instance; trying again");
                told = problem;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(DIAL_WAIT_MAX);
        }
    }

    /// Connects; without TLS from this instance's own address, by which the peer identifies it.
    async fn connected(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let own = self.settings.members.get(&self.settings.id).map(|member| member.address.ip());
        match own.filter(|own| self.settings.tls.is_none() && own.is_ipv4() == address.is_ipv4()) {
            Some(own) => {
                let socket = if own.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.bind(SocketAddr::new(own, 0))?;
                socket.connect(address).await
            }
            None => TcpStream::connect(address).await,
        }
    }

    async fn accepted(self: Arc<Self>, stream: TcpStream) {
        let problem = match self.meet(stream, None).await {
            Ok(Ok(())) => return,
            Ok(Err(problem)) | Err(problem) => problem,
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != problem {
            tracing::warn!(%problem, "a connection was refused, or has ended; the same is not told again");
            *told = problem;
        }
    }

    /// Exchanges greetings, then messages until the connection ends; gives how it ended.
    ///
    /// # Errors
    /// Why there is none.
    async fn meet(&self, stream: TcpStream, dialled: Option<ServerId>) -> Result<Result<(), String>, String> {
        stream.set_nodelay(true).map_err(|problem| problem.to_string())?;
        let source = stream.peer_addr().map_err(|problem| problem.to_string())?.ip();
        let greeting = |peer: ServerId| Hello {
            version: *self.settings.versions.end(),
            version_min: *self.settings.versions.start(),
            cluster: self.settings.cluster.clone(),
            server: self.settings.id.0,
            peer: peer.0,
        };
        let (stream, shown) = self.secured(stream, dialled).await?;
        let mut stream = link::Frames::new(stream);
        if let Some(peer) = dialled {
            stream.greet(greeting(peer)).await?;
        }
        let hello = stream.greeted().await?;
        let peer = ServerId(hello.server);
        self.check(&hello, dialled)?;
        if shown.is_some_and(|shown| !shown.is_for(&self.settings.name_of(peer))) {
            return Err(format!("its certificate is not for `{}`", self.settings.name_of(peer)));
        }
        let is_proven = self.settings.tls.is_some();
        if dialled.is_none() && !is_proven {
            self.settings.admits(peer, source)?;
        }
        // Registered for as long as the connection lasts.
        let heard = self.live.enter(peer, is_proven || dialled.is_some())?;
        if dialled.is_none() {
            stream.greet(greeting(peer)).await?;
        }
        let link = Link(self.links.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, outgoing) = mpsc::channel(QUEUE_LEN_MAX);
        let up = Incoming::Up { peer, link, sender };
        if self.driver.send(up).await.is_err() {
            return Ok(Ok(()));
        }
        let ended = stream.exchange(self, (peer, link), outgoing, &heard).await;
        let _ = self.driver.send(Incoming::Down { peer, link }).await;
        Ok(ended)
    }

    /// Begins TLS, where the settings have it. Who dials knows by the other's certificate who it is; who was dialled gets the
    /// certificate that was shown.
    async fn secured(
        &self,
        stream: TcpStream,
        dialled: Option<ServerId>,
    ) -> Result<(link::Stream, Option<PeerCertificate>), String> {
        let Some(tls) = &self.settings.tls else { return Ok((Box::new(stream), None)) };
        let begun = async {
            let (stream, shown) = match dialled {
                Some(peer) => (tls.connect(stream, &self.settings.name_of(peer)).await?, None),
                None => {
                    let (stream, shown) = tls.accept(stream).await?;
                    (stream, Some(shown))
                }
            };
            Ok::<(link::Stream, _), std::io::Error>((Box::new(stream), shown))
        };
        match tokio::time::timeout(DIAL_TIME, begun).await {
            Ok(begun) => begun.map_err(|problem| format!("TLS: {problem}")),
            Err(_) => Err("it does not begin TLS in time".to_owned()),
        }
    }

    fn check(&self, hello: &Hello, dialled: Option<ServerId>) -> Result<(), String> {
        let peer = ServerId(hello.server);
        let (own, least) = (&self.settings.versions, hello.version_min);
        if least > *own.end() || hello.version < *own.start() {
            let (first, last) = (own.start(), own.end());
            return Err(format!(
                "server {peer} speaks versions {least} to {} of the cluster's protocol, and this one {first} to {last}: bring the older \
                 of the two to a release between",
                hello.version
            ));
        }
        if hello.cluster != self.settings.cluster {
            return Err(format!("server {peer} is of the cluster `{}`", hello.cluster));
        }
        // The higher id dials.
        let own = self.settings.id;
        let expected =
            dialled.map_or(peer > own && self.settings.members.contains_key(&peer), |dialled| dialled == peer);
        if hello.peer != own.0 || !expected {
            return Err(format!("server {peer} is not whom this one expects, or means server {}", hello.peer));
        }
        Ok(())
    }
}
