//! What an instance needs of its system, in one place: the clock, threads, files, sockets and random numbers. With the feature
//! `simulation`, they are simulated; everything else is the code that is shipped.
//!
//! What runs for the life of an instance is a future, even where it blocks a thread of its own: the log and the state. What
//! ends is a closure.

#[cfg(any(test, feature = "simulation"))]
#[cfg_attr(not(feature = "simulation"), expect(dead_code, reason = "the test of power losses needs a part of it"))]
pub(crate) mod disk;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod seeded;
#[cfg(feature = "simulation")]
pub mod simulated;
#[cfg(not(feature = "simulation"))]
mod system;

pub(crate) use tokio::time::Instant;

#[cfg(feature = "simulation")]
use self::simulated as chosen;
#[cfg(not(feature = "simulation"))]
use self::system as chosen;

pub use self::chosen::wall_clock_millis;
pub(crate) use self::chosen::{
    Condition, Thread, Worker, every, files, in_instance, network, pause, random, run_blocking, run_in_background,
    spawn, spawn_runtime, spawn_thread, spawn_worker, yield_thread,
};
