//! Errors of starting an instance and of requests.

use std::io;
use std::net::SocketAddr;

use crossdock_zab::Refusal;

use crate::machines::ClientError;
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
    /// The leader changed, and the command is not in the history of its successor. It was not executed and never will be;
    /// it can be sent again.
    #[error("the leader changed, and the command was not executed")]
    Lost,
    /// The leader changed; the command may or may not have been executed. Usually that is found out once there is a leader
    /// again; not if none is found in time, or if this instance got a snapshot meanwhile.
    #[error("the leader changed: the outcome of the request is unknown")]
    Unknown,
    /// The command has a number, and was not executed, or its answer is lost.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The instance has ended; the outcome of a command is unknown.
    #[error("the instance has ended")]
    Ended,
}

/// An error and its causes in one line.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
