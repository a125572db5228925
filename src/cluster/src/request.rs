//! Requests of local clients to the driver.

use bytes::Bytes;
use crossdock_zab::{Epoch, MemberChange, ServerId, Zxid};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::backup::BackupFile;
use crate::error::RequestError;

/// Where the outcome of a request goes. Dropping it tells the client that the instance has ended.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    to: oneshot::Sender<Result<T, RequestError>>,
    /// The share of the request in what may wait.
    _room: Option<OwnedSemaphorePermit>,
}

impl<T> Reply<T> {
    pub(crate) fn new(room: Option<OwnedSemaphorePermit>) -> (Self, oneshot::Receiver<Result<T, RequestError>>) {
        let (to, outcome) = oneshot::channel();
        (Self { to, _room: room }, outcome)
    }

    pub(crate) fn send(self, outcome: Result<T, RequestError>) {
        // The client may have stopped waiting.
        let _ = self.to.send(outcome);
    }

    /// Nobody waits any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.to.is_closed()
    }
}

/// Sends one outcome to several clients.
pub(crate) fn send_to_all<T: Copy>(replies: impl IntoIterator<Item = Reply<T>>, outcome: Result<T, RequestError>) {
    for reply in replies {
        reply.send(outcome);
    }
}

/// A request of a local client.
#[derive(Debug)]
pub(crate) enum ClientRequest {
    /// Commands in order.
    Propose(Vec<Proposed>),
    ChangeMembers {
        change: MemberChange,
        reply: Reply<(Zxid, Bytes)>,
    },
    /// Determine a transaction that a linearizable read must see, and wait until it is applied.
    Barrier(Reply<Zxid>),
    /// Wait until a transaction is applied.
    Applied(Zxid, Reply<Zxid>),
    TransferLeadership(Option<ServerId>),
    /// The hash over the history through a transaction, if that is in memory.
    HashAt(Zxid, Reply<Option<u64>>),
    /// Write the state to a file, as a backup.
    Save {
        file: BackupFile,
        reply: Reply<Saved>,
    },
}

/// A written backup, the last transaction in it, and the bytes of its file; or why it could not be written.
pub(crate) type Saved = Result<(BackupFile, Zxid, u64), String>;

/// A command to propose.
#[derive(Debug)]
pub(crate) struct Proposed {
    /// The encoded envelope.
    pub(crate) payload: Bytes,
    /// The request in it.
    pub(crate) request: u64,
    pub(crate) in_epoch: Option<Epoch>,
    pub(crate) is_reserved: bool,
    pub(crate) reply: Reply<(Zxid, Bytes)>,
}
