//! What an engine must be able to do.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crossdock_ports::{EngineRow, LockMode};

/// Why a request to an engine failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The engine could not be reached, or has refused for a while. Whether the request was executed is not known; it can be repeated.
    Unreachable(String),
    /// The session has ended.
    SessionEnded,
    /// Somebody has deleted the request.
    Vanished,
    /// Others use a lock with another number of permits.
    OtherKind,
    /// The sequence has no more numbers.
    Exhausted,
}

impl Problem {
    pub(crate) fn unreachable(problem: impl fmt::Display) -> Self {
        Self::Unreachable(problem.to_string())
    }
}

/// A request for locks.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Random, so that the request is found again if the answer to it was lost.
    pub(crate) id: String,
    /// The locks, sorted and without duplicates.
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) mode: LockMode,
    /// What operators see.
    pub(crate) metadata: String,
    attempts: AtomicU32,
    /// An attempt has no answer: it may be executed later than what is sent after it.
    is_unanswered: AtomicBool,
}

impl Ticket {
    pub(crate) fn new(names: Vec<Arc<str>>, mode: LockMode, metadata: String) -> Self {
        let id = format!("{:032x}", rand::random::<u128>());
        Self { id, names, mode, metadata, attempts: AtomicU32::new(0), is_unanswered: AtomicBool::new(false) }
    }

    pub(crate) fn note_attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends the request, and notes whether there was an answer, also if this is dropped.
    pub(crate) async fn sending<T>(&self, request: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let was_unanswered = self.is_unanswered.swap(true, Ordering::AcqRel);
        let answer = request.await;
        if !was_unanswered && !matches!(answer, Err(Problem::Unreachable(_))) {
            self.is_unanswered.store(false, Ordering::Release);
        }
        answer
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.is_unanswered.load(Ordering::Acquire)
    }

    /// Whether an earlier attempt may have been executed.
    pub(crate) fn is_repeated(&self) -> bool {
        self.attempts.load(Ordering::Relaxed) > 1
    }
}

/// A session that was opened, and how long it lives after each time it was kept alive.
pub(crate) struct Opened<S> {
    pub(crate) session: S,
    pub(crate) ttl: Duration,
}

/// An engine outside of the gateway.
pub(crate) trait Backend: Send + Sync + 'static {
    /// What identifies a session.
    type Session: Clone + Send + Sync + fmt::Debug + 'static;

    /// What it offers.
    const ROW: EngineRow;
    /// The part of its time for which a session is known to live after it was kept alive: the engine must not end it before.
    const KNOWN: f64;

    /// Opens a session.
    fn open(&self) -> impl Future<Output = Result<Opened<Self::Session>, Problem>> + Send;

    /// Keeps a session alive.
    fn keep_alive(&self, session: &Self::Session) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Ends a session, with everything that it holds.
    fn close(&self, session: &Self::Session) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Forgets a session that has ended.
    fn forget(&self, _session: &Self::Session) {}

    /// Acquires the locks of a ticket, and returns its fencing token. `None` if others hold them, and the request does not wait. It can be
    /// repeated with the same ticket, which keeps its place. If it fails or is dropped, the ticket is withdrawn.
    fn acquire(
        &self,
        session: &Self::Session,
        ticket: &Ticket,
        waits: bool,
    ) -> impl Future<Output = Result<Option<u64>, Problem>> + Send;

    /// Releases or cancels what a ticket has requested, whatever became of it.
    fn withdraw(&self, session: &Self::Session, ticket: &Ticket) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Whether a ticket that was granted still holds its locks.
    fn holds(&self, session: &Self::Session, ticket: &Ticket) -> impl Future<Output = Result<bool, Problem>> + Send;

    /// The first of consecutive numbers of a sequence.
    fn take(
        &self,
        session: &Self::Session,
        sequence: &str,
        count: u64,
    ) -> impl Future<Output = Result<u64, Problem>> + Send;
}

