//! Bugs that simulations inject to verify that their checks detect them. They take effect only with the feature `simulation`.

use std::collections::BTreeMap;

use crossdock_zab::{LogId, ServerId};

/// A bug to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub, reason = "only simulations inject bugs"))]
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
}

#[cfg(feature = "simulation")]
impl InjectedBug {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
    ];
}

/// The first logs that were seen instead of those of the voters.
#[derive(Debug, Default)]
pub(crate) struct FirstLogs(BTreeMap<ServerId, LogId>);

impl FirstLogs {
    /// What the log of a peer is taken for.
    pub(crate) fn taken_for(&mut self, peer: ServerId, log: LogId, of_voter: Option<LogId>) -> LogId {
        if !is_injected(InjectedBug::TakeSecondLogForFirst) || of_voter.is_none_or(|of_voter| of_voter == log) {
            return log;
        }
        *self.0.entry(peer).or_insert(log)
    }
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
