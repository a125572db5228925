//! Simulations of whole instances: driver, log, state, transport and their queues, as shipped, on a simulated system. See
//! `README.md` in this folder.

mod clients;
mod faults;
mod journal;
mod record;
mod servers;
mod simulation;

use std::time::{Duration, Instant};

use crossdock_cluster::InjectedBug;

use self::simulation::simulate;

/// Seeds of the regular run.
const SEEDS: u64 = 30;
/// Seeds within which a regular run must find an injected bug, and the first of them for each: where a long run found it.
const SEEDS_OF_BUG: u64 = 10;
const FIRST_SEEDS: [(InjectedBug, u64); 11] = [
    (InjectedBug::SendBeforeSync, 11),
    (InjectedBug::IgnoreSyncErrors, 15),
    (InjectedBug::LabelSnapshotLater, 2),
    (InjectedBug::IgnoreSnapshotChecksum, 88),
    (InjectedBug::PurgeBeforeSave, 2),
    (InjectedBug::TakeSecondLogForFirst, 57),
    (InjectedBug::RefuseAccepted, 1),
    (InjectedBug::SwapAnswers, 1),
    (InjectedBug::SaveUndurableSnapshot, 2),
    (InjectedBug::ReadTooEarly, 2),
    (InjectedBug::GiveUpTooEarly, 2),
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
fn instances_keep_their_promises_under_faults() {
    let first = number("CROSSDOCK_SEED").unwrap_or(1);
    let seeds = number("CROSSDOCK_SEEDS").unwrap_or(SEEDS);
    let (begun, mut simulated, mut counts) = (Instant::now(), Duration::ZERO, (0, 0, 0));
    for seed in first..first + seeds {
        let outcome = simulate(seed, None);
        assert_eq!(outcome.violation, None, "seed {seed}");
        if seed % 500 == 0 {
            println!("{seed}");
        }
        simulated += outcome.simulated;
        counts = (counts.0 + outcome.writes, counts.1 + outcome.reads, counts.2 + outcome.snapshots);
    }
    let (writes, reads, snapshots) = counts;
    println!(
        "seeds {first} to {}: {simulated:?} simulated in {:?}: {writes} writes, {reads} reads, {snapshots} snapshots",
        first + seeds - 1,
        begun.elapsed()
    );
    assert!(writes > 0 && reads > 0 && snapshots > 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..=3 {
        assert_eq!(simulate(seed, None), simulate(seed, None), "seed {seed}");
    }
}

/// Those whose names contain `CROSSDOCK_BUG`, all if that is not set.
#[test]
fn injected_bugs_are_found() {
    let name = std::env::var("CROSSDOCK_BUG").unwrap_or_default();
    let mut missed = Vec::new();
    for (bug, first) in FIRST_SEEDS.into_iter().filter(|(bug, _)| format!("{bug:?}").contains(&name)) {
        let first = number("CROSSDOCK_SEED").unwrap_or(first);
        let mut seeds = first..first + number("CROSSDOCK_SEEDS").unwrap_or(SEEDS_OF_BUG);
        match seeds.find_map(|seed| Some((seed, simulate(seed, Some(bug)).violation?))) {
            Some((seed, violation)) => println!("| {bug:?} | {seed} | {violation} |"),
            None => missed.push((bug, seeds)),
        }
    }
    assert_eq!(missed, [], "not found: search again with CROSSDOCK_SEEDS=2000, and record the seeds");
}
