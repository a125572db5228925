//! Runs of the simulator that every change has to pass; `crossdock-simulator` has the long ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crossdock_simulator::{InjectedBug, Part, Plan, run, shrink};

#[test]
fn two_thousand_seeds_keep_every_promise() {
    let mut coverage: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut sums = (0, 0, 0);
    let mut lies = 0;
    for seed in 1..=2000 {
        let report = run(&Plan::of(seed), false)
            .unwrap_or_else(|found| panic!("seed {seed}, step {}: {}", found.steps, found.problem));
        sums = (sums.0 + report.committed, sums.1 + report.reads, sums.2 + report.epochs);
        lies += report.lies;
        for (pair, count) in report.coverage {
            *coverage.entry(pair).or_default() += count;
        }
    }
    println!("{} commits, {} reads, {} established epochs, {} pairs", sums.0, sums.1, sums.2, coverage.len());
    assert!(sums.0 > 200_000 && sums.1 > 50_000 && sums.2 > 5_000, "hardly anything happened: {sums:?}");
    assert!(lies > 20_000, "{lies} false numbers were sent");
    assert!(coverage.len() > 200, "{} pairs of phase and message", coverage.len());
}

#[test]
fn a_plan_is_one_run() {
    let once = || {
        let report = run(&Plan::of(17), false).expect("no violation");
        (report.steps, report.committed, report.reads, report.coverage)
    };
    assert_eq!(once(), once());
}

/// The smallest runs in which rules did not hold. Those that break a rule on purpose break it still, and are well without; all others
/// were mistakes once, and are none any more. Where the world of the simulator has changed, `crossdock-simulator --injected --seeds 100000
/// --keep src/simulator/tests/kept` looks for the runs anew.
#[test]
fn runs_that_were_kept_end_as_they_should() {
    let mut rules = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept");
    for entry in std::fs::read_dir(folder).expect("kept runs") {
        let path = entry.expect("a kept run").path();
        let text = std::fs::read_to_string(&path).expect("a kept run");
        let plan: Plan = text.parse().unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        if let Some(rule) = plan.rule {
            rules.insert(format!("{rule:?}"));
            let found = run(&plan, false).expect_err(&format!("{rule:?} is not noticed any more"));
            assert_eq!(text.lines().next(), Some(format!("# {}", found.problem).as_str()));
        }
        let honest = run(&Plan { rule: None, ..plan }, false);
        assert!(honest.is_ok(), "{}: {}", path.display(), honest.unwrap_err().problem);
    }
    // Of all rules but one: an invitation to an epoch before it is durable here, which the order of the log makes harmless.
    let missing: Vec<_> =
        InjectedBug::ALL.iter().map(|rule| format!("{rule:?}")).filter(|rule| !rules.contains(rule)).collect();
    assert_eq!(missing, ["NewEpochBeforeFsync"]);
}

#[test]
fn a_run_is_made_small() {
    let plan = Plan::of(27).breaking(InjectedBug::FollowSmallerEpoch);
    let found = run(&plan, false).expect_err("a broken rule");
    let smallest = shrink(&found);
    assert!(
        smallest.happened.len() * 2 < found.happened.len(),
        "{} of {}",
        smallest.happened.len(),
        found.happened.len()
    );
    assert!(smallest.plan.without.contains(&Part::Apart), "what comes after the faults is not needed");
    // Nothing of it can be left out.
    let all = smallest.plan.only.clone().unwrap_or_default();
    for number in &all {
        let mut only = all.clone();
        only.remove(number);
        let fewer = run(&Plan { only: Some(only), ..smallest.plan.clone() }, false);
        let same = fewer.is_err_and(|other| other.problem.split(':').next() == smallest.problem.split(':').next());
        assert!(!same, "{number} is not needed");
    }
}
