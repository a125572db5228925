//! The whole state, and how commands change it.

use bytes::Bytes;
use crossdock_zab::Zxid;
use prost::Message as _;

use crate::answer::{Answer, Outcome, Refusal};
use crate::budgets::Budgets;
use crate::clock::Clock;
use crate::command::{Command, Operation, Remember, Tick};
use crate::context::{Context, Effects, Timer};
use crate::event::{EndReason, Event};
use crate::generations::Generations;
use crate::ids::{RequestId, SessionId};
use crate::injected_bug::InjectedBug;
use crate::limits::{EXPIRED_MAX, SESSIONS_MAX};
use crate::locks::{Locks, Touched};
use crate::queues::{Queues, Unbalanced};
use crate::results::Results;
use crate::saved::{self, Saved};
use crate::sequences::Sequences;
use crate::sessions::Sessions;

/// A state at one point of the log.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The clock.
    pub clock: Clock,
    /// The sessions.
    pub sessions: Sessions,
    /// The locks.
    pub locks: Locks,
    /// The sequences.
    pub sequences: Sequences,
    /// The queues.
    pub queues: Queues,
    /// The rate budgets.
    pub budgets: Budgets,
    /// The results of processed messages.
    pub results: Results,
    /// The generations of the routes.
    pub generations: Generations,
    /// By the clock, a time before which nothing expires; `None` if nothing does. It is an estimate, and differs between
    /// instances.
    pub next_expiry: Option<u64>,
}

impl View {
    /// The state as messages, for a snapshot.
    pub fn save(&self) -> impl Iterator<Item = Saved> {
        saved::save(self)
    }
}

/// The state that commands change.
#[derive(Debug, Default)]
pub struct Coordination {
    state: View,
    effects: Effects,
}

impl Coordination {
    /// Injects a bug.
    #[cfg(feature = "injected-bugs")]
    pub fn inject(&mut self, bug: InjectedBug) {
        self.effects.injected_bug = Some(bug);
    }

    /// Whether events are wanted from now on.
    pub fn observe(&mut self, is_observed: bool) {
        self.effects.is_observed = is_observed;
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.effects.events)
    }

    /// Applies the command of this zxid, which was proposed at `time`, in milliseconds since the Unix epoch by the clock of the
    /// leader. It always has the same effect on the same state.
    pub fn apply(&mut self, zxid: Zxid, time: u64, payload: Bytes) -> Answer {
        let is_new_epoch = self.state.clock.advance(zxid, time);
        let (state, mut context) = self.parts(zxid.to_u64());
        if is_new_epoch {
            state.sessions.restart(&mut context);
        }
        let outcome = match Command::decode(payload) {
            Ok(Command { guards, operation: Some(operation) }) => match state.locks.permits(&guards, &context) {
                Ok(()) => execute(state, operation, &mut context),
                Err(refusal) => refusal.into(),
            },
            _ => Refusal::Unreadable.into(),
        };
        Answer { outcome: Some(outcome) }
    }

    fn parts(&mut self, zxid: u64) -> (&mut View, Context<'_>) {
        let now = self.state.clock.now;
        (&mut self.state, Context { zxid, now, effects: &mut self.effects })
    }

    /// By the clock, a time before which nothing expires; `None` if nothing does.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.effects.timers.next()
    }

    /// The current state. It shares what does not change later.
    #[must_use]
    pub fn view(&self) -> View {
        View { next_expiry: self.next_expiry(), ..self.state.clone() }
    }

    /// Becomes the initial state.
    pub fn reset(&mut self) {
        self.state = View::default();
        self.effects.timers = crate::wheel::Wheel::default();
        self.effects.events.clear();
    }

    /// Adds a part of a [saved](View::save) state, after a [reset](Self::reset). The parts must come in their order.
    ///
    /// # Errors
    /// The part cannot be understood.
    pub fn restore(&mut self, part: Saved) -> Result<(), saved::Invalid> {
        if self.effects.has_bug(InjectedBug::ForgetTimers) {
            let timers = std::mem::take(&mut self.effects.timers);
            let (state, mut context) = self.parts(0);
            saved::restore(part, state, &mut context)?;
            self.effects.timers = timers;
            return Ok(());
        }
        let (state, mut context) = self.parts(0);
        saved::restore(part, state, &mut context)
    }
}