/// A name as one part of a path: what is not a letter, a digit, `-`, `_` or `.` becomes `%` and two digits, and so does a first `.`.
pub(crate) fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || byte == b'.' && at > 0 {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// How a mode is written: requests of the same lock must agree on the kind, which is `x` or a number of permits.
pub(crate) fn written(mode: LockMode) -> String {
    match mode {
        LockMode::Exclusive => "x".to_owned(),
        LockMode::Shared => "s".to_owned(),
        LockMode::Permit(of) => of.to_string(),
    }
}

/// A request before another one in the queue of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Predecessor<K> {
    pub(crate) key: K,
    pub(crate) mode: LockMode,
}

pub(crate) fn read_mode(text: &str) -> Option<LockMode> {
    match text {
        "x" => Some(LockMode::Exclusive),
        "s" => Some(LockMode::Shared),
        of => of.parse().ok().map(LockMode::Permit),
    }
}

/// What a request waits for, from those before it in the queue of a lock, the latest first. `Ok(None)` if it holds the lock.
pub(crate) fn waits_for<K>(mode: LockMode, before: Vec<Predecessor<K>>) -> Result<Option<WaitsFor<K>>, Problem> {
    let is_of_permits = |mode: LockMode| matches!(mode, LockMode::Permit(_));
    let is_other = |other: LockMode| (is_of_permits(mode) || is_of_permits(other)) && mode != other;
    if before.iter().any(|predecessor| is_other(predecessor.mode)) {
        return Err(Problem::OtherKind);
    }
    let count = before.len();
    let mut before = before.into_iter();
    Ok(match mode {
        LockMode::Exclusive => before.next().map(|predecessor| WaitsFor::This(predecessor.key)),
        LockMode::Shared => before
            .find(|predecessor| predecessor.mode == LockMode::Exclusive)
            .map(|predecessor| WaitsFor::This(predecessor.key)),
        LockMode::Permit(of) => (count >= of as usize).then_some(WaitsFor::Any),
    })
}

/// What a request waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor<K> {
    /// The end of this one.
    This(K),
    /// The end of any one.
    Any,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(modes: &[LockMode]) -> Vec<Predecessor<usize>> {
        modes.iter().enumerate().map(|(key, mode)| Predecessor { key, mode: *mode }).collect()
    }

    #[test]
    fn names_become_one_part_of_a_path() {
        assert_eq!(escaped("stock/7"), "stock%2F7");
        assert_eq!(escaped(".."), "%2E.");
        assert_eq!(escaped("grün 100%"), "gr%C3%BCn%20100%25");
        assert_eq!(escaped("a.b-c_d"), "a.b-c_d");
    }

    #[test]
    fn a_request_waits_for_those_that_exclude_it() {
        use LockMode::{Exclusive, Permit, Shared};
        let all = |mode, modes: &[LockMode]| waits_for(mode, before(modes));
        assert_eq!(all(Exclusive, &[]), Ok(None));
        assert_eq!(all(Exclusive, &[Shared, Exclusive]), Ok(Some(WaitsFor::This(0))));
        assert_eq!(all(Shared, &[Shared, Shared]), Ok(None));
        assert_eq!(all(Shared, &[Shared, Exclusive, Shared, Exclusive]), Ok(Some(WaitsFor::This(1))));
        assert_eq!(all(Permit(2), &[Permit(2)]), Ok(None));
        assert_eq!(all(Permit(2), &[Permit(2), Permit(2)]), Ok(Some(WaitsFor::Any)));
    }

    #[test]
    fn permits_must_agree() {
        use LockMode::{Exclusive, Permit, Shared};
        for (mode, other) in
            [(Permit(2), Permit(3)), (Permit(2), Exclusive), (Exclusive, Permit(2)), (Shared, Permit(1))]
        {
            assert_eq!(waits_for(mode, before(&[other])), Err(Problem::OtherKind), "{mode:?} behind {other:?}");
        }
    }
}
