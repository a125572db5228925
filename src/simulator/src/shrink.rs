//! Makes a run that breaks a rule small: leaves out what is not needed for it.

use std::collections::BTreeSet;

use crate::plan::{Part, Plan};
use crate::{Violation, run};

/// Runs that a search makes at most.
const RUNS: usize = 3_000;

/// A search for a smaller run.
struct Search {
    /// What is broken: the word before the colon.
    kind: String,
    smallest: Violation,
    runs: usize,
}

/// The smallest run found in which the same kind of rule does not hold as in that one. It is small in that nothing of it can be left out
/// alone: delta debugging (Zeller, Hildebrandt, IEEE TSE 2002) over what happens from outside, then over what the world does.
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
    // What was to come after the violation is not part of it.
    let happened = search.smallest.happened.clone();
    search.still_breaks(&Plan { only: Some(happened), ..search.smallest.plan.clone() });
    search.smallest
}

fn kind(problem: &str) -> String {
    problem.split(':').next().unwrap_or_default().to_owned()
}

impl Search {
    /// Whether that run breaks the rule too; it is the smallest then.
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

    /// Leaves out pieces of what happens, ever smaller ones.
    fn occurrences(&mut self) {
        let mut pieces = 2;
        loop {
            // Nothing that came after the violation is needed.
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
