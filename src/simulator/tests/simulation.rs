//! The simulator runs that every change must pass; `crossdock-simulator` executes longer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crossdock_simulator::{InjectedBug, Part, Plan, run, shrink};

#[test]
fn two_thousand_seeds_violate_no_invariant() {
    let mut coverage: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut sums = (0, 0, 0);
    let (mut lies, mut apart, mut unelectable, mut changes, mut log_reads) = (0, 0, 0, 0, 0);
    for seed in 1..=2000 {
        let report = run(&Plan::of(seed), false)
            .unwrap_or_else(|found| panic!("seed {seed}, step {}: {}", found.steps, found.problem));
        sums = (sums.0 + report.committed, sums.1 + report.reads, sums.2 + report.epochs);
        lies += report.lies;
        changes += report.changes;
        log_reads += report.log_reads;
        apart += report.apart;
        unelectable += report.unelectable;
        for (pair, count) in report.coverage {
            *coverage.entry(pair).or_default() += count;
        }
    }
    println!("{} commits, {} reads, {} established epochs, {} pairs", sums.0, sums.1, sums.2, coverage.len());
    assert!(sums.0 > 200_000 && sums.1 > 50_000 && sums.2 > 5_000, "too little happened: {sums:?}");
    assert!(
        apart > 500 && unelectable < 100,
        "{apart} runs with disconnected servers, {unelectable} without a candidate"
    );
    assert!(changes > 1_000, "{changes} changes of the voters were committed");
    assert!(log_reads > 100, "leaders read their logs {log_reads} times");
    assert!(lies > 20_000, "{lies} bogus messages were sent");
    assert!(coverage.len() > 200, "{} pairs of phase and message", coverage.len());
}

#[test]
fn the_same_plan_is_the_same_run() {
    let once = || {
        let report = run(&Plan::of(17), false).expect("no violation");
        (report.steps, report.committed, report.reads, report.coverage)
    };
    assert_eq!(once(), once());
}

/// The smallest runs that once violated an invariant. Those with an injected bug must still fail, and pass without it;
/// all others must pass. After a change to the simulated world, `crossdock-simulator --injected --seeds 100000 --keep
/// src/simulator/tests/kept` searches for new runs.
#[test]
fn kept_runs_end_as_recorded() {
    let mut rules = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept");
    for entry in std::fs::read_dir(folder).expect("kept runs") {
        let path = entry.expect("a kept run").path();
        let text = std::fs::read_to_string(&path).expect("a kept run");
        let plan: Plan = text.parse().unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        if let Some(rule) = plan.rule {
            rules.insert(format!("{rule:?}"));
            let found = run(&plan, false).expect_err(&format!("{rule:?} is no longer detected"));
            assert_eq!(text.lines().next(), Some(format!("# {}", found.problem).as_str()));
        }
        let without_bug = run(&Plan { rule: None, ..plan }, false);
        assert!(without_bug.is_ok(), "{}: {}", path.display(), without_bug.unwrap_err().problem);
    }
    // NEWEPOCH before the epoch is durable is harmless, because the log preserves the order of writes.
    let missing: Vec<_> =
        InjectedBug::ALL.iter().map(|rule| format!("{rule:?}")).filter(|rule| !rules.contains(rule)).collect();
    assert_eq!(missing, ["NewEpochBeforeFsync"]);
}

#[test]
fn a_violation_is_reduced_to_a_small_run() {
    let of = |seed| run(&Plan::of(seed).with_bug(InjectedBug::FollowSmallerEpoch), false).err();
    let found = (1..500).find_map(of).expect("an injected bug");
    let smallest = shrink(&found);
    assert!(
        smallest.happened.len() * 2 < found.happened.len(),
        "{} of {}",
        smallest.happened.len(),
        found.happened.len()
    );
    assert!(smallest.plan.without.contains(&Part::Apart), "nothing after the faults is needed");
    // Nothing can be left out.
    let all = smallest.plan.only.clone().unwrap_or_default();
    for number in &all {
        let mut only = all.clone();
        only.remove(number);
        let fewer = run(&Plan { only: Some(only), ..smallest.plan.clone() }, false);
        let same = fewer.is_err_and(|other| other.problem.split(':').next() == smallest.problem.split(':').next());
        assert!(!same, "{number} is not needed");
    }
}
