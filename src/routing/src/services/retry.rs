//! When a failed call is made once more.

use std::time::Duration;

use crossdock_message::{ByteString, Code, Fault, Retry};

/// How a service's calls are retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPlan {
    /// Codes that are retried.
    pub on: Vec<Code>,
    /// Tries in all, the first included; at most [`RetryPlan::ATTEMPTS_MAX`].
    pub attempts: u32,
    /// The wait before the second try.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Retries per hundred calls.
    pub budget_percent: u32,
    /// Only these operations; all where there is none.
    pub operations: Vec<ByteString>,
}

/// What to do after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this time.
    After(Duration),
    /// The fault is the answer.
    GiveUp,
}

impl RetryPlan {
    /// More tries than these only make an outage worse.
    pub const ATTEMPTS_MAX: u32 = 3;

    /// Whether calls of an operation are retried at all.
    #[must_use]
    pub fn covers(&self, operation: &str) -> bool {
        self.operations.is_empty() || self.operations.iter().any(|name| *name == operation)
    }

    /// Decides after the try number `attempt` (from 1) has failed. `random` is drawn evenly from 0 to 1.
    ///
    /// A call that may have been carried out is only tried again where that does no harm; that a service asks to come
    /// again later does not say that it has not carried it out. The wait is drawn between
    /// nothing and the doubled backoff, so that callers do not come back together; a wait that the service asks for is
    /// kept. A wait that the deadline does not leave room for is not begun.
    #[must_use]
    pub fn decide(&self, fault: &Fault, attempt: u32, idempotent: bool, left: Duration, random: f64) -> Verdict {
        let harmless = idempotent || fault.retry == Retry::Same;
        if attempt >= self.attempts || !harmless || !self.on.contains(&fault.code) {
            return Verdict::GiveUp;
        }
        let ceiling = self.backoff_min.saturating_mul(1 << (attempt - 1).min(16)).min(self.backoff_max);
        let wait = match fault.retry {
            Retry::After(wait) => wait,
            Retry::Never | Retry::Same => ceiling.mul_f64(random.clamp(0.0, 1.0)),
        };
        if wait < left { Verdict::After(wait) } else { Verdict::GiveUp }
    }
}

/// Keeps retries a small part of the traffic: each call earns a part of a retry, each retry costs a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryBudget {
    /// In hundredths of a retry.
    balance: u32,
    earn: u32,
}

impl RetryBudget {
    /// What can be saved up, and what there is at the start: ten retries.
    const BALANCE_MAX: u32 = 1000;

    /// A budget of that many retries per hundred calls.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        Self { balance: Self::BALANCE_MAX, earn: percent }
    }

    /// A call was made for the first time.
    pub fn earn(&mut self) {
        self.balance = (self.balance + self.earn).min(Self::BALANCE_MAX);
    }

    /// Whether a retry may be made; it is paid for.
    pub fn spend(&mut self) -> bool {
        let affordable = self.balance >= 100;
        if affordable {
            self.balance -= 100;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RetryPlan {
        RetryPlan {
            on: vec![Code::Unavailable, Code::DeadlineExceeded],
            attempts: 3,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_millis(150),
            budget_percent: 20,
            operations: Vec::new(),
        }
    }

    fn decide(code: Code, retry: Retry, attempt: u32, idempotent: bool, left_ms: u64) -> Verdict {
        let fault = Fault::new(code, "TEST", "test").with_retry(retry);
        plan().decide(&fault, attempt, idempotent, Duration::from_millis(left_ms), 1.0)
    }

    #[test]
    fn only_what_does_no_harm_is_tried_again() {
        let after = |millis| Verdict::After(Duration::from_millis(millis));
        assert_eq!(decide(Code::Unavailable, Retry::Never, 1, true, 1000), after(100));
        assert_eq!(decide(Code::Unavailable, Retry::Never, 2, true, 1000), after(150));
        assert_eq!(decide(Code::Unavailable, Retry::Never, 3, true, 1000), Verdict::GiveUp);
        assert_eq!(decide(Code::Unavailable, Retry::Never, 1, false, 1000), Verdict::GiveUp);
        assert_eq!(decide(Code::Unavailable, Retry::Same, 1, false, 1000), after(100));
        assert_eq!(decide(Code::Internal, Retry::Same, 1, true, 1000), Verdict::GiveUp);
        assert_eq!(decide(Code::Unavailable, Retry::Same, 1, true, 100), Verdict::GiveUp);
        assert_eq!(decide(Code::Unavailable, Retry::After(Duration::from_millis(700)), 1, true, 1000), after(700));
        assert_eq!(decide(Code::Unavailable, Retry::After(Duration::ZERO), 1, false, 1000), Verdict::GiveUp);
    }

    #[test]
    fn retries_stay_a_part_of_the_traffic() {
        let mut budget = RetryBudget::new(20);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.earn();
            retries += u32::from(budget.spend());
        }
        assert!((2000..=2010).contains(&retries), "{retries} retries of 10 000 calls");
    }
}
