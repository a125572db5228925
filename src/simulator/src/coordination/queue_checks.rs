//! The invariants of queues: a model of the lanes, which is written without the code that it checks.

use std::collections::{BTreeMap, BTreeSet};

use crossdock_coordination::command::{Enqueue, Fate, NewMessage, Settle, Settlement};
use crossdock_coordination::event::SlotOf;
use crossdock_coordination::{Event, Operation, Outcome, Place, Refusal, SessionId, Token, View};

use super::Report;
use super::checks::Applied;
use super::worker::Begun;

/// A message, identified by the position that its producer received.
#[derive(Debug, Clone)]
struct Known {
    key: String,
    attempts: u32,
    /// By the state's clock, if it waits to be delivered again.
    not_before: Option<u64>,
    watcher: Option<SessionId>,
}

/// What a service remembers of a lane: the highest token, and the last position that it accepted.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    token: Token,
    position: u64,
}

#[derive(Debug, Default)]
struct Model {
    /// The messages that are not delayed, in the order of their lanes.
    placed: Vec<(u64, Known)>,
    /// By the time that they are due and by position.
    delayed: BTreeMap<(u64, u64), Known>,
    dead: BTreeMap<u64, Known>,
    /// Ids with the position and the end of the window.
    ids: BTreeMap<String, (u64, u64)>,
    slots: BTreeMap<u32, (SessionId, Token)>,
    /// The highest token of each slot.
    tokens: BTreeMap<u32, Token>,
    /// By the key, or the position of a message without a key.
    accepted: BTreeMap<(String, u64), Accepted>,
}

/// What was observed of queues so far.
#[derive(Debug, Default)]
pub(super) struct QueueChecks {
    queues: BTreeMap<String, Model>,
    last_commands: BTreeMap<(u64, String), (u64, Outcome)>,
    last_position: u64,
}

impl QueueChecks {
    pub(super) fn check(&mut self, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        let mut finished = Vec::new();
        match &applied.command.operation {
            Some(Operation::Enqueue(enqueue)) => self.enqueued(enqueue, applied, report)?,
            Some(Operation::Settle(settle)) => finished = self.settled(settle, applied, report)?,
            Some(Operation::Yield(give_back)) if has_session(applied, give_back.session) => {
                let model = self.model(&give_back.queue);
                for held in &give_back.slots {
                    let holder = (SessionId(give_back.session), Token(held.token));
                    if model.slots.get(&held.slot) == Some(&holder) {
                        model.slots.remove(&held.slot);
                    }
                }
            }
            Some(Operation::TakeDead(take)) => self.taken(take, applied)?,
            Some(Operation::Tick(tick)) if tick.epoch == applied.epoch => self.passed(applied.after.clock.now()),
            _ => {}
        }
        for event in applied.events {
            self.check_event(event, applied, &mut finished, report)?;
        }
        if let Some((queue, position)) = finished.first() {
            return Err(format!("the producer of {position} of {queue} is not told that it is settled"));
        }
        // Other commands must change no queue either; now and then is enough for them.
        let is_about_locks = matches!(
            &applied.command.operation,
            Some(Operation::Acquire(_) | Operation::Release(_) | Operation::KeepAlive(_) | Operation::TakeNumbers(_))
        );
        if is_about_locks && !applied.zxid.is_multiple_of(16) { Ok(()) } else { self.compare(applied.after) }
    }

    fn model(&mut self, queue: &str) -> &mut Model {
        self.queues.entry(queue.to_owned()).or_default()
    }

    fn enqueued(&mut self, command: &Enqueue, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        let used = (command.session, command.queue.clone());
        let last = self.last_commands.get(&used);
        let expected = match last {
            _ if !has_session(applied, command.session) => Some(Outcome::from(Refusal::NoSession)),
            Some((last, _)) if command.number < *last => Some(Refusal::Finished.into()),
            Some((last, outcome)) if command.number == *last => Some(outcome.clone()),
            _ => None,
        };
        if let Some(expected) = expected {
            let is_same = *applied.outcome == expected;
            return if is_same { Ok(()) } else { Err(format!("{:?} instead of {expected:?}", applied.outcome)) };
        }
        let Outcome::Enqueued(answer) = applied.outcome else {
            return Err(format!("messages are not enqueued: {:?}", applied.outcome));
        };
        let (now, session) = (applied.after.clock.now(), SessionId(command.session));
        for (message, placed) in command.messages.iter().zip(&answer.messages) {
            let NewMessage { key, id, window_ms, delay_ms, is_watched, .. } = message;
            let known = self.model(&command.queue).ids.get(id).filter(|_| !id.is_empty()).copied();
            if let Some((position, until)) = known.filter(|(_, until)| *until > now) {
                if !placed.is_duplicate || placed.position != position {
                    return Err(format!("{id} is known until {until} as {position}, and not a duplicate at {now}"));
                }
                report.duplicates += 1;
                continue;
            }
            if placed.is_duplicate || placed.refusal.is_some() {
                return Err(format!("{id} is refused at {now}: {placed:?}; it was {known:?}"));
            }
            if placed.position <= self.last_position {
                return Err(format!("position {} after {}", placed.position, self.last_position));
            }
            self.last_position = placed.position;
            report.enqueued += 1;
            let watcher = is_watched.then_some(session);
            let known = Known { key: key.clone(), attempts: 0, not_before: None, watcher };
            let model = self.model(&command.queue);
            if !id.is_empty() && *window_ms > 0 {
                model.ids.insert(id.clone(), (placed.position, now + window_ms));
            }
            if *delay_ms > 0 {
                model.delayed.insert((now + delay_ms, placed.position), known);
            } else {
                model.placed.push((placed.position, known));
            }
        }
        self.last_commands.insert(used, (command.number, applied.outcome.clone()));
        Ok(())
    }

