//! Ordered queues.
//!
//! A message is in a lane with those of the same key. Only the first message of a lane is delivered; the next one follows when it
//! is settled. Lanes are spread over the slots of the queue, and each slot is held by one consumer, with a fencing token, so that
//! all messages of a lane are delivered by one instance at a time. A settlement takes effect only with that token.

mod message;
mod queue;
mod slots;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

pub use self::message::{DeadLetter, Message, Place};
pub use self::queue::Queue;
pub(crate) use self::queue::{Due, Remembered};
pub use self::slots::{Slot, Slots};
use crate::answer::{Enqueued, Outcome, Placed, Refusal, Settled};
use crate::command::{Enqueue, Join, Leave, Purge, Settle, TakeDead, Yield};
use crate::context::Context;
use crate::event::Event;
use crate::ids::SessionId;
use crate::injected_bug::InjectedBug;
use crate::limits::{BATCH_LEN_MAX, CONSUMERS_MAX, NAME_BYTES_MAX, QUEUES_MAX, SLOTS, USES_MAX};

/// What is counted over all queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// The last position that was given to a message.
    pub(crate) last_position: u64,
    pub(crate) bytes: usize,
}

/// What a session does with a queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Use {
    /// The number of its last command that enqueued something, and the answer.
    pub(crate) last: Option<(u64, Arc<Enqueued>)>,
    pub(crate) is_consumer: bool,
}

/// All queues.
#[derive(Debug, Clone, Default)]
pub struct Queues {
    by_name: RedBlackTreeMapSync<Arc<str>, Queue>,
    uses: RedBlackTreeMapSync<(SessionId, Arc<str>), Use>,
    totals: Totals,
}

/// Queues whose slots have to be divided again.
pub(crate) type Unbalanced = BTreeSet<Arc<str>>;

