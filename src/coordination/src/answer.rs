//! What the proposer of a command gets.

use std::fmt;

use prost::{Enumeration, Message, Oneof};

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// What came of the command.
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub outcome: Option<Outcome>,
}

/// What came of a command.
#[derive(Clone, PartialEq, Oneof)]
pub enum Outcome {
    /// It was executed.
    #[prost(message, tag = "1")]
    Done(Done),
    /// It was not executed.
    #[prost(message, tag = "2")]
    Refused(Refused),
    /// The locks are held.
    #[prost(message, tag = "3")]
    Granted(Granted),
    /// The request waits.
    #[prost(message, tag = "4")]
    Waiting(Waiting),
    /// These of the sessions do not exist.
    #[prost(message, tag = "5")]
    Unknown(Unknown),
    /// The first of the numbers taken.
    #[prost(uint64, tag = "6")]
    FirstNumber(u64),
    /// How many holders were asked, or lost the lock.
    #[prost(uint64, tag = "7")]
    Holders(u64),
}

/// See [`Outcome::Done`].
#[derive(Clone, PartialEq, Message)]
pub struct Done {}

/// See [`Outcome::Refused`].
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// The reason.
    #[prost(enumeration = "Refusal", tag = "1")]
    pub reason: i32,
}

/// See [`Outcome::Granted`].
#[derive(Clone, PartialEq, Message)]
pub struct Granted {
    /// The fencing token.
    #[prost(uint64, tag = "1")]
    pub token: u64,
}

/// See [`Outcome::Waiting`].
#[derive(Clone, PartialEq, Message)]
pub struct Waiting {}

/// See [`Outcome::Unknown`].
#[derive(Clone, PartialEq, Message)]
pub struct Unknown {
    /// The sessions.
    #[prost(uint64, repeated, tag = "1")]
    pub sessions: Vec<u64>,
}

/// Why a command was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Refusal {
    /// This release cannot read it.
    Unreadable = 0,
    /// The session does not exist any more.
    NoSession = 1,
    /// The request was released, cancelled or lost before.
    Finished = 2,
    /// The number belongs to another request.
    Reused = 3,
    /// A value is out of its limits.
    Invalid = 4,
    /// The lock is used as a semaphore of another size, or as none.
    OtherKind = 5,
    /// The request does not hold its locks.
    NotHeld = 6,
    /// The locks are not available, and the request does not wait.
    NotAvailable = 7,
    /// A guard does not hold: the lock was lost.
    Fenced = 8,
    /// There are too many of them.
    TooMany = 9,
    /// It comes from the leader of another epoch.
    OtherEpoch = 10,
    /// It would wait for itself.
    Deadlock = 11,
    /// The sequence has no more numbers.
    Exhausted = 12,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "this release cannot read the command",
            Self::NoSession => "the session has expired, or was closed",
            Self::Finished => "the request was released or cancelled before",
            Self::Reused => "the number of the request belongs to another request of the session",
            Self::Invalid => "a name, a duration or a count is out of its limits",
            Self::OtherKind => "the lock is used with another number of permits, or without permits",
            Self::NotHeld => "the request does not hold its locks",
            Self::NotAvailable => "the lock is not available",
            Self::Fenced => "the lock that guards the command is not held with this token any more",
            Self::TooMany => "the cluster has too many sessions, requests, locks or sequences",
            Self::OtherEpoch => "the command was decided by the leader of another epoch",
            Self::Deadlock => "the request would wait for its own owner",
            Self::Exhausted => "the sequence has no more numbers",
        })
    }
}

impl From<Refusal> for Outcome {
    fn from(reason: Refusal) -> Self {
        Self::Refused(Refused { reason: reason.into() })
    }
}

impl Outcome {
    pub(crate) const DONE: Self = Self::Done(Done {});
}
