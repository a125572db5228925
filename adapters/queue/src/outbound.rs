//! Adds messages to queues.

use std::sync::{Arc, OnceLock};

use crossdock_message::{Body, BodyType, ByteString, Code, Fault, Message, RequestContext};
use crossdock_ports::{Enqueue, LocalFuture, OperationSpec, Outbound, QueueMessage, encode_body};

use crate::checked::Operation;

/// The queues of the cluster, on one data arbiter.
pub(crate) struct QueueOutbound {
    queues: Arc<OnceLock<Arc<dyn Enqueue>>>,
}

impl QueueOutbound {
    pub(crate) fn new(queues: Arc<OnceLock<Arc<dyn Enqueue>>>) -> Self {
        Self { queues }
    }

    fn queues(&self) -> Result<&Arc<dyn Enqueue>, Fault> {
        let no_cluster = || Fault::new(Code::Unavailable, "NO_CLUSTER", "the instance is not a member of a cluster");
        self.queues.get().ok_or_else(no_cluster)
    }

    async fn send(&self, operation: &Operation, message: &Message) -> Result<Message, Fault> {
        let queues = self.queues()?;
        let stored = stored(operation, message)?;
        let unstorable = |problem: crossdock_stored::Error| {
            Fault::new(Code::Internal, "UNSTORABLE", "the message cannot be stored").with_cause(problem.to_string())
        };
        let key = operation.key.as_ref().map(|key| key.evaluate(message)).transpose()?;
        let mut queued =
            QueueMessage { key: key.unwrap_or_default(), delay: operation.delay, ..QueueMessage::default() };
        if let Some((id, window)) = &operation.id {
            queued.id = Some((id.evaluate(message)?, *window));
            queued.digest = crossdock_stored::digest("", &stored).map_err(unstorable)?;
        }
        queued.payload = crossdock_stored::store("", &stored).map_err(unstorable)?;
        queues.enqueue(&operation.queue, queued).await?;
        Ok(Message::new(ByteString::new(), ByteString::new()))
    }
}

/// The message as it is in the queue: what a broker would carry of it.
fn stored(operation: &Operation, message: &Message) -> Result<Message, Fault> {
    let of_type = operation.call.as_ref().map(|call| &*call.request as &dyn BodyType);
    let body = encode_body(message, &operation.body, of_type)?;
    let mut stored = Message {
        headers: message.headers.clone(),
        time: message.time,
        event: message.event.clone(),
        ..Message::new(message.id.clone(), message.source.clone())
    };
    if let Some(context) = &message.context {
        let own = RequestContext::new(context.id.clone(), context.received_at);
        stored.context = Some(Arc::new(RequestContext { trace: context.trace.clone(), ..own }));
    }
    stored.body = match body.content_type {
        None => Body::Empty,
        Some(_) => Body::present(body.chunks, operation.body.format()),
    };
    stored.content_type = body.content_type;
    Ok(stored)
}

impl Outbound for QueueOutbound {
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        _: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            match operation.as_any().downcast_ref::<Operation>() {
                Some(operation) => self.send(operation, message).await,
                None => Err(Fault::new(Code::Internal, "OPERATION", "the operation is not one of a queue")),
            }
        })
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        // Whether a majority can be reached is known to `crossdock cluster status`.
        Box::pin(async { self.queues().map(drop) })
    }
}
