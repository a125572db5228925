//! Results of processed messages, one command after another. The simulator checks them against a model.

mod log;

use crossdock_coordination::command::{Acquire, Claim, Release, Remember};
use crossdock_coordination::{Coordination, Event, Mode, Operation, Outcome, Refusal, limits};

use self::log::{Log, done};

fn exclusive(lock: &str) -> Claim {
    Claim { lock: lock.to_owned(), mode: Some(Mode::Exclusive.to_command()) }
}

/// Holds a lock with this request.
fn hold(log: &mut Log, session: u64, number: u64) {
    let claims = vec![exclusive("once")];
    let outcome = log.acquire(Acquire { session, number, claims, wait_ms: Some(0), ..Acquire::default() });
    assert!(matches!(outcome, Outcome::Granted(_)), "{outcome:?}");
}

fn of(session: u64, number: u64, key: &str) -> Remember {
    let (group, key) = ("orders".to_owned(), key.to_owned());
    let result = format!("result of {key}").into();
    Remember { session, number, group, key, digest: 7, window_ms: 5_000, keys_max: 100, result }
}

fn remember(log: &mut Log, command: Remember) -> Outcome {
    log.execute(Operation::Remember(command))
}

fn known(state: &Coordination, key: &str) -> Option<(u64, Vec<u8>)> {
    let view = state.view();
    view.results.get("orders", key, view.clock.now()).map(|found| (found.digest, found.result.to_vec()))
}

#[test]
fn a_result_is_stored_by_who_holds_the_lock_and_releases_it() {
    let mut log = Log::new();
    let (first, second) = (log.session(60_000), log.session(60_000));
    assert_eq!(remember(&mut log, of(first, 1, "a")), Refusal::NotHeld.into());
    hold(&mut log, first, 1);
    assert_eq!(remember(&mut log, of(second, 1, "a")), Refusal::NotHeld.into(), "the request of another session");
    assert_eq!(remember(&mut log, of(first, 1, "a")), done());
    assert_eq!(known(&log.state, "a"), Some((7, b"result of a".to_vec())));
    assert_eq!(known(&log.state, "b"), None);
    assert_eq!(remember(&mut log, of(first, 1, "a")), done(), "it is repeated");
    hold(&mut log, second, 1);
    log.execute(Operation::Release(Release { session: second, number: 1, attempt: 0 }));
    assert_eq!(remember(&mut log, of(second, 1, "a")), Refusal::NotHeld.into(), "it was released");
    assert_eq!(remember(&mut log, of(second + 9, 1, "a")), Refusal::NoSession.into());
}

#[test]
fn who_waits_for_the_lock_is_granted_it_with_the_result() {
    let mut log = Log::new();
    let (first, second) = (log.session(60_000), log.session(60_000));
    hold(&mut log, first, 1);
    let claims = vec![exclusive("once")];
    let waits = Acquire { session: second, number: 1, claims, wait_ms: None, ..Acquire::default() };
    assert!(matches!(log.acquire(waits.clone()), Outcome::Waiting(_)));
    log.state.take_events();
    assert_eq!(remember(&mut log, of(first, 1, "a")), done());
    let events = log.state.take_events();
    assert!(events.iter().any(|event| matches!(event, Event::Granted(id, _) if id.session.0 == second)));
    assert!(known(&log.state, "a").is_some());
}

#[test]
fn a_holder_that_lost_its_lock_stores_nothing() {
    let mut log = Log::new();
    let session = log.session(60_000);
    let claims = vec![exclusive("once")];
    log.acquire(Acquire { session, number: 1, claims, hold_ms: Some(100), ..Acquire::default() });
    log.time += 200;
    assert_eq!(
        remember(&mut log, of(session, 1, "a")),
        Refusal::NotHeld.into(),
        "its time is over, before the tick says so"
    );
    assert_eq!(known(&log.state, "a"), None);
}

