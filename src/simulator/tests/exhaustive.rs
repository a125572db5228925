//! Small scopes, seen as a whole; `crossdock-simulator --exhaustive SECONDS` has larger ones as well.

use std::time::Duration;

use crossdock_simulator::{InjectedBug, Scope, search};

/// Longer than any of them takes.
const TIME: Duration = Duration::from_secs(300);

#[test]
fn nothing_that_can_happen_in_a_small_scope_breaks_a_rule() {
    for (name, scope) in &Scope::ALL[..6] {
        let searched = search(*scope, 2, TIME);
        println!("{name}: {} states, {} steps deep", searched.states, searched.depth);
        assert!(searched.violation.is_none(), "{name}: {:?}", searched.violation);
        assert!(searched.is_whole, "{name}: not all states were seen");
        let has_faults = scope.crashes + scope.losses + scope.cuts + scope.timeouts > 0;
        assert_eq!(searched.commits_after_faults, has_faults, "{name}: nothing is committed after a fault");
    }
}

#[test]
fn a_broken_rule_is_noticed_in_a_small_scope() {
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
        let (problem, steps) = searched.violation.unwrap_or_else(|| panic!("{rule:?} is not noticed"));
        println!("{rule:?}: {} steps: {problem}", steps.len());
    }
}
