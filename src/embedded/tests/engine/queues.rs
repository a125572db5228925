//! Queues on real instances.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossdock_coordination::{Message, Place, Token};
use crossdock_embedded::{Delivery, Engine, EnqueueError, NewMessage, SettleError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::Cluster;
use crate::{LONG, in_time};

fn message(key: &str, text: &str) -> NewMessage {
    NewMessage { key: key.to_owned(), payload: text.to_owned().into(), ..NewMessage::default() }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().payload.to_vec()).expect("text")
}

/// A service that remembers what it received, by key. It rejects lower tokens than those that it has seen.
#[derive(Debug, Clone, Default)]
struct Service(Arc<Mutex<HashMap<String, (Token, Vec<u64>)>>>);

impl Service {
    fn receive(&self, delivery: &Delivery) {
        let number = text(delivery).parse().expect("a number");
        let (token, key) = (delivery.validity().token(), delivery.place().key.to_string());
        let mut received = self.0.lock().expect("no panic");
        let (highest, numbers) = received.entry(key).or_insert((token, Vec::new()));
        if token >= *highest {
            *highest = token;
            numbers.push(number);
        }
    }

    fn of(&self, key: &str) -> Vec<u64> {
        self.0.lock().expect("no panic").get(key).map_or_else(Vec::new, |(_, numbers)| numbers.clone())
    }
}

/// Consumes a queue on an instance until it ends.
async fn consume(engine: Engine, service: Service) {
    let consumer = engine.consume("jobs");
    let mut processing = JoinSet::new();
    while let Some(delivery) = consumer.next().await {
        let service = service.clone();
        processing.spawn(async move {
            service.receive(&delivery);
            let attempts = delivery.message().attempts;
            // Some messages are delivered again.
            let _ = if attempts == 0 && text(&delivery).ends_with('7') {
                delivery.retry(Duration::from_millis(5), true).await
            } else {
                delivery.done(Vec::new().into()).await
            };
        });
    }
}

/// The numbers that were added for certain, and those that may have been.
#[derive(Debug, Default)]
struct Produced {
    known: Vec<u64>,
    unknown: Vec<u64>,
}

/// Adds messages of a key one after another.
async fn produce(engines: Vec<Engine>, key: String, count: u64) -> (String, Produced) {
    let mut produced = Produced::default();
    for number in 1..=count {
        let engine = &engines[usize::try_from(number).expect("small") % engines.len()];
        match engine.enqueue("jobs", message(&key, &number.to_string())).await {
            Ok(_) => produced.known.push(number),
            Err(EnqueueError::Unknown(_)) => produced.unknown.push(number),
            Err(EnqueueError::NotConnected | EnqueueError::Refused(_)) => sleep(Duration::from_millis(50)).await,
        }
    }
    (key, produced)
}