#[test]
fn results_are_forgotten_after_their_window_and_the_oldest_beyond_the_limit() {
    let mut log = Log::new();
    let session = log.session(86_400_000);
    for number in 1..=4 {
        hold(&mut log, session, number);
        let command = Remember { keys_max: 3, ..of(session, number, &format!("key {number}")) };
        assert_eq!(remember(&mut log, command), done());
        log.pass(1_000);
    }
    assert_eq!(known(&log.state, "key 1"), None, "the fourth took its place");
    assert!((2..=4).all(|number| known(&log.state, &format!("key {number}")).is_some()));
    log.pass(1_999);
    assert!(known(&log.state, "key 2").is_some());
    log.pass(1);
    assert!(known(&log.state, "key 2").is_none() && known(&log.state, "key 3").is_some());
    log.pass(5_000);
    let view = log.state.view();
    assert_eq!((view.results.iter().count(), view.results.bytes()), (0, 0));
}

#[test]
fn results_are_limited() {
    let mut log = Log::new();
    let session = log.session(86_400_000);
    hold(&mut log, session, 1);
    for invalid in [
        Remember { group: String::new(), ..of(session, 1, "a") },
        Remember { group: "x".repeat(256), ..of(session, 1, "a") },
        of(session, 1, ""),
        of(session, 1, &"x".repeat(513)),
        Remember { window_ms: 0, ..of(session, 1, "a") },
        Remember { window_ms: limits::WINDOW_MS_MAX + 1, ..of(session, 1, "a") },
        Remember { keys_max: 0, ..of(session, 1, "a") },
        Remember { result: vec![0; limits::RESULT_BYTES_MAX + 1].into(), ..of(session, 1, "a") },
    ] {
        assert_eq!(remember(&mut log, invalid), Refusal::Invalid.into());
    }
    assert_eq!(remember(&mut log, of(session, 1, "a")), done(), "the lock was kept");
    // Of one group, they stay below its limit; of all groups, a new one is refused.
    let result = vec![0; limits::RESULT_BYTES_MAX];
    let mut number = 1;
    let mut fill = |log: &mut Log, group: &str, count: usize| {
        (0..count)
            .map(|key| {
                number += 1;
                hold(log, session, number);
                let command = of(session, number, &key.to_string());
                let outcome = remember(
                    log,
                    Remember { group: group.to_owned(), result: result.clone().into(), keys_max: 2_000, ..command },
                );
                log.release(session, number);
                outcome
            })
            .filter(|outcome| *outcome == Refusal::Full.into())
            .count()
    };
    assert_eq!(fill(&mut log, "first", 1_200), 0);
    let size = |log: &Log, group: &str| {
        log.state.view().results.iter().find(|(name, _)| *name == group).map(|(_, of)| of.bytes())
    };
    assert!(size(&log, "first").is_some_and(|bytes| bytes <= limits::RESULT_GROUP_BYTES_MAX));
    assert_eq!(["second", "third", "fourth"].map(|group| fill(&mut log, group, 1_200)), [0; 3]);
    assert!(fill(&mut log, "fifth", 1_200) > 0, "there is no room for another full group");
    assert!(log.state.view().results.bytes() <= limits::RESULTS_BYTES_MAX);
}

#[test]
fn results_survive_a_snapshot() {
    let mut log = Log::new();
    let session = log.session(60_000);
    for (number, key) in [(1, "a"), (2, "b")] {
        hold(&mut log, session, number);
        assert_eq!(remember(&mut log, of(session, number, key)), done());
        log.pass(10);
    }
    let saved: Vec<_> = log.state.view().save().collect();
    let mut restored = Coordination::default();
    for part in saved.clone() {
        restored.restore(part).expect("a part");
    }
    assert_eq!(restored.view().save().collect::<Vec<_>>(), saved);
    assert_eq!(restored.view().results.bytes(), log.state.view().results.bytes());
    log.state = restored;
    assert_eq!(remember(&mut log, of(session, 2, "b")), done(), "it is repeated");
    log.pass(5_000);
    assert_eq!((known(&log.state, "a"), known(&log.state, "b")), (None, None));
}
