//! What becomes of a delivery after its outcome. Pure.

use std::time::Duration;

use crossdock_adapter_api::Outcome;
use crossdock_message::{Code, Fault, Retry};

use crate::config::Entry;

/// What is done with a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The broker may forget it.
    Acknowledge,
    /// It is tried again after this time, while it stays where it is: in its place, and against the prefetch.
    Again {
        wait: Duration,
        /// Whether the try counts against the limit.
        counts: bool,
        /// Why it failed.
        fault: Fault,
    },
    /// It will never succeed.
    SetAside(Fault),
}

/// What is done after `attempts` tries that count, the one just made included; `tries` counts all of them.
///
/// A service that cannot be reached is waited for without a limit: the message is good. A failure that may be the message's own
/// is tried a few times. What the message is to blame for is never tried again.
pub(crate) fn settle(outcome: Outcome, entry: &Entry, attempts: u32, tries: u32) -> Settlement {
    let fault = match outcome {
        Outcome::Replied(_) | Outcome::Accepted => return Settlement::Acknowledge,
        Outcome::Failed(fault) => fault,
    };
    let counts = match fault.code {
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled => false,
        Code::Aborted | Code::Internal | Code::Unknown | Code::DataLoss => true,
        // It may have been carried out: only who knows that it was not may try it again.
        Code::DeadlineExceeded if fault.retry != Retry::Never => true,
        _ => return Settlement::SetAside(fault),
    };
    if counts && attempts >= entry.attempts {
        return Settlement::SetAside(fault);
    }
    let doubled = entry.backoff.saturating_mul(1 << (tries.saturating_sub(1)).min(20)).min(entry.backoff_max);
    let wait = match fault.retry {
        Retry::After(wait) => doubled.max(wait).min(entry.backoff_max),
        Retry::Never | Retry::Same => doubled,
    };
    Settlement::Again { wait, counts, fault }
}
