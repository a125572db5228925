//! The acknowledgement that an inbound message of a queue waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossdock_message::Fault;

/// What becomes of an inbound message at its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is done; the source forgets it.
    Ack,
    /// It is to come again.
    Retry,
    /// It will never succeed; the source sets it aside with the reason.
    Reject(Fault),
}

type Settle = Box<dyn FnOnce(Decision) + Send>;

struct Shared {
    settle: std::sync::Mutex<Option<Settle>>,
    open: AtomicUsize,
}

/// Settles one inbound message exactly once: with the first decision that is not [`Decision::Ack`], or with `Ack` when
/// every part has acknowledged. Dropping a part without a decision is [`Decision::Retry`], so that a panic or a
/// cancelled task never loses a message.
#[must_use = "a message is settled with exactly one of ack, retry and reject; dropping this means retry"]
pub struct Acknowledgement {
    shared: Option<Arc<Shared>>,
}

impl Acknowledgement {
    /// A token that calls `settle` with the decision.
    pub fn new(settle: impl FnOnce(Decision) + Send + 'static) -> Self {
        let shared = Shared { settle: std::sync::Mutex::new(Some(Box::new(settle))), open: AtomicUsize::new(1) };
        Self { shared: Some(Arc::new(shared)) }
    }

    /// One more token for another branch: the message is acknowledged when all branches are.
    pub fn split(&self) -> Self {
        if let Some(shared) = &self.shared {
            shared.open.fetch_add(1, Ordering::AcqRel);
        }
        Self { shared: self.shared.clone() }
    }

    /// This part is done.
    pub fn ack(self) {
        self.decide(Decision::Ack);
    }

    /// The message is to come again.
    pub fn retry(self) {
        self.decide(Decision::Retry);
    }

    /// The message will never succeed.
    pub fn reject(self, fault: Fault) {
        self.decide(Decision::Reject(fault));
    }

    /// Settles by a decision that was made elsewhere.
    pub fn decide(mut self, decision: Decision) {
        if let Some(shared) = self.shared.take() {
            shared.decide(decision);
        }
    }
}

impl Shared {
    fn decide(&self, decision: Decision) {
        let last = self.open.fetch_sub(1, Ordering::AcqRel) == 1;
        if decision == Decision::Ack && !last {
            return;
        }
        // A poisoned lock still holds the closure: the panic was somebody else's.
        let settle = self.settle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(settle) = settle {
            settle(decision);
        }
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.decide(Decision::Retry);
        }
    }
}

impl std::fmt::Debug for Acknowledgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acknowledgement")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use crossdock_message::Code;

    use super::*;

    fn token() -> (Acknowledgement, Arc<Mutex<Vec<Decision>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        (Acknowledgement::new(move |decision| log.lock().expect("a lock").push(decision)), seen)
    }

    fn seen(log: &Arc<Mutex<Vec<Decision>>>) -> Vec<Decision> {
        log.lock().expect("a lock").clone()
    }

    #[test]
    fn settles_once_with_what_was_decided() {
        let (one, log) = token();
        one.ack();
        assert_eq!(seen(&log), [Decision::Ack]);
        let (one, log) = token();
        let fault = Fault::new(Code::InvalidArgument, "BAD", "bad");
        one.reject(fault.clone());
        assert_eq!(seen(&log), [Decision::Reject(fault)]);
    }

    #[test]
    fn a_dropped_token_means_retry_also_after_a_panic() {
        let (one, log) = token();
        drop(one);
        assert_eq!(seen(&log), [Decision::Retry]);
        let (one, log) = token();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = one;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(seen(&log), [Decision::Retry]);
    }

    #[test]
    fn a_split_token_waits_for_every_branch() {
        let (one, log) = token();
        let (two, three) = (one.split(), one.split());
        one.ack();
        three.ack();
        assert_eq!(seen(&log), []);
        two.ack();
        assert_eq!(seen(&log), [Decision::Ack]);
        let (one, log) = token();
        let two = one.split();
        drop(two);
        one.ack();
        assert_eq!(seen(&log), [Decision::Retry]);
    }
}
