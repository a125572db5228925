//! Results of the messages that this instance has added and watches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use crossdock_coordination::{SessionId, event};
use tokio::sync::oneshot;

use super::producer::Placed;

/// The result of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What its consumer said.
    pub result: Bytes,
    /// It is a dead letter.
    pub is_dead: bool,
}

type Key = (Arc<str>, u64);

#[derive(Debug, Default)]
struct All {
    waiting: HashMap<Key, oneshot::Sender<Finished>>,
    /// Queues to which watched messages are being added.
    adding: HashMap<Arc<str>, Adding>,
}

/// Results that came before the positions of their messages were known: answers and events come by different ways.
#[derive(Debug)]
struct Adding {
    session: SessionId,
    early: HashMap<u64, Finished>,
    /// Some may be missing.
    has_missed: bool,
}

/// The watched messages.
#[derive(Debug, Default)]
pub(crate) struct Watches(Arc<Mutex<All>>);

/// Waits for the result of a message.
#[derive(Debug)]
pub struct Watch {
    /// The key of its sender in `waiting`; `None` if it has none there, where another call may wait for the same message.
    key: Option<Key>,
    result: oneshot::Receiver<Finished>,
    all: Arc<Mutex<All>>,
}

impl Watch {
    /// Waits for the result. `None` if this instance may have missed it; the message is processed all the same. It is not
    /// told of a duplicate. Cancel safe.
    pub async fn finished(&mut self) -> Option<Finished> {
        (&mut self.result).await.ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.all.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(key);
        }
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watched messages are being added to a queue, by one command at a time.
    pub(super) fn begin(&self, queue: &str, session: SessionId) {
        self.lock().adding.insert(queue.into(), Adding { session, early: HashMap::new(), has_missed: false });
    }

    /// They were added, or not.
    pub(super) fn end(&self, queue: &str) {
        self.lock().adding.remove(queue);
    }

    /// Watches a message that was just added. The result of one that is a duplicate is not told.
    pub(super) fn watch(&self, queue: &str, placed: Placed) -> Watch {
        let (sender, result) = oneshot::channel();
        let mut key = None;
        let mut all = self.lock();
        let adding = all.adding.get_mut(queue);
        let has_missed = adding.as_ref().is_some_and(|adding| adding.has_missed);
        if let Some(finished) = adding.and_then(|adding| adding.early.remove(&placed.position)) {
            let _ = sender.send(finished);
        } else if !placed.is_duplicate() && !has_missed {
            let place = (Arc::from(queue), placed.position);
            all.waiting.insert(place.clone(), sender);
            key = Some(place);
        }
        drop(all);
        Watch { key, result, all: Arc::clone(&self.0) }
    }

    pub(super) fn finished(&self, finished: &event::Finished) {
        let key = (Arc::clone(&finished.queue), finished.enqueued_as);
        let result = Finished { result: finished.result.clone(), is_dead: finished.is_dead };
        let mut all = self.lock();
        if let Some(sender) = all.waiting.remove(&key) {
            let _ = sender.send(result);
        } else if let Some(adding) = all.adding.get_mut(&finished.queue).filter(|of| of.session == finished.session) {
            adding.early.insert(finished.enqueued_as, result);
        }
    }

    /// Results may have been missed.
    pub(super) fn miss(&self) {
        let mut all = self.lock();
        all.waiting.clear();
        all.adding.values_mut().for_each(|adding| adding.has_missed = true);
    }
}