impl Queues {
    /// A queue that has messages, consumers, dead letters, or ids that it remembers.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Queue> {
        self.by_name.get(name)
    }

    /// All queues by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Queue)> {
        self.by_name.iter()
    }

    /// Their number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.size()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How much all of them count for, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.totals.bytes
    }

    /// Adds messages for an existing session.
    pub(crate) fn enqueue(&mut self, command: Enqueue, time: u64, context: &mut Context<'_>) -> Outcome {
        let Enqueue { session, number, queue: name, messages } = command;
        let session = SessionId(session);
        if number == 0 || messages.len() > BATCH_LEN_MAX {
            return Refusal::Invalid.into();
        }
        let used = (session, Arc::from(name.as_str()));
        if let Some((last, answer)) = self.uses.get(&used).and_then(|of| of.last.as_ref()) {
            if number < *last {
                return Refusal::Finished.into();
            }
            if number == *last && !context.has_bug(InjectedBug::RepeatEnqueue) {
                return Outcome::Enqueued(Enqueued::clone(answer));
            }
        }
        if let Err(refusal) = self.check(&used) {
            return refusal.into();
        }
        let messages = self.change(&used.1, context, |queue, totals, context| {
            let place = |message| {
                let refused = |refusal: Refusal| Placed { refusal: Some(refusal.into()), ..Placed::default() };
                queue.enqueue(message, session, time, totals, context).unwrap_or_else(refused)
            };
            messages.into_iter().map(place).collect()
        });
        let answer = Enqueued { messages };
        self.use_of(&used).last = Some((number, Arc::new(answer.clone())));
        Outcome::Enqueued(answer)
    }

    /// Adds a consumer, whose session exists.
    pub(crate) fn join(&mut self, command: Join, context: &mut Context<'_>) -> Outcome {
        let (session, name) = (SessionId(command.session), Arc::from(command.queue));
        let used = (session, name);
        if let Err(refusal) = self.check(&used) {
            return refusal.into();
        }
        let is_full = |queue: &Queue| queue.slots.consumers().len() >= CONSUMERS_MAX;
        if self.by_name.get(&used.1).is_some_and(is_full) {
            return Refusal::TooMany.into();
        }
        self.change(&used.1, context, |queue, _, context| {
            queue.slots.join(session);
            queue.balance(context);
        });
        self.use_of(&used).is_consumer = true;
        Outcome::DONE
    }

    /// Removes a consumer. It keeps its slots until it gives them back.
    pub(crate) fn leave(&mut self, command: &Leave, context: &mut Context<'_>) -> Outcome {
        let session = SessionId(command.session);
        let used = (session, Arc::from(command.queue.as_str()));
        if let Some(of) = self.uses.get_mut(&used).filter(|of| of.is_consumer) {
            of.is_consumer = false;
            context.tell(Event::Left(Arc::clone(&used.1), session));
            self.change(&used.1, context, |queue, _, context| {
                queue.slots.leave(session);
                queue.balance(context);
            });
        }
        Outcome::DONE
    }

    /// Takes slots back.
    pub(crate) fn give_back(&mut self, command: &Yield, context: &mut Context<'_>) -> Outcome {
        if command.slots.len() > SLOTS as usize {
            return Refusal::Invalid.into();
        }
        if let Some(name) = self.name_of(&command.queue) {
            self.change(&name, context, |queue, _, context| {
                for slot in &command.slots {
                    queue.give_back(SessionId(command.session), *slot);
                }
                queue.balance(context);
            });
        }
        Outcome::DONE
    }

    /// Settles messages.
    pub(crate) fn settle(&mut self, command: Settle, time: u64, context: &mut Context<'_>) -> Outcome {
        let Settle { session, queue: name, settlements } = command;
        if settlements.len() > BATCH_LEN_MAX {
            return Refusal::Invalid.into();
        }
        let mut settled = Settled::default();
        let Some(name) = self.name_of(&name) else {
            settled.refused = (0..).zip(&settlements).map(|(at, _)| at).collect();
            return Outcome::Settled(settled);
        };
        self.change(&name, context, |queue, totals, context| {
            for (at, settlement) in (0..).zip(settlements) {
                if queue.settle(SessionId(session), settlement, time, totals, context).is_err() {
                    settled.refused.push(at);
                }
            }
        });
        Outcome::Settled(settled)
    }

    pub(crate) fn take_dead(&mut self, command: &TakeDead, context: &mut Context<'_>) -> Outcome {
        if command.positions.len() > BATCH_LEN_MAX {
            return Refusal::Invalid.into();
        }
        let Some(name) = self.name_of(&command.queue) else { return Outcome::Removed(0) };
        Outcome::Removed(self.change(&name, context, |queue, totals, context| {
            queue.take_dead(&command.positions, command.is_replayed, totals, context)
        }))
    }

    pub(crate) fn purge(&mut self, command: &Purge, context: &mut Context<'_>) -> Outcome {
        let Some(name) = self.name_of(&command.queue) else { return Outcome::Removed(0) };
        if self.by_name.get(&name).is_some_and(|queue| !queue.slots.consumers().is_empty()) {
            return Refusal::InUse.into();
        }
        let count = command.count.min(BATCH_LEN_MAX as u64);
        Outcome::Removed(self.change(&name, context, |queue, totals, context| queue.purge(count, totals, context)))
    }

    /// Ends what a session does with queues.
    pub(crate) fn end_session(&mut self, session: SessionId, unbalanced: &mut Unbalanced) {
        let first = Bound::Included((session, Arc::from("")));
        let used = self.uses.range((first, Bound::Unbounded)).map(|(used, _)| used.clone());
        let used: Vec<_> = used.take_while(|(of, _)| *of == session).collect();
        for used in used {
            self.uses.remove_mut(&used);
            // It may have slots although it is no consumer any more.
            if let Some(queue) = self.by_name.get_mut(&used.1) {
                queue.slots.end(session);
                unbalanced.insert(used.1);
            }
        }
    }

    /// Divides the slots of these queues.
    pub(crate) fn balance(&mut self, unbalanced: Unbalanced, context: &mut Context<'_>) {
        if context.has_bug(InjectedBug::SilentGrant) {
            return;
        }
        for name in unbalanced {
            self.change(&name, context, |queue, _, context| queue.balance(context));
        }
    }

    /// Does what is due in a queue, up to a number of things. Returns how many there were.
    pub(crate) fn expire(&mut self, name: &Arc<str>, limit: usize, context: &mut Context<'_>) -> usize {
        // Its timer has expired.
        self.changed(name, None, context, |queue, totals, context| {
            let mut count = 0;
            while count < limit && queue.expire(totals, context) {
                count += 1;
            }
            count
        })
    }

    /// Whether a session may use a queue.
    fn check(&self, used: &(SessionId, Arc<str>)) -> Result<(), Refusal> {
        let (_, name) = used;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Refusal::Invalid);
        }
        let is_new = !self.by_name.contains_key(name);
        let is_first_use = !self.uses.contains_key(used);
        if is_new && self.by_name.size() >= QUEUES_MAX || is_first_use && self.uses.size() >= USES_MAX {
            return Err(Refusal::TooMany);
        }
        Ok(())
    }

    /// The name of a queue that exists.
    fn name_of(&self, name: &str) -> Option<Arc<str>> {
        self.by_name.get_key_value(name).map(|(name, _)| Arc::clone(name))
    }

    /// Changes a queue, which is added if there is none of that name, and removed if it is not used any more.
    fn change<T>(
        &mut self,
        name: &Arc<str>,
        context: &mut Context<'_>,
        change: impl FnOnce(&mut Queue, &mut Totals, &mut Context<'_>) -> T,
    ) -> T {
        let armed = self.by_name.get(name).and_then(Queue::next_due);
        self.changed(name, armed, context, change)
    }

    /// Like [`Self::change`], if the timer of the queue is set to that time.
    fn changed<T>(
        &mut self,
        name: &Arc<str>,
        armed: Option<u64>,
        context: &mut Context<'_>,
        change: impl FnOnce(&mut Queue, &mut Totals, &mut Context<'_>) -> T,
    ) -> T {
        if !self.by_name.contains_key(name) {
            self.by_name.insert_mut(Arc::clone(name), Queue::new(Arc::clone(name)));
        }
        let Self { by_name, totals, .. } = self;
        let queue = by_name.get_mut(name).unwrap_or_else(|| unreachable!("it was just added"));
        let result = change(queue, totals, context);
        queue.set_timer(armed, context);
        if queue.is_unused() {
            by_name.remove_mut(name);
        }
        result
    }

    fn use_of(&mut self, used: &(SessionId, Arc<str>)) -> &mut Use {
        if !self.uses.contains_key(used) {
            self.uses.insert_mut(used.clone(), Use::default());
        }
        self.uses.get_mut(used).unwrap_or_else(|| unreachable!("it was just added"))
    }

    /// What sessions do with queues, for snapshots.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&(SessionId, Arc<str>), &Use)> {
        self.uses.iter()
    }

    /// The last position that was given to a message.
    pub(crate) fn last_position(&self) -> u64 {
        self.totals.last_position
    }

    pub(crate) fn put_last_position(&mut self, position: u64) {
        self.totals.last_position = position;
    }

    pub(crate) fn put_use(&mut self, session: SessionId, name: Arc<str>, of: Use, context: &mut Context<'_>) {
        if of.is_consumer {
            self.restore(&name, context, |queue, _| queue.slots.join(session));
        }
        *self.use_of(&(session, name)) = of;
    }

    /// Changes a queue as a snapshot says.
    pub(crate) fn restore(
        &mut self,
        name: &Arc<str>,
        context: &mut Context<'_>,
        restore: impl FnOnce(&mut Queue, &mut Totals),
    ) {
        self.change(name, context, |queue, totals, _| restore(queue, totals));
    }
}
