//! What commands do, one by one. The simulator checks what they do together.

mod log;

use crossdock_coordination::command::{
    Acquire, Break, Claim, CloseSession, Command, Downgrade, Guard, KeepAlive, OpenSession, Revoke, TakeNumbers, Tick,
};
use crossdock_coordination::{
    Answer, EndReason, Event, Mode, Operation, Outcome, Refusal, Request, RequestId, SessionId, Token, limits,
};
use crossdock_zab::{Epoch, Zxid};
use prost::Message as _;

use self::log::{Log, done};

fn claim(lock: &str, mode: Mode) -> Claim {
    Claim { lock: lock.to_owned(), mode: Some(mode.to_command()) }
}

fn of(session: u64, number: u64, claims: Vec<Claim>) -> Acquire {
    Acquire { session, number, claims, ..Acquire::default() }
}

fn id(session: u64, number: u64) -> RequestId {
    RequestId { session: SessionId(session), number }
}

#[test]
fn waiting_requests_are_granted_in_their_order() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let outcome = log.acquire(of(session, 1, vec![claim("stock", Mode::Exclusive)]));
    assert!(log.is_grant(&outcome), "{outcome:?}");
    for (number, mode) in [(2, Mode::Shared), (3, Mode::Shared), (4, Mode::Exclusive), (5, Mode::Shared)] {
        let outcome = log.acquire(of(session, number, vec![claim("stock", mode)]));
        assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
    }
    log.state.take_events();
    log.release(session, 1);
    let token = Token(log.last());
    let granted = [2, 3].map(|number| Event::Granted(id(session, number), token));
    let ended = Event::Ended(id(session, 1), EndReason::Released);
    assert_eq!(log.state.take_events(), [&[ended], &granted[..]].concat());
    log.release(session, 2);
    log.release(session, 3);
    let view = log.state.view();
    let holders: Vec<_> = view.locks.get("stock").expect("a lock").holders().collect();
    assert_eq!(holders, [(id(session, 4), Mode::Exclusive)]);
}

#[test]
fn several_locks_are_held_together_or_not_at_all() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let both = vec![claim("a", Mode::Exclusive), claim("b", Mode::Exclusive)];
    log.acquire(of(session, 1, vec![claim("b", Mode::Exclusive)]));
    assert!(matches!(log.acquire(of(session, 2, both)), Outcome::Waiting(_)));
    let behind = log.acquire(of(session, 3, vec![claim("a", Mode::Exclusive)]));
    assert!(matches!(behind, Outcome::Waiting(_)), "it would delay a request that has waited longer: {behind:?}");
    log.release(session, 1);
    let view = log.state.view();
    assert_eq!(view.locks.request(id(session, 2)).and_then(Request::token), Some(Token(log.last())));
    assert_eq!(view.locks.request(id(session, 3)).and_then(Request::token), None);
}

#[test]
fn a_semaphore_has_as_many_holders_as_permits() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let permit = |number| Acquire { wait_ms: Some(0), ..of(session, number, vec![claim("p", Mode::Permit { of: 2 })]) };
    assert!(matches!(log.acquire(permit(1)), Outcome::Granted(_)));
    assert!(matches!(log.acquire(permit(2)), Outcome::Granted(_)));
    assert_eq!(log.acquire(permit(3)), Refusal::NotAvailable.into());
    let other = log.acquire(of(session, 4, vec![claim("p", Mode::Permit { of: 3 })]));
    assert_eq!(other, Refusal::OtherKind.into());
    log.release(session, 1);
    assert!(matches!(log.acquire(permit(5)), Outcome::Granted(_)));
}

#[test]
fn an_owner_may_enter_its_lock_again() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let entering = |number, owner: &str, mode| Acquire {
        owner: owner.to_owned(),
        reentrant: true,
        ..of(session, number, vec![claim("a", mode)])
    };
    let first = log.acquire(entering(1, "one", Mode::Exclusive));
    assert!(matches!(log.acquire(entering(2, "two", Mode::Exclusive)), Outcome::Waiting(_)), "another owner waits");
    assert_eq!(log.acquire(entering(3, "one", Mode::Exclusive)), first, "with the same token");
    log.release(session, 1);
    assert_eq!(log.state.view().locks.request(id(session, 2)).and_then(Request::token), None);
    log.release(session, 3);
    assert!(log.state.view().locks.request(id(session, 2)).and_then(Request::token).is_some());
    log.release(session, 2);
    log.acquire(entering(4, "one", Mode::Shared));
    assert_eq!(log.acquire(entering(5, "one", Mode::Exclusive)), Refusal::Deadlock.into());
}

