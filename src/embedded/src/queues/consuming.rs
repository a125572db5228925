//! This instance as a consumer of one queue.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossdock_coordination::command::{Fate, HeldSlot, Join, Leave, Settle, Settlement, Yield};
use crossdock_coordination::event::{Ready, SlotOf};
use crossdock_coordination::limits::BATCH_LEN_MAX;
use crossdock_coordination::{Message, Operation, Outcome, Place, Refusal, SessionId, Token};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::ViewNow;
use super::consumer::SettleError;
use super::counts::QueueEvent;
use crate::engine::{COMMAND_TIMEOUT, RETRY_INTERVAL, Shared};
use crate::error::CommandError;

/// Results of messages of one command, in bytes; a single one may exceed it.
const SETTLE_BYTES_MAX: usize = 1 << 20;

/// A slot that this instance holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    token: Token,
    /// It is to be given back once its messages are settled.
    is_recalled: bool,
    is_given_back: bool,
}

/// A message that waits to be delivered, or is being delivered.
#[derive(Debug, Clone, Copy)]
struct Known {
    slot: u32,
    attempts: u32,
    token: Token,
    has_begun: bool,
}

/// A message that can be delivered.
#[derive(Debug)]
pub(super) struct Ripe {
    pub(super) place: Place,
    pub(super) message: Arc<Message>,
    pub(super) token: Token,
}

/// A settlement that is to be sent.
#[derive(Debug)]
pub(super) struct Due {
    settlement: Settlement,
    done: oneshot::Sender<Result<(), SettleError>>,
}

#[derive(Debug, Default)]
struct State {
    /// The session in which slots are held.
    session: Option<SessionId>,
    /// The session consumes the queue: it is granted slots.
    is_joined: bool,
    /// Messages may have been passed over, so the state has to be compared.
    is_behind: bool,
    slots: BTreeMap<u32, Held>,
    /// By position.
    known: HashMap<u64, Known>,
    ripe: VecDeque<Ripe>,
    due: Vec<Due>,
    /// A task sends what is due.
    is_settling: bool,
    /// While there are none, no message is delivered, and slots are given back once those that were are settled.
    handles: usize,
    /// The instance has ended.
    is_over: bool,
}

/// A queue that this instance consumes.
#[derive(Debug)]
pub(crate) struct Consuming {
    pub(super) queue: Arc<str>,
    state: Mutex<State>,
    /// Messages can be delivered, or none will be any more.
    pub(super) ripened: Notify,
    /// Something has changed that the task below waits for.
    changed: Notify,
}

