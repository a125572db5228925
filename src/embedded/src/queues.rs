//! Queues: this instance as a producer and as a consumer.

mod consumer;
mod consuming;
mod counts;
mod producer;
mod watches;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossdock_coordination::command::{Purge, TakeDead};
use crossdock_coordination::{Event, Operation, Outcome, SessionId};
use tokio::time::Instant;

pub use self::consumer::{Consumer, Delivery, SettleError, SlotValidity};
use self::consuming::Consuming;
use self::counts::Counts;
pub use self::counts::QueueEvent;
use self::producer::Producers;
pub use self::producer::{EnqueueError, NewMessage, Placed};
use self::watches::Watches;
pub use self::watches::{Finished, Watch};
use crate::engine::{COMMAND_TIMEOUT, Engine, Shared};
use crate::error::CommandError;
use crate::machine::State;

/// What this instance does with queues.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub(crate) producers: Producers,
    pub(crate) watches: Watches,
    pub(crate) counts: Counts,
    /// Each has a task.
    consuming: Mutex<HashMap<Arc<str>, Arc<Consuming>>>,
}

impl Queues {
    fn consuming(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Consuming>>> {
        self.consuming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The consumer of a queue.
    fn consumer_of(&self, queue: &str) -> Option<Arc<Consuming>> {
        self.consuming().get(queue).cloned()
    }

    /// Removes a consumer, if it is not needed any more. Whether it was removed.
    fn end_unused(&self, consuming: &Consuming) -> bool {
        let mut all = self.consuming();
        let is_unused = consuming.is_unused();
        if is_unused {
            all.remove(&consuming.queue);
        }
        is_unused
    }

    fn consumers(&self) -> Vec<Arc<Consuming>> {
        self.consuming().values().cloned().collect()
    }

    /// Handles the events of commands that became visible together.
    pub(crate) fn handle(&self, shared: &Arc<Shared>, events: &[Event]) {
        for event in events {
            match event {
                Event::SlotGranted(of) | Event::SlotRecalled(of) => {
                    if let Some(consuming) = self.consumer_of(&of.queue) {
                        let is_granted = matches!(event, Event::SlotGranted(_));
                        consuming.slot(of, is_granted, || shared.replica.view());
                    }
                }
                Event::Ready(ready) => {
                    if let Some(consuming) = self.consumer_of(&ready.slot.queue) {
                        consuming.ready(ready, || shared.replica.view());
                    }
                }
                Event::Left(queue, session) => {
                    if let Some(consuming) = self.consumer_of(queue) {
                        consuming.left(*session);
                    }
                }
                Event::Finished(finished) => self.watches.finished(finished),
                Event::SessionEnded(session) => self.end_session(*session),
                _ => {}
            }
        }
        for consuming in self.consumers() {
            consuming.give_back(shared);
        }
    }

    /// Compares with a state, after events were missed.
    pub(crate) fn compare(&self, shared: &Arc<Shared>) {
        self.watches.miss();
        for consuming in self.consumers() {
            consuming.compare(|| shared.replica.view());
            consuming.give_back(shared);
        }
    }

    /// Ends what this instance does in a session.
    pub(crate) fn end_session(&self, session: SessionId) {
        for consuming in self.consumers() {
            consuming.end_session(session);
        }
    }

    /// Ends everything: the instance has ended.
    pub(crate) fn end_all(&self) {
        self.producers.end();
        self.watches.miss();
        for consuming in self.consumers() {
            consuming.end();
        }
    }
}

impl Engine {
    /// Adds a message to a queue, durably on a majority of the cluster. Messages that are added one after another get their
    /// positions in that order. If the future is dropped, the message may be added all the same.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    pub async fn enqueue(&self, queue: &str, message: NewMessage) -> Result<Placed, EnqueueError> {
        producer::enqueue(&self.0, queue, message, false).await.map(|(placed, _)| placed)
    }

    /// Like [`Engine::enqueue`], and watches for the result of the message.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    pub async fn enqueue_watched(&self, queue: &str, message: NewMessage) -> Result<(Placed, Watch), EnqueueError> {
        let (placed, watch) = producer::enqueue(&self.0, queue, message, true).await?;
        watch.map(|watch| (placed, watch)).ok_or(EnqueueError::Unknown(CommandError::Unreadable))
    }

    /// Consumes a queue, together with the other instances that do. All consumers of one instance share its messages. It ends
    /// when the last of them is dropped.
    #[must_use]
    pub fn consume(&self, queue: &str) -> Consumer {
        let mut all = self.0.queues.consuming();
        if let Some(consuming) = all.get(queue) {
            return Consumer::new(&self.0, consuming);
        }
        let consuming = Arc::new(Consuming::new(queue));
        let consumer = Consumer::new(&self.0, &consuming);
        all.insert(Arc::clone(&consuming.queue), Arc::clone(&consuming));
        drop(all);
        if self.0.sessions.is_over() {
            consuming.end();
        }
        self.0.runtime.spawn(consuming::consume(Arc::clone(&self.0), consuming));
        consumer
    }

    /// What this instance has done with queues since it started: queue, event and count.
    #[must_use]
    pub fn queue_counts(&self) -> Vec<(Arc<str>, QueueEvent, u64)> {
        self.0.queues.counts.all()
    }

    /// Removes dead letters of a queue by their positions, and adds them to it again if they are `replayed`. Returns how many
    /// there were, without those that an attempt has removed whose answer was lost.
    ///
    /// # Errors
    /// See [`CommandError`]. If its outcome is unknown, it can be called again.
    pub async fn take_dead(&self, queue: &str, positions: Vec<u64>, replayed: bool) -> Result<u64, CommandError> {
        let command = TakeDead { queue: queue.to_owned(), positions, is_replayed: replayed };
        self.remove(Operation::TakeDead(command)).await
    }

    /// Drops up to 1000 messages of a queue that no instance consumes. Returns how many; 0 if there are none any more.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn purge(&self, queue: &str) -> Result<u64, CommandError> {
        let command = Purge { queue: queue.to_owned(), count: u64::MAX };
        self.remove(Operation::Purge(command)).await
    }

    async fn remove(&self, operation: Operation) -> Result<u64, CommandError> {
        match self.0.execute_by(operation, Instant::now() + COMMAND_TIMEOUT).await? {
            Outcome::Removed(count) => Ok(count),
            _ => Err(CommandError::Unreadable),
        }
    }
}

/// The view of a state, taken while nothing else changes what it is compared with.
type ViewNow<'a> = &'a dyn Fn() -> Arc<State>;