#[test]
fn a_session_that_is_not_kept_alive_loses_its_locks() {
    let mut log = Log::new();
    let (first, second) = (log.session(1_000), log.session(5_000));
    let with_delay = Acquire { delay_ms: 500, ..of(first, 1, vec![claim("a", Mode::Exclusive)]) };
    log.acquire(with_delay);
    log.acquire(of(second, 1, vec![claim("a", Mode::Exclusive)]));
    log.pass(900);
    let keep_alive = Operation::KeepAlive(KeepAlive { sessions: vec![first, 77] });
    let Outcome::Unknown(unknown) = log.execute(keep_alive) else { panic!("an answer") };
    assert_eq!(unknown.sessions, [77]);
    log.pass(900);
    assert!(log.state.view().sessions.get(SessionId(first)).is_some());
    log.state.take_events();
    log.pass(100);
    let ended = Event::Ended(id(first, 1), EndReason::SessionExpired);
    assert_eq!(log.state.take_events(), [ended, Event::SessionEnded(SessionId(first))]);
    log.pass(499);
    assert_eq!(log.state.take_events(), [], "the lock is closed for a while");
    log.pass(1);
    assert_eq!(log.state.take_events(), [Event::Granted(id(second, 1), Token(log.last()))]);
    assert_eq!(log.acquire(of(first, 2, vec![claim("b", Mode::Shared)])), Refusal::NoSession.into());
}

#[test]
fn requests_end_after_their_time() {
    let mut log = Log::new();
    let session = log.session(60_000);
    log.acquire(Acquire { hold_ms: Some(1_000), ..of(session, 1, vec![claim("a", Mode::Exclusive)]) });
    log.acquire(Acquire { wait_ms: Some(300), ..of(session, 2, vec![claim("a", Mode::Exclusive)]) });
    log.acquire(of(session, 3, vec![claim("a", Mode::Exclusive)]));
    log.state.take_events();
    log.pass(300);
    assert_eq!(log.state.take_events(), [Event::Ended(id(session, 2), EndReason::TimedOut)]);
    log.pass(700);
    let events = log.state.take_events();
    assert_eq!(events[0], Event::Ended(id(session, 1), EndReason::HoldExpired));
    assert_eq!(events[1..], [Event::Granted(id(session, 3), Token(log.last()))]);
}

#[test]
fn a_number_is_used_once() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let first = of(session, 7, vec![claim("a", Mode::Exclusive)]);
    let granted = log.acquire(first.clone());
    assert_eq!(log.acquire(first.clone()), granted, "it is the same request");
    assert_eq!(log.acquire(of(session, 7, vec![claim("b", Mode::Exclusive)])), Refusal::Reused.into());
    assert_eq!(log.acquire(of(session, 7, vec![claim("a", Mode::Shared)])), Refusal::Reused.into());
    log.release(session, 7);
    assert_eq!(log.acquire(first), Refusal::Finished.into());
    log.release(session, 8);
    assert_eq!(
        log.acquire(of(session, 8, vec![claim("a", Mode::Shared)])),
        Refusal::Finished.into(),
        "cancelled before"
    );
    assert_eq!(log.acquire(of(session, 0, vec![claim("a", Mode::Shared)])), Refusal::Invalid.into());
}

#[test]
fn locks_are_revoked_broken_and_stolen() {
    let mut log = Log::new();
    let (first, second) = (log.session(60_000), log.session(60_000));
    log.acquire(of(first, 1, vec![claim("a", Mode::Exclusive)]));
    log.acquire(of(first, 2, vec![claim("a", Mode::Exclusive)]));
    log.state.take_events();
    let revoke = Revoke { lock: "a".to_owned(), reason: "maintenance".to_owned() };
    assert_eq!(log.execute(Operation::Revoke(revoke)), Outcome::Holders(1));
    assert_eq!(log.state.take_events(), [Event::Revoked(id(first, 1), "maintenance".into())], "the holder decides");
    let steal = Acquire { steal: Some("night shift".to_owned()), ..of(second, 1, vec![claim("a", Mode::Exclusive)]) };
    let outcome = log.acquire(steal);
    assert!(log.is_grant(&outcome), "ahead of those that wait: {outcome:?}");
    let events = log.state.take_events();
    assert_eq!(events[0], Event::Ended(id(first, 1), EndReason::Broken("night shift".into())));
    let broken = Break { lock: "a".to_owned(), reason: "again".to_owned() };
    assert_eq!(log.execute(Operation::Break(broken)), Outcome::Holders(1));
    let view = log.state.view();
    assert_eq!(view.locks.request(id(first, 2)).and_then(Request::token), Some(Token(log.last())));
    let reasons: Vec<_> = view.locks.broken().map(|(_, broken)| broken.reason.to_string()).collect();
    assert_eq!(reasons, ["night shift", "again"]);
}

