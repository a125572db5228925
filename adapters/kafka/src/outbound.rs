//! Sends messages to topics.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_message::{Body, BodyType, ByteString, Code, Fault, Format, Message, Origin};
use crossdock_ports::{AdapterError, LocalFuture, OperationSpec, Outbound, encode_body};

use crate::config::{Operation, Service};
use crate::error::{unconfirmed, unreachable};
use crate::mapping;
use crate::producer::{Batching, Producer, Producers, Record};

/// The time reserved before a deadline to report a missing confirm.
const CONFIRM_MARGIN: Duration = Duration::from_millis(50);
/// For reaching a broker.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A service on a cluster, on one data arbiter.
pub(crate) struct KafkaOutbound {
    producer: Arc<Producer>,
    name: ByteString,
}

pub(crate) fn batching(service: &Service) -> Batching {
    Batching { compression: service.compression, linger: service.linger }
}

impl KafkaOutbound {
    pub(crate) fn open(service: &Service, producers: &Producers) -> Result<Rc<Self>, AdapterError> {
        let producer = producers.producer(&service.cluster, batching(service))?;
        Ok(Rc::new(Self { producer, name: service.cluster.brokers.as_str().into() }))
    }

    async fn send(&self, operation: &Operation, message: &Message) -> Result<Message, Fault> {
        let of_type = operation.call.as_ref().map(|call| &*call.request as &dyn BodyType);
        let key = operation.key(message)?;
        let body = encode_body(message, &operation.body, of_type)?;
        let value = body.chunks.to_bytes();
        // Bytes without a media type get none on the way.
        let is_untyped = matches!(&message.body, Body::Raw { format: Format::Raw, of_type: None, .. });
        let content_type = body.content_type.filter(|_| !is_untyped || message.content_type.is_some());
        let record = Record {
            topic: &operation.topic,
            partition: operation.partition,
            key: key.as_deref(),
            value: (!matches!(message.body, Body::Null)).then_some(&*value),
            headers: mapping::record_headers(message, content_type.as_ref()),
            timestamp: message.time.and_then(mapping::to_millis),
        };
        let sending = self.producer.send(record);
        let Some(deadline) = message.deadline else {
            sending.await?;
            return Ok(Message::new(ByteString::new(), ByteString::new()));
        };
        let left = deadline.left(Instant::now());
        let left = left.saturating_sub((left / 10).min(CONFIRM_MARGIN));
        match tokio::time::timeout(left, sending).await {
            Ok(sent) => sent?,
            Err(_) => return Err(unconfirmed("the deadline passed")),
        }
        Ok(Message::new(ByteString::new(), ByteString::new()))
    }

    fn with_service_origin(&self, fault: Fault) -> Fault {
        match fault.origin {
            Origin::Caller => fault,
            _ => fault.with_origin(Origin::Service(self.name.clone())),
        }
    }
}

impl Outbound for KafkaOutbound {
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        _: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            match operation.as_any().downcast_ref::<Operation>() {
                Some(operation) => self.send(operation, message).await.map_err(|fault| self.with_service_origin(fault)),
                None => Err(Fault::new(Code::Internal, "OPERATION", "the operation is not a Kafka operation")),
            }
        })
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        let producer = Arc::clone(&self.producer);
        Box::pin(async move {
            let probed = tokio::task::spawn_blocking(move || producer.probe(PROBE_TIMEOUT)).await;
            let probed = probed.unwrap_or_else(|_| Err(unreachable("the probe failed")));
            probed.map_err(|fault| self.with_service_origin(fault))
        })
    }
}
