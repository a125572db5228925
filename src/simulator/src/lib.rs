//! Clusters under faults in a deterministic world.
//!
//! One seed is one run: the network with its delays, broken, half-open and blocked connections; disks that are slow, fail, and keep a
//! beginning of what was not synced; clocks that drift, processes that pause and crash, alone or all at once. What has to hold is
//! checked after every step; after the faults the servers have to agree again.

mod checks;
mod exhaustive;
mod faults;
mod network;
mod plan;
mod scenario;
mod server;
mod shrink;
mod world;

use std::collections::{BTreeMap, BTreeSet};

pub use crossdock_zab::InjectedBug;
pub use exhaustive::{Scope, Searched, Step, search};
pub use plan::{Part, Plan, rule};
pub use shrink::shrink;
use world::World;

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
    /// Bogus numbers that were sent.
    pub lies: u64,
    /// How often a message came in a phase.
    pub coverage: BTreeMap<(&'static str, &'static str), u64>,
}

/// A rule that did not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The run.
    pub plan: Plan,
    /// What was wrong.
    pub problem: String,
    /// What happened before, where it was asked for.
    pub trace: Vec<String>,
    /// How far the run came.
    pub steps: u64,
    /// The numbers of the faults and requests before it.
    pub happened: BTreeSet<u32>,
}

/// Makes a run, and keeps the last lines of what happened where a trace is asked for. The same plan is the same run.
///
/// # Errors
/// The first rule that did not hold.
pub fn run(plan: &Plan, trace: bool) -> Result<Report, Violation> {
    let mut world = World::new(plan, trace);
    match world.run() {
        Ok(()) => Ok(world.report),
        Err(problem) => Err(Violation {
            plan: plan.clone(),
            problem,
            trace: world.trace(),
            steps: world.report.steps,
            happened: world.happened,
        }),
    }
}
