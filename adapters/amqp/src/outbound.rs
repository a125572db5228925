//! Sends messages with publisher confirms, and requests with replies.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_cloudevents::{self as cloudevents, Framed};
use crossdock_message::{BodyType, ByteString, Chunks, Code, Fault, Message, Origin};
use crossdock_ports::{AdapterError, EncodedBody, LocalFuture, OperationSpec, Outbound, encode_body};
use crossdock_transport::bodies::Reservation;
use lapin::types::ShortString;

use crate::broker::{Broker, Brokers, Purpose};
use crate::config::{Operation, Service};
use crate::error::bad_reply;
use crate::mapping;
use crate::publisher::{Publication, Publisher};

/// The confirm timeout without a deadline, and the time reserved before a deadline to report a missing confirm.
const CONFIRM_TIME_MAX: Duration = Duration::from_secs(30);
const CONFIRM_MARGIN: Duration = Duration::from_millis(50);

/// A service on a broker, on one data arbiter.
pub(crate) struct AmqpOutbound {
    broker: Arc<Broker>,
    /// One for the messages to each exchange and one for its requests, so that an error on a channel for messages loses no replies.
    publishers: RefCell<HashMap<(ShortString, bool), Rc<Publisher>>>,
    name: ByteString,
    reply_len_max: u64,
    late_reply: Option<ShortString>,
}

impl AmqpOutbound {
    pub(crate) fn open(service: &Service, brokers: &Brokers) -> Result<Self, AdapterError> {
        let broker = brokers.broker(&service.addresses, Purpose::Publish)?;
        let name = broker.name().into();
        let (reply_len_max, late_reply) = (service.reply_len_max, service.late_reply.clone());
        Ok(Self { broker, publishers: RefCell::default(), name, reply_len_max, late_reply })
    }

    fn publisher(&self, operation: &Operation) -> Rc<Publisher> {
        let key = (operation.exchange.clone(), operation.reply);
        let open = || Publisher::new(Arc::clone(&self.broker), key.0.clone(), self.late_reply.clone());
        Rc::clone(self.publishers.borrow_mut().entry(key.clone()).or_insert_with(open))
    }

    async fn send(&self, operation: &Operation, message: &Message, carry: &[ByteString]) -> Result<Message, Fault> {
        let of_type = operation.call.as_ref().map(|call| &*call.request as &dyn BodyType);
        let body = encode_body(message, &operation.body, of_type)?;
        let encoded = || body.chunks.to_bytes();
        let Framed { attributes, content_type, document } =
            cloudevents::frame(operation.envelope, message, body.content_type.as_ref(), encoded)?;
        let chunks = document.map_or(body.chunks, Chunks::from);
        let body = EncodedBody { chunks, content_type };
        let content_type = body.content_type.as_ref();
        let mut properties = mapping::call_properties(message, content_type, &attributes, operation.persistent)?;
        if operation.reply {
            properties = mapping::with_expiration(properties, message, Instant::now());
        }
        if let Some(priority) = operation.priority {
            properties = properties.with_priority(priority);
        }
        let publication = Publication {
            key: operation.key.evaluate(message)?,
            mandatory: operation.mandatory,
            properties,
            body: body.chunks.to_bytes(),
        };
        let publisher = self.publisher(operation);
        if !operation.reply {
            // Time out shortly before the deadline, while it can still be reported whether the message was sent.
            let left = message.deadline.map_or(CONFIRM_TIME_MAX, |deadline| deadline.left(Instant::now()));
            let wait = left.saturating_sub((left / 10).min(CONFIRM_MARGIN));
            publisher.publish_within(wait, publication).await?;
            return Ok(Message::new(ByteString::new(), ByteString::new()));
        }
        let reply = publisher.request(publication).await?;
        if reply.data.len() as u64 > self.reply_len_max {
            return Err(bad_reply("it exceeds the maximum size of a reply"));
        }
        let held = Reservation::forced(reply.data.len());
        let mut chunks = Chunks::from(Bytes::from(reply.data));
        chunks.keep(held.into_guard());
        mapping::reply(&reply.properties, chunks, operation.body.format(), operation.call.as_ref(), carry)
    }

    fn with_service_origin(&self, fault: Fault) -> Fault {
        match fault.origin {
            Origin::Caller => fault,
            _ => fault.with_origin(Origin::Service(self.name.clone())),
        }
    }
}

impl Outbound for AmqpOutbound {
    fn call<'a>(
        &'a self,
        operation: &'a dyn OperationSpec,
        message: &'a Message,
        carry: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            match operation.as_any().downcast_ref::<Operation>() {
                Some(operation) => {
                    self.send(operation, message, carry).await.map_err(|fault| self.with_service_origin(fault))
                }
                None => Err(Fault::new(Code::Internal, "OPERATION", "the operation is not an AMQP operation")),
            }
        })
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        Box::pin(
            async move { self.broker.connection().await.map(drop).map_err(|fault| self.with_service_origin(fault)) },
        )
    }
}
