//! Simulates clusters of `zab` under faults in a deterministic world.
//!
//! Each seed is one run. The network delays, breaks, blocks and half-opens connections; disks are slow, fail, or lose
//! unsynced writes; clocks drift; processes pause and crash, alone or together. Invariants are checked after every
//! step, and after the faults the servers must converge.

mod checks;
pub mod coordination;
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

/// The result of a run without violations.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Processed events.
    pub steps: u64,
    /// Committed transactions.
    pub committed: usize,
    /// Transactions acknowledged to a client.
    pub acknowledged: usize,
    /// Answered reads.
    pub reads: usize,
    /// Established epochs.
    pub epochs: usize,
    /// Pieces that leaders read from their logs on disk.
    pub log_reads: u64,
    /// Committed changes of the voters.
    pub changes: usize,
    /// Messages sent with bogus numbers.
    pub lies: u64,
    /// Runs that converged although some servers stayed disconnected.
    pub apart: usize,
    /// Runs in which nobody was electable before all servers were connected.
    pub unelectable: usize,
    /// The number of messages by phase of the receiver and message type.
    pub coverage: BTreeMap<(&'static str, &'static str), u64>,
}

/// A violated invariant.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The plan of the run.
    pub plan: Plan,
    /// The violated invariant, a colon, and details.
    pub problem: String,
    /// The last events, if a trace was requested.
    pub trace: Vec<String>,
    /// The number of processed events.
    pub steps: u64,
    /// The numbers of the faults and requests that happened.
    pub happened: BTreeSet<u32>,
}

/// Executes a run, optionally keeping the last events as a trace. The same plan always produces the same run.
///
/// # Errors
/// The first violation.
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
