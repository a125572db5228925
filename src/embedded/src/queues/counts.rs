//! What this instance has done with queues, for metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_coordination::limits::QUEUES_MAX;

/// What this instance has done with a queue since it started. The names are those in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueEvent {
    /// A message was added.
    Enqueued,
    /// A message was recognized as a duplicate.
    Duplicate,
    /// A message was refused.
    Refused,
    /// A message was processed.
    Done,
    /// A message is to be delivered again.
    Retried,
    /// A message became a dead letter.
    Dead,
    /// A message was settled without effect, because its slot was lost.
    Lost,
}

impl QueueEvent {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Enqueued, Self::Duplicate, Self::Refused, Self::Done, Self::Retried, Self::Dead, Self::Lost];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Done => "done",
            Self::Retried => "retried",
            Self::Dead => "dead",
            Self::Lost => "lost",
        }
    }
}

type OfQueue = [u64; QueueEvent::ALL.len()];

/// The counts of each queue that this instance has used.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<Arc<str>, OfQueue>>);

impl Counts {
    /// Counts what happened to a message of a queue.
    pub(super) fn add(&self, queue: &str, event: QueueEvent) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_queue) = all.get_mut(queue) {
            of_queue[event as usize] += 1;
        } else if all.len() < 2 * QUEUES_MAX {
            // Refused names are no queues.
            all.entry(queue.into()).or_default()[event as usize] += 1;
        }
    }

    /// All counts.
    pub(super) fn all(&self) -> Vec<(Arc<str>, QueueEvent, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(name, counts): (&Arc<str>, &OfQueue)| {
            QueueEvent::ALL.map(|event| (Arc::clone(name), event, counts[event as usize]))
        };
        all.iter().flat_map(of).collect()
    }
}
