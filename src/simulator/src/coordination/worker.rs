//! What a client does with queues during one session: it produces messages and consumes them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crossdock_coordination::command::{
    Command, Dead, Enqueue, Fate, HeldSlot, Join, Leave, NewMessage, Retry, Settle, Settlement, Yield,
};
use crossdock_coordination::event::{Ready, SlotOf};
use crossdock_coordination::{Event, Message, Operation, Outcome, Place, SessionId, Token, View};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::client::{Sent, of};

/// The names of the queues.
pub(super) const QUEUES: [&str; 2] = ["jobs", "mails"];
const KEYS: [&str; 4] = ["", "k1", "k2", "k3"];
const IDS: [&str; 3] = ["i1", "i2", "i3"];
/// What was not answered is sent again after this time.
const REPEAT_MS: u64 = 800;

/// A slot that is held.
#[derive(Debug, Clone, Copy)]
struct Held {
    token: Token,
    is_recalled: bool,
    /// When it was last given back.
    given_back: Option<u64>,
}

#[derive(Debug, Clone)]
enum Phase {
    Waiting,
    /// It is processed until then.
    Begun(u64),
    /// Its settlement was sent last at this time.
    Settling(u64, Settlement),
}

#[derive(Debug, Clone)]
struct Delivery {
    queue: String,
    place: Place,
    attempts: u32,
    token: Token,
    phase: Phase,
}

/// A message that a worker begins to process, as a service sees it.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) queue: String,
    pub(super) place: Place,
    pub(super) token: Token,
}

/// Slots, by queue and number.
type Key = (String, u32);

#[derive(Debug, Default)]
pub(super) struct Worker {
    next_number: u64,
    /// Commands that enqueue, to be sent once more.
    echo: Option<Enqueue>,
    slots: BTreeMap<Key, Held>,
    /// By position.
    deliveries: BTreeMap<u64, Delivery>,
    /// What each settlement was about: positions, attempts and tokens.
    settlements: BTreeMap<u64, Vec<(u64, u32, Token)>>,
    next_settlement: u64,
    begun: VecDeque<Begun>,
}

impl Worker {
    pub(super) fn act(&mut self, session: SessionId, now: u64, random: &mut ChaCha8Rng) -> Option<(Command, Sent)> {
        self.begin(now, random);
        let session = session.0;
        if let Some(settle) = self.settle(session, now, random) {
            return Some(settle);
        }
        if let Some(give_back) = self.give_back(session, now) {
            return Some((of(Operation::Yield(give_back)), Sent::Other));
        }
        let queue = QUEUES[random.random_range(0..QUEUES.len())].to_owned();
        match random.random_range(0..12) {
            0..=3 => {
                self.next_number += 1;
                let messages = (0..random.random_range(1..4)).map(|_| message(random)).collect();
                let enqueue = Enqueue { session, number: self.next_number, queue, messages };
                self.echo = random.random_ratio(1, 4).then(|| enqueue.clone());
                Some((of(Operation::Enqueue(enqueue)), Sent::Other))
            }
            4 => self.echo.take().map(|enqueue| (of(Operation::Enqueue(enqueue)), Sent::Other)),
            5 | 6 => Some((of(Operation::Join(Join { session, queue })), Sent::Other)),
            7 if random.random_ratio(1, 8) => Some((of(Operation::Leave(Leave { session, queue })), Sent::Other)),
            _ => None,
        }
    }

    /// Begins to process some messages that wait.
    fn begin(&mut self, now: u64, random: &mut ChaCha8Rng) {
        for delivery in self.deliveries.values_mut() {
            if matches!(delivery.phase, Phase::Waiting) && random.random_ratio(1, 2) {
                delivery.phase = Phase::Begun(now + random.random_range(0..600));
                let (queue, place, token) = (delivery.queue.clone(), delivery.place.clone(), delivery.token);
                self.begun.push_back(Begun { queue, place, token });
            }
        }
    }

    /// The next message that was begun.
    pub(super) fn take_begun(&mut self) -> Option<Begun> {
        self.begun.pop_front()
    }

