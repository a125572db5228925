//! What the proposer of a command gets.

use std::fmt;

use prost::{Enumeration, Message, Oneof};

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// What came of the command.
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
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
    /// What became of each message to enqueue.
    #[prost(message, tag = "8")]
    Enqueued(Enqueued),
    /// The settlements that were refused.
    #[prost(message, tag = "9")]
    Settled(Settled),
    /// How many messages were removed.
    #[prost(uint64, tag = "10")]
    Removed(u64),
    /// The number of the generation.
    #[prost(uint64, tag = "11")]
    Proposed(u64),
    /// The units that were taken of a budget.
    #[prost(message, tag = "12")]
    Spent(Spent),
}

/// See [`Outcome::Spent`].
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Spent {
    /// How many; 0 if there was none.
    #[prost(uint64, tag = "1")]
    pub units: u64,
    /// If there was none: the time until there is one, unless another instance takes it, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub wait_ms: u64,
}

/// See [`Outcome::Enqueued`].
#[derive(Clone, PartialEq, Message)]
pub struct Enqueued {
    /// In the order of the command.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<Placed>,
}

/// What became of a message to enqueue.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Placed {
    /// Its position, or that of the message that it is a duplicate of. That of a delayed message identifies it, until it takes its
    /// place in its lane.
    #[prost(uint64, tag = "1")]
    pub position: u64,
    /// It is a duplicate.
    #[prost(bool, tag = "2")]
    pub is_duplicate: bool,
    /// Why it was refused.
    #[prost(enumeration = "Refusal", optional, tag = "3")]
    pub refusal: Option<i32>,
    /// The digest of the message that it is a duplicate of.
    #[prost(fixed64, tag = "4")]
    pub digest: u64,
}

/// See [`Outcome::Settled`].
#[derive(Clone, PartialEq, Message)]
pub struct Settled {
    /// The indexes of those refused: their slots are not held with these tokens any more, or another message of the key is
    /// before them.
    #[prost(uint32, repeated, tag = "1")]
    pub refused: Vec<u32>,
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
    /// The queue, or all of them together, have no room for the message.
    Full = 13,
    /// The queue has consumers, or another generation of the routes is being prepared or staged.
    InUse = 14,
    /// Another generation of the routes is in force than the one that this one is based on.
    OtherBase = 15,
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
            Self::TooMany => {
                "the cluster has too many sessions, requests, locks, sequences, queues, budgets or routes with results"
            }
            Self::OtherEpoch => "the command was decided by the leader of another epoch",
            Self::Deadlock => "the request would wait for its own owner",
            Self::Full => "the queue is full",
            Self::InUse => "the queue is consumed, or another generation of the routes is being prepared or staged",
            Self::OtherBase => "another generation of the routes was put into force meanwhile",
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
