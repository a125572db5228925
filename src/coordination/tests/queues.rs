//! What commands do with queues, one by one. The simulator checks what they do together.

mod log;

use crossdock_coordination::answer::{Enqueued, Placed};
use crossdock_coordination::command::{
    Dead, Enqueue, Fate, HeldSlot, Join, Leave, NewMessage, Purge, Retry, Settle, Settlement, TakeDead, Yield,
};
use crossdock_coordination::{Event, Operation, Outcome, Refusal, SessionId, Token, View, limits};

use self::log::{Log, done};

fn message(key: &str) -> NewMessage {
    NewMessage { key: key.to_owned(), payload: "text".into(), ..NewMessage::default() }
}

fn enqueue(log: &mut Log, session: u64, number: u64, messages: Vec<NewMessage>) -> Vec<Placed> {
    let queue = "jobs".to_owned();
    match log.execute(Operation::Enqueue(Enqueue { session, number, queue, messages })) {
        Outcome::Enqueued(Enqueued { messages }) => messages,
        outcome => panic!("{outcome:?}"),
    }
}

fn join(log: &mut Log, session: u64) {
    assert_eq!(log.execute(Operation::Join(Join { session, queue: "jobs".to_owned() })), done());
}

/// What can be delivered, with the tokens of the slots: key, position and attempts.
fn deliverable(view: &View) -> Vec<(Token, String, u64, u32)> {
    let Some(queue) = view.queues.get("jobs") else { return Vec::new() };
    let of_slot = |(slot, state): (u32, crossdock_coordination::Slot)| {
        let token = state.holder.map_or(Token(0), |(_, token)| token);
        queue
            .deliverable(slot)
            .map(move |(place, message)| (token, place.key.to_string(), place.position, message.attempts))
    };
    let mut found: Vec<_> = queue.slots().iter().flat_map(of_slot).collect();
    found.sort_unstable_by_key(|(_, _, position, _)| *position);
    found
}

/// Settles everything that can be delivered; the positions.
fn settle(log: &mut Log, session: u64, fate: &Fate) -> Vec<u64> {
    let deliverable = deliverable(&log.state.view());
    let settlements = deliverable.iter().map(|(token, key, position, attempts)| {
        let (key, position, attempts, token) = (key.clone(), *position, *attempts, token.0);
        Settlement { key, position, attempts, token, fate: Some(fate.clone()) }
    });
    let settlements = settlements.collect();
    let settle = Settle { session, queue: "jobs".to_owned(), settlements };
    let outcome = log.execute(Operation::Settle(settle));
    assert!(matches!(&outcome, Outcome::Settled(settled) if settled.refused.is_empty()), "{outcome:?}");
    deliverable.into_iter().map(|(_, _, position, _)| position).collect()
}

