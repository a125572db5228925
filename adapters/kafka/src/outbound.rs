//! Sends messages to topics, and requests with replies.

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_cloudevents::{self as cloudevents, Envelope, Framed};
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Format, Message, Origin, Value};
use crossdock_ports::{AdapterError, LocalFuture, OperationSpec, Outbound, WriteFormat, encode_body};
use crossdock_transport::bodies::Reservation;

use crate::config::{Cluster, Declare, Operation, Replies, Service, Subject};
use crate::declare;
use crate::error::{bad_reply, reply_lost, unconfirmed, unreachable};
use crate::mapping;
use crate::producer::{Batching, Producer, Producers, Record};
use crate::registry::{Registries, Registry};
use crate::replies::{ReplyReceiver, ReplyReceivers};
use crate::requests::Requests;
use crate::transaction::Participant;

/// The time reserved before a deadline to report a missing confirm.
const CONFIRM_MARGIN: Duration = Duration::from_millis(50);
/// For reaching a broker.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A service on a cluster, on one data arbiter.
pub(crate) struct KafkaOutbound {
    producer: Arc<Producer>,
    requester: Option<Requester>,
    cluster: Cluster,
    /// Topics that exist, of those that are to be created.
    declared: RefCell<HashSet<String>>,
    registry: Option<Arc<Registry>>,
    name: ByteString,
}

/// Sends requests.
struct Requester {
    receiver: Arc<ReplyReceiver>,
    replies: Replies,
    /// Opened with the first request.
    requests: OnceCell<Requests>,
}

pub(crate) fn batching(service: &Service) -> Batching {
    Batching { compression: service.compression, linger: service.linger }
}

impl KafkaOutbound {
    pub(crate) fn open(
        service: &Service,
        producers: &Producers,
        receivers: &ReplyReceivers,
        registries: &Registries,
    ) -> Result<Rc<Self>, AdapterError> {
        let producer = producers.producer(&service.cluster, batching(service))?;
        let requester = match &service.replies {
            None => None,
            Some(replies) => {
                let receiver = receivers.receiver(&service.cluster, replies)?;
                Some(Requester { receiver, replies: replies.clone(), requests: OnceCell::new() })
            }
        };
        let registry = service.registry.as_ref().map(|access| registries.registry(access)).transpose()?;
        let (cluster, declared) = (service.cluster.clone(), RefCell::default());
        let name = service.cluster.brokers.as_str().into();
        Ok(Rc::new(Self { producer, requester, cluster, declared, registry, name }))
    }

    async fn send(&self, operation: &Operation, message: &Message, carry: &[ByteString]) -> Result<Message, Fault> {
        let key = operation.key(message)?;
        let (value, content_type) = match &operation.subject {
            None => encode(operation, message)?,
            Some(subject) => (Box::pin(self.encode_by_schema(subject, message)).await?, None),
        };
        let encoded = || value.clone();
        let Framed { attributes, content_type, document } =
            cloudevents::frame(operation.envelope, message, content_type.as_ref(), encoded)?;
        // An event without data is a tombstone in binary mode, as is a null.
        let has_value = match operation.envelope {
            Envelope::Plain => !matches!(message.body, Body::Null),
            Envelope::CloudEvents => cloudevents::has_data(message),
            Envelope::Structured => true,
        };
        let value = document.unwrap_or(value);
        self.declare(operation).await?;
        let mut record = Record {
            topic: &operation.topic,
            partition: operation.partition,
            key: key.as_deref(),
            value: has_value.then_some(&*value),
            headers: mapping::record_headers(message, content_type.as_ref(), &attributes),
            timestamp: message.time.and_then(mapping::to_millis),
        };
        let Some(requester) = self.requester.as_ref().filter(|_| operation.reply) else {
            self.confirm(message, record, true).await?;
            return Ok(Message::new(ByteString::new(), ByteString::new()));
        };
        let left = message.deadline.map_or(Duration::MAX, |deadline| deadline.left(Instant::now()));
        // While it can still be reported that the request is not sent.
        let partitions = requester.receiver.ready(left / 4 * 3).await?;
        let requests =
            requester.requests.get_or_init(|| Requests::open(&requester.receiver, &requester.replies, &self.producer));
        let (headers, expected) = requests.expect(record.headers, &partitions)?;
        record.headers = mapping::with_timeout(headers, message, Instant::now());
        // The timeout counts from the time of the record.
        record.timestamp = None;
        // Outside of a transaction: its service would not see it before the commit.
        self.confirm(message, record, false).await?;
        let reply = expected.await.ok_or_else(reply_lost)?;
        let value = match &reply.value {
            None => None,
            Some(value) if value.len() as u64 > requester.replies.len_max => {
                return Err(bad_reply("it exceeds the maximum size of a reply"));
            }
            Some(value) => {
                let mut chunks = Chunks::from(value.clone());
                chunks.keep(Reservation::forced(value.len()).into_guard());
                Some(chunks)
            }
        };
        mapping::reply(&reply, value, operation.body.format(), operation.call.as_ref(), carry)
    }

