//! The status of a listener's consumers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_ports::{PortStatus, ReportStatus};

use crate::broker::Broker;

/// The maximum number of queues that a status names.
const NAMED_MAX: usize = 3;

/// Why queues of a listener are not consumed.
#[derive(Debug)]
pub(super) struct ConsumerStatuses {
    consuming: Arc<Broker>,
    problems: Mutex<BTreeMap<String, String>>,
}

impl ConsumerStatuses {
    pub(super) fn new(consuming: Arc<Broker>) -> Self {
        Self { consuming, problems: Mutex::default() }
    }

    /// The queue is not consumed, for this reason.
    pub(super) fn down(&self, queue: &str, problem: &str) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.insert(queue.to_owned(), problem.to_owned());
    }

    /// The queue is consumed, or no longer routed.
    pub(super) fn clear(&self, queue: &str) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }
}

impl ReportStatus for ConsumerStatuses {
    fn status(&self) -> PortStatus {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.is_empty() {
            return PortStatus::Up;
        }
        // The reason for all of them.
        if let down @ PortStatus::Down(_) = self.consuming.status() {
            return down;
        }
        let mut text = String::new();
        for (queue, problem) in problems.iter().take(NAMED_MAX) {
            let separator = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{separator}queue `{queue}`: {problem}");
        }
        if problems.len() > NAMED_MAX {
            let _ = write!(text, "; and {} more queues", problems.len() - NAMED_MAX);
        }
        PortStatus::Down(text)
    }
}