    fn settle(&mut self, session: u64, now: u64, random: &mut ChaCha8Rng) -> Option<(Command, Sent)> {
        let is_due = |delivery: &Delivery| match &delivery.phase {
            Phase::Waiting => false,
            Phase::Begun(until) => now >= *until,
            Phase::Settling(sent, _) => now >= sent + REPEAT_MS,
        };
        let queue = self.deliveries.values().find(|delivery| is_due(delivery))?.queue.clone();
        let mut settlements = Vec::new();
        let due = self.deliveries.values_mut().filter(|delivery| delivery.queue == queue && is_due(delivery));
        for delivery in due.take(3) {
            let settlement = match &delivery.phase {
                Phase::Settling(_, settlement) => settlement.clone(),
                Phase::Waiting | Phase::Begun(_) => Settlement {
                    key: delivery.place.key.to_string(),
                    position: delivery.place.position,
                    attempts: delivery.attempts,
                    token: delivery.token.0,
                    fate: Some(fate(random)),
                },
            };
            delivery.phase = Phase::Settling(now, settlement.clone());
            settlements.push(settlement);
        }
        self.next_settlement += 1;
        let of_number = settlements.iter().map(|of| (of.position, of.attempts, Token(of.token))).collect();
        self.settlements.insert(self.next_settlement, of_number);
        Some((of(Operation::Settle(Settle { session, queue, settlements })), Sent::Settle(self.next_settlement)))
    }

    fn give_back(&mut self, session: u64, now: u64) -> Option<Yield> {
        let is_busy = |(queue, slot): &Key| {
            self.deliveries.values().any(|delivery| delivery.queue == *queue && delivery.place.slot == *slot)
        };
        let is_due = |held: &Held| held.is_recalled && held.given_back.is_none_or(|sent| now >= sent + REPEAT_MS);
        let (key, _) = self.slots.iter().find(|(key, held)| is_due(held) && !is_busy(key))?;
        let ((queue, slot), held) = (key.clone(), self.slots.get_mut(&key.clone())?);
        held.given_back = Some(now);
        Some(Yield { session, queue, slots: vec![HeldSlot { slot, token: held.token.0 }] })
    }

    pub(super) fn settled(&mut self, number: u64, outcome: &Outcome) {
        let (Some(settled), Outcome::Settled(_)) = (self.settlements.remove(&number), outcome) else { return };
        for (position, attempts, token) in settled {
            let known = self.deliveries.get(&position);
            if known.is_some_and(|known| (known.attempts, known.token) == (attempts, token)) {
                self.deliveries.remove(&position);
            }
        }
    }

    pub(super) fn notified(&mut self, session: SessionId, event: &Event, view: &View) {
        match event {
            Event::Left(queue, left) if *left == session => {
                self.slots
                    .iter_mut()
                    .filter(|((of, _), _)| **of == **queue)
                    .for_each(|(_, held)| held.is_recalled = true);
                let is_waiting = |of: &Delivery| *of.queue == **queue && matches!(of.phase, Phase::Waiting);
                self.deliveries.retain(|_, delivery| !is_waiting(delivery));
            }
            Event::SlotGranted(of) if of.session == session => {
                let held = self.slots.get(&(of.queue.to_string(), of.slot));
                if held.is_none_or(|held| held.token < of.token) {
                    self.granted(of, view);
                }
            }
            Event::SlotRecalled(of) if of.session == session => {
                let key = (of.queue.to_string(), of.slot);
                if let Some(held) = self.slots.get_mut(&key).filter(|held| held.token == of.token) {
                    held.is_recalled = true;
                    self.deliveries
                        .retain(|_, delivery| !is_in(delivery, &key) || !matches!(delivery.phase, Phase::Waiting));
                }
            }
            // It may be older than the state.
            Event::Ready(ready) if ready.slot.session == session && is_deliverable(ready, view) => {
                self.offer(&ready.slot.queue, ready.slot.token, &ready.place, &ready.message);
            }
            _ => {}
        }
    }

    fn granted(&mut self, of: &SlotOf, view: &View) {
        let key = (of.queue.to_string(), of.slot);
        // Deliveries of an earlier grant are lost.
        self.deliveries.retain(|_, delivery| !is_in(delivery, &key));
        self.slots.insert(key, Held { token: of.token, is_recalled: false, given_back: None });
        self.scan(&of.queue, of.slot, of.token, view);
    }

    fn scan(&mut self, queue: &str, slot: u32, token: Token, view: &View) {
        let Some(of) = view.queues.get(queue) else { return };
        for (place, message) in of.deliverable(slot) {
            self.offer(queue, token, place, message);
        }
    }