#[test]
fn a_downgraded_lock_is_shared_with_the_same_token() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let granted = log.acquire(of(session, 1, vec![claim("a", Mode::Exclusive)]));
    log.acquire(of(session, 2, vec![claim("a", Mode::Shared)]));
    let downgrade = |number| Operation::Downgrade(Downgrade { session, number });
    assert_eq!(log.execute(downgrade(2)), Refusal::NotHeld.into());
    assert_eq!(log.execute(downgrade(1)), done());
    let view = log.state.view();
    let token = |number| view.locks.request(id(session, number)).and_then(Request::token);
    assert_eq!(Outcome::Granted(crossdock_coordination::answer::Granted { token: token(1).expect("held").0 }), granted);
    assert_eq!(token(2), Some(Token(log.last())));
}

#[test]
fn a_guarded_command_needs_the_lock() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let Outcome::Granted(granted) =
        log.acquire(Acquire { hold_ms: Some(1_000), ..of(session, 1, vec![claim("a", Mode::Exclusive)]) })
    else {
        panic!("a grant")
    };
    let guarded = |token| Command {
        guards: vec![Guard { lock: "a".to_owned(), token }],
        operation: Some(Operation::TakeNumbers(TakeNumbers { sequence: "orders".to_owned(), count: 5 })),
    };
    assert_eq!(log.run(&guarded(granted.token)), Outcome::FirstNumber(1));
    assert_eq!(log.run(&guarded(granted.token + 1)), Refusal::Fenced.into());
    assert_eq!(log.run(&guarded(granted.token)), Outcome::FirstNumber(6));
    log.time += 1_000;
    assert_eq!(log.run(&guarded(granted.token)), Refusal::Fenced.into(), "its time is over, before the tick");
    assert_eq!(log.state.view().sequences.last("orders"), 10);
}

#[test]
fn a_sequence_ends_before_it_repeats() {
    let mut log = Log::new();
    let take = |count| Operation::TakeNumbers(TakeNumbers { sequence: "orders".to_owned(), count });
    for (at, expected) in [(0, 1), (1, 1_000_001)] {
        assert_eq!(log.execute(take(limits::NUMBERS_MAX)), Outcome::FirstNumber(expected), "{at}");
    }
    assert_eq!(log.execute(take(0)), Refusal::Invalid.into());
    assert_eq!(log.execute(take(limits::NUMBERS_MAX + 1)), Refusal::Invalid.into());
}

#[test]
fn what_exceeds_a_limit_is_refused() {
    let mut log = Log::new();
    let session = log.session(10_000);
    let open = |ttl_ms| Operation::OpenSession(OpenSession { ttl_ms, label: String::new() });
    for ttl_ms in [0, 99, limits::TTL_MS.end() + 1, u64::MAX] {
        assert_eq!(log.execute(open(ttl_ms)), Refusal::Invalid.into(), "{ttl_ms}");
    }
    let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
    let one = |name: &str| vec![claim(name, Mode::Exclusive)];
    let many = (0..=limits::CLAIMS_MAX).map(|at| claim(&at.to_string(), Mode::Shared)).collect();
    let cases = [
        of(session, 1, Vec::new()),
        of(session, 1, one("")),
        of(session, 1, one(&long)),
        of(session, 1, many),
        of(session, 1, vec![claim("a", Mode::Shared), claim("a", Mode::Exclusive)]),
        of(session, 1, vec![Claim { lock: "a".to_owned(), mode: None }]),
        of(session, 1, vec![claim("a", Mode::Permit { of: 0 })]),
        of(session, 1, vec![claim("a", Mode::Permit { of: limits::PERMITS_MAX + 1 })]),
        Acquire { wait_ms: Some(limits::WAIT_MS_MAX + 1), ..of(session, 1, one("a")) },
        Acquire { hold_ms: Some(0), ..of(session, 1, one("a")) },
        Acquire { hold_ms: Some(u64::MAX), ..of(session, 1, one("a")) },
        Acquire { delay_ms: u64::MAX, ..of(session, 1, one("a")) },
        Acquire { owner: long.clone(), ..of(session, 1, one("a")) },
        Acquire { steal: Some(long.clone()), ..of(session, 1, one("a")) },
        Acquire { metadata: "x".repeat(limits::METADATA_BYTES_MAX + 1), ..of(session, 1, one("a")) },
        Acquire { reentrant: true, ..of(session, 1, vec![claim("a", Mode::Permit { of: 2 })]) },
    ];
    for case in cases {
        assert_eq!(log.acquire(case.clone()), Refusal::Invalid.into(), "{case:?}");
    }
    for number in 1..=limits::SESSION_REQUESTS_MAX as u64 {
        assert!(matches!(log.acquire(of(session, number, vec![claim("a", Mode::Shared)])), Outcome::Granted(_)));
    }
    let number = limits::SESSION_REQUESTS_MAX as u64 + 1;
    assert_eq!(log.acquire(of(session, number, vec![claim("a", Mode::Shared)])), Refusal::TooMany.into());
    assert_eq!(log.execute(Operation::CloseSession(CloseSession { session })), done());
    assert_eq!(log.state.view().locks.iter().count(), 0);
}

