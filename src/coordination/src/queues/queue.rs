//! A queue.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use super::Totals;
use super::message::{DeadLetter, Message, Place, check};
use super::slots::{Change, Slot, Slots};
use crate::answer::{Placed, Refusal};
use crate::command::{Fate, HeldSlot, NewMessage, Retry, Settlement};
use crate::context::{Context, Timer};
use crate::event::{Event, Finished, Ready, SlotOf};
use crate::ids::{SessionId, Token};
use crate::injected_bug::InjectedBug;
use crate::limits::{
    MESSAGE_BYTES_MAX, MESSAGE_DELAY_MS_MAX, MESSAGE_OVERHEAD, NAME_BYTES_MAX, QUEUE_BYTES_MAX, QUEUES_BYTES_MAX, SLOTS,
};

/// Something that happens at a time of the state's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// A delayed message takes its place in the lane of this key.
    Delayed(Arc<str>, Arc<Message>),
    /// A message is delivered again.
    Retry(Place),
    /// The id of a message is not remembered any longer.
    Forget(Arc<str>),
}

/// When something is due, the position of its message, and a number that distinguishes what is due for the same one.
type DueKey = (u64, u64, u8);

/// An id of a message that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) position: u64,
    pub(crate) digest: u64,
    /// When it is forgotten, by the state's clock.
    pub(crate) until: u64,
}

