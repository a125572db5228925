//! Locks and sequences that instances share: the port of engines of coordination.

use std::sync::Arc;
use std::time::Duration;

use crate::SendFuture;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Alone.
    Exclusive,
    /// Together with others that share it.
    Shared,
    /// As one of this many permits.
    Permit(u32),
}

/// How long to wait for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// Not at all.
    Try,
    /// For this time.
    For(Duration),
    /// Until they are available.
    Forever,
}

/// A request for one or more locks, all of which are held together.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// The names of the locks: at least one, each of up to 255 bytes, without duplicates.
    pub names: Vec<Arc<str>>,
    /// How they are held.
    pub mode: LockMode,
    /// How long to wait.
    pub wait: LockWait,
    /// How long they may be held; otherwise for as long as the session of this instance lives.
    pub hold: Option<Duration>,
    /// What operators see.
    pub metadata: String,
}

impl LockRequest {
    /// A request to hold one lock alone, for as long as the session lives.
    #[must_use]
    pub fn exclusive(name: &str, wait: LockWait) -> Self {
        let names = vec![Arc::from(name)];
        Self { names, mode: LockMode::Exclusive, wait, hold: None, metadata: String::new() }
    }
}

/// Why locks are not held any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockLoss {
    /// They were released elsewhere.
    #[error("the lock was released")]
    Released,
    /// They were held for their maximum time.
    #[error("the lock was held for its maximum time")]
    HoldExpired,
    /// The session expired, or could not be kept alive: another one may hold them already.
    #[error("the session of this instance was lost")]
    SessionLost,
    /// An operator, or another request, took them.
    #[error("the lock was taken away: {0}")]
    Broken(Arc<str>),
    /// It is not known why.
    #[error("the lock was lost")]
    Unknown,
}

/// Why locks were not acquired. They are not held, and will not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Others held them for as long as the request waits.
    #[error("the lock was not available in time")]
    TimedOut,
    /// A name is empty or too long.
    #[error("the name of a lock must have between 1 and 255 bytes")]
    InvalidName,
    /// Others use a lock with another number of permits.
    #[error("the lock is in use with another number of permits")]
    OtherKind,
    /// There are too many locks or requests.
    #[error("there are too many locks")]
    TooMany,
    /// They were granted, but lost before the caller learned of it.
    #[error("the lock was acquired, and lost at once: {0}")]
    Lost(LockLoss),
    /// The engine cannot grant locks at the moment.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a sequence gave no numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// It has no further ones.
    #[error("the sequence has no more numbers")]
    Exhausted,
    /// There are too many sequences.
    #[error("there are too many sequences")]
    TooMany,
    /// The engine cannot give numbers at the moment.
    #[error("{0}")]
    Unavailable(String),
}

/// Locks that are held. They are released when it is dropped, without waiting for that.
pub trait LockGrant: Send + Sync {
    /// The fencing token: higher than those of all earlier grants of these locks.
    fn token(&self) -> u64;

    /// Whether they are held, as far as this instance knows. They are not if the session was not kept alive for so long that it may have
    /// expired, even if nothing has told this instance yet, because it was paused.
    fn holds(&self) -> bool;

    /// Waits until they are lost. Cancel safe.
    fn lost(&self) -> SendFuture<'_, LockLoss>;

    /// Waits until the holder is asked to release them, for a reason that is returned, or they are lost. Cancel safe.
    fn revoked(&self) -> SendFuture<'_, Option<Arc<str>>>;

    /// Releases them now, without waiting for that.
    fn give_up(&self);
}

/// An engine of coordination, for locks and sequences.
pub trait LockEngine: Send + Sync {
    /// Whether the engine can be reached, and this instance has a session.
    fn has_session(&self) -> bool;

    /// The number of sessions that this instance has lost.
    fn sessions_lost(&self) -> u64;

    /// Acquires locks. If the future is dropped, the request is cancelled.
    ///
    /// # Errors
    /// See [`LockError`].
    fn acquire(&self, request: LockRequest) -> SendFuture<'_, Result<Arc<dyn LockGrant>, LockError>>;

    /// The first of consecutive numbers of a sequence, which are higher than all numbers that were returned before this call, on any instance.
    /// Numbers may be left out.
    ///
    /// # Errors
    /// See [`SequenceError`]; it can always be called again.
    fn next_numbers<'a>(&'a self, sequence: &'a str, count: u64) -> SendFuture<'a, Result<u64, SequenceError>>;

    /// Ends the session, so that everything that the instance holds is free at once. Waits for that for a limited time.
    fn close(&self) -> SendFuture<'_, ()>;
}

/// What an engine of coordination offers to routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineRow {
    /// Its name in the settings.
    pub name: &'static str,
    /// Locks that several hold together.
    pub shared: bool,
    /// Locks with permits.
    pub permits: bool,
    /// Locks are granted in the order of requests.
    pub in_order: bool,
    /// A lock has at most one holder while its session lives, also after a server has failed.
    pub survives_failover: bool,
    /// Sequences.
    pub sequences: bool,
}

impl EngineRow {
    /// The engine of the gateway's own cluster.
    pub const EMBEDDED: Self = Self {
        name: "embedded",
        shared: true,
        permits: true,
        in_order: true,
        survives_failover: true,
        sequences: true,
    };
}
