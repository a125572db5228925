//! Confirmed publishing on one data arbiter, and the replies to requests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_adapter_api::{Expected, PendingReplies};
use crossdock_message::{ByteString, Code, Fault, Retry};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Consumer, ExchangeKind, PublisherConfirm};
use tokio::sync::{mpsc, oneshot};

use crate::broker::{Broker, Live};
use crate::error::{no_exchange, refused, reply_lost, unconfirmed, unreachable, unroutable};

/// Requests that wait for their replies on one data arbiter.
const WAITING_MAX: usize = 100_000;
/// The queue that a broker makes for the replies to one channel (RabbitMQ, "Direct Reply-to").
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";
/// Messages on one channel that were not handed to whoever waits for confirmations.
const UNCONFIRMED_MAX: usize = 10_000;
/// Returned messages that wait for their own confirmation.
const RETURNED_MAX: usize = 10_000;

/// A message on its way out.
pub(crate) struct Publication {
    pub(crate) key: ShortString,
    /// A message that no queue takes is a failure.
    pub(crate) mandatory: bool,
    /// With a message id, by which a returned message is told from others.
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// Publishes to one exchange on one data arbiter, on a channel of its own: an exchange that is not there closes the channel of
/// whoever names it, with all that is unconfirmed on it.
pub(crate) struct Publisher {
    broker: Arc<Broker>,
    exchange: ShortString,
    open: RefCell<Option<Rc<Open>>>,
    opening: tokio::sync::Mutex<()>,
    requests: Cell<u64>,
}

struct Open {
    live: Live,
    channel: Channel,
    sent: mpsc::Sender<Sent>,
    replies: Rc<PendingReplies<Delivery>>,
}

impl Open {
    fn is_up(&self) -> bool {
        self.live.is_up() && self.channel.status().connected()
    }
}

/// What returned messages are told apart by. Where two are alike in all of it, the broker treats them alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Envelope {
    exchange: ShortString,
    key: ShortString,
    id: Option<ShortString>,
}

struct Sent {
    confirm: PublisherConfirm,
    envelope: Envelope,
    done: oneshot::Sender<Result<(), Fault>>,
}

impl Publisher {
    pub(crate) fn new(broker: Arc<Broker>, exchange: ShortString) -> Rc<Self> {
        Rc::new(Self {
            broker,
            exchange,
            open: RefCell::default(),
            opening: tokio::sync::Mutex::const_new(()),
            requests: Cell::new(0),
        })
    }

    /// Publishes a message and waits for the broker's confirmation.
    ///
    /// Dropping the future leaves it open whether the message was taken.
    ///
    /// # Errors
    /// UNAVAILABLE: not reachable, not routable, not stored, each to be tried again as it is; or not known.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), Fault> {
        let open = self.channel().await?;
        self.publish_on(&open, publication).await
    }

    /// Publishes a request, and waits for its reply; `publication` gets the queue and identity of the reply.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; UNAVAILABLE where the connection is lost; RESOURCE_EXHAUSTED where too many wait.
    pub(crate) async fn request(&self, mut publication: Publication) -> Result<Delivery, Fault> {
        let open = self.channel().await?;
        let number = self.requests.get();
        self.requests.set(number + 1);
        let correlation = format!("{:x}.{number:x}", open.live.number);
        let id = ShortString::from(correlation.as_str());
        publication.properties = publication.properties.with_reply_to(DIRECT_REPLY.into()).with_correlation_id(id);
        let expected: Expected<Delivery> = open.replies.expect(correlation.into())?;
        // A reply may come before the confirmation.
        self.publish_on(&open, publication).await?;
        expected.await.ok_or_else(reply_lost)
    }

    async fn publish_on(&self, open: &Open, publication: Publication) -> Result<(), Fault> {
        if open.live.connection.status().blocked() {
            let fault = Fault::new(Code::Unavailable, "BLOCKED", "the broker takes no messages for now");
            return Err(fault.with_retry(Retry::After(Duration::from_secs(1))));
        }
        let Publication { key, mandatory, properties, body } = publication;
        let exchange = self.exchange.clone();
        let envelope = Envelope { exchange: exchange.clone(), key: key.clone(), id: properties.message_id().clone() };
        let options = BasicPublishOptions { mandatory, immediate: false };
        // Its place is there before the message is on its way.
        let place = open.sent.reserve().await.map_err(|_| unreachable("the channel was closed"))?;
        let published = open.channel.basic_publish(exchange, key, options, &body, properties).await;
        let confirm = published.map_err(unreachable)?;
        let (done, outcome) = oneshot::channel();
        place.send(Sent { confirm, envelope, done });
        outcome.await.unwrap_or_else(|_| Err(unconfirmed()))
    }

    async fn channel(&self) -> Result<Rc<Open>, Fault> {
        let find = || self.open.borrow().as_ref().filter(|open| open.is_up()).cloned();
        if let Some(open) = find() {
            return Ok(open);
        }
        let _opening = self.opening.lock().await;
        if let Some(open) = find() {
            return Ok(open);
        }
        let open = Rc::new(self.open().await?);
        *self.open.borrow_mut() = Some(Rc::clone(&open));
        Ok(open)
    }

    async fn open(&self) -> Result<Open, Fault> {
        let live = self.broker.live().await?;
        self.check_exchange(&live).await?;
        let channel = live.connection.create_channel().await.map_err(unreachable)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(unreachable)?;
        let consume = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer =
            channel.basic_consume(DIRECT_REPLY.into(), ShortString::default(), consume, FieldTable::default());
        let consumer = consumer.await.map_err(unreachable)?;
        let (sent, to_confirm) = mpsc::channel(UNCONFIRMED_MAX);
        let replies = PendingReplies::new(WAITING_MAX);
        tokio::task::spawn_local(confirm(to_confirm));
        tokio::task::spawn_local(take_replies(consumer, Rc::clone(&replies)));
        Ok(Open { live, channel, sent, replies })
    }
}