/// A queue: its messages, dead letters and consumers.
#[derive(Debug, Clone)]
pub struct Queue {
    name: Arc<str>,
    pub(crate) slots: Slots,
    messages: RedBlackTreeMapSync<Place, Arc<Message>>,
    due: RedBlackTreeMapSync<DueKey, Due>,
    /// How many messages are delayed.
    delayed: usize,
    dead: RedBlackTreeMapSync<u64, Arc<DeadLetter>>,
    ids: HashTrieMapSync<Arc<str>, Remembered>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            slots: Slots::new(SLOTS),
            messages: RedBlackTreeMapSync::default(),
            due: RedBlackTreeMapSync::default(),
            delayed: 0,
            dead: RedBlackTreeMapSync::default(),
            ids: HashTrieMapSync::default(),
            bytes: 0,
        }
    }

    /// The slots, and who holds them.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// How many messages wait or are being delivered, without those that are delayed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.size()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages are delayed.
    #[must_use]
    pub fn delayed(&self) -> usize {
        self.delayed
    }

    /// How much it counts for, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All messages by their places.
    pub fn messages(&self) -> impl Iterator<Item = (&Place, &Arc<Message>)> {
        self.messages.iter()
    }

    /// All dead letters from a position on.
    pub fn dead_letters(&self, from: u64) -> impl Iterator<Item = (u64, &DeadLetter)> {
        self.dead.range(from..).map(|(position, letter)| (*position, &**letter))
    }

    /// How many dead letters there are.
    #[must_use]
    pub fn dead_len(&self) -> usize {
        self.dead.size()
    }

    /// When the oldest message was enqueued that waits or is being delivered, by the leader's time. It reads the first message of
    /// each lane.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.heads(0, SLOTS).map(|(_, message)| message.enqueued).min()
    }

    /// The position of the last dead letter.
    #[must_use]
    pub fn last_dead(&self) -> Option<u64> {
        self.dead.last().map(|(position, _)| *position)
    }

    /// Whether a message can be delivered now, after this many attempts.
    #[must_use]
    pub fn is_deliverable(&self, place: &Place, attempts: u32) -> bool {
        let message = self.messages.get(place);
        message.is_some_and(|message| message.attempts == attempts && message.not_before.is_none())
            && self.messages.range(place.lane()).next().is_some_and(|(first, _)| first == place)
    }

    /// The messages of a slot that can be delivered now: the first of each lane, unless it waits to be delivered again.
    pub fn deliverable(&self, slot: u32) -> impl Iterator<Item = (&Place, &Arc<Message>)> {
        self.heads(slot, slot + 1).filter(|(_, message)| message.not_before.is_none())
    }

    /// The first message of each lane of some slots.
    fn heads(&self, first: u32, end: u32) -> impl Iterator<Item = (&Place, &Arc<Message>)> {
        let place = |slot| Place { slot, key: Arc::from(""), position: 0 };
        let end = Bound::Excluded(place(end));
        let mut next = self.messages.range((Bound::Included(place(first)), end.clone())).next();
        std::iter::from_fn(move || {
            let head = next?;
            let lane = head.0.lane();
            next = self.messages.range((Bound::Excluded(lane.end().clone()), end.clone())).next();
            Some(head)
        })
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.messages.is_empty() && self.due.is_empty() && self.dead.is_empty() && self.slots.are_unused()
    }

    /// Adds a message, unless it is a duplicate or does not fit.
    pub(crate) fn enqueue(
        &mut self,
        new: NewMessage,
        watcher: SessionId,
        time: u64,
        totals: &mut Totals,
        context: &mut Context<'_>,
    ) -> Result<Placed, Refusal> {
        check(&new)?;
        if let Some(known) = self.ids.get(new.id.as_str()).filter(|_| !new.id.is_empty()) {
            let is_ended = known.until <= context.now && !context.has_bug(InjectedBug::DuplicateOutsideWindow);
            if !is_ended && !context.has_bug(InjectedBug::AcceptDuplicate) {
                let (position, digest) = (known.position, known.digest);
                return Ok(Placed { position, is_duplicate: true, refusal: None, digest });
            }
        }
        // A slice of the command would keep all of it in memory.
        let payload = Bytes::copy_from_slice(&new.payload);
        let position = totals.last_position + 1;
        let watcher = new.is_watched.then_some(watcher);
        let message = Message {
            payload,
            enqueued: time,
            enqueued_as: position,
            attempts: 0,
            failures: 0,
            not_before: None,
            watcher,
        };
        let is_remembered = !new.id.is_empty() && new.window_ms > 0;
        let id_bytes = if is_remembered { new.id.len() + MESSAGE_OVERHEAD } else { 0 };
        let bytes = message.bytes() + new.key.len() + id_bytes;
        if self.bytes + bytes > QUEUE_BYTES_MAX || totals.bytes + bytes > QUEUES_BYTES_MAX {
            return Err(Refusal::Full);
        }
        totals.last_position = position;
        if is_remembered {
            let until = context.now.saturating_add(new.window_ms);
            self.remember(new.id.into(), Remembered { position, digest: new.digest, until }, totals);
        }
        if new.delay_ms > 0 {
            let due = context.now.saturating_add(new.delay_ms);
            self.put_delayed(due, new.key.into(), Arc::new(message), totals);
        } else {
            self.append(&Place::new(new.key.into(), position), &Arc::new(message), totals, context);
        }
        Ok(Placed { position, ..Placed::default() })
    }

    /// Adds a message at the end of its lane, and offers it if it is the first one.
    fn append(&mut self, place: &Place, message: &Arc<Message>, totals: &mut Totals, context: &mut Context<'_>) {
        let is_first = place.key.is_empty() || self.messages.range(place.lane()).next().is_none();
        self.put(place.clone(), Arc::clone(message), totals);
        if is_first || context.has_bug(InjectedBug::LaneReordered) {
            self.offer(place, message, context);
        }
    }

    /// Tells the holder of a slot that a message can be delivered.
    fn offer(&self, place: &Place, message: &Arc<Message>, context: &mut Context<'_>) {
        if let Some((session, token)) = self.slots.get(place.slot).holder {
            let slot = SlotOf { queue: Arc::clone(&self.name), slot: place.slot, session, token };
            let ready = Ready { slot, place: place.clone(), message: Arc::clone(message) };
            context.tell(Event::Ready(Box::new(ready)));
        }
    }

    /// Executes a settlement.
    ///
    /// # Errors
    /// The slot is not held with this token, or another message of the lane comes first.
    pub(crate) fn settle(
        &mut self,
        session: SessionId,
        settlement: Settlement,
        time: u64,
        totals: &mut Totals,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let Settlement { key, position, attempts, token, fate } = settlement;
        let fate = fate.filter(is_valid).ok_or(Refusal::Invalid)?;
        let place = Place::new(key.into(), position);
        let is_held = self.slots.get(place.slot).holder == Some((session, Token(token)));
        if !is_held && !context.has_bug(InjectedBug::StaleSlot) {
            return Err(Refusal::NotHeld);
        }
        // Without effect if it was settled before.
        let Some(message) = self.messages.get(&place) else { return Ok(()) };
        if message.attempts != attempts || message.not_before.is_some() {
            return Ok(());
        }
        if self.messages.range(place.lane()).next().is_some_and(|(first, _)| *first != place) {
            return Err(Refusal::NotHeld);
        }
        match fate {
            Fate::Done(_) if context.has_bug(InjectedBug::SettleLost) && position % 8 == 0 => {}
            Fate::Done(result) => {
                if let Some(message) = self.remove(&place, totals, context) {
                    self.tell_watcher(&message, &result, false, context);
                }
            }
            Fate::Retry(retry) => self.retry(place, &retry, context),
            Fate::Dead(dead) => {
                let Some(message) = self.remove(&place, totals, context) else { return Ok(()) };
                self.tell_watcher(&message, &dead.result, true, context);
                let message = Message { watcher: None, ..Message::clone(&message) };
                let letter = DeadLetter { key: place.key, message, reason: dead.reason.into(), since: time };
                self.put_dead(position, letter, totals);
            }
        }
        Ok(())
    }

    /// Lets a message be delivered once more, now or later. It stays the first of its lane.
    fn retry(&mut self, place: Place, retry: &Retry, context: &mut Context<'_>) {
        let not_before = (retry.delay_ms > 0).then(|| context.now.saturating_add(retry.delay_ms));
        let Some(message) = self.messages.get_mut(&place) else { return };
        let changed = Arc::make_mut(message);
        changed.attempts = changed.attempts.saturating_add(1);
        changed.failures = changed.failures.saturating_add(u32::from(retry.is_failure));
        changed.not_before = not_before;
        let message = Arc::clone(message);
        if context.has_bug(InjectedBug::NoRetry) {
            return;
        }
        match not_before {
            Some(due) => self.due.insert_mut((due, place.position, 1), Due::Retry(place)),
            None => self.offer(&place, &message, context),
        }
    }

    /// Removes the first message of a lane, and offers the next one.
    fn remove(&mut self, place: &Place, totals: &mut Totals, context: &mut Context<'_>) -> Option<Arc<Message>> {
        let message = self.messages.get(place).cloned()?;
        self.messages.remove_mut(place);
        self.take_bytes(message.bytes() + place.key.len(), totals);
        if let Some(due) = message.not_before {
            self.due.remove_mut(&(due, place.position, 1));
        }
        let skipped = usize::from(context.has_bug(InjectedBug::LaneSkipped));
        if let Some((next, message)) = self.messages.range(place.lane()).nth(skipped) {
            self.offer(next, message, context);
        }
        Some(message)
    }

    fn tell_watcher(&self, message: &Message, result: &[u8], is_dead: bool, context: &mut Context<'_>) {
        if let Some(session) = message.watcher {
            let result = Bytes::copy_from_slice(result);
            let queue = Arc::clone(&self.name);
            let finished = Finished { queue, session, enqueued_as: message.enqueued_as, result, is_dead };
            context.tell(Event::Finished(Box::new(finished)));
        }
    }

    /// Takes back a slot that a session gives up.
    pub(crate) fn give_back(&mut self, session: SessionId, held: HeldSlot) {
        self.slots.give_back(held.slot, (session, Token(held.token)));
    }

    /// Divides the slots among the consumers.
    pub(crate) fn balance(&mut self, context: &mut Context<'_>) {
        for change in self.slots.balance(Token(context.zxid)) {
            let (Change::Granted(slot) | Change::Recalled(slot)) = change;
            let state = self.slots.get(slot);
            let Some((session, token)) = state.holder else { continue };
            let of = SlotOf { queue: Arc::clone(&self.name), slot, session, token };
            match change {
                Change::Granted(_) => context.tell(Event::SlotGranted(of)),
                Change::Recalled(_) if context.has_bug(InjectedBug::SlotToTwo) => {
                    let other = self.slots.consumers().iter().find(|consumer| **consumer != session).copied();
                    let holder = other.map(|other| (other, Token(context.zxid)));
                    self.slots.put(slot, Slot { holder, is_recalled: false });
                    if let Some((session, token)) = holder {
                        context.tell(Event::SlotGranted(SlotOf { session, token, ..of }));
                    }
                }
                Change::Recalled(_) => context.tell(Event::SlotRecalled(of)),
            }
        }
    }

    /// Does what is due first, if it is due by now. Whether there was something.
    pub(crate) fn expire(&mut self, totals: &mut Totals, context: &mut Context<'_>) -> bool {
        let Some((key, due)) = self.due.first().filter(|((time, ..), _)| *time <= context.now) else { return false };
        let (key, due) = (*key, due.clone());
        self.due.remove_mut(&key);
        match due {
            Due::Delayed(lane, message) => {
                self.delayed -= 1;
                self.take_bytes(message.bytes() + lane.len(), totals);
                totals.last_position += 1;
                self.append(&Place::new(lane, totals.last_position), &message, totals, context);
            }
            Due::Retry(place) => {
                let Some(message) = self.messages.get_mut(&place) else { return true };
                Arc::make_mut(message).not_before = None;
                let message = Arc::clone(message);
                self.offer(&place, &message, context);
            }
            Due::Forget(id) => {
                self.ids.remove_mut(&id);
                self.take_bytes(id.len() + MESSAGE_OVERHEAD, totals);
            }
        }
        true
    }

    /// Removes dead letters, and enqueues them again if they are replayed. Returns how many there were.
    pub(crate) fn take_dead(
        &mut self,
        positions: &[u64],
        is_replayed: bool,
        totals: &mut Totals,
        context: &mut Context<'_>,
    ) -> u64 {
        let mut count = 0;
        for position in positions {
            let Some(letter) = self.dead.get(position).cloned() else { continue };
            self.dead.remove_mut(position);
            self.take_bytes(letter.bytes(), totals);
            count += 1;
            if is_replayed {
                totals.last_position += 1;
                let position = totals.last_position;
                let message = Message { attempts: 0, failures: 0, enqueued_as: position, ..letter.message.clone() };
                self.append(&Place::new(Arc::clone(&letter.key), position), &Arc::new(message), totals, context);
            }
        }
        count
    }

    /// Removes messages, the oldest of each lane first, then delayed ones. Returns how many.
    pub(crate) fn purge(&mut self, count: u64, totals: &mut Totals, context: &mut Context<'_>) -> u64 {
        let mut removed = 0;
        while removed < count
            && let Some(place) = self.messages.first().map(|(place, _)| place.clone())
        {
            if let Some(message) = self.remove(&place, totals, context) {
                self.tell_watcher(&message, &[], true, context);
            }
            removed += 1;
        }
        let left = usize::try_from(count - removed).unwrap_or(usize::MAX);
        let left = left.min(self.delayed);
        let delayed = self.due.iter().filter(|(_, due)| matches!(due, Due::Delayed(..))).take(left);
        let delayed: Vec<_> = delayed.map(|(key, due)| (*key, due.clone())).collect();
        for (key, due) in delayed {
            let Due::Delayed(lane, message) = due else { continue };
            self.due.remove_mut(&key);
            self.delayed -= 1;
            self.take_bytes(message.bytes() + lane.len(), totals);
            self.tell_watcher(&message, &[], true, context);
            removed += 1;
        }
        removed
    }

    /// When something is due first, by the state's clock.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|((time, ..), _)| *time)
    }

    /// Sets or cancels the timer, if what is due first was another time before.
    pub(crate) fn set_timer(&self, before: Option<u64>, context: &mut Context<'_>) {
        match self.next_due() {
            next if next == before => {}
            Some(next) => context.set_timer(Timer::Queue(Arc::clone(&self.name)), next),
            None => context.cancel_timer(&Timer::Queue(Arc::clone(&self.name))),
        }
    }

    pub(crate) fn put(&mut self, place: Place, message: Arc<Message>, totals: &mut Totals) {
        self.add_bytes(message.bytes() + place.key.len(), totals);
        if let Some(due) = message.not_before {
            self.due.insert_mut((due, place.position, 1), Due::Retry(place.clone()));
        }
        self.messages.insert_mut(place, message);
    }

    pub(crate) fn put_delayed(&mut self, due: u64, key: Arc<str>, message: Arc<Message>, totals: &mut Totals) {
        self.add_bytes(message.bytes() + key.len(), totals);
        self.delayed += 1;
        self.due.insert_mut((due, message.enqueued_as, 0), Due::Delayed(key, message));
    }

    pub(crate) fn put_dead(&mut self, position: u64, letter: DeadLetter, totals: &mut Totals) {
        self.add_bytes(letter.bytes(), totals);
        self.dead.insert_mut(position, Arc::new(letter));
    }

    /// Remembers the id of a message, instead of one of the same id whose window has ended.
    pub(crate) fn remember(&mut self, id: Arc<str>, remembered: Remembered, totals: &mut Totals) {
        if let Some(old) = self.ids.get(&id) {
            self.due.remove_mut(&(old.until, old.position, 2));
            self.take_bytes(id.len() + MESSAGE_OVERHEAD, totals);
        }
        self.add_bytes(id.len() + MESSAGE_OVERHEAD, totals);
        self.due.insert_mut((remembered.until, remembered.position, 2), Due::Forget(Arc::clone(&id)));
        self.ids.insert_mut(id, remembered);
    }

    /// The delayed messages and the remembered ids, in the order of their times.
    pub(crate) fn due(&self) -> impl Iterator<Item = (u64, &Due)> {
        self.due.iter().map(|((time, ..), due)| (*time, due))
    }

    pub(crate) fn remembered(&self, id: &str) -> Option<Remembered> {
        self.ids.get(id).copied()
    }

    fn add_bytes(&mut self, bytes: usize, totals: &mut Totals) {
        self.bytes += bytes;
        totals.bytes += bytes;
    }

    fn take_bytes(&mut self, bytes: usize, totals: &mut Totals) {
        self.bytes -= bytes;
        totals.bytes -= bytes;
    }
}

fn is_valid(fate: &Fate) -> bool {
    match fate {
        Fate::Done(result) => result.len() <= MESSAGE_BYTES_MAX,
        Fate::Retry(retry) => retry.delay_ms <= MESSAGE_DELAY_MS_MAX,
        Fate::Dead(dead) => dead.result.len() <= MESSAGE_BYTES_MAX && dead.reason.len() <= NAME_BYTES_MAX,
    }
}