    /// The messages whose producers must be told.
    fn settled(
        &mut self,
        command: &Settle,
        applied: &Applied<'_>,
        report: &mut Report,
    ) -> Result<Vec<(String, u64)>, String> {
        let mut finished = Vec::new();
        let Outcome::Settled(settled) = applied.outcome else {
            let is_right =
                *applied.outcome == Outcome::from(Refusal::NoSession) && !has_session(applied, command.session);
            return if is_right {
                Ok(finished)
            } else {
                Err(format!("messages are not settled: {:?}", applied.outcome))
            };
        };
        let now = applied.after.clock.now();
        for (at, settlement) in (0..).zip(&command.settlements) {
            let Settlement { key, position, attempts, token, fate } = settlement;
            let place = applied.before.queues.get(&command.queue).and_then(|queue| {
                let mut of_lane = queue.messages().filter(|(place, _)| place.position == *position);
                of_lane.next().map(|(place, message)| (place.clone(), message.enqueued_as))
            });
            let model = self.model(&command.queue);
            let holder = (SessionId(command.session), Token(*token));
            let is_held = match &place {
                Some((place, _)) => model.slots.get(&place.slot) == Some(&holder),
                // Its slot is not known, but settled messages are refused or without effect.
                None => !settled.refused.contains(&at),
            };
            let first = place.as_ref().and_then(|(_, enqueued_as)| {
                model.placed.iter().find(|(of, known)| known.key == *key && (!key.is_empty() || of == enqueued_as))
            });
            let known =
                first.filter(|(of, _)| place.as_ref().is_some_and(|(_, enqueued_as)| of == enqueued_as)).cloned();
            let is_due = known.as_ref().is_some_and(|(_, of)| of.attempts == *attempts && of.not_before.is_none());
            if is_held == settled.refused.contains(&at) {
                return Err(format!("settlement of {position}: held {is_held}, refused {:?}", settled.refused));
            }
            let (true, true, Some((position, known))) = (is_held, is_due, known) else {
                report.unheard += 1;
                continue;
            };
            let at = model.placed.iter().position(|(of, _)| *of == position).ok_or("a message is lost")?;
            match fate {
                Some(Fate::Retry(retry)) => {
                    let known = &mut model.placed[at].1;
                    known.attempts += 1;
                    known.not_before = (retry.delay_ms > 0).then(|| now + retry.delay_ms);
                    report.retried += 1;
                    continue;
                }
                Some(Fate::Dead(_)) => {
                    let (_, known) = model.placed.remove(at);
                    model.dead.insert(settlement.position, Known { watcher: None, ..known });
                    report.dead += 1;
                }
                _ => {
                    model.placed.remove(at);
                    report.settled += 1;
                }
            }
            if known.watcher.is_some() {
                finished.push((command.queue.clone(), position));
            }
        }
        Ok(finished)
    }

    fn taken(
        &mut self,
        command: &crossdock_coordination::command::TakeDead,
        applied: &Applied<'_>,
    ) -> Result<(), String> {
        let mut count = 0;
        for position in &command.positions {
            let Some(known) = self.model(&command.queue).dead.remove(position) else { continue };
            count += 1;
            if command.is_replayed {
                self.last_position += 1;
                let position = self.last_position;
                self.model(&command.queue).placed.push((position, Known { attempts: 0, ..known }));
            }
        }
        let is_right = *applied.outcome == Outcome::Removed(count);
        if is_right { Ok(()) } else { Err(format!("{:?} of {count} dead letters", applied.outcome)) }
    }

    /// Lets what is due happen, at a tick.
    fn passed(&mut self, now: u64) {
        for model in self.queues.values_mut() {
            let later = model.delayed.split_off(&(now + 1, 0));
            for ((_, position), known) in std::mem::replace(&mut model.delayed, later) {
                model.placed.push((position, known));
                // It takes a new position.
                self.last_position += 1;
            }
            for (_, known) in &mut model.placed {
                known.not_before = known.not_before.filter(|due| *due > now);
            }
            model.ids.retain(|_, (_, until)| *until > now);
        }
    }