async fn until_empty(engine: &Engine) {
    let empty = async {
        while engine.read().await.map_or(true, |view| view.queues.get("jobs").is_some_and(|of| !of.is_empty())) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(LONG, empty).await.is_err() {
        let view = engine.view();
        let queue = view.queues.get("jobs").expect("a queue");
        let slots: Vec<_> = queue.slots().iter().collect();
        let of = |(place, message): (&Place, &Arc<Message>)| (place.clone(), message.attempts, message.not_before);
        let left: Vec<_> = queue.messages().take(20).map(of).collect();
        panic!("{} messages are left: {left:?}; {:?}, {slots:?}", queue.len(), queue.slots().consumers());
    }
}

/// Everything that was added was received, and in order; returns how often something was received again.
fn check(service: &Service, produced: &BTreeMap<String, Produced>) -> usize {
    let mut repeated = 0;
    for (key, Produced { known, unknown }) in produced {
        let received = service.of(key);
        let mut last = 0;
        for number in &received {
            assert!(*number >= last, "{number} of {key} after {last}: {received:?}");
            repeated += usize::from(*number == last);
            last = *number;
        }
        for number in known {
            assert!(received.contains(number), "{number} of {key} is lost: {received:?}");
        }
        let is_expected = |number: &&u64| known.contains(number) || unknown.contains(number);
        assert!(received.iter().all(|number| is_expected(&number)), "{key}: {received:?} of {known:?}");
    }
    repeated
}

#[tokio::test]
async fn a_producer_is_told_what_becomes_of_its_message() {
    let cluster = Cluster::start(3).await;
    let consumer = cluster.engine(1).consume("jobs");
    let producer = cluster.engine(0);
    let (placed, mut watch) = in_time(producer.enqueue_watched("jobs", message("a", "one"))).await.expect("a place");
    let delivery = in_time(consumer.next()).await.expect("a message");
    assert_eq!((text(&delivery).as_str(), delivery.place().position), ("one", placed.position));
    assert!(delivery.validity().holds());
    in_time(delivery.done("result".into())).await.expect("the slot is held");
    let finished = in_time(watch.finished()).await.expect("a result");
    assert_eq!((&finished.result[..], finished.is_dead), (&b"result"[..], false));

    let (_, mut watch) = in_time(producer.enqueue_watched("jobs", message("a", "two"))).await.expect("a place");
    let delivery = in_time(consumer.next()).await.expect("a message");
    drop(delivery);
    let again = in_time(consumer.next()).await.expect("a message that was dropped");
    assert_eq!((text(&again).as_str(), again.message().attempts), ("two", 1));
    in_time(again.reject("it is invalid", "why".into())).await.expect("the slot is held");
    assert!(in_time(watch.finished()).await.expect("a result").is_dead);
    let view = in_time(producer.read()).await.expect("a state");
    let letters: Vec<_> = view.queues.get("jobs").expect("a queue").dead_letters(0).collect();
    assert_eq!((letters.len(), &*letters[0].1.reason), (1, "it is invalid"));
    let replayed = in_time(producer.take_dead("jobs", vec![letters[0].0], true)).await;
    assert_eq!(replayed.expect("a majority"), 1);
    let again = in_time(consumer.next()).await.expect("a message that was replayed");
    in_time(again.done(Vec::new().into())).await.expect("the slot is held");
    cluster.stop().await;
}

#[tokio::test]
async fn a_duplicate_does_not_take_the_result_from_its_original() {
    let cluster = Cluster::start(1).await;
    let (engine, consumer) = (cluster.engine(0), cluster.engine(0).consume("jobs"));
    let numbered = || NewMessage { id: Some(("7".to_owned(), LONG)), ..message("a", "one") };
    let (original, mut watch) = in_time(engine.enqueue_watched("jobs", numbered())).await.expect("a place");
    let (duplicate, mut unwatched) = in_time(engine.enqueue_watched("jobs", numbered())).await.expect("a place");
    assert_eq!((duplicate.position, duplicate.is_duplicate()), (original.position, true));
    assert_eq!(in_time(unwatched.finished()).await, None);
    drop(unwatched);
    let delivery = in_time(consumer.next()).await.expect("a message");
    in_time(delivery.done("result".into())).await.expect("the slot is held");
    assert_eq!(&in_time(watch.finished()).await.expect("a result").result[..], b"result");
    cluster.stop().await;
}

#[tokio::test]
async fn instances_share_a_queue_and_hand_slots_over_without_repeating_anything() {
    let cluster = Cluster::start(3).await;
    let service = Service::default();
    let mut tasks = JoinSet::new();
    let engines: Vec<_> = (0..3).map(|at| cluster.engine(at)).collect();
    tasks.spawn(consume(engines[0].clone(), service.clone()));
    let mut producers = JoinSet::new();
    for key in 0..20 {
        producers.spawn(produce(engines.clone(), format!("key {key}"), 60));
    }
    let held = |state: &crossdock_embedded::State| {
        let queue = state.queues.get("jobs");
        let counts = queue.map(|queue| {
            let slots = queue.slots();
            slots.consumers().iter().map(|session| slots.held_by(*session).count()).collect::<Vec<_>>()
        });
        counts.unwrap_or_default()
    };
    cluster.until(0, |state| held(state) == [64]).await;
    tasks.spawn(consume(engines[1].clone(), service.clone()));
    cluster.until(0, |state| held(state) == [32, 32]).await;
    tasks.spawn(consume(engines[2].clone(), service.clone()));
    cluster.until(0, |state| held(state).iter().all(|count| (21..=22).contains(count))).await;
    let produced: BTreeMap<_, _> = in_time(producers.join_all()).await.into_iter().collect();
    assert!(produced.values().all(|produced| produced.unknown.is_empty() && produced.known.len() == 60));
    until_empty(&engines[0]).await;
    // Each number that ends with 7 is delivered twice, and nothing else.
    assert_eq!(check(&service, &produced), 20 * 6);
    cluster.stop().await;
    in_time(tasks.join_all()).await;
}

#[tokio::test]
async fn no_message_is_lost_or_overtaken_while_instances_die() {
    let mut cluster = Cluster::start(3).await;
    let service = Service::default();
    let mut produced = BTreeMap::new();
    let (mut repeated, begun) = (0, Instant::now());
    for round in 0..4 {
        let engines: Vec<_> = (0..3).map(|at| cluster.engine(at)).collect();
        let mut tasks = JoinSet::new();
        for engine in &engines {
            tasks.spawn(consume(engine.clone(), service.clone()));
        }
        let mut producers = JoinSet::new();
        for key in 0..10 {
            producers.spawn(produce(engines.clone(), format!("{round}: key {key}"), 80));
        }
        sleep(Duration::from_millis(60)).await;
        // The leader in every second round.
        let leader = cluster.leader().await;
        let killed = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        cluster.kill(killed);
        sleep(Duration::from_millis(200)).await;
        cluster.restart(killed).await;
        tasks.spawn(consume(cluster.engine(killed), service.clone()));
        produced.extend(in_time(producers.join_all()).await);
        until_empty(&cluster.engine((killed + 1) % 3)).await;
        repeated += check(&service, &produced);
        tasks.abort_all();
    }
    let known: usize = produced.values().map(|produced| produced.known.len()).sum();
    println!("{known} messages, {repeated} received again, {:?}", begun.elapsed());
    assert!(known > 1_000, "only {known} messages were added");
    cluster.stop().await;
}

#[tokio::test]
async fn a_delivery_is_settled_without_effect_once_its_session_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (lost, other) = (cluster.engine((leader + 1) % 3), cluster.engine(leader));
    let consumer = lost.consume("jobs");
    in_time(other.enqueue("jobs", message("a", "one"))).await.expect("a place");
    let delivery = in_time(consumer.next()).await.expect("a message");
    let validity = delivery.validity();
    let next = other.consume("jobs");
    cluster.kill((leader + 1) % 3);
    assert!(!validity.holds());
    let again = in_time(next.next()).await.expect("a message, once the session has ended");
    assert!(again.validity().token() > validity.token());
    assert_eq!(delivery.done(Vec::new().into()).await, Err(SettleError::Lost));
    in_time(again.done(Vec::new().into())).await.expect("the slot is held");
    cluster.stop().await;
}