impl Publisher {
    /// Asks whether the exchange is there, on a channel that may be closed for it.
    async fn check_exchange(&self, live: &Live) -> Result<(), Fault> {
        let exchange = self.exchange.as_str();
        if exchange.is_empty() {
            return Ok(());
        }
        let channel = live.connection.create_channel().await.map_err(unreachable)?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        // Of an exchange that is there, the kind is not looked at.
        let asked =
            channel.exchange_declare(self.exchange.clone(), ExchangeKind::Direct, options, FieldTable::default());
        match asked.await {
            Ok(()) => {
                let _ = channel.close(200, "OK".into()).await;
                Ok(())
            }
            Err(error) if error.is_amqp_soft_error() => Err(no_exchange(exchange, error)),
            Err(error) => Err(unreachable(error)),
        }
    }
}

/// Hands replies to those who wait for them, until the channel ends.
async fn take_replies(mut consumer: Consumer, replies: Rc<PendingReplies<Delivery>>) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let id = delivery.properties.correlation_id().as_ref().map(|id| ByteString::from(id.as_str()));
        let Some(id) = id else {
            tracing::warn!("a reply has no correlation id; it was dropped");
            continue;
        };
        if let Err(unwanted) = replies.answer(&id, delivery) {
            tracing::debug!(?unwanted, "a reply that nobody waits for was dropped");
        }
    }
    replies.close();
}

/// Tells publishers what became of their messages, until the channel ends.
///
/// lapin hands a returned message to whichever confirmation comes next, which need not be its own. The broker returns a message
/// before it confirms it; so all that is known at one moment is gathered before anything of it is told.
async fn confirm(mut sent: mpsc::Receiver<Sent>) {
    let mut waiting = FuturesUnordered::new();
    let mut returned: HashMap<Envelope, usize> = HashMap::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        let mut settled = Vec::new();
        tokio::select! {
            biased;
            next = sent.recv(), if open => match next {
                Some(next) => waiting.push(confirmed(next)),
                None => open = false,
            },
            Some(one) = waiting.next(), if !waiting.is_empty() => settled.push(one),
        }
        if settled.is_empty() {
            continue;
        }
        loop {
            while let Ok(next) = sent.try_recv() {
                waiting.push(confirmed(next));
            }
            match waiting.next().now_or_never().flatten() {
                Some(one) => settled.push(one),
                None => break,
            }
        }
        let outcomes: Vec<_> = settled.into_iter().map(|settled| settled.noting(&mut returned)).collect();
        for (envelope, done, outcome) in outcomes {
            let outcome = match returned.get_mut(&envelope) {
                Some(count) => {
                    *count -= 1;
                    if *count == 0 {
                        returned.remove(&envelope);
                    }
                    Err(unroutable(envelope.exchange.as_str(), envelope.key.as_str()))
                }
                None => outcome,
            };
            // A publisher who left does not want to know.
            let _ = done.send(outcome);
        }
    }
}

struct Settled {
    envelope: Envelope,
    done: oneshot::Sender<Result<(), Fault>>,
    confirmation: lapin::Result<Confirmation>,
}

fn confirmed(sent: Sent) -> impl Future<Output = Settled> {
    let Sent { confirm, envelope, done } = sent;
    async move { Settled { envelope, done, confirmation: confirm.await } }
}

impl Settled {
    /// What it says of its own message; a returned message, which may be another's, is noted.
    fn noting(
        self,
        returned: &mut HashMap<Envelope, usize>,
    ) -> (Envelope, oneshot::Sender<Result<(), Fault>>, Result<(), Fault>) {
        let mut note = |message: Option<lapin::message::BasicReturnMessage>| {
            if let Some(message) = message.filter(|_| returned.len() < RETURNED_MAX) {
                let delivery = message.delivery;
                let id = delivery.properties.message_id().clone();
                let envelope = Envelope { exchange: delivery.exchange, key: delivery.routing_key, id };
                *returned.entry(envelope).or_default() += 1;
            }
        };
        let outcome = match self.confirmation {
            Ok(Confirmation::Ack(message)) => {
                note(message);
                Ok(())
            }
            Ok(Confirmation::Nack(message)) => {
                note(message);
                Err(refused())
            }
            // Confirmations were asked for: without one, nothing is known.
            Ok(Confirmation::NotRequested) | Err(_) => Err(unconfirmed()),
        };
        (self.envelope, self.done, outcome)
    }
}
