//! Maps the outcome of a message to its settlement. Pure.

use std::time::Duration;

use crossdock_message::{Code, Fault, Retry};
use crossdock_ports::Outcome;

use crate::config::Entry;

/// How a received message is settled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Acknowledge it.
    Acknowledge,
    /// Retry it after `delay`. Until then it stays unacknowledged: it keeps its position and counts against the prefetch.
    Retry {
        delay: Duration,
        /// The attempt counts against the limit.
        counts: bool,
        /// Why it failed.
        fault: Fault,
    },
    /// Reject it by the entry's policy: it will never succeed.
    Reject(Fault),
}

/// The settlement after `counted_attempts` attempts that count against the limit, the last one included; `attempts` counts all of them.
///
/// While a service is unreachable, a message is retried without limit, since the message is valid. A failure that the message may have caused is
/// retried up to the limit; an invalid message is never retried.
pub(crate) fn settle(outcome: Outcome, entry: &Entry, counted_attempts: u32, attempts: u32) -> Settlement {
    let fault = match outcome {
        Outcome::Replied(_) | Outcome::Accepted => return Settlement::Acknowledge,
        Outcome::Failed(fault) => fault,
    };
    let counts = match fault.code {
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled => false,
        Code::Aborted | Code::Internal | Code::Unknown | Code::DataLoss => true,
        // It may have been executed: retry only if the service says that it was not.
        Code::DeadlineExceeded if fault.retry != Retry::Never => true,
        _ => return Settlement::Reject(fault),
    };
    if counts && counted_attempts >= entry.attempts {
        return Settlement::Reject(fault);
    }
    let backoff = entry.backoff.saturating_mul(1 << (attempts.saturating_sub(1)).min(20)).min(entry.backoff_max);
    let delay = match fault.retry {
        Retry::After(wait) => backoff.max(wait).min(entry.backoff_max),
        Retry::Never | Retry::Same => backoff,
    };
    Settlement::Retry { delay, counts, fault }
}