    fn offer(&mut self, queue: &str, token: Token, place: &Place, message: &Message) {
        let held = self.slots.get(&(queue.to_owned(), place.slot));
        let is_held = held.is_some_and(|held| held.token == token && !held.is_recalled);
        let known = self.deliveries.get(&place.position);
        let is_known = known.is_some_and(|known| known.attempts >= message.attempts);
        if is_known || !is_held {
            return;
        }
        let (attempts, place) = (message.attempts, place.clone());
        let delivery = Delivery { queue: queue.to_owned(), place, attempts, token, phase: Phase::Waiting };
        self.deliveries.insert(delivery.place.position, delivery);
    }

    /// Compares with a state, as after missed notices.
    pub(super) fn resync(&mut self, session: SessionId, view: &View) {
        let mut held = BTreeMap::new();
        for (name, queue) in view.queues.iter() {
            for (slot, token) in queue.slots().held_by(session) {
                let key = (name.to_string(), slot);
                let given_back = self.slots.get(&key).filter(|held| held.token == token).and_then(|of| of.given_back);
                held.insert(key, Held { token, is_recalled: queue.slots().get(slot).is_recalled, given_back });
            }
        }
        self.slots = held;
        self.deliveries.retain(|_, delivery| {
            let held = self.slots.get(&(delivery.queue.clone(), delivery.place.slot));
            held.is_some_and(|held| held.token == delivery.token)
                && !(matches!(delivery.phase, Phase::Waiting) && held.is_some_and(|held| held.is_recalled))
        });
        let slots: Vec<_> = self.slots.iter().map(|(key, held)| (key.clone(), held.token)).collect();
        for ((queue, slot), token) in slots {
            self.scan(&queue, slot, token, view);
        }
    }

    /// What it believes to deliver and does not, or the other way round, in a state that its instance has applied.
    pub(super) fn mistake(&self, session: SessionId, view: &View) -> Option<String> {
        let mut deliverable = BTreeSet::new();
        for (name, queue) in view.queues.iter() {
            for (slot, token) in queue.slots().held_by(session) {
                let held = self.slots.get(&(name.to_string(), slot)).copied();
                let is_recalled = queue.slots().get(slot).is_recalled;
                if held.is_none_or(|held| held.token != token || held.is_recalled != is_recalled) {
                    return Some(format!("session {session} holds slot {slot} of {name}, and believes {held:?}"));
                }
                for (place, message) in queue.deliverable(slot) {
                    deliverable.insert(place.position);
                    let known = self.deliveries.get(&place.position);
                    if !is_recalled && known.is_none_or(|known| known.attempts < message.attempts) {
                        return Some(format!(
                            "{place:?} of {name} can be delivered, and session {session} is not told"
                        ));
                    }
                }
            }
        }
        self.deliveries.values().find_map(|delivery| {
            let is_over =
                matches!(delivery.phase, Phase::Settling(..)) || deliverable.contains(&delivery.place.position);
            (!is_over).then(|| format!("session {session} delivers {:?}, which it must not", delivery.place))
        })
    }
}

fn is_deliverable(ready: &Ready, view: &View) -> bool {
    let queue = view.queues.get(&ready.slot.queue);
    queue.is_some_and(|queue| queue.is_deliverable(&ready.place, ready.message.attempts))
}

fn is_in(delivery: &Delivery, (queue, slot): &Key) -> bool {
    delivery.queue == *queue && delivery.place.slot == *slot
}

fn message(random: &mut ChaCha8Rng) -> NewMessage {
    let id = if random.random_ratio(1, 3) { IDS[random.random_range(0..IDS.len())] } else { "" };
    NewMessage {
        key: KEYS[random.random_range(0..KEYS.len())].to_owned(),
        payload: vec![7; random.random_range(0..20)].into(),
        delay_ms: if random.random_ratio(1, 5) { random.random_range(1..3_000) } else { 0 },
        id: id.to_owned(),
        window_ms: [0, 300, 4_000][random.random_range(0..3)],
        is_watched: random.random_ratio(1, 2),
        digest: random.random(),
    }
}

fn fate(random: &mut ChaCha8Rng) -> Fate {
    match random.random_range(0..10) {
        0 | 1 => {
            let delay_ms = [0, 200, 2_000][random.random_range(0..3)];
            Fate::Retry(Retry { delay_ms, is_failure: random.random_ratio(1, 2) })
        }
        2 => Fate::Dead(Dead { reason: "simulated".to_owned(), result: Vec::new().into() }),
        _ => Fate::Done(vec![1].into()),
    }
}
