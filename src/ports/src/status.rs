//! Whether ports can carry messages now, for operators.

use std::fmt::Debug;

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

/// Reports the status of one port, from any thread and without waiting.
pub trait ReportStatus: Debug + Send + Sync {
    /// The current status.
    fn status(&self) -> PortStatus;
}

/// A status that does not change.
impl ReportStatus for PortStatus {
    fn status(&self) -> PortStatus {
        self.clone()
    }
}
