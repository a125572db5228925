//! All that can happen to a small cluster within a scope: every order of messages, writes, crashes and cuts, not one drawn by chance.
//!
//! The search is that of stateright; the servers are those that run elsewhere, and so are the rules that have to hold.

mod state;
mod step;

use std::time::{Duration, Instant};

use stateright::{Checker as _, Model, Property};

use self::state::State;
pub use self::step::Step;
use crate::InjectedBug;

/// How much may happen in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Servers; all of them vote.
    pub voters: usize,
    /// Crashes; a server that has crashed may come back at any time.
    pub crashes: u8,
    /// Crashes in which a server loses its log.
    pub losses: u8,
    /// Connections that break.
    pub cuts: u8,
    /// Commands.
    pub proposals: u8,
    /// Ticks of all clocks at once, when nothing else is under way.
    pub ticks: u8,
    /// How often a server waits in vain for as long as it ever does, though what it waits for is under way.
    pub timeouts: u8,
    /// Whether the run begins with a leader that all follow and a command that is committed, not with new servers.
    pub is_established: bool,
    /// A rule that is broken on purpose.
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

    /// Scopes that are worth to be seen as a whole, the small ones first.
    pub const ALL: [(&str, Self); 12] = [
        ("two servers begin, one crashes", Self { crashes: 1, ..Self::TWO }),
        ("two servers begin, their connection breaks", Self { cuts: 1, ..Self::TWO }),
        ("three servers begin", Self::START),
        ("three at work, a connection breaks", Self { cuts: 1, ..Self::WORK }),
        ("two at work, their connection breaks twice", Self { cuts: 2, ..Self::TWO_AT_WORK }),
        ("two at work, two crashes", Self { crashes: 2, ..Self::TWO_AT_WORK }),
        ("three at work, one waits in vain", Self { timeouts: 1, ..Self::WORK }),
        ("three at work, one crashes", Self { crashes: 1, ..Self::WORK }),
        ("three at work, one loses its log", Self { losses: 1, ticks: 2, ..Self::WORK }),
        ("three at work, two connections break", Self { cuts: 2, ..Self::WORK }),
        ("three begin, one crashes", Self { crashes: 1, ..Self::START }),
        ("three at work, two crashes", Self { crashes: 2, ..Self::WORK }),
    ];
}

/// What a search came to.
#[derive(Debug)]
pub struct Searched {
    /// Different states.
    pub states: usize,
    /// Steps from the beginning, at most.
    pub depth: usize,
    /// Nothing is left: the scope holds no other state.
    pub is_whole: bool,
    /// What does not hold, and the steps that lead there.
    pub violation: Option<(String, Vec<Step>)>,
    /// A command was committed after a crash, a cut or a timeout: the scope holds more than the usual course.
    pub commits_after_faults: bool,
}

/// Looks at all states of a scope, or as many as there is time for.
#[must_use]
pub fn search(scope: Scope, threads: usize, time: Duration) -> Searched {
    let begun = Instant::now();
    // One thread alone does not look at the time.
    let checker = scope.checker().threads(threads.max(2)).timeout(time).spawn_dfs();
    let checker = checker.join();
    let found = checker.discovery(RULES).map(|path| {
        let problem = path.last_state().problem.clone().unwrap_or_default();
        (problem, path.into_actions())
    });
    Searched {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        is_whole: found.is_none() && begun.elapsed() < time,
        violation: found,
        commits_after_faults: checker.discovery(COMMITS).is_some(),
    }
}

const RULES: &str = "the rules hold";
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
