//! The requests of one data arbiter that wait for their replies.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_delivery::{Expected, PendingReplies, Unwanted};
use crossdock_message::Fault;
use rdkafka::message::{Header, OwnedHeaders};
use tokio::sync::mpsc;

use crate::config::Replies;
use crate::correlation::CorrelationId;
use crate::producer::{Producer, Record};
use crate::received::ReceivedRecord;
use crate::replies::{Registration, Reply, ReplyReceiver};

/// The maximum number of requests that wait for their replies on one data arbiter.
const PENDING_MAX: usize = 4096;

/// The requests of a service on one data arbiter.
pub(crate) struct Requests {
    registration: Registration,
    pending: Rc<PendingReplies<ReceivedRecord>>,
    replies: Replies,
    /// The number of the next request.
    next: Cell<u64>,
}

impl Requests {
    /// Starts to receive replies; ends when dropped.
    pub(crate) fn open(receiver: &Arc<ReplyReceiver>, replies: &Replies, producer: &Arc<Producer>) -> Self {
        let (registration, received) = receiver.register();
        let pending = PendingReplies::new(PENDING_MAX);
        let late = replies.late.clone().map(|topic| LateReplies { topic, producer: Arc::clone(producer) });
        tokio::task::spawn_local(dispatch(received, Rc::clone(&pending), late));
        Self { registration, pending, replies: replies.clone(), next: Cell::new(0) }
    }

    /// Registers a request, before it is sent, and adds the address of its reply to its headers, with one of these partitions if there are any.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if too many requests wait for their replies.
    pub(crate) fn expect(
        &self,
        headers: OwnedHeaders,
        partitions: &[i32],
    ) -> Result<(OwnedHeaders, Expected<ReceivedRecord>), Fault> {
        let number = self.next.get();
        self.next.set(number + 1);
        let id = CorrelationId { sender: self.registration.number, number };
        let Replies { topic, convention, .. } = &self.replies;
        // In turn, so that all partitions are used.
        let turn = id.sender.wrapping_add(number).checked_rem(partitions.len() as u64);
        let partition = turn.and_then(|turn| partitions.get(usize::try_from(turn).ok()?));
        let headers = convention.add_to_request(headers, id, topic, partition.copied());
        Ok((headers, self.pending.expect(id.to_text())?))
    }
}

/// Passes replies to the requests that wait for them, until the registration ends.
async fn dispatch(
    mut received: mpsc::Receiver<Reply>,
    pending: Rc<PendingReplies<ReceivedRecord>>,
    late: Option<LateReplies>,
) {
    while let Some((id, reply)) = received.recv().await {
        match (pending.answer(&id.to_text(), reply), &late) {
            (Ok(()), _) => {}
            (Err((Unwanted::Late, reply)), Some(late)) => late.forward(reply),
            (Err((unwanted, _)), _) => tracing::debug!(?id, ?unwanted, "unexpected reply dropped"),
        }
    }
    pending.close();
}

/// Writes late replies to a topic.
struct LateReplies {
    topic: String,
    producer: Arc<Producer>,
}

impl LateReplies {
    /// Writes a late reply unchanged, with its headers. If that fails, it is lost, as it would be without the topic.
    fn forward(&self, reply: ReceivedRecord) {
        let (topic, producer) = (self.topic.clone(), Arc::clone(&self.producer));
        tokio::task::spawn_local(async move {
            let mut headers = OwnedHeaders::new_with_capacity(reply.headers.len());
            for (key, value) in &reply.headers {
                headers = headers.insert(Header { key, value: value.as_deref() });
            }
            let record = Record {
                topic: &topic,
                partition: None,
                key: reply.key.as_deref(),
                value: reply.value.as_deref(),
                headers,
                timestamp: reply.timestamp,
            };
            if let Err(problem) = producer.send(record).await {
                tracing::warn!(%topic, %problem, "late reply lost");
            }
        });
    }
}
