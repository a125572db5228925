//! A simulated system, for many instances in one process. The same seed gives the same run.
//!
//! All instances are tasks of one runtime whose clock is paused: time passes only while nothing else can happen. What has a
//! thread of its own in a real system has one here, too, so that files can be used in blocking code; but only one thread runs
//! at a time, and hands over where a disk takes its time.

mod context;
pub(crate) mod files;
pub(crate) mod network;
mod pipe;
mod threads;
mod world;

use crossdock_zab::{LogId, ServerId};

use self::context::current;
pub(crate) use self::context::in_instance;
pub(crate) use self::threads::{
    Condition, Thread, Worker, every, run_blocking, run_in_background, spawn, spawn_runtime, spawn_thread,
    spawn_worker, yield_thread,
};
pub use self::{
    threads::pause,
    world::{Crash, World},
};

/// Milliseconds since the Unix epoch when each simulation begins.
const EPOCH_MILLIS: u64 = 1_800_000_000_000;

/// The time of the current instance's clock, in milliseconds since the Unix epoch.
#[must_use]
pub fn wall_clock_millis() -> u64 {
    let context = current();
    EPOCH_MILLIS + context.world.now() + context.world.lock().clock_lead(context.server)
}

/// A number from the seed.
pub(crate) fn random() -> u64 {
    current().world.lock().random.next()
}

/// The first log of a peer, other than that of the voter, that the current instance has seen.
pub(crate) fn first_log(peer: ServerId, log: LogId) -> LogId {
    let context = current();
    *context.world.lock().first_logs.entry((context.run, peer)).or_insert(log)
}

/// Whether a bug is injected.
pub(crate) fn is_injected(bug: crate::injected_bug::InjectedBug) -> bool {
    current().world.lock().bug == Some(bug)
}
