//! Rate budgets, one command after another. The simulator checks them against a model.

mod log;

use crossdock_coordination::answer::Spent;
use crossdock_coordination::command::Spend;
use crossdock_coordination::{Coordination, Operation, Outcome, Rate, Refusal, limits};

use self::log::Log;

const RATE: Rate = Rate { count: 3, per_ms: 1_000, burst: 5 };

fn spend(log: &mut Log, rate: Rate, up_to: u64) -> (u64, u64) {
    let Rate { count, per_ms, burst } = rate;
    let spend = Spend { budget: "mails".to_owned(), count, per_ms, burst, up_to };
    match log.execute(Operation::Spend(spend)) {
        Outcome::Spent(Spent { units, wait_ms }) => (units, wait_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_budget_has_its_burst_and_then_its_rate_without_losing_a_fraction() {
    let mut log = Log::new();
    assert_eq!(spend(&mut log, RATE, 2), (2, 0));
    assert_eq!(spend(&mut log, RATE, 9), (3, 0), "as many as there are");
    assert_eq!(spend(&mut log, RATE, 1), (0, 334));
    log.pass(333);
    assert_eq!(spend(&mut log, RATE, 1), (0, 1));
    log.pass(1);
    assert_eq!(spend(&mut log, RATE, 9), (1, 0));
    // In 1 000 seconds, 3 000 units: whatever the steps are.
    let mut units = 0;
    for step in [7, 333, 660, 1_000].into_iter().cycle().take(2_000) {
        log.pass(step);
        units += spend(&mut log, RATE, 9).0;
    }
    assert_eq!(units, 3_000, "a thousandth of a unit was left");
}

#[test]
fn a_budget_that_is_full_is_forgotten() {
    let mut log = Log::new();
    spend(&mut log, RATE, 2);
    log.pass(600);
    assert_eq!(log.state.view().budgets.get("mails").map(|budget| budget.units(u64::MAX)), Some(5));
    assert!(log.state.next_expiry().is_some());
    log.pass(100);
    assert_eq!(log.state.view().budgets.iter().count(), 0);
    assert_eq!(log.state.next_expiry(), None);
    assert_eq!(spend(&mut log, RATE, 9), (5, 0));
}

#[test]
fn another_rate_keeps_what_was_taken() {
    let mut log = Log::new();
    spend(&mut log, RATE, 4);
    let faster = Rate { count: 50, per_ms: 60_000, burst: 10 };
    assert_eq!(spend(&mut log, faster, 99), (6, 0), "it lacks 4 of 10");
    let small = Rate { burst: 2, ..RATE };
    assert_eq!(spend(&mut log, small, 1), (0, 334), "it lacks all, and not more than that");
}

#[test]
fn a_budget_survives_a_snapshot() {
    let mut log = Log::new();
    spend(&mut log, RATE, 5);
    log.pass(200);
    let saved: Vec<_> = log.state.view().save().collect();
    let mut restored = Coordination::default();
    for part in saved {
        restored.restore(part).expect("a part");
    }
    let budget = |state: &Coordination| state.view().budgets.get("mails").copied();
    assert_eq!(budget(&restored), budget(&log.state));
    assert_eq!(restored.next_expiry().is_some(), log.state.next_expiry().is_some());
    log.state = restored;
    assert_eq!(spend(&mut log, RATE, 1), (0, 134));
}

#[test]
fn budgets_are_limited() {
    let mut log = Log::new();
    let valid = Spend { budget: "mails".to_owned(), count: 1, per_ms: 1, burst: 1, up_to: 1 };
    for invalid in [
        Spend { budget: String::new(), ..valid.clone() },
        Spend { budget: "x".repeat(256), ..valid.clone() },
        Spend { count: 0, ..valid.clone() },
        Spend { count: limits::RATE_MAX + 1, ..valid.clone() },
        Spend { per_ms: 0, ..valid.clone() },
        Spend { per_ms: limits::RATE_PER_MS_MAX + 1, ..valid.clone() },
        Spend { burst: 0, ..valid.clone() },
        Spend { burst: limits::RATE_MAX + 1, ..valid.clone() },
        Spend { up_to: 0, ..valid.clone() },
    ] {
        assert_eq!(log.execute(Operation::Spend(invalid.clone())), Refusal::Invalid.into(), "{invalid:?}");
    }
    // The largest of all neither overflow, nor are they forgotten.
    let (count, per_ms, burst) = (1, limits::RATE_PER_MS_MAX, limits::RATE_MAX);
    let largest = Rate { count, per_ms, burst };
    assert_eq!(spend(&mut log, largest, u64::MAX), (burst, 0));
    assert_eq!(spend(&mut log, largest, 1), (0, per_ms));
    log.pass(10_000);
    assert_eq!(spend(&mut log, Rate { count: limits::RATE_MAX, per_ms: 1, burst: 1 }, 1), (0, 1));
}
