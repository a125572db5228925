//! Bugs that tests inject to verify that the checks detect them. They take effect only with the feature `injected-bugs`.

/// A bug to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "injected-bugs"), expect(unreachable_pub, reason = "only tests inject bugs"))]
pub enum InjectedBug {
    /// A shared request enters an exclusively held lock.
    GrantToTwo,
    /// A grant has the zxid of its request as its token.
    TokenOfRequest,
    /// A tick of a deposed leader takes effect.
    TickOfOldLeader,
    /// A cancelled request that has not arrived yet is granted when it does.
    OrphanAfterCancel,
    /// A request that is repeated after its release is granted again.
    OrphanAfterRelease,
    /// A request is granted after its waiting time, if the tick is late.
    GrantAfterTimeout,
    /// A request overtakes one that waits for the same lock.
    Overtake,
    /// Who waits for the lock of a session that ended is not granted it.
    LostWakeup,
    /// Sessions do not get their full time under a new leader.
    NoGraceUnderNewLeader,
    /// A lock is granted at once after the death of its holder.
    NoLockDelay,
    /// A guard accepts the token of an earlier holder.
    StaleGuard,
    /// A holder is not told that it has lost its lock.
    SilentLoss,
    /// A restored instance has no timers.
    ForgetTimers,
    /// A session that is kept alive expires when it first would have.
    IgnoreKeepAlive,
    /// Numbers of a sequence are given twice.
    RepeatNumbers,
    /// The message after the next one of a lane is delivered.
    LaneSkipped,
    /// A message is delivered before those in front of it are settled.
    LaneReordered,
    /// Some messages are kept although they are settled.
    SettleLost,
    /// A message is taken for a duplicate after the window.
    DuplicateOutsideWindow,
    /// A duplicate is enqueued.
    AcceptDuplicate,
    /// A repeated command enqueues its messages again.
    RepeatEnqueue,
    /// A settlement takes effect after the slot was lost.
    StaleSlot,
    /// A slot is granted to another consumer before it is given back.
    SlotToTwo,
    /// The slots of a session that ended are not granted to the others.
    SilentGrant,
    /// A message that is to be delivered again is not.
    NoRetry,
    /// A generation of the routes is put into force before all instances have prepared it.
    SwitchEarly,
    /// That an instance cannot prepare a generation is forgotten when its session ends.
    ForgetProblem,
    /// A budget is refilled faster than its rate says.
    RefillTwice,
    /// A budget is forgotten before it is full.
    ForgetBudget,
    /// A generation replaces another one than the one that it is based on.
    StaleBase,
    /// A result is stored although the lock of its key was lost.
    StaleResult,
    /// A result is forgotten before its window is over.
    ForgetResult,
    /// A generation that is staged is in force for all instances.
    StagedInForce,
    /// A caller that has left cancels a request that another one has repeated.
    StaleCancel,
}

#[cfg(feature = "injected-bugs")]
impl InjectedBug {
    /// All bugs.
    pub const ALL: [Self; 34] = [
        Self::GrantToTwo,
        Self::TokenOfRequest,
        Self::TickOfOldLeader,
        Self::OrphanAfterCancel,
        Self::OrphanAfterRelease,
        Self::GrantAfterTimeout,
        Self::Overtake,
        Self::LostWakeup,
        Self::NoGraceUnderNewLeader,
        Self::NoLockDelay,
        Self::StaleGuard,
        Self::SilentLoss,
        Self::ForgetTimers,
        Self::IgnoreKeepAlive,
        Self::RepeatNumbers,
        Self::LaneSkipped,
        Self::LaneReordered,
        Self::SettleLost,
        Self::DuplicateOutsideWindow,
        Self::AcceptDuplicate,
        Self::RepeatEnqueue,
        Self::StaleSlot,
        Self::SlotToTwo,
        Self::SilentGrant,
        Self::NoRetry,
        Self::SwitchEarly,
        Self::ForgetProblem,
        Self::RefillTwice,
        Self::ForgetBudget,
        Self::StaleBase,
        Self::StaleResult,
        Self::ForgetResult,
        Self::StagedInForce,
        Self::StaleCancel,
    ];
}
