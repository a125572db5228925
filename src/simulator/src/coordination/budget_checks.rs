//! The invariants of rate budgets: a budget grants exactly what fits into each time that ends now.

use std::collections::BTreeMap;

use crossdock_coordination::command::Spend;
use crossdock_coordination::{Operation, Outcome};

use super::Report;
use super::checks::Applied;

/// What was granted of each budget, with the times by the state's clock.
#[derive(Debug, Default)]
pub(super) struct BudgetChecks(BTreeMap<String, Vec<(u64, u64)>>);

/// What a budget that is full at each of these times can have at another time, in units times `per_ms`.
fn available(granted: &[(u64, u64)], of: &Spend, now: u64) -> u128 {
    let full = u128::from(of.burst) * u128::from(of.per_ms);
    let mut least = full;
    let mut sum = 0;
    for (time, units) in granted.iter().rev() {
        sum += u128::from(*units) * u128::from(of.per_ms);
        let added = u128::from(now - time) * u128::from(of.count);
        least = least.min((full + added).saturating_sub(sum));
    }
    least
}

impl BudgetChecks {
    pub(super) fn check(&mut self, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        let Some(Operation::Spend(spend)) = &applied.command.operation else { return Ok(()) };
        let Outcome::Spent(spent) = applied.outcome else {
            return Err(format!("{spend:?} is answered by {:?}", applied.outcome));
        };
        let now = applied.after.clock.now();
        let granted = self.0.entry(spend.budget.clone()).or_default();
        let per_ms = u128::from(spend.per_ms);
        let expected = (available(granted, spend, now) / per_ms).min(u128::from(spend.up_to));
        if u128::from(spent.units) != expected {
            return Err(format!("{} units of {spend:?} instead of {expected}", spent.units));
        }
        let has_unit = |wait: u64| available(granted, spend, now + wait) >= per_ms;
        let wait = spent.wait_ms;
        if spent.units == 0 && !(has_unit(wait) && wait > 0 && !has_unit(wait - 1)) || spent.units > 0 && wait > 0 {
            return Err(format!("{spend:?} waits for {wait} ms"));
        }
        granted.push((now, spent.units));
        report.spent += spent.units;
        Ok(())
    }
}
