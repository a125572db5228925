//! What happens to a message after an attempt to process it. Pure.

use std::time::Duration;

use crossdock_message::{Code, Fault, Retry};
use crossdock_ports::Outcome;

/// How often and when a message is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The maximum number of attempts that count, the first one included.
    pub attempts: u32,
    /// The delay before the first retry. It doubles with each attempt.
    pub backoff: Duration,
    /// The longest delay.
    pub backoff_max: Duration,
}

/// How a received message is settled.
#[derive(Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Acknowledge it.
    Acknowledge,
    /// Retry it after `delay`. Until then it stays unacknowledged and keeps its position.
    Retry {
        /// The time until the next attempt.
        delay: Duration,
        /// Whether the attempt counts against the limit.
        counts: bool,
        /// Why it failed.
        fault: Fault,
    },
    /// Reject it: it will never succeed.
    Reject(Fault),
}

/// The settlement after `counted_attempts` attempts that count against the limit, the last one included; `attempts` counts all of them.
///
/// While a service is unreachable, a message is retried without limit, since the message is valid. A failure that the message may have caused is
/// retried up to the limit. An invalid message is never retried.
#[must_use]
pub fn settle(outcome: Outcome, policy: &RetryPolicy, counted_attempts: u32, attempts: u32) -> Settlement {
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
    if counts && counted_attempts >= policy.attempts {
        return Settlement::Reject(fault);
    }
    let backoff = policy.backoff.saturating_mul(1 << (attempts.saturating_sub(1)).min(20)).min(policy.backoff_max);
    let delay = match fault.retry {
        Retry::After(wait) => backoff.max(wait).min(policy.backoff_max),
        Retry::Never | Retry::Same => backoff,
    };
    Settlement::Retry { delay, counts, fault }
}

/// How often a message may be dead-lettered without delay.
const UNDELAYED_COUNT_MAX: u32 = 8;
const CYCLE_DELAY: Duration = Duration::from_secs(1);
/// Long enough that a cycle causes little load, yet short enough not to occupy the consumer for long.
const CYCLE_DELAY_MAX: Duration = Duration::from_secs(5);

/// The delay before a message is dead-lettered that was dead-lettered `count` times before. A message with a high count circulates between dead
/// letter queues; it is never dropped, but slowed down.
#[must_use]
pub fn cycle_delay(count: u32) -> Option<Duration> {
    let over = count.checked_sub(UNDELAYED_COUNT_MAX)?;
    Some(CYCLE_DELAY.saturating_mul(1 << over.min(16)).min(CYCLE_DELAY_MAX))
}

#[cfg(test)]
mod tests {
    use crossdock_message::{ByteString, Message};

    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 3, backoff: Duration::from_millis(100), backoff_max: Duration::from_secs(1) };

    fn after(fault: Fault, counted: u32, attempts: u32) -> Settlement {
        settle(Outcome::Failed(fault), &POLICY, counted, attempts)
    }

    fn delay(settlement: &Settlement) -> Option<(u128, bool)> {
        match settlement {
            Settlement::Retry { delay, counts, .. } => Some((delay.as_millis(), *counts)),
            _ => None,
        }
    }

    #[test]
    fn success_is_acknowledged() {
        let reply = Message::new(ByteString::new(), ByteString::new());
        for outcome in [Outcome::Accepted, Outcome::Replied(reply)] {
            assert_eq!(settle(outcome, &POLICY, 1, 1), Settlement::Acknowledge);
        }
    }

    #[test]
    fn an_unreachable_service_is_retried_without_limit() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::Cancelled] {
            assert_eq!(delay(&after(Fault::new(code, "R", "m"), 1000, 1000)), Some((1000, false)), "{code}");
        }
    }

    #[test]
    fn failures_count_up_to_the_limit() {
        for code in [Code::Aborted, Code::Internal, Code::Unknown, Code::DataLoss] {
            let fault = Fault::new(code, "R", "m");
            assert_eq!(delay(&after(fault.clone(), 1, 1)), Some((100, true)));
            assert_eq!(delay(&after(fault.clone(), 2, 2)), Some((200, true)));
            assert_eq!(after(fault.clone(), 3, 3), Settlement::Reject(fault));
        }
    }

    #[test]
    fn invalid_messages_and_uncertain_executions_are_never_retried() {
        for code in [Code::InvalidArgument, Code::NotFound, Code::PermissionDenied, Code::DeadlineExceeded] {
            let fault = Fault::new(code, "R", "m");
            assert_eq!(after(fault.clone(), 1, 1), Settlement::Reject(fault));
        }
        let not_executed = Fault::new(Code::DeadlineExceeded, "R", "m").with_retry(Retry::Same);
        assert_eq!(delay(&after(not_executed, 1, 1)), Some((100, true)));
    }

    #[test]
    fn a_service_may_ask_for_a_longer_delay_within_the_maximum() {
        let later = |wait| Fault::new(Code::Unavailable, "R", "m").with_retry(Retry::After(wait));
        assert_eq!(delay(&after(later(Duration::from_millis(500)), 1, 1)), Some((500, false)));
        assert_eq!(delay(&after(later(Duration::from_secs(60)), 1, 1)), Some((1000, false)));
    }

    #[test]
    fn cycles_are_slowed_down() {
        let delays: Vec<Option<u64>> = (6..13).map(|count| cycle_delay(count).map(|delay| delay.as_secs())).collect();
        assert_eq!(delays, [None, None, Some(1), Some(2), Some(4), Some(5), Some(5)]);
        assert_eq!(cycle_delay(u32::MAX), Some(CYCLE_DELAY_MAX));
    }
}
