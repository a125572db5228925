//! Reduces a run that violates an invariant to a small one.

use std::collections::BTreeSet;

use crate::plan::{Part, Plan};
use crate::{Violation, run};

/// Maximum number of runs of a search.
const RUNS: usize = 3_000;

/// A search for a smaller run.
struct Search {
    /// The violated invariant: the text before the colon.
    kind: String,
    smallest: Violation,
    runs: usize,
}

/// The smallest run found that violates the same invariant. No single part of it can be left out. Uses delta debugging
/// (Zeller, Hildebrandt, IEEE TSE 2002) over faults and requests, then over properties of the world.
#[must_use]
pub fn shrink(violation: &Violation) -> Violation {
    let mut search = Search { kind: kind(&violation.problem), smallest: violation.clone(), runs: 0 };
    let happened = Plan { only: Some(violation.happened.clone()), ..violation.plan.clone() };
    if !search.still_breaks(&happened) {
        return violation.clone();
    }
    loop {
        let before = search.smallest.plan.clone();
        search.parts();
        search.occurrences();
        if search.smallest.plan == before || search.runs >= RUNS {
            break;
        }
    }
    // Drop what would have happened after the violation.
    let happened = search.smallest.happened.clone();
    search.still_breaks(&Plan { only: Some(happened), ..search.smallest.plan.clone() });
    search.smallest
}

fn kind(problem: &str) -> String {
    problem.split(':').next().unwrap_or_default().to_owned()
}

impl Search {
    /// Executes the plan. If it violates the same invariant, it becomes the smallest run.
    fn still_breaks(&mut self, plan: &Plan) -> bool {
        self.runs += 1;
        match run(plan, false) {
            Err(found) if kind(&found.problem) == self.kind => {
                self.smallest = found;
                true
            }
            _ => false,
        }
    }

    fn parts(&mut self) {
        for part in Part::ALL {
            let mut plan = self.smallest.plan.clone();
            if plan.without.insert(part) {
                self.still_breaks(&plan);
            }
        }
    }

    /// Leaves out ever smaller pieces of the faults and requests.
    fn occurrences(&mut self) {
        let mut pieces = 2;
        loop {
            // What happened after the violation is not needed.
            let all: Vec<u32> = self.smallest.happened.iter().copied().collect();
            if all.is_empty() || self.runs >= RUNS {
                return;
            }
            let len = all.len().div_ceil(pieces);
            let smaller = all.chunks(len).any(|piece| {
                let rest: BTreeSet<u32> = all.iter().copied().filter(|number| !piece.contains(number)).collect();
                let plan = Plan { only: Some(rest), ..self.smallest.plan.clone() };
                self.runs < RUNS && self.still_breaks(&plan)
            });
            if smaller {
                pieces = pieces.saturating_sub(1).max(2);
            } else if len == 1 {
                return;
            } else {
                pieces = (pieces * 2).min(all.len());
            }
        }
    }
}
