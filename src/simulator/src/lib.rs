//! Clusters under faults in a deterministic world.
//!
//! One seed is one run: the network with its delays, broken, half-open and blocked connections; disks that are slow, fail, and keep a
//! beginning of what was not synced; clocks that drift, processes that pause and crash, alone or all at once. What has to hold is
//! checked after every step; after the faults the servers have to agree again.

mod checks;
mod faults;
mod network;
mod server;
mod world;

use std::collections::BTreeMap;

pub use crossdock_zab::Planted;
use faults::SECOND;
use world::World;

/// How runs are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long there are faults, in microseconds of the world.
    pub fault_time: u64,
    /// How long the servers then have to come to rest.
    pub heal_time: u64,
    /// Keep the last lines of what happened.
    pub trace: bool,
    /// A rule that is broken on purpose.
    pub planted: Option<Planted>,
}

impl Default for Options {
    fn default() -> Self {
        Self { fault_time: 10 * SECOND, heal_time: 30 * SECOND, trace: false, planted: None }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Events.
    pub steps: u64,
    /// Transactions that were committed.
    pub committed: usize,
    /// Those that a client was told of.
    pub acknowledged: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Epochs that were established.
    pub epochs: usize,
    /// How often a message came in a phase.
    pub coverage: BTreeMap<(&'static str, &'static str), u64>,
}

/// A rule that did not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub problem: String,
    /// What happened before, where it was asked for.
    pub trace: Vec<String>,
    /// How far the run came.
    pub steps: u64,
}

/// Makes the run of a seed.
///
/// # Errors
/// The first rule that did not hold.
pub fn run(seed: u64, options: &Options) -> Result<Report, Violation> {
    let mut world = World::new(seed, options);
    match world.run(options) {
        Ok(()) => Ok(world.report),
        Err(problem) => Err(Violation { seed, problem, trace: world.trace(), steps: world.report.steps }),
    }
}
