//! Producing. Messages that are added at the same time share a command, one after another for each queue, so that none is
//! overtaken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossdock_cluster::RequestError;
use crossdock_coordination::command::{self, Enqueue};
use crossdock_coordination::limits::{BATCH_LEN_MAX, MESSAGE_BYTES_MAX};
use crossdock_coordination::{Operation, Outcome, Refusal, answer};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::counts::QueueEvent;
use super::watches::Watch;
use crate::engine::{COMMAND_TIMEOUT, Shared};
use crate::error::CommandError;

/// Messages of one command, in bytes; a single one may exceed it.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Messages that wait for a command, over all queues, and their length in bytes. Beyond it, messages are refused.
const WAITING_MAX: usize = 100_000;
const WAITING_BYTES_MAX: usize = 64 << 20;

/// A message to add to a queue.
#[derive(Debug, Clone, Default)]
pub struct NewMessage {
    /// Messages of the same key, of up to 512 bytes, are delivered one after another. If it is empty, the message has no order.
    pub key: String,
    /// What it contains, up to 1 MiB.
    pub payload: Bytes,
    /// It is delivered after this time, and takes its place in the order then.
    pub delay: Duration,
    /// An id of up to 512 bytes, and how long it is remembered: a message with the same id is a duplicate meanwhile.
    pub id: Option<(String, Duration)>,
    /// A digest of what the id stands for, which is returned for duplicates.
    pub digest: u64,
}

/// Where a message was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The position, which identifies the message, or the one that it is a duplicate of.
    pub position: u64,
    /// It is a duplicate of a message with this digest, and was not added.
    pub duplicate_of: Option<u64>,
}

impl Placed {
    /// Whether it is a duplicate, and was not added.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.duplicate_of.is_some()
    }
}

/// Why a message was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// It was not added.
    #[error("{0}")]
    Refused(Refusal),
    /// It was not added: this instance has no session with the cluster, has ended, or too many messages wait.
    #[error("the cluster cannot take the message at the moment")]
    NotConnected,
    /// It may have been added or not.
    #[error("it is not known whether the message was added: {0}")]
    Unknown(CommandError),
}

/// The place of a message, and its watch if it has one.
type Answer = Result<(Placed, Option<Watch>), EnqueueError>;

/// A message that waits for its command.
#[derive(Debug)]
struct Waiting {
    message: command::NewMessage,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct All {
    /// By queue; while there is an entry, a task sends them.
    by_queue: HashMap<String, Vec<Waiting>>,
    count: usize,
    bytes: usize,
    /// The instance has ended.
    is_over: bool,
}

/// The messages that wait, by queue.
#[derive(Debug, Default)]
pub(crate) struct Producers(Mutex<All>);

pub(super) async fn enqueue(shared: &Arc<Shared>, queue: &str, message: NewMessage, is_watched: bool) -> Answer {
    if message.payload.len() > MESSAGE_BYTES_MAX {
        return Err(EnqueueError::Refused(Refusal::Invalid));
    }
    let (answer, answered) = oneshot::channel();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (id, window_ms) = message.id.map_or_else(Default::default, |(id, window)| (id, millis(window)));
    let NewMessage { key, payload, delay, digest, .. } = message;
    let delay_ms = millis(delay);
    let message = command::NewMessage { key, payload, delay_ms, id, window_ms, is_watched, digest };
    let is_added = shared.queues.producers.add(queue, Waiting { message, answer }, || {
        // It goes on for the others if this caller does not wait any longer.
        shared.runtime.spawn(produce(Arc::clone(shared), queue.to_owned()));
    });
    if !is_added {
        return Err(EnqueueError::NotConnected);
    }
    // Its command may be sent after another one.
    match timeout(2 * COMMAND_TIMEOUT, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(EnqueueError::Unknown(RequestError::Ended.into())),
        Err(_) => Err(EnqueueError::Unknown(CommandError::TimedOut)),
    }
}

impl Producers {
    /// Adds a message, and starts a task if there is none for its queue. Whether there was room.
    fn add(&self, queue: &str, waiting: Waiting, start: impl FnOnce()) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let len = waiting.message.payload.len();
        if all.is_over || all.count >= WAITING_MAX || all.bytes + len > WAITING_BYTES_MAX {
            return false;
        }
        all.count += 1;
        all.bytes += len;
        if let Some(others) = all.by_queue.get_mut(queue) {
            others.push(waiting);
        } else {
            all.by_queue.insert(queue.to_owned(), vec![waiting]);
            start();
        }
        true
    }

