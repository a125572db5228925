//! Commits the offsets of records that are processed at most once, those of many records together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rdkafka::error::KafkaError;
use tokio::sync::oneshot;
use tokio::task::{spawn_blocking, spawn_local};

use super::assignment::RecordId;
use super::member::Member;

/// The commits of a listener. One is in flight; the records that ask for one meanwhile share the next.
pub(super) struct Commits {
    member: Arc<Member>,
    waiting: RefCell<Vec<(RecordId, oneshot::Sender<Result<(), KafkaError>>)>>,
    is_running: Cell<bool>,
}

impl Commits {
    pub(super) fn new(member: Arc<Member>) -> Rc<Self> {
        Rc::new(Self { member, waiting: RefCell::default(), is_running: Cell::new(false) })
    }

    /// Commits the offset behind a record. It may be committed although the future was dropped.
    ///
    /// # Errors
    /// The offset may not be committed: the record must not be processed.
    pub(super) async fn commit(self: &Rc<Self>, id: &RecordId) -> Result<(), KafkaError> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push((id.clone(), sender));
        if !self.is_running.replace(true) {
            spawn_local(Rc::clone(self).run());
        }
        receiver.await.unwrap_or(Err(KafkaError::Canceled))
    }

    async fn run(self: Rc<Self>) {
        loop {
            let waiting = self.waiting.take();
            if waiting.is_empty() {
                self.is_running.set(false);
                return;
            }
            let (member, ids) =
                (Arc::clone(&self.member), waiting.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
            // If it panics, the senders are dropped.
            let Ok(results) = spawn_blocking(move || member.commit(&ids)).await else { continue };
            for ((_, sender), result) in waiting.into_iter().zip(results) {
                // The record may have been left to the next owner of its partition.
                let _ = sender.send(result);
            }
        }
    }
}
