//! Whether ports can carry messages now, for operators.

use std::fmt::Debug;
use std::time::Duration;

/// Whether a port can carry messages now, as far as its adapter knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortStatus {
    /// It can; also if no connection has been needed yet.
    Up,
    /// It cannot, for this reason, which contains no secrets.
    Down(String),
}

impl PortStatus {
    /// Whether the port can carry messages.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }

    /// Why it cannot.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Up => None,
            Self::Down(problem) => Some(problem),
        }
    }
}

/// A source of messages that a listener reads in order, such as a partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its name within the listener.
    pub name: String,
    /// Nothing is read until messages that were read are processed.
    pub is_paused: bool,
    /// The number of messages that were read and are not settled.
    pub unsettled: usize,
    /// The number of messages behind the last one up to which all are settled, if known.
    pub lag: Option<u64>,
}

/// Reports the status of one port, from any thread and without waiting.
pub trait ReportStatus: Debug + Send + Sync {
    /// The current status.
    fn status(&self) -> PortStatus;

    /// The sources that the listener reads now, in the order of their names.
    fn sources(&self) -> Vec<SourceStatus> {
        Vec::new()
    }

    /// How often each kind of event has happened since the listener started, such as `rebalance`.
    fn events(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The time spent on each kind of work since the listener started, such as `transaction_commit`.
    fn times(&self) -> Vec<(&'static str, Duration)> {
        Vec::new()
    }
}

/// A status that does not change.
impl ReportStatus for PortStatus {
    fn status(&self) -> PortStatus {
        self.clone()
    }
}