    /// The value of a message by the schema of a subject, with what stands in front of it.
    async fn encode_by_schema(&self, subject: &Subject, message: &Message) -> Result<Bytes, Fault> {
        let (version, name) = (subject.version, subject.message.as_deref());
        let Some(registry) = self.registry.as_ref().filter(|_| !matches!(message.body, Body::Null)) else {
            return Ok(Bytes::new());
        };
        let writer = registry.writer(&subject.name, version, name).await?;
        let value = match (&message.body, writer.format, writer.of_type()) {
            // No value is one of few types, and the type refuses it otherwise.
            (Body::Empty, Format::Avro, Some(of_type)) => of_type.write(&Value::Null, Format::Avro)?,
            (_, format, of_type) => {
                let format = match format {
                    Format::Avro => WriteFormat::avro(),
                    Format::Protobuf => WriteFormat::protobuf(),
                    _ => WriteFormat::json(),
                };
                encode_body(message, &format, of_type)?.chunks.to_bytes()
            }
        };
        writer.check(&value).await?;
        let mut framed = writer.prefix;
        framed.extend_from_slice(&value);
        Ok(framed.into())
    }

    /// Creates the topic of an operation before its first record, if it is to be created.
    async fn declare(&self, operation: &Operation) -> Result<(), Fault> {
        if operation.declare != Declare::Create || self.declared.borrow().contains(&operation.topic) {
            return Ok(());
        }
        let created = declare::create(self.cluster.clone(), vec![operation.topic.clone()]).await;
        created.map_err(unreachable)?;
        self.declared.borrow_mut().insert(operation.topic.clone());
        Ok(())
    }

    /// Writes a record; gives up shortly before the deadline of its message, while that can still be reported.
    async fn confirm(&self, message: &Message, record: Record<'_>, joins: bool) -> Result<(), Fault> {
        let transaction = message.context.as_ref().filter(|_| joins).and_then(|context| context.transaction.as_ref());
        let participant = transaction.and_then(|any| any.downcast_ref::<Participant>());
        let sending = async {
            match participant.filter(|participant| participant.is_of(self.cluster.fingerprint)) {
                Some(participant) => participant.send(record).await,
                None => self.producer.send(record).await,
            }
        };
        let Some(deadline) = message.deadline else { return sending.await };
        let left = deadline.left(Instant::now());
        let left = left.saturating_sub((left / 10).min(CONFIRM_MARGIN));
        tokio::time::timeout(left, sending).await.unwrap_or_else(|_| Err(unconfirmed("the deadline passed")))
    }

    fn with_service_origin(&self, fault: Fault) -> Fault {
        match fault.origin {
            Origin::Caller => fault,
            _ => fault.with_origin(Origin::Service(self.name.clone())),
        }
    }
}

/// The value of a message, and its media type.
fn encode(operation: &Operation, message: &Message) -> Result<(Bytes, Option<ByteString>), Fault> {
    let of_type = operation.call.as_ref().map(|call| &*call.request as &dyn BodyType);
    let body = encode_body(message, &operation.body, of_type)?;
    // Bytes without a media type get none on the way.
    let is_untyped = matches!(&message.body, Body::Raw { format: Format::Raw, of_type: None, .. });
    let content_type = body.content_type.filter(|_| !is_untyped || message.content_type.is_some());
    Ok((body.chunks.to_bytes(), content_type))
}

impl Outbound for KafkaOutbound {
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
