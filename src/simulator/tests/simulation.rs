//! Runs of the simulator that every change has to pass; `crossdock-simulator` has the long ones.

use std::collections::BTreeMap;

use crossdock_simulator::{Options, Planted, run};

#[test]
fn two_thousand_seeds_keep_every_promise() {
    let mut coverage: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut sums = (0, 0, 0);
    for seed in 1..=2000 {
        let report = run(seed, &Options::default())
            .unwrap_or_else(|found| panic!("seed {seed}, step {}: {}", found.steps, found.problem));
        sums = (sums.0 + report.committed, sums.1 + report.reads, sums.2 + report.epochs);
        for (pair, count) in report.coverage {
            *coverage.entry(pair).or_default() += count;
        }
    }
    println!("{} commits, {} reads, {} established epochs, {} pairs", sums.0, sums.1, sums.2, coverage.len());
    assert!(sums.0 > 200_000 && sums.1 > 50_000 && sums.2 > 5_000, "hardly anything happened: {sums:?}");
    assert!(coverage.len() > 200, "{} pairs of phase and message", coverage.len());
}

#[test]
fn a_seed_is_one_run() {
    let once = || {
        let report = run(17, &Options::default()).expect("no violation");
        (report.steps, report.committed, report.reads, report.coverage)
    };
    assert_eq!(once(), once());
}

/// Each rule that is broken on purpose, and seeds among which one notices. `crossdock-simulator --planted` tells how many it takes.
///
/// Not here are an invitation to an epoch before it is durable, which the order of the log makes harmless, and a promise that counts
/// twice, which takes tens of thousands of seeds.
const NOTICED: &[(Planted, std::ops::Range<u64>)] = &[
    (Planted::AckBeforeFsync, 1..20),
    (Planted::LeaderCountsBeforeFsync, 1..20),
    (Planted::AckNewLeaderBeforeFsync, 1..20),
    (Planted::PromiseBeforeFsync, 600..700),
    (Planted::FollowSmallerEpoch, 1..200),
    (Planted::CommitWithoutQuorum, 1..20),
    (Planted::EstablishWithoutQuorum, 1..20),
    (Planted::IgnoreBetterHistory, 1..100),
    (Planted::ProposeBeforeEstablished, 1..100),
    (Planted::VoteFromMemory, 1..100),
    (Planted::StaleSessions, 1..400),
    (Planted::KeepHalfSync, 1..200),
    (Planted::DiffForTrunc, 1..100),
    (Planted::CountObservers, 1..20),
    (Planted::ReadFromMemory, 1..200),
];

#[test]
fn every_rule_that_is_broken_is_noticed() {
    assert!(NOTICED.len() >= 12);
    for (rule, seeds) in NOTICED {
        let options = Options { planted: Some(*rule), ..Options::default() };
        let found = seeds.clone().find_map(|seed| run(seed, &options).err());
        let found = found.unwrap_or_else(|| panic!("{rule:?} is not noticed in {seeds:?}"));
        println!("{rule:?}: seed {}: {}", found.seed, found.problem);
    }
}
