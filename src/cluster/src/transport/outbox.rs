//! What waits for a peer: bounded in messages and in bytes.

use std::sync::Arc;

use crossdock_zab::{Message, ToFollower, ToLeader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Outgoing;

/// Bookkeeping bytes of a message, and of a transaction in it.
const OVERHEAD_BYTES: usize = 64;

/// Something to send, with its share of the bytes.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) outgoing: Outgoing,
    _room: OwnedSemaphorePermit,
}

/// Why something cannot be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// The peer takes messages too slowly.
    Full,
    /// The connection has ended.
    Closed,
}

/// The queue to a peer. Its connection ends once all of these are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// A reference that does not keep the connection open.
#[derive(Debug)]
pub(crate) struct WeakOutbox {
    queue: mpsc::WeakSender<Queued>,
    room: Arc<Semaphore>,
}

/// Creates a queue for so many messages and bytes.
pub(super) fn outbox(messages_max: usize, bytes_max: usize) -> (Outbox, mpsc::Receiver<Queued>) {
    let (queue, outgoing) = mpsc::channel(messages_max);
    let room = Arc::new(Semaphore::new(bytes_max.min(Semaphore::MAX_PERMITS)));
    (Outbox { queue, room }, outgoing)
}

impl Outbox {
    /// Queues something without waiting.
    ///
    /// # Errors
    /// [`NotQueued`]; nothing is queued then.
    pub(crate) fn try_send(&self, outgoing: Outgoing) -> Result<(), NotQueued> {
        let bytes = u32::try_from(bytes_of(&outgoing)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| NotQueued::Full)?;
        self.queue.try_send(Queued { outgoing, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotQueued::Full,
            mpsc::error::TrySendError::Closed(_) => NotQueued::Closed,
        })
    }

    pub(crate) fn downgrade(&self) -> WeakOutbox {
        WeakOutbox { queue: self.queue.downgrade(), room: Arc::clone(&self.room) }
    }
}

impl WeakOutbox {
    /// The queue, unless the connection has been dropped.
    pub(crate) fn upgrade(&self) -> Option<Outbox> {
        Some(Outbox { queue: self.queue.upgrade()?, room: Arc::clone(&self.room) })
    }
}

/// The memory that a message keeps.
fn bytes_of(outgoing: &Outgoing) -> usize {
    let payloads = match outgoing {
        Outgoing::Message(Message::ToFollower(_, ToFollower::Sync { txns, .. } | ToFollower::Propose { txns, .. })) => {
            txns.iter().map(|txn| txn.payload.len() + OVERHEAD_BYTES).sum()
        }
        Outgoing::Message(Message::ToLeader(_, ToLeader::Forward { payload, .. })) => payload.len(),
        Outgoing::Message(_) | Outgoing::Snapshot { .. } | Outgoing::NoSnapshot(_) => 0,
    };
    payloads + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use crossdock_zab::{Epoch, Payload, Point, Session, Zxid};

    use super::*;

    fn proposal(bytes: usize) -> Outgoing {
        let txn = Point::default().next(Zxid::new(Epoch(1), 1), 0, Payload::Command(vec![0; bytes].into()));
        let message = ToFollower::Propose { after: Zxid::ZERO, txns: vec![txn] };
        Outgoing::Message(Message::ToFollower(Session(1), message))
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_and_has_room_again_once_they_are_sent() {
        let (outbox, mut outgoing) = outbox(100, 1 << 20);
        let count = std::iter::from_fn(|| outbox.try_send(proposal(100_000)).ok()).take(100).count();
        assert_eq!(count, 10, "ten proposals of 100 kB in 1 MiB");
        assert_eq!(outbox.try_send(proposal(100_000)), Err(NotQueued::Full));
        outbox.try_send(proposal(10)).expect("there is room for a small one");
        drop(outgoing.try_recv().expect("the first proposal"));
        outbox.try_send(proposal(100_000)).expect("there is room again");
        drop(outgoing);
        assert_eq!(outbox.try_send(proposal(10)), Err(NotQueued::Closed));
    }

    #[test]
    fn a_queue_is_bounded_in_messages() {
        let (outbox, _outgoing) = outbox(100, 1 << 30);
        let sent = std::iter::from_fn(|| outbox.try_send(proposal(0)).ok()).take(101).count();
        assert_eq!(sent, 100);
    }

    #[test]
    fn a_weak_reference_does_not_keep_a_connection() {
        let (outbox, mut outgoing) = outbox(100, 1 << 20);
        let weak = outbox.downgrade();
        weak.upgrade().expect("it is open").try_send(proposal(1)).expect("there is room");
        drop(outbox);
        assert!(weak.upgrade().is_none() && outgoing.try_recv().is_ok());
        assert_eq!(outgoing.try_recv().err(), Some(mpsc::error::TryRecvError::Disconnected));
    }
}
