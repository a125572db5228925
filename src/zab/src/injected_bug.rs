//! Bugs that tests inject to verify that the checks detect them. They take effect only with the feature
//! `injected-bugs`.

/// A bug to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectedBug {
    /// A follower acknowledges before its write is durable.
    AckBeforeFsync,
    /// A leader counts itself before its write is durable.
    LeaderCountsBeforeFsync,
    /// A follower acknowledges NEWLEADER before history and epoch are durable.
    AckNewLeaderBeforeFsync,
    /// A follower sends ACKEPOCH before its acceptedEpoch is durable.
    AckEpochBeforeFsync,
    /// A leader sends NEWEPOCH before the epoch is durable.
    NewEpochBeforeFsync,
    /// A repeated ACKEPOCH counts again.
    CountEqualEpoch,
    /// A follower follows a leader whose epoch is below its acceptedEpoch.
    FollowSmallerEpoch,
    /// A leader commits with one server fewer than a quorum.
    CommitWithoutQuorum,
    /// A leader becomes established with one server fewer than a quorum.
    EstablishWithoutQuorum,
    /// A leader does not step down for a follower with a later history.
    IgnoreBetterHistory,
    /// A leader accepts proposals before its epoch is established.
    ProposeBeforeEstablished,
    /// A server votes by its state in memory, not by its disk.
    VoteFromMemory,
    /// Messages of earlier sessions are accepted.
    StaleSessions,
    /// A partial synchronisation becomes the history.
    KeepHalfSync,
    /// A follower with extra transactions gets DIFF instead of TRUNC.
    DiffForTrunc,
    /// Observers count toward a quorum.
    CountObservers,
    /// Reads are answered without confirmation by a quorum.
    ReadFromMemory,
    /// A server votes with another log than the recorded one.
    TrustUnknownLog,
    /// The log of a voter is replaced in one step, instead of removing and adding the voter.
    ReplaceInOneStep,
    /// A change of the voters is proposed before the last one is committed.
    TwoChangesAtOnce,
    /// A voter that is removed gets the change before it is committed.
    SendRemovalToRemoved,
    /// A voter that is removed installs an epoch without the part of its initial history that is withheld from it.
    WithholdInitialHistory,
    /// A leader counts the quorums of the membership that it was elected with.
    IgnoreNewMembers,
    /// A cluster is formed by the servers that happen to be connected.
    FormWithoutAll,
}

impl InjectedBug {
    /// All bugs.
    pub const ALL: [Self; 24] = [
        Self::AckBeforeFsync,
        Self::LeaderCountsBeforeFsync,
        Self::AckNewLeaderBeforeFsync,
        Self::AckEpochBeforeFsync,
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
        Self::TrustUnknownLog,
        Self::ReplaceInOneStep,
        Self::TwoChangesAtOnce,
        Self::SendRemovalToRemoved,
        Self::WithholdInitialHistory,
        Self::IgnoreNewMembers,
        Self::FormWithoutAll,
    ];
}