#[test]
fn messages_of_a_key_are_delivered_one_after_another() {
    let mut log = Log::new();
    let session = log.session(60_000);
    let messages = ["a", "b", "a", "", "", "a"].map(message);
    let placed = enqueue(&mut log, session, 1, messages.to_vec());
    assert_eq!(placed.iter().map(|placed| placed.position).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    join(&mut log, session);
    let done = Fate::Done(Vec::new().into());
    assert_eq!(settle(&mut log, session, &done), [1, 2, 4, 5]);
    assert_eq!(settle(&mut log, session, &Fate::Retry(Retry { delay_ms: 500, is_failure: true })), [3]);
    assert_eq!(settle(&mut log, session, &done), [0; 0], "the message waits, and so does the one behind it");
    log.pass(500);
    assert_eq!(settle(&mut log, session, &Fate::Retry(Retry { delay_ms: 0, is_failure: false })), [3]);
    assert_eq!(deliverable(&log.state.view())[0].3, 2, "it was attempted twice");
    assert_eq!(settle(&mut log, session, &Fate::Dead(Dead { reason: "no".to_owned(), ..Dead::default() })), [3]);
    assert_eq!(settle(&mut log, session, &done), [6]);
    let replay = TakeDead { queue: "jobs".to_owned(), positions: vec![3, 4], is_replayed: true };
    assert_eq!(log.execute(Operation::TakeDead(replay)), Outcome::Removed(1));
    assert_eq!(settle(&mut log, session, &done), [7]);
    let leave = Leave { session, queue: "jobs".to_owned() };
    log.execute(Operation::Leave(leave));
    let view = log.state.view();
    let slots = view.queues.get("jobs").expect("slots to give back").slots();
    let slots = slots.held_by(SessionId(session)).map(|(slot, token)| HeldSlot { slot, token: token.0 }).collect();
    log.execute(Operation::Yield(Yield { session, queue: "jobs".to_owned(), slots }));
    assert!(log.state.view().queues.is_empty());
    assert_eq!(log.state.view().queues.bytes(), 0);
}

#[test]
fn a_delayed_message_takes_its_place_when_it_is_due() {
    let mut log = Log::new();
    let session = log.session(60_000);
    let delayed = NewMessage { delay_ms: 1_000, ..message("a") };
    enqueue(&mut log, session, 1, vec![delayed, message("a")]);
    join(&mut log, session);
    assert_eq!(settle(&mut log, session, &Fate::Done(Vec::new().into())), [2]);
    log.pass(999);
    assert_eq!(deliverable(&log.state.view()), []);
    log.pass(1);
    assert_eq!(settle(&mut log, session, &Fate::Done(Vec::new().into())), [3]);
}

#[test]
fn duplicates_are_recognized_within_their_window() {
    let mut log = Log::new();
    let session = log.session(60_000);
    let with_id = || vec![NewMessage { id: "42".to_owned(), window_ms: 1_000, digest: 7, ..message("a") }];
    let placed = |position, is_duplicate| {
        let digest = if is_duplicate { 7 } else { 0 };
        vec![Placed { position, is_duplicate, refusal: None, digest }]
    };
    assert_eq!(enqueue(&mut log, session, 1, with_id()), placed(1, false));
    join(&mut log, session);
    settle(&mut log, session, &Fate::Done(Vec::new().into()));
    assert_eq!(enqueue(&mut log, session, 2, with_id()), placed(1, true), "it was settled, and is remembered");
    assert_eq!(enqueue(&mut log, session, 2, with_id()), placed(1, true));
    log.pass(1_000);
    assert_eq!(enqueue(&mut log, session, 3, with_id()), placed(2, false));
    assert_eq!(enqueue(&mut log, session, 3, with_id()), placed(2, false), "the command is repeated");
    let queue = "jobs".to_owned();
    let earlier = Enqueue { session, number: 2, queue, messages: with_id() };
    assert_eq!(log.execute(Operation::Enqueue(earlier)), Outcome::from(Refusal::Finished));
}

#[test]
fn a_slot_moves_only_once_it_is_given_back_or_its_session_has_ended() {
    let mut log = Log::new();
    let (first, second) = (log.session(1_000), log.session(60_000));
    join(&mut log, first);
    log.state.take_events();
    join(&mut log, second);
    let recalled = log.state.take_events();
    assert_eq!(recalled.len(), limits::SLOTS as usize / 2);
    assert!(recalled.iter().all(|event| matches!(event, Event::SlotRecalled(of) if of.session == SessionId(first))));
    let held = |log: &Log, session| {
        let view = log.state.view();
        view.queues.get("jobs").map_or(0, |queue| queue.slots().held_by(SessionId(session)).count())
    };
    assert_eq!((held(&log, first), held(&log, second)), (64, 0));
    log.pass(1_000);
    assert_eq!((held(&log, first), held(&log, second)), (0, 64));
}

#[test]
fn a_full_queue_refuses_messages_and_harms_no_other_one() {
    let mut log = Log::new();
    let session = log.session(60_000);
    let large = || NewMessage { payload: vec![1; limits::MESSAGE_BYTES_MAX].into(), ..message("a") };
    let mut number = 0;
    let refused = loop {
        number += 1;
        let placed = enqueue(&mut log, session, number, vec![large()]);
        if placed[0].refusal.is_some() {
            break placed[0].refusal;
        }
    };
    assert_eq!(refused, Some(Refusal::Full.into()));
    assert!(log.state.view().queues.bytes() <= limits::QUEUE_BYTES_MAX);
    let queue = "mails".to_owned();
    let outcome = log.execute(Operation::Enqueue(Enqueue { session, number: 1, queue, messages: vec![large()] }));
    assert!(matches!(&outcome, Outcome::Enqueued(answer) if answer.messages[0].refusal.is_none()), "{outcome:?}");
    let too_large = NewMessage { payload: vec![1; limits::MESSAGE_BYTES_MAX + 1].into(), ..message("a") };
    let placed = enqueue(&mut log, session, number + 1, vec![too_large, message("b")]);
    assert_eq!(placed[0].refusal, Some(Refusal::Invalid.into()));
    assert_eq!(placed[1].refusal, None, "a message that is refused does not harm its neighbour");
    let mut purged = 0;
    loop {
        match log.execute(Operation::Purge(Purge { queue: "jobs".to_owned(), count: 50 })) {
            Outcome::Removed(0) => break,
            Outcome::Removed(count) => purged += count,
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(purged, number);
    assert!(log.state.view().queues.get("jobs").is_none());
}
