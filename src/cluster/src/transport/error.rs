//! Why a connection between instances was refused or has ended.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crossdock_zab::{ClusterId, ServerId};

use crate::wal;

/// Why a connection was refused or has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// What timed out.
    #[error("timed out {0}")]
    TimedOut(&'static str),
    #[error("the peer closed the connection")]
    Closed,
    /// What the peer did.
    #[error("the peer sent {0}")]
    Protocol(&'static str),
    #[error(
        "server {peer} speaks protocol versions {} to {}, this server {} to {}: upgrade the older one to a release in between first",
        theirs.start(), theirs.end(), ours.start(), ours.end()
    )]
    Version { peer: ServerId, theirs: RangeInclusive<u32>, ours: RangeInclusive<u32> },
    #[error("server {peer} belongs to cluster `{cluster}`")]
    OtherCluster { peer: ServerId, cluster: String },
    #[error(
        "server {peer} belongs to the cluster with the id {theirs}, this server to {own}: they were formed apart from one another"
    )]
    OtherClusterId { peer: ServerId, theirs: ClusterId, own: ClusterId },
    #[error("server {0} has no log id")]
    NoLog(ServerId),
    #[error("server {peer} is connected with another log: are there two instances with the id {peer}?")]
    SecondInstance { peer: ServerId },
    #[error("the peer refused the connection: {0}")]
    Refused(String),
    #[error("unexpected connection between server {from} and server {to}")]
    Unexpected { from: ServerId, to: u64 },
    #[error("the peer's certificate is not for `{0}`")]
    Certificate(String),
    #[error("a connection from {source_address} claims to be server {peer}, which has another address")]
    Source { peer: ServerId, source_address: IpAddr },
    #[error("server {0} is already connected, and this connection is not authenticated")]
    AlreadyConnected(ServerId),
    #[error("snapshot {}: {error}", path.display())]
    ReadSnapshot { path: PathBuf, error: io::Error },
    #[error("cannot store a received snapshot: {0}")]
    StoreSnapshot(io::Error),
    #[error("cannot verify a received snapshot: {0}")]
    VerifySnapshot(wal::Error),
    #[error("the peer sent a damaged snapshot: check its disk")]
    DamagedSnapshot,
    #[error("this instance is stopping")]
    Stopping,
}
