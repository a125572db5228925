//! Errors.

use crossdock_cluster::RequestError;
use crossdock_coordination::Refusal;

use crate::requests::Loss;

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It was not executed.
    #[error("{0}")]
    Refused(Refusal),
    /// It was not accepted, or its outcome is unknown.
    #[error(transparent)]
    Cluster(#[from] RequestError),
    /// The cluster did not answer in time. The outcome is unknown.
    #[error("the cluster did not answer in time")]
    TimedOut,
    /// Another release has answered, with what this one cannot read.
    #[error("the answer of the cluster cannot be read")]
    Unreadable,
}

/// Why locks were not acquired. They are not held, and will not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// They are held, and the request does not wait.
    #[error("the lock is not available")]
    NotAvailable,
    /// They were held for as long as the request waits.
    #[error("the lock was not available in time")]
    TimedOut,
    /// The session of this instance was lost meanwhile.
    #[error("this instance lost its session with the cluster")]
    SessionLost,
    /// They were granted, and lost before the caller was told.
    #[error("the lock was acquired, and lost at once: {0}")]
    Lost(Loss),
    /// See [`CommandError`].
    #[error(transparent)]
    Command(#[from] CommandError),
}