    /// The instance has ended. What became of the messages that wait is unknown: their command may be on its way.
    pub(super) fn end(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all = All { is_over: true, ..All::default() };
    }

    /// The messages of the next command; none if the task has ended. Those whose callers wait no longer are left out: they may have
    /// been sent again in another way.
    fn take(&self, queue: &str) -> Vec<Waiting> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let All { by_queue, count, bytes, .. } = &mut *all;
        let Some(waiting) = by_queue.get_mut(queue) else { return Vec::new() };
        let (before, len) = (waiting.len(), len_of(waiting));
        waiting.retain(|waiting| !waiting.answer.is_closed());
        let mut sum = 0;
        let fits = |waiting: &&Waiting| {
            sum += waiting.message.payload.len();
            sum <= BATCH_BYTES_MAX
        };
        let fitting = waiting.iter().take(BATCH_LEN_MAX).take_while(fits).count();
        let rest = waiting.split_off(fitting.max(1).min(waiting.len()));
        let taken = std::mem::replace(waiting, rest);
        *count -= before - waiting.len();
        *bytes -= len - len_of(waiting);
        if taken.is_empty() {
            by_queue.remove(queue);
        }
        taken
    }
}

fn len_of(waiting: &[Waiting]) -> usize {
    waiting.iter().map(|waiting| waiting.message.payload.len()).sum()
}

/// Adds messages to a queue until none waits.
async fn produce(shared: Arc<Shared>, queue: String) {
    loop {
        let waiting = shared.queues.producers.take(&queue);
        if waiting.is_empty() {
            return;
        }
        let (messages, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.message, waiting.answer)).unzip();
        let watched: Vec<_> = messages.iter().map(|message| message.is_watched).collect();
        let placed = send(&shared, &queue, messages).await;
        for (at, (answer, is_watched)) in answers.into_iter().zip(watched).enumerate() {
            let unanswered = Err(EnqueueError::Unknown(CommandError::Unreadable));
            let placed = match &placed {
                Ok(placed) => placed.get(at).map_or(unanswered, read),
                Err(problem) => Err(*problem),
            };
            shared.queues.counts.add(&queue, event_of(&placed));
            let watch = |placed| shared.queues.watches.watch(&queue, placed);
            let _ = answer.send(placed.map(|placed| (placed, is_watched.then(|| watch(placed)))));
        }
        shared.queues.watches.end(&queue);
    }
}

async fn send(
    shared: &Shared,
    queue: &str,
    messages: Vec<command::NewMessage>,
) -> Result<Vec<answer::Placed>, EnqueueError> {
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    let Ok(own) = shared.sessions.get(deadline).await else { return Err(EnqueueError::NotConnected) };
    // With the number, the command is executed once, however often it is sent.
    let id = own.next_request();
    if messages.iter().any(|message| message.is_watched) {
        shared.queues.watches.begin(queue, own.id);
    }
    let command = Enqueue { session: id.session.0, number: id.number, queue: queue.to_owned(), messages };
    match shared.execute_by(Operation::Enqueue(command), deadline).await {
        Ok(Outcome::Enqueued(enqueued)) => Ok(enqueued.messages),
        Ok(_) => Err(EnqueueError::Unknown(CommandError::Unreadable)),
        // An earlier attempt may have been executed before the session ended.
        Err(problem @ CommandError::Refused(Refusal::NoSession)) => Err(EnqueueError::Unknown(problem)),
        Err(CommandError::Refused(refusal)) => Err(EnqueueError::Refused(refusal)),
        Err(problem) => Err(EnqueueError::Unknown(problem)),
    }
}

fn event_of(placed: &Result<Placed, EnqueueError>) -> QueueEvent {
    match placed {
        Ok(placed) if placed.is_duplicate() => QueueEvent::Duplicate,
        Ok(_) => QueueEvent::Enqueued,
        Err(_) => QueueEvent::Refused,
    }
}

fn read(placed: &answer::Placed) -> Result<Placed, EnqueueError> {
    match placed.refusal.map(Refusal::try_from) {
        None => {
            let duplicate_of = placed.is_duplicate.then_some(placed.digest);
            Ok(Placed { position: placed.position, duplicate_of })
        }
        Some(Ok(refusal)) => Err(EnqueueError::Refused(refusal)),
        Some(Err(_)) => Err(EnqueueError::Refused(Refusal::Unreadable)),
    }
}