impl Consuming {
    pub(super) fn new(queue: &str) -> Self {
        Self { queue: queue.into(), state: Mutex::default(), ripened: Notify::new(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message to deliver: `Ok(None)` if there is none at the moment, an error if there will be none any more.
    pub(super) fn take(&self) -> Result<Option<Ripe>, ()> {
        let mut state = self.lock();
        if state.is_over {
            return Err(());
        }
        let State { ripe, known, .. } = &mut *state;
        while let Some(next) = ripe.pop_front() {
            // Others belong to slots that were lost.
            let known = known.get_mut(&next.place.position);
            if let Some(known) = known.filter(|known| known.is(next.message.attempts, next.token) && !known.has_begun) {
                known.has_begun = true;
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    /// Whether a slot is held with this token.
    pub(super) fn holds(&self, slot: u32, token: Token) -> bool {
        self.lock().slots.get(&slot).is_some_and(|held| held.token == token)
    }

    /// A slot was granted, or is to be given back.
    pub(super) fn slot(&self, of: &SlotOf, is_granted: bool, view: impl Fn() -> Arc<crate::machine::State>) {
        let mut state = self.lock();
        if state.session != Some(of.session) {
            return;
        }
        if is_granted {
            // The state that was compared last may be newer than this event.
            if state.slots.get(&of.slot).is_some_and(|held| held.token >= of.token) {
                return;
            }
            // What was known of it is of an earlier grant.
            state.forget(of.slot, true);
            state.slots.insert(of.slot, Held { token: of.token, is_recalled: false, is_given_back: false });
            state.scan(&self.queue, of.slot, of.token, &view);
            // A `Leave` that was not executed is repeated.
            state.is_joined = true;
            drop(state);
            self.ripened.notify_waiters();
            self.changed.notify_one();
        } else if let Some(held) = state.slots.get_mut(&of.slot).filter(|held| held.token == of.token) {
            held.is_recalled = true;
            state.forget(of.slot, false);
        }
    }

    /// A message can be delivered.
    pub(super) fn ready(&self, ready: &Ready, view: impl Fn() -> Arc<crate::machine::State>) {
        let mut state = self.lock();
        if state.session != Some(ready.slot.session) {
            return;
        }
        // It may have been settled since: the state that was compared last may be newer than this event.
        let view = view();
        let queue = view.queues.get(&self.queue);
        if queue.is_some_and(|queue| queue.is_deliverable(&ready.place, ready.message.attempts))
            && state.offer(&ready.place, &ready.message, ready.slot.token)
        {
            drop(state);
            self.ripened.notify_waiters();
        }
    }

    /// The session is granted no slots any more, and gives back those that it has.
    pub(super) fn left(&self, session: SessionId) {
        let mut state = self.lock();
        if state.session == Some(session) {
            state.recall_all();
            self.changed.notify_one();
        }
    }

    /// The session has ended.
    pub(super) fn end_session(&self, session: SessionId) {
        let mut state = self.lock();
        if state.session == Some(session) {
            state.clear();
            self.changed.notify_one();
        }
    }

    /// The instance has ended.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.clear();
        state.is_over = true;
        drop(state);
        self.ripened.notify_waiters();
        self.changed.notify_one();
    }

    pub(super) fn add_handle(&self) {
        self.lock().handles += 1;
        self.changed.notify_one();
    }

    pub(super) fn remove_handle(&self) {
        let mut state = self.lock();
        state.handles -= 1;
        if state.handles == 0 {
            state.forget_waiting();
            self.changed.notify_one();
        }
    }

    /// Whether it is not needed any more.
    pub(super) fn is_unused(&self) -> bool {
        let state = self.lock();
        state.handles == 0 || state.is_over
    }

    /// Compares with the current state, after events or messages may have been missed.
    pub(super) fn compare(&self, view: impl Fn() -> Arc<crate::machine::State>) {
        let mut state = self.lock();
        let Some(session) = state.session else { return };
        let now = view();
        let queue = now.queues.get(&self.queue);
        let held: BTreeMap<u32, Token> = queue.iter().flat_map(|queue| queue.slots().held_by(session)).collect();
        let is_lost = |(slot, of): (&u32, &Held)| (held.get(slot) != Some(&of.token)).then_some(*slot);
        let lost: Vec<u32> = state.slots.iter().filter_map(is_lost).collect();
        for slot in lost {
            state.forget(slot, true);
            state.slots.remove(&slot);
        }
        for (slot, token) in held {
            let is_recalled = queue.is_some_and(|queue| queue.slots().get(slot).is_recalled);
            let of = state.slots.entry(slot).or_insert(Held { token, is_recalled, is_given_back: false });
            of.is_recalled = is_recalled;
            if is_recalled {
                state.forget(slot, false);
            } else {
                state.scan(&self.queue, slot, token, &view);
            }
        }
        state.is_behind = false;
        let is_consumer = queue.is_some_and(|queue| queue.slots().consumers().contains(&session));
        if state.is_joined != is_consumer {
            state.is_joined = is_consumer;
            self.changed.notify_one();
        }
        drop(state);
        self.ripened.notify_waiters();
    }

    /// Gives the recalled slots back whose messages are settled.
    pub(super) fn give_back(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut state = self.lock();
        let Some(session) = state.session else { return };
        let State { slots, known, .. } = &mut *state;
        if !slots.values().any(|held| held.is_recalled && !held.is_given_back) {
            return;
        }
        let busy: HashSet<u32> = known.values().map(|known| known.slot).collect();
        let mut given_back = Vec::new();
        for (slot, held) in slots.iter_mut().filter(|(_, held)| held.is_recalled && !held.is_given_back) {
            if !busy.contains(slot) {
                held.is_given_back = true;
                given_back.push(HeldSlot { slot: *slot, token: held.token.0 });
            }
        }
        drop(state);
        if !given_back.is_empty() {
            shared.runtime.spawn(give_back(Arc::clone(shared), Arc::clone(self), session, given_back));
        }
    }

    /// Settles a message that was delivered. `done` receives the outcome.
    pub(super) fn settle(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        delivered: &Ripe,
        fate: Fate,
        done: oneshot::Sender<Result<(), SettleError>>,
    ) {
        let Ripe { place, message, token } = delivered;
        let (key, position, attempts) = (place.key.to_string(), place.position, message.attempts);
        let settlement = Settlement { key, position, attempts, token: token.0, fate: Some(fate) };
        let mut state = self.lock();
        let known = state.known.get(&position);
        if known.is_none_or(|known| !known.is(attempts, *token)) {
            let _ = done.send(Err(SettleError::Lost));
            return;
        }
        state.due.push(Due { settlement, done });
        if !std::mem::replace(&mut state.is_settling, true) {
            shared.runtime.spawn(settle(Arc::clone(shared), Arc::clone(self)));
        }
    }

    /// The settlements of the next command, with the session; none if the task that sends them ends.
    fn take_due(&self) -> Option<(SessionId, Vec<Due>)> {
        let mut state = self.lock();
        let State { due, known, session, .. } = &mut *state;
        let is_current = |due: &Due| {
            let of = &due.settlement;
            known.get(&of.position).is_some_and(|known| known.is(of.attempts, Token(of.token)))
        };
        for lost in due.extract_if(.., |due| !is_current(due)) {
            let _ = lost.done.send(Err(SettleError::Lost));
        }
        let mut bytes = 0;
        let fits = |due: &&Due| {
            bytes += match &due.settlement.fate {
                Some(Fate::Done(result)) => result.len(),
                Some(Fate::Dead(dead)) => dead.result.len(),
                _ => 0,
            };
            bytes <= SETTLE_BYTES_MAX
        };
        let count = due.iter().take(BATCH_LEN_MAX).take_while(fits).count().max(1).min(due.len());
        let rest = due.split_off(count);
        let taken = std::mem::replace(due, rest);
        match session {
            Some(session) if !taken.is_empty() => Some((*session, taken)),
            _ => {
                state.is_settling = false;
                None
            }
        }
    }

    /// A settlement took effect, or was refused because the slot was lost.
    fn settled(&self, settlement: &Settlement, is_refused: bool) {
        let mut state = self.lock();
        let known = state.known.get(&settlement.position);
        if known.is_some_and(|known| known.is(settlement.attempts, Token(settlement.token))) {
            state.known.remove(&settlement.position);
        }
        if is_refused {
            // If it is held all the same, the message is offered again.
            state.is_behind = true;
            self.changed.notify_one();
        }
    }

    /// What to do next.
    fn next_phase(&self) -> Phase {
        let mut state = self.lock();
        match (state.handles > 0 && !state.is_over, state.is_joined, state.session) {
            (true, false, _) => Phase::Join,
            (true, true, _) if state.is_behind => Phase::Compare,
            (false, true, Some(session)) => {
                state.recall_all();
                Phase::Leave(session)
            }
            (false, ..) if state.slots.is_empty() => Phase::End,
            _ => Phase::Wait,
        }
    }

    /// Begins to consume in a session.
    fn begin(&self, session: SessionId) {
        let mut state = self.lock();
        if state.session != Some(session) {
            state.clear();
            state.session = Some(session);
        }
        // The session may have slots from before.
        (state.is_joined, state.is_behind) = (true, true);
    }
}

/// See [`Consuming::next_phase`].
enum Phase {
    Join,
    Compare,
    /// No message is delivered any more.
    Leave(SessionId),
    Wait,
    /// All slots were given back, or lost.
    End,
}

impl Known {
    fn is(&self, attempts: u32, token: Token) -> bool {
        self.attempts == attempts && self.token == token
    }
}

impl State {
    /// Adds a message, unless it is known. Whether it was added.
    fn offer(&mut self, place: &Place, message: &Arc<Message>, token: Token) -> bool {
        let is_held = |held: &Held| held.token == token && !held.is_recalled;
        let is_known = |known: &Known| known.token == token && known.attempts >= message.attempts;
        if self.handles == 0
            || !self.slots.get(&place.slot).is_some_and(is_held)
            || self.known.get(&place.position).is_some_and(is_known)
        {
            return false;
        }
        let known = Known { slot: place.slot, attempts: message.attempts, token, has_begun: false };
        self.known.insert(place.position, known);
        self.ripe.push_back(Ripe { place: place.clone(), message: Arc::clone(message), token });
        true
    }

    /// Adds what can be delivered in a slot. The state is taken while this one is locked, so that it contains what was settled
    /// before.
    fn scan(&mut self, queue: &str, slot: u32, token: Token, view: ViewNow<'_>) {
        let view = view();
        for (place, message) in view.queues.get(queue).into_iter().flat_map(|queue| queue.deliverable(slot)) {
            self.offer(place, message, token);
        }
    }

    /// Forgets the messages of a slot: all, or those that have not begun.
    fn forget(&mut self, slot: u32, all: bool) {
        self.known.retain(|_, known| known.slot != slot || known.has_begun && !all);
    }

    /// Forgets the messages that have not begun. They are offered again once the state is compared.
    fn forget_waiting(&mut self) {
        self.ripe.clear();
        self.known.retain(|_, known| known.has_begun);
        self.is_behind = true;
    }

    /// All slots are to be given back, once the messages that have begun are settled.
    fn recall_all(&mut self) {
        self.is_joined = false;
        self.slots.values_mut().for_each(|held| held.is_recalled = true);
        self.forget_waiting();
    }

    fn clear(&mut self) {
        (self.session, self.is_joined) = (None, false);
        self.slots.clear();
        self.known.clear();
        self.ripe.clear();
        // Dropping the senders tells their deliveries that the slot was lost.
        self.due.clear();
    }
}

/// Consumes a queue in one session after another, while there are handles; then gives all slots back.
pub(super) async fn consume(shared: Arc<Shared>, consuming: Arc<Consuming>) {
    loop {
        consuming.give_back(&shared);
        match consuming.next_phase() {
            Phase::Join => join(&shared, &consuming).await,
            Phase::Compare => consuming.compare(|| shared.replica.view()),
            Phase::Leave(session) => leave(&shared, &consuming, session).await,
            Phase::End if shared.queues.end_unused(&consuming) => return,
            Phase::Wait | Phase::End => consuming.changed.notified().await,
        }
    }
}

async fn join(shared: &Arc<Shared>, consuming: &Arc<Consuming>) {
    let Ok(own) = shared.sessions.get(Instant::now() + COMMAND_TIMEOUT).await else {
        // Otherwise it is not connected yet.
        if shared.sessions.is_over() {
            consuming.end();
        }
        return;
    };
    consuming.begin(own.id);
    let join = Join { session: own.id.0, queue: consuming.queue.to_string() };
    match shared.execute_by(Operation::Join(join), Instant::now() + COMMAND_TIMEOUT).await {
        Ok(_) => tracing::info!(queue = %consuming.queue, session = %own.id, "queue is consumed"),
        Err(problem) => {
            consuming.lock().is_joined = false;
            if problem != CommandError::Refused(Refusal::NoSession) {
                tracing::error!(queue = %consuming.queue, %problem, "queue cannot be consumed; trying again");
            }
            sleep(RETRY_INTERVAL * 10).await;
        }
    }
}

async fn leave(shared: &Arc<Shared>, consuming: &Arc<Consuming>, session: SessionId) {
    let leave = Operation::Leave(Leave { session: session.0, queue: consuming.queue.to_string() });
    match shared.execute_by(leave, Instant::now() + COMMAND_TIMEOUT).await {
        Ok(_) => tracing::info!(queue = %consuming.queue, "queue is not consumed any more"),
        // Otherwise the session could be granted slots that nobody gives back.
        Err(problem) if shared.sessions.is_current(session) && problem != CommandError::Refused(Refusal::NoSession) => {
            consuming.lock().is_joined = true;
            tracing::warn!(queue = %consuming.queue, %problem, "queue cannot be left; trying again");
            sleep(RETRY_INTERVAL * 10).await;
        }
        Err(_) => {}
    }
}

/// Sends settlements until none is due. They are repeated until their outcome is known, or the session has ended.
async fn settle(shared: Arc<Shared>, consuming: Arc<Consuming>) {
    while let Some((session, due)) = consuming.take_due() {
        let settlements: Vec<_> = due.iter().map(|due| due.settlement.clone()).collect();
        let settle = Settle { session: session.0, queue: consuming.queue.to_string(), settlements };
        let operation = Operation::Settle(settle);
        let refused = loop {
            match shared.execute_by(operation.clone(), Instant::now() + COMMAND_TIMEOUT).await {
                Ok(Outcome::Settled(settled)) => break Some(settled.refused),
                // The messages are delivered again, by the next holder of their slots.
                Ok(_) | Err(CommandError::Refused(_) | CommandError::Unreadable) => break None,
                Err(_) if !shared.sessions.is_current(session) => break None,
                Err(_) => sleep(RETRY_INTERVAL).await,
            }
        };
        for (at, Due { settlement, done }) in (0..).zip(due) {
            let is_refused = refused.as_ref().is_none_or(|refused| refused.contains(&at));
            consuming.settled(&settlement, is_refused);
            let event = match &settlement.fate {
                _ if is_refused => QueueEvent::Lost,
                Some(Fate::Retry(_)) => QueueEvent::Retried,
                Some(Fate::Dead(_)) => QueueEvent::Dead,
                Some(Fate::Done(_)) | None => QueueEvent::Done,
            };
            shared.queues.counts.add(&consuming.queue, event);
            let _ = done.send(if is_refused { Err(SettleError::Lost) } else { Ok(()) });
        }
        consuming.give_back(&shared);
    }
}

/// Gives slots back, until that has happened or the session has ended.
async fn give_back(shared: Arc<Shared>, consuming: Arc<Consuming>, session: SessionId, slots: Vec<HeldSlot>) {
    let give_back = Yield { session: session.0, queue: consuming.queue.to_string(), slots: slots.clone() };
    let operation = Operation::Yield(give_back);
    while let Err(problem) = shared.execute_by(operation.clone(), Instant::now() + COMMAND_TIMEOUT).await {
        if matches!(problem, CommandError::Refused(_)) || !shared.sessions.is_current(session) {
            return;
        }
    }
    let mut state = consuming.lock();
    for HeldSlot { slot, token } in slots {
        // It may have been granted again already.
        if state.slots.get(&slot).is_some_and(|held| held.token.0 == token) {
            state.slots.remove(&slot);
        }
    }
    consuming.changed.notify_one();
}
