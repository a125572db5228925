//! Rules that tests break on purpose, to see that what watches over them notices. Only with the feature `planted`.

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Planted {
    /// A follower acknowledges before its write is durable.
    AckBeforeFsync,
    /// A leader counts itself before its write is durable.
    LeaderCountsBeforeFsync,
    /// A follower acknowledges NEWLEADER before history and epoch are durable.
    AckNewLeaderBeforeFsync,
    /// A follower promises before the promise is durable.
    PromiseBeforeFsync,
    /// A leader invites to an epoch before it is durable here.
    NewEpochBeforeFsync,
    /// A promise that was given before counts again.
    CountEqualEpoch,
    /// A follower follows a leader of an epoch before the one that it promised.
    FollowSmallerEpoch,
    /// A leader commits with one server less than a majority.
    CommitWithoutQuorum,
    /// A leader is established with one server less than a majority.
    EstablishWithoutQuorum,
    /// A leader stays though a follower has more than it.
    IgnoreBetterHistory,
    /// A leader takes proposals before its epoch is established.
    ProposeBeforeEstablished,
    /// A server votes for itself by what it has in memory.
    VoteFromMemory,
    /// Messages of earlier sessions are taken.
    StaleSessions,
    /// A synchronisation that is not whole stays.
    KeepHalfSync,
    /// Where a follower has too much, it is told that it has a beginning.
    DiffForTrunc,
    /// Observers count.
    CountObservers,
    /// Reads are answered without asking a majority.
    ReadFromMemory,
    /// A server that has lost its log votes.
    VoteWithoutLog,
    /// A server that has lost its log votes once it has that of a leader whose epoch began before.
    ReturnInOldEpoch,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::AckBeforeFsync,
        Self::LeaderCountsBeforeFsync,
        Self::AckNewLeaderBeforeFsync,
        Self::PromiseBeforeFsync,
        Self::NewEpochBeforeFsync,
        Self::CountEqualEpoch,
        Self::FollowSmallerEpoch,
        Self::CommitWithoutQuorum,
        Self::EstablishWithoutQuorum,
        Self::IgnoreBetterHistory,
        Self::ProposeBeforeEstablished,
        Self::VoteFromMemory,
        Self::StaleSessions,
        Self::KeepHalfSync,
        Self::DiffForTrunc,
        Self::CountObservers,
        Self::ReadFromMemory,
        Self::VoteWithoutLog,
        Self::ReturnInOldEpoch,
    ];
}
