//! Exhaustive searches of small scopes; `crossdock-simulator --exhaustive SECONDS` also searches larger ones.

use std::time::Duration;

use crossdock_simulator::{InjectedBug, Scope, search};

/// More than any of them takes.
const TIME: Duration = Duration::from_secs(300);

#[test]
fn small_scopes_violate_no_invariant() {
    for (name, scope) in &Scope::ALL[..6] {
        let searched = search(*scope, 2, TIME);
        println!("{name}: {} states, {} steps deep", searched.states, searched.depth);
        assert!(searched.violation.is_none(), "{name}: {:?}", searched.violation);
        assert!(searched.is_complete, "{name}: the search is incomplete");
        let has_faults = scope.crashes + scope.losses + scope.cuts + scope.timeouts > 0;
        assert_eq!(searched.commits_after_faults, has_faults, "{name}: nothing is committed after a fault");
    }
}

#[test]
fn small_scopes_detect_injected_bugs() {
    let of = |rule| Scope { injected_bug: Some(rule), ..Scope::ALL[0].1 };
    let rules = [
        InjectedBug::AckBeforeFsync,
        InjectedBug::LeaderCountsBeforeFsync,
        InjectedBug::AckNewLeaderBeforeFsync,
        InjectedBug::CommitWithoutQuorum,
        InjectedBug::EstablishWithoutQuorum,
    ];
    for rule in rules {
        let searched = search(of(rule), 2, TIME);
        let (problem, steps) = searched.violation.unwrap_or_else(|| panic!("{rule:?} is not detected"));
        println!("{rule:?}: {} steps: {problem}", steps.len());
    }
}
