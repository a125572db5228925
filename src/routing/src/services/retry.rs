//! `retry`: when a failed call is attempted again.

use std::time::Duration;

use crossdock_message::{ByteString, Code, Fault, Retry};
use crossdock_ports::ServiceSpec;
use crossdock_settings::{Reader, Span, Spanned, settings};

use super::known_operations;
use crate::scalars::{BackoffRange, CodeName};

settings! {
    /// a retry
    pub(crate) struct RetrySettings {
        /// Codes that are retried; `unavailable` by default.
        pub(crate) on: Vec<CodeName>,
        /// Attempts in total, including the first: 2 or 3, the default.
        pub(crate) attempts: Option<Spanned<u32>>,
        /// The shortest and the longest wait between attempts, such as `50ms..1s`, the default.
        pub(crate) backoff: Option<BackoffRange>,
        /// Retries per hundred calls; at most 20, the default.
        pub(crate) budget_percent: Option<Spanned<u32>>,
        /// The operations that are retried; all by default.
        pub(crate) operations: Vec<Spanned<String>>,
    }
}

const BUDGET_PERCENT_MAX: u32 = 20;
const BACKOFF_DEFAULT: BackoffRange = BackoffRange { min: Duration::from_millis(50), max: Duration::from_secs(1) };

impl RetrySettings {
    /// Checks them against the operations of the service; `None` if an error was reported.
    pub(super) fn check(
        &self,
        span: Span,
        spec: &dyn ServiceSpec,
        idempotent: &[ByteString],
        reader: &mut Reader<'_>,
    ) -> Option<RetryPlan> {
        let attempts = self.attempts.as_ref().map_or(RetryPlan::ATTEMPTS_MAX, |attempts| attempts.value);
        if let Some(given) = self.attempts.as_ref().filter(|_| !(2..=RetryPlan::ATTEMPTS_MAX).contains(&attempts)) {
            let message = format!("`attempts` must be between 2 and {}", RetryPlan::ATTEMPTS_MAX);
            reader.error("retry-attempts", given.span, message, "the first attempt counts");
            return None;
        }
        let budget_percent = self.budget_percent.as_ref().map_or(BUDGET_PERCENT_MAX, |percent| percent.value);
        if let Some(given) = self.budget_percent.as_ref().filter(|_| budget_percent > BUDGET_PERCENT_MAX) {
            let message = format!("`budget_percent` must be between 0 and {BUDGET_PERCENT_MAX}");
            reader.error("retry-budget", given.span, message, "");
            return None;
        }
        let covered: Vec<&str> = self.operations.iter().map(|name| name.value.as_str()).collect();
        known_operations(&self.operations, spec, "the service", reader);
        for (name, operation) in spec.operations() {
            let is_covered = covered.is_empty() || covered.contains(&&*name);
            if is_covered && !operation.is_idempotent() && !idempotent.contains(&name) {
                let message = format!("`{name}` ({}) is not idempotent, so it cannot be retried", operation.describe());
                let help = format!(
                    "add `idempotent: [{name}]` to the service if executing it twice does no harm, or list the operations to retry in `operations:`"
                );
                reader.error("retry-not-idempotent", span, message, help);
                return None;
            }
        }
        let BackoffRange { min, max } = self.backoff.unwrap_or(BACKOFF_DEFAULT);
        let on: Vec<Code> = self.on.iter().map(|code| code.0).collect();
        let on = if on.is_empty() { vec![Code::Unavailable] } else { on };
        let operations = covered.into_iter().map(ByteString::from).collect();
        Some(RetryPlan { on, attempts, backoff_min: min, backoff_max: max, budget_percent, operations })
    }
}

/// How a service's calls are retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPlan {
    /// Codes that are retried.
    pub on: Vec<Code>,
    /// Attempts in total, including the first; at most [`RetryPlan::ATTEMPTS_MAX`].
    pub attempts: u32,
    /// The wait before the second attempt.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Retries per hundred calls.
    pub budget_percent: u32,
    /// The operations that are retried; all if empty.
    pub operations: Vec<ByteString>,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Attempt it again after this time.
    After(Duration),
    /// Return the fault.
    GiveUp,
}

impl RetryPlan {
    /// More attempts only make an outage worse.
    pub const ATTEMPTS_MAX: u32 = 3;

    /// Whether calls of an operation are retried at all.
    #[must_use]
    pub fn covers(&self, operation: &str) -> bool {
        self.operations.is_empty() || self.operations.iter().any(|name| *name == operation)
    }

    /// Decides after attempt number `attempt` (from 1) has failed. `random` is uniformly distributed between 0 and 1.
    ///
    /// A call that may have been executed is retried only if it is idempotent; a service that asks to be called again later does not
    /// say that it has not executed it. The wait is drawn between zero and the doubled backoff, so that callers do not return
    /// together; a wait that the service asks for is respected. A wait beyond the deadline is not started.
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

/// Keeps retries a small part of the traffic: each call earns a fraction of a retry, and each retry spends a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryBudget {
    /// In hundredths of a retry.
    balance: u32,
    earn: u32,
}

impl RetryBudget {
    /// The most that can be saved, and the balance at the start: ten retries.
    const BALANCE_MAX: u32 = 1000;

    /// A budget of that many retries per hundred calls.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        Self { balance: Self::BALANCE_MAX, earn: percent }
    }

    /// Adds the share of a first attempt.
    pub fn earn(&mut self) {
        self.balance = (self.balance + self.earn).min(Self::BALANCE_MAX);
    }

    /// Whether a retry can be made; its cost is deducted.
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
    fn only_harmless_calls_are_retried() {
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
    fn retries_stay_within_their_share_of_traffic() {
        let mut budget = RetryBudget::new(20);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.earn();
            retries += u32::from(budget.spend());
        }
        assert!((2000..=2010).contains(&retries), "{retries} retries of 10 000 calls");
    }
}