/// Executes an operation whose guards hold.
fn execute(state: &mut View, operation: Operation, context: &mut Context<'_>) -> Outcome {
    let time = state.clock.leader_time;
    match operation {
        Operation::Tick(tick) => self::tick(state, &tick, context),
        Operation::OpenSession(command) => state.sessions.open(&command, context),
        Operation::CloseSession(command) => {
            close(state, SessionId(command.session), &EndReason::SessionClosed, context);
            Outcome::DONE
        }
        Operation::KeepAlive(command) if command.sessions.len() > SESSIONS_MAX => Refusal::Invalid.into(),
        Operation::KeepAlive(command) => state.sessions.keep_alive(&command, context),
        Operation::Acquire(command) => {
            in_session(state, command.session, |state| state.locks.acquire(&command, time, context))
        }
        Operation::Release(command) => {
            let id = RequestId { session: SessionId(command.session), number: command.number };
            in_session(state, command.session, |state| state.locks.release(id, command.attempt, context))
        }
        Operation::Downgrade(command) => {
            let id = RequestId { session: SessionId(command.session), number: command.number };
            in_session(state, command.session, |state| state.locks.downgrade(id, context))
        }
        Operation::Revoke(command) => state.locks.revoke(&command, context),
        Operation::Break(command) => state.locks.break_lock(&command, time, context),
        Operation::TakeNumbers(command) => state.sequences.take(&command, context),
        Operation::Spend(command) => state.budgets.spend(&command, context),
        Operation::Remember(command) => in_session(state, command.session, |state| remember(state, command, context)),
        Operation::Enqueue(command) => {
            in_session(state, command.session, |state| state.queues.enqueue(command, time, context))
        }
        Operation::Join(command) => in_session(state, command.session, |state| state.queues.join(command, context)),
        Operation::Leave(command) => in_session(state, command.session, |state| state.queues.leave(&command, context)),
        Operation::Yield(command) => {
            in_session(state, command.session, |state| state.queues.give_back(&command, context))
        }
        Operation::Settle(command) => {
            in_session(state, command.session, |state| state.queues.settle(command, time, context))
        }
        Operation::TakeDead(command) => state.queues.take_dead(&command, context),
        Operation::Purge(command) => state.queues.purge(&command, context),
        Operation::Propose(command) => {
            in_session(state, command.session, |state| state.generations.propose(command, time, context))
        }
        Operation::Withdraw(command) => state.generations.withdraw(command.number, context),
        Operation::ServeRoutes(command) => {
            in_session(state, command.session, |state| state.generations.join(SessionId(command.session)))
        }
        Operation::Prepared(command) => {
            in_session(state, command.session, |state| state.generations.prepared(&command, context))
        }
    }
}

fn in_session(state: &mut View, session: u64, execute: impl FnOnce(&mut View) -> Outcome) -> Outcome {
    if state.sessions.get(SessionId(session)).is_none() {
        return Refusal::NoSession.into();
    }
    execute(state)
}

/// Stores a result under the lock of its key, which is released.
fn remember(state: &mut View, command: Remember, context: &mut Context<'_>) -> Outcome {
    let id = RequestId { session: SessionId(command.session), number: command.number };
    if !state.locks.is_held_by(id, context) {
        let is_repeated = state.results.is_stored_by(&command, id);
        return if is_repeated { Outcome::DONE } else { Refusal::NotHeld.into() };
    }
    match state.results.store(command, id, context) {
        Ok(()) => state.locks.release(id, 0, context),
        Err(refusal) => refusal.into(),
    }
}

/// Closes a session, if it exists.
fn close(state: &mut View, id: SessionId, reason: &EndReason, context: &mut Context<'_>) {
    let mut freed = Freed::default();
    end_session(state, id, reason, &mut freed, context);
    freed.grant(state, context);
}

/// What others can be granted, once all is over that a command ends.
#[derive(Default)]
struct Freed {
    locks: Touched,
    queues: Unbalanced,
}

impl Freed {
    fn grant(self, state: &mut View, context: &mut Context<'_>) {
        state.locks.settle(self.locks, context);
        state.queues.balance(self.queues, context);
    }
}

fn end_session(
    state: &mut View,
    id: SessionId,
    reason: &EndReason,
    freed: &mut Freed,
    context: &mut Context<'_>,
) -> usize {
    if !state.sessions.remove(id, context) {
        return 0;
    }
    let ended = state.locks.end_session(id, reason, &mut freed.locks, context);
    state.queues.end_session(id, &mut freed.queues);
    context.tell(Event::SessionEnded(id));
    state.generations.end_session(id, context);
    ended
}

/// Lets what is due expire, up to a limit.
fn tick(state: &mut View, tick: &Tick, context: &mut Context<'_>) -> Outcome {
    if tick.epoch != state.clock.epoch.0 && !context.has_bug(InjectedBug::TickOfOldLeader) {
        return Refusal::OtherEpoch.into();
    }
    let mut freed = Freed::default();
    context.effects.timers.advance(context.now);
    let mut expired = 0;
    while expired < EXPIRED_MAX {
        expired += 1;
        match context.effects.timers.pop_due() {
            None => break,
            Some(Timer::Session(id)) => {
                expired += end_session(state, id, &EndReason::SessionExpired, &mut freed, context);
            }
            Some(Timer::Wait(id)) => {
                state.locks.end(id, &EndReason::TimedOut, &mut freed.locks, context);
            }
            Some(Timer::Hold(id)) => {
                state.locks.end(id, &EndReason::HoldExpired, &mut freed.locks, context);
            }
            Some(Timer::Proposal) => state.generations.time_out(context),
            Some(Timer::Budget(name)) => state.budgets.expire(&name, context),
            Some(Timer::Results(name)) => expired += state.results.expire(&name, EXPIRED_MAX - expired, context),
            Some(Timer::Queue(name)) => expired += state.queues.expire(&name, EXPIRED_MAX - expired, context),
            Some(Timer::Reopen(name)) => {
                state.locks.reopen(&name, context);
                freed.locks.insert(name);
            }
        }
    }
    freed.grant(state, context);
    Outcome::DONE
}
