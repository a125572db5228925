//! Errors of starting an instance and of requests.

use std::io;
use std::net::SocketAddr;

use crossdock_zab::Refusal;

use crate::state_machine::InvalidState;
use crate::wal;

/// Why an instance cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] wal::Error),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The bound socket cannot be used.
    #[error("cannot use the socket for other instances")]
    Socket(#[source] io::Error),
    /// The settings do not name this instance, or no member votes.
    #[error("{0}")]
    Settings(String),
    /// The state of a snapshot cannot be decoded.
    #[error("cannot restore the state of a snapshot")]
    State(#[source] InvalidState),
    /// A thread cannot be started.
    #[error("cannot start a thread for the cluster")]
    Thread(#[source] io::Error),
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It was refused, and can be sent again.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log of this instance lacks disk space or file descriptors ([`Status::log_problem`](crate::Status)). It was
    /// refused, and can be sent again once there is space.
    #[error("the cluster log of this instance lacks disk space or file descriptors; it accepts no commands")]
    ReadOnly,
    /// The leader changed; the request may or may not have succeeded.
    #[error("the leader changed: the outcome of the request is unknown")]
    Unknown,
    /// The instance has ended.
    #[error("the instance has ended")]
    Ended,
}
