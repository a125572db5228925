//! Bugs that simulations inject to verify that their checks detect them. They take effect only with the feature `simulation`.

use crossdock_zab::{LogId, ServerId};

/// A bug to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub, dead_code, reason = "only simulations inject bugs"))]
pub enum InjectedBug {
    /// Messages that need a write are sent before it is synced.
    SendBeforeSync,
    /// A sync that fails is taken for one that succeeds.
    IgnoreSyncErrors,
    /// A snapshot is labelled with the transaction after its last one.
    LabelSnapshotLater,
    /// A received snapshot is installed whatever its checksum.
    IgnoreSnapshotChecksum,
    /// What a snapshot replaces is deleted before it is saved.
    PurgeBeforeSave,
    /// The second log that a peer lost is taken for the first.
    TakeSecondLogForFirst,
    /// A command is refused as the instance is busy, although it was accepted.
    RefuseAccepted,
    /// Two clients get one another's answers.
    SwapAnswers,
    /// A snapshot is saved although its last transactions are not durable in the own log.
    SaveUndurableSnapshot,
    /// A read is answered before its transaction is applied.
    ReadTooEarly,
    /// Commands without an outcome are taken for lost once there is a leader.
    GiveUpTooEarly,
    /// One in 256 messages to another instance is not sent.
    LoseMessage,
    /// The reply to a command is dropped if its leader is lost.
    DropReply,
}

#[cfg(feature = "simulation")]
impl InjectedBug {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SendBeforeSync,
        Self::IgnoreSyncErrors,
        Self::LabelSnapshotLater,
        Self::IgnoreSnapshotChecksum,
        Self::PurgeBeforeSave,
        Self::TakeSecondLogForFirst,
        Self::RefuseAccepted,
        Self::SwapAnswers,
        Self::SaveUndurableSnapshot,
        Self::ReadTooEarly,
        Self::GiveUpTooEarly,
        Self::LoseMessage,
        Self::DropReply,
    ];
}

/// What the log of a peer is taken for, if it is not that of the voter.
#[cfg(feature = "simulation")]
pub(crate) fn log_taken_for(peer: ServerId, log: LogId, of_voter: Option<LogId>) -> LogId {
    if !is_injected(InjectedBug::TakeSecondLogForFirst) || of_voter.is_none_or(|of_voter| of_voter == log) {
        return log;
    }
    crate::platform::simulated::first_log(peer, log)
}

/// What the log of a peer is taken for: itself.
#[cfg(not(feature = "simulation"))]
pub(crate) const fn log_taken_for(_: ServerId, log: LogId, _: Option<LogId>) -> LogId {
    log
}

/// Whether the bug is injected.
#[cfg(feature = "simulation")]
pub(crate) fn is_injected(bug: InjectedBug) -> bool {
    crate::platform::simulated::is_injected(bug)
}

/// Whether the bug is injected: never.
#[cfg(not(feature = "simulation"))]
pub(crate) const fn is_injected(_: InjectedBug) -> bool {
    false
}