    fn check_event(
        &mut self,
        event: &Event,
        applied: &Applied<'_>,
        finished: &mut Vec<(String, u64)>,
        report: &mut Report,
    ) -> Result<(), String> {
        match event {
            Event::SessionEnded(session) => {
                for model in self.queues.values_mut() {
                    model.slots.retain(|_, (holder, _)| holder != session);
                }
                self.last_commands.retain(|(of, _), _| *of != session.0);
            }
            Event::SlotGranted(SlotOf { queue, slot, session, token }) => {
                let model = self.model(queue);
                if let Some((holder, _)) = model.slots.insert(*slot, (*session, *token)) {
                    return Err(format!("slot {slot} of {queue} is granted to {session}, and {holder} holds it"));
                }
                if model.tokens.insert(*slot, *token).is_some_and(|last| last >= *token) || token.0 != applied.zxid {
                    return Err(format!("slot {slot} of {queue} has the token {token}"));
                }
                report.slots += 1;
            }
            Event::SlotRecalled(SlotOf { queue, slot, session, token })
                if self.model(queue).slots.get(slot) != Some(&(*session, *token)) =>
            {
                return Err(format!("slot {slot} of {queue} is recalled from {session}, which does not hold it"));
            }
            Event::Ready(ready) => {
                let model = self.model(&ready.slot.queue);
                let of = (ready.slot.session, ready.slot.token);
                if model.slots.get(&ready.place.slot) != Some(&of) {
                    return Err(format!("{:?} is offered to {of:?}, which does not hold its slot", ready.place));
                }
                let key = &*ready.place.key;
                let first = model
                    .placed
                    .iter()
                    .find(|(at, known)| known.key == key && (!key.is_empty() || *at == ready.message.enqueued_as));
                let is_first = first.is_some_and(|(at, known)| {
                    *at == ready.message.enqueued_as
                        && known.not_before.is_none()
                        && known.attempts == ready.message.attempts
                });
                if !is_first {
                    return Err(format!("{:?} is offered, and first is {first:?}", ready.place));
                }
            }
            Event::Finished(told) => {
                let key = (told.queue.to_string(), told.enqueued_as);
                let at = finished.iter().position(|of| *of == key);
                let at = at.ok_or_else(|| format!("the producer of {key:?} is told although nothing happened"))?;
                finished.remove(at);
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares the state with the model.
    fn compare(&self, view: &View) -> Result<(), String> {
        for (name, model) in &self.queues {
            let queue = view.queues.get(name);
            let mut lanes: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            let mut kept: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for (position, known) in &model.placed {
                lanes.entry(&known.key).or_default().push(*position);
            }
            for (place, message) in queue.iter().flat_map(|queue| queue.messages()) {
                kept.entry(place.key.to_string()).or_default().push(message.enqueued_as);
            }
            for lanes in [lanes.get_mut(""), kept.get_mut("")].into_iter().flatten() {
                lanes.sort_unstable();
            }
            if !lanes.iter().map(|(key, lane)| (*key, lane)).eq(kept.iter().map(|(key, lane)| (key.as_str(), lane))) {
                return Err(format!("{name} has the lanes {kept:?} instead of {lanes:?}"));
            }
            let delayed = queue.map_or(0, crossdock_coordination::Queue::delayed);
            let dead: BTreeSet<_> = queue.iter().flat_map(|queue| queue.dead_letters(0)).map(|(at, _)| at).collect();
            if delayed != model.delayed.len() || !dead.iter().eq(model.dead.keys()) {
                return Err(format!("{name} has {delayed} delayed messages and the dead letters {dead:?}"));
            }
            let Some(queue) = queue else { continue };
            let held = queue.slots().iter().filter_map(|(slot, state)| Some((slot, state.holder?)));
            if !held.eq(model.slots.iter().map(|(slot, holder)| (*slot, *holder))) {
                return Err(format!("the slots of {name} are held by others"));
            }
            if !queue.slots().consumers().is_empty() && queue.slots().iter().any(|(_, slot)| slot.holder.is_none()) {
                return Err(format!("a slot of {name} is free although there are consumers"));
            }
        }
        Ok(())
    }

    /// A service receives a message. It rejects lower tokens than those that it has seen in the lane.
    pub(super) fn received(&mut self, begun: &Begun, report: &mut Report) -> Result<(), String> {
        let Begun { queue, place: Place { key, position, .. }, token } = begun;
        let lane = (key.to_string(), if key.is_empty() { *position } else { 0 });
        let model = self.model(queue);
        let last = model.accepted.get(&lane).copied();
        if last.is_some_and(|last| last.token > *token) {
            report.rejected += 1;
            return Ok(());
        }
        if let Some(last) = last.filter(|last| last.position > *position) {
            return Err(format!("{position} of {lane:?} is delivered after {}", last.position));
        }
        model.accepted.insert(lane, Accepted { token: *token, position: *position });
        report.delivered += 1;
        Ok(())
    }
}

fn has_session(applied: &Applied<'_>, session: u64) -> bool {
    applied.before.sessions.get(SessionId(session)).is_some()
}