#[tokio::test]
async fn a_consumer_that_is_opened_again_at_once_gets_what_waited() {
    const COUNT: usize = 50;
    let cluster = Cluster::start(1).await;
    let engine = cluster.engine(0);
    let first = engine.consume("jobs");
    cluster.until(0, |state| state.queues.get("jobs").is_some_and(|of| !of.slots().consumers().is_empty())).await;
    for number in 0..COUNT {
        in_time(engine.enqueue("jobs", message(&format!("key {number}"), "text"))).await.expect("a place");
    }
    let begun = in_time(first.next()).await.expect("a message");
    for _ in 0..20 {
        // The slots are given back, kept, or granted again, as it happens.
        drop(engine.consume("jobs"));
        tokio::task::yield_now().await;
    }
    drop(first);
    let second = engine.consume("jobs");
    in_time(begun.done(Vec::new().into())).await.expect("the slot is held until then");
    for _ in 1..COUNT {
        let delivery = in_time(second.next()).await.expect("a message");
        in_time(delivery.done(Vec::new().into())).await.expect("the slot is held");
    }
    until_empty(&engine).await;
    cluster.stop().await;
}

#[tokio::test]
async fn slots_without_messages_in_flight_move_before_a_consumer_has_ended() {
    let cluster = Cluster::start(2).await;
    let (leaving, staying) = (cluster.engine(0), cluster.engine(1));
    let consumer = leaving.consume("jobs");
    in_time(leaving.enqueue("jobs", message("slow", "1"))).await.expect("a place");
    let slow = in_time(consumer.next()).await.expect("a message");
    let other = staying.consume("jobs");
    drop(consumer);
    let held = |state: &crossdock_embedded::State| {
        let slots = state.queues.get("jobs").map(crossdock_coordination::Queue::slots);
        let sessions = slots.map(|slots| slots.iter().filter_map(|(_, slot)| slot.holder).map(|(session, _)| session));
        let mut counts = BTreeMap::<_, usize>::new();
        sessions.into_iter().flatten().for_each(|session| *counts.entry(session).or_default() += 1);
        counts.into_values().collect::<std::collections::BTreeSet<_>>()
    };
    cluster.until(1, |state| held(state) == [1, 63].into()).await;
    in_time(staying.enqueue("jobs", message("slow", "2"))).await.expect("a place");
    in_time(slow.done(Vec::new().into())).await.expect("the slot is held until then");
    cluster.until(1, |state| held(state) == [64].into()).await;
    assert_eq!(text(&in_time(other.next()).await.expect("a message")), "2");
    cluster.stop().await;
}

#[tokio::test]
async fn a_message_whose_caller_has_left_is_not_added_after_an_outage() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
    let engine = cluster.engine(leader);
    in_time(engine.enqueue("jobs", message("a", "before"))).await.expect("a place");
    cluster.kill(first);
    cluster.kill(second);
    for number in 0..20 {
        let adding = engine.enqueue("jobs", message("a", &number.to_string()));
        assert!(timeout(Duration::from_millis(20), adding).await.is_err(), "there is no majority");
    }
    cluster.restart(first).await;
    cluster.restart(second).await;
    in_time(async {
        while engine.enqueue("jobs", message("a", "after")).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let view = in_time(engine.read()).await.expect("a state");
    let texts = view.queues.get("jobs").into_iter().flat_map(crossdock_coordination::Queue::messages);
    let texts: Vec<_> = texts.map(|(_, message)| String::from_utf8_lossy(&message.payload).into_owned()).collect();
    // The first one was on its way.
    assert!(texts.iter().all(|text| ["before", "0", "after"].contains(&text.as_str())), "{texts:?}");
    cluster.stop().await;
}
