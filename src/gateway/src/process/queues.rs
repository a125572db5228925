//! The queues of the cluster, as the rest of the gateway and its adapters use them.

use std::time::Duration;

use crossdock_coordination::Refusal;
use crossdock_embedded::{Engine, EnqueueError, NewMessage, Placed, Watch};
use crossdock_message::{Code, Fault, Retry};
use crossdock_ports::{Enqueue, QueueMessage, SendFuture};

use super::key_reused;

/// The queues of the embedded engine.
#[derive(Clone)]
pub(crate) struct Queues(pub(crate) Engine);

fn new_message(message: QueueMessage) -> NewMessage {
    let QueueMessage { key, payload, delay, id, digest } = message;
    let id = id.map(|(id, window)| (id.to_string(), window));
    NewMessage { key: key.to_string(), payload, delay, id, digest }
}

/// Refuses a duplicate that is another message.
fn checked(digest: u64, placed: Placed) -> Result<Placed, Fault> {
    let is_other = placed.duplicate_of.is_some_and(|other| other != digest);
    if is_other { Err(key_reused()) } else { Ok(placed) }
}

impl Queues {
    /// Adds a message and watches for its result; that of a duplicate is not reported.
    pub(crate) async fn enqueue_watched(&self, queue: &str, message: QueueMessage) -> Result<Watch, Fault> {
        let digest = message.digest;
        let added = self.0.enqueue_watched(queue, new_message(message)).await;
        let (placed, watch) = added.map_err(|problem| refused(&problem))?;
        checked(digest, placed).map(|_| watch)
    }
}

impl Enqueue for Queues {
    fn enqueue(&self, queue: &str, message: QueueMessage) -> SendFuture<'static, Result<(), Fault>> {
        let (engine, queue, digest) = (self.0.clone(), queue.to_owned(), message.digest);
        Box::pin(async move {
            let placed = engine.enqueue(&queue, new_message(message)).await;
            placed.map_err(|problem| refused(&problem)).and_then(|placed| checked(digest, placed)).map(drop)
        })
    }
}

/// The fault of a message whose caller does not know whether it was added.
pub(crate) fn unknown() -> Fault {
    let message = "it is not known whether the cluster has accepted the message";
    Fault::new(Code::Unavailable, "QUEUE_UNKNOWN", message)
}

fn refused(problem: &EnqueueError) -> Fault {
    let fault = match problem {
        EnqueueError::Refused(Refusal::Full) => {
            let fault = Fault::new(Code::ResourceExhausted, "QUEUE_FULL", "the queue is full");
            fault.with_retry(Retry::After(Duration::from_secs(1)))
        }
        EnqueueError::Refused(Refusal::Invalid) => {
            let message = "the message exceeds 1 MiB, or its key or id 512 bytes, the limits of a queue of the cluster";
            Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", message).with_http_status(413)
        }
        EnqueueError::Refused(Refusal::TooMany) => {
            Fault::new(Code::ResourceExhausted, "QUEUES", "the cluster has too many queues")
        }
        EnqueueError::Refused(_) => Fault::new(Code::Internal, "QUEUE", "the queue refused the message"),
        EnqueueError::NotConnected => {
            let message = "the cluster cannot accept messages at the moment";
            Fault::new(Code::Unavailable, "NO_QUORUM", message).with_retry(Retry::Same)
        }
        EnqueueError::Unknown(_) => unknown(),
    };
    fault.with_cause(problem.to_string())
}
