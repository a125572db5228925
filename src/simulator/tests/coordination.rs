//! Runs of coordination that every change must pass; `crossdock-simulator --coordination` executes longer ones.

use crossdock_simulator::coordination::{InjectedBug, Report, run};

#[test]
fn seeds_of_coordination_violate_no_invariant() {
    let mut sum = Report::default();
    for seed in 1..=150 {
        sum.add(&run(seed, None).unwrap_or_else(|problem| panic!("seed {seed}: {problem}")));
    }
    println!("{sum:?}");
    assert!(sum.granted.0 > 2_500 && sum.granted.1 > 1_500, "too little is granted: {sum:?}");
    assert!(sum.expired > 3_000 && sum.sessions > 1_000 && sum.late > 1_800, "too little expires: {sum:?}");
    assert!(sum.fenced > 200 && sum.leaders > 500 && sum.restored > 1_000, "too few faults: {sum:?}");
    assert!(sum.settled > 10_000 && sum.retried > 2_000 && sum.dead > 1_000, "too few messages: {sum:?}");
    assert!(sum.remembered > 200, "too few results: {sum:?}");
    assert!(sum.generations > 150 && sum.staged > 40 && sum.generations_rejected > 300, "too few generations: {sum:?}");
    assert!(sum.duplicates > 1_000 && sum.unheard > 3_000 && sum.slots > 50_000, "too few faults of queues: {sum:?}");
}

#[test]
fn the_same_seed_of_coordination_is_the_same_run() {
    assert_eq!(format!("{:?}", run(17, None)), format!("{:?}", run(17, None)));
}

#[test]
fn every_bug_injected_into_coordination_is_detected() {
    for bug in InjectedBug::ALL {
        let found = (1..=300).find_map(|seed| Some((seed, run(seed, Some(bug)).err()?)));
        let (seed, problem) = found.unwrap_or_else(|| panic!("{bug:?} is not detected"));
        println!("| {bug:?} | {seed} | {problem} |");
    }
}