#[test]
fn unreadable_commands_are_refused() {
    let mut log = Log::new();
    assert_eq!(log.run(&Command::default()), Refusal::Unreadable.into());
    let Answer { outcome } = log.state.apply(Zxid::new(Epoch(1), 9), 0, vec![0xff; 9].into());
    assert_eq!(outcome, Some(Refusal::Unreadable.into()));
}

#[test]
fn one_tick_does_not_let_everything_expire() {
    let mut log = Log::new();
    for _ in 0..limits::EXPIRED_MAX + 10 {
        log.session(1_000);
    }
    log.time += 1_000;
    log.execute(Operation::Tick(Tick { epoch: 1 }));
    let view = log.state.view();
    assert_eq!(view.sessions.len(), 10);
    assert!(view.next_expiry.is_some_and(|next| next <= view.clock.now()), "the leader sees that more is due");
    log.execute(Operation::Tick(Tick { epoch: 1 }));
    assert!(log.state.view().sessions.is_empty());
}

#[test]
fn a_lock_with_many_holders_can_be_broken_and_saved() {
    let mut log = Log::new();
    for session in 0..2 {
        let session = log.session(limits::TTL_MS.end() - session);
        for number in 1..=limits::SESSION_REQUESTS_MAX as u64 {
            log.acquire(of(session, number, vec![claim("a", Mode::Shared)]));
        }
    }
    let broken = Break { lock: "a".to_owned(), reason: "test".to_owned() };
    assert_eq!(log.execute(Operation::Break(broken)), Outcome::Holders(20_000));
    let longest = log.state.view().save().map(|part| part.encoded_len()).max();
    assert!(longest < Some(100_000), "a part of the saved state has {longest:?} bytes");
    let view = log.state.view();
    let (_, broken) = view.locks.broken().next().expect("a broken lock");
    assert_eq!((broken.count, broken.holders.len()), (20_000, limits::BROKEN_HOLDERS_MAX));
}

#[test]
fn a_tick_ends_a_limited_number_of_requests() {
    let mut log = Log::new();
    for _ in 0..4 {
        let session = log.session(1_000);
        for number in 1..=600 {
            log.acquire(of(session, number, vec![claim(&format!("{session}/{number}"), Mode::Exclusive)]));
        }
    }
    log.time += 1_000;
    log.execute(Operation::Tick(Tick { epoch: 1 }));
    assert_eq!(log.state.view().locks.requests_len(), 1_200, "two of four sessions have ended");
    log.execute(Operation::Tick(Tick { epoch: 1 }));
    assert_eq!(log.state.view().locks.requests_len(), 0);
}

#[test]
fn a_lock_has_a_limited_number_of_waiters() {
    let mut log = Log::new();
    let (first, second) = (log.session(60_000), log.session(60_000));
    for number in 1..=limits::SESSION_REQUESTS_MAX as u64 {
        log.acquire(of(first, number, vec![claim("a", Mode::Exclusive)]));
    }
    let outcome = log.acquire(of(second, 1, vec![claim("a", Mode::Exclusive)]));
    assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
    let outcome = log.acquire(of(second, 2, vec![claim("a", Mode::Exclusive)]));
    assert_eq!(outcome, Refusal::TooMany.into());
}

#[test]
fn an_owner_does_not_enter_a_lock_again_after_its_time() {
    let mut log = Log::new();
    let session = log.session(60_000);
    let entering = |number| Acquire {
        hold_ms: Some(100),
        reentrant: true,
        ..of(session, number, vec![claim("a", Mode::Exclusive)])
    };
    log.acquire(entering(1));
    log.time += 150;
    let outcome = log.acquire(entering(2));
    assert!(matches!(outcome, Outcome::Waiting(_)), "before the tick: {outcome:?}");
    log.pass(1);
    assert_eq!(log.state.view().locks.request(id(session, 2)).and_then(Request::token), Some(Token(log.last())));
}
