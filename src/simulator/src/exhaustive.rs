//! Exhaustive search: every order of messages, writes, crashes and broken links of a small cluster, within a scope.
//!
//! Stateright performs the search; the servers and the invariants are the same as in the random runs.

mod state;
mod step;

use std::time::{Duration, Instant};

use stateright::{Checker as _, Model, Property};

use self::state::State;
pub use self::step::Step;
use crate::InjectedBug;

/// Bounds on what may happen in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The number of voters; there are no observers.
    pub voters: usize,
    /// Crashes. A crashed server may restart at any time.
    pub crashes: u8,
    /// Crashes in which a server loses its log.
    pub losses: u8,
    /// Links that break.
    pub cuts: u8,
    /// Proposed commands.
    pub proposals: u8,
    /// Ticks of all clocks at once, while nothing else is pending.
    pub ticks: u8,
    /// Timeouts of a server although what it waits for is pending.
    pub timeouts: u8,
    /// Whether the run starts with an established leader and one committed command, instead of new servers.
    pub is_established: bool,
    /// The injected bug.
    pub injected_bug: Option<InjectedBug>,
}

impl Scope {
    const START: Self = Self {
        voters: 3,
        crashes: 0,
        losses: 0,
        cuts: 0,
        proposals: 1,
        ticks: 3,
        timeouts: 0,
        is_established: false,
        injected_bug: None,
    };
    const WORK: Self = Self { ticks: 1, is_established: true, ..Self::START };
    const TWO: Self = Self { voters: 2, ticks: 6, ..Self::START };
    const TWO_AT_WORK: Self = Self { proposals: 2, is_established: true, ..Self::TWO };

    /// The scopes to search, roughly in the order of their size.
    pub const ALL: [(&str, Self); 12] = [
        ("two servers start, one crash", Self { crashes: 1, ..Self::TWO }),
        ("two servers start, their link breaks", Self { cuts: 1, ..Self::TWO }),
        ("three servers start", Self::START),
        ("three running, a link breaks", Self { cuts: 1, ..Self::WORK }),
        ("two running, their link breaks twice", Self { cuts: 2, ..Self::TWO_AT_WORK }),
        ("two running, two crashes", Self { crashes: 2, ..Self::TWO_AT_WORK }),
        ("three running, one timeout", Self { timeouts: 1, ..Self::WORK }),
        ("three running, one crash", Self { crashes: 1, ..Self::WORK }),
        ("three running, one log lost", Self { losses: 1, ticks: 2, ..Self::WORK }),
        ("three running, two links break", Self { cuts: 2, ..Self::WORK }),
        ("three servers start, one crash", Self { crashes: 1, ..Self::START }),
        ("three running, two crashes", Self { crashes: 2, ..Self::WORK }),
    ];
}

/// The result of a search.
#[derive(Debug)]
pub struct Searched {
    /// Unique states.
    pub states: usize,
    /// The longest path, in steps.
    pub depth: usize,
    /// Whether the search covered the whole scope.
    pub is_complete: bool,
    /// A violation and the steps that lead to it.
    pub violation: Option<(String, Vec<Step>)>,
    /// Whether a command was committed after a fault, which shows that the scope covers more than fault-free runs.
    pub commits_after_faults: bool,
}

/// Searches a scope until it is covered or the time is up.
#[must_use]
pub fn search(scope: Scope, threads: usize, time: Duration) -> Searched {
    let begun = Instant::now();
    // With one thread, stateright does not check the timeout.
    let checker = scope.checker().threads(threads.max(2)).timeout(time).spawn_dfs();
    let checker = checker.join();
    let found = checker.discovery(RULES).map(|path| {
        let problem = path.last_state().problem.clone().unwrap_or_default();
        (problem, path.into_actions())
    });
    Searched {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        is_complete: found.is_none() && begun.elapsed() < time,
        violation: found,
        commits_after_faults: checker.discovery(COMMITS).is_some(),
    }
}

const RULES: &str = "the invariants hold";
const COMMITS: &str = "a command is committed after a fault";

impl Model for Scope {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::begin(self)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        state.steps(steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        next.take(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(RULES, |_, state: &State| state.problem.is_none()),
            Property::sometimes(COMMITS, |_, state: &State| state.has_committed_after_a_fault()),
        ]
    }
}
