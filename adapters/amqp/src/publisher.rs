//! Confirmed publishing on one data arbiter, and the replies to requests.

pub(crate) mod answers;
mod confirm;
mod refusal;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_adapter_api::{Expected, PendingReplies, Unwanted};
use crossdock_message::{ByteString, Code, Fault, Retry};
use futures_util::StreamExt as _;
use futures_util::future::{FutureExt as _, LocalBoxFuture, Shared};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::confirm::{Failure, ToSend, send_and_confirm};
use self::refusal::Experience;
use crate::broker::{Broker, Live};
use crate::error::{blocked, connection_refused, headers_too_large, no_exchange, reply_lost, unconfirmed, unreachable};
use crate::mapping;

/// Requests that wait for their replies on one channel.
const WAITING_MAX: usize = 100_000;
/// The queue that a broker makes for the replies to one channel (RabbitMQ, "Direct Reply-to").
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";
/// Messages on one channel that the broker has not confirmed.
const UNCONFIRMED_MAX: usize = 10_000;
/// How often it is looked whether the broker takes messages, while a channel is opened.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(100);
/// For a channel to be opened on a connection that is there, and to be closed.
const OPEN_TIME: Duration = Duration::from_secs(10);
const CLOSE_TIME: Duration = Duration::from_secs(3);
/// What a frame holds besides properties and headers, amply.
const FRAME_OVERHEAD: usize = 512;

/// Channels that are tried for a message that was not sent on the one before.
const CHANNELS_MAX: usize = 3;
/// Messages that are published alone at once, each on a channel of its own.
const ALONE_MAX: usize = 4;
/// Requests that wait for their replies on channels of their own.
const LONE_REQUESTS_MAX: usize = 256;
/// Channels of such requests that are kept for late replies.
const RETIRED_MAX: usize = 16;

/// A message on its way out.
pub(crate) struct Publication {
    pub(crate) key: ShortString,
    /// A message that no queue takes is a failure.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// Publishes to one exchange on one data arbiter, on a channel of its own: an exchange that is not there closes the channel of
/// whoever names it, with all that is unconfirmed on it.
pub(crate) struct Publisher {
    broker: Arc<Broker>,
    exchange: ShortString,
    /// The queue of replies that nobody waits for any more.
    late_reply: Option<ShortString>,
    open: RefCell<Option<Rc<Open>>>,
    /// Goes on with whoever comes next, where all who waited for it have left.
    opening: RefCell<Option<Opening>>,
    requests: Cell<u64>,
    experience: RefCell<Experience>,
    alone: Semaphore,
    lone_requests: Semaphore,
    retired: RefCell<VecDeque<Rc<Open>>>,
}

type Opening = Shared<LocalBoxFuture<'static, Result<Rc<Open>, Fault>>>;

struct Open {
    live: Live,
    channel: Channel,
    to_send: mpsc::Sender<ToSend>,
    credit: Arc<Semaphore>,
    replies: Rc<PendingReplies<Delivery>>,
    broker: Arc<Broker>,
}

impl Open {
    fn is_up(&self) -> bool {
        self.live.is_up() && self.channel.status().connected()
    }
}

impl Drop for Open {
    /// lapin's own consumer of the replies would keep the channel open as long as its connection.
    fn drop(&mut self) {
        let channel = self.channel.clone();
        if channel.status().connected() {
            self.broker.spawn(async move {
                let _ = tokio::time::timeout(CLOSE_TIME, channel.close(200, "OK".into())).await;
            });
        }
    }
}

impl Publisher {
    pub(crate) fn new(broker: Arc<Broker>, exchange: ShortString, late_reply: Option<ShortString>) -> Rc<Self> {
        Rc::new(Self {
            broker,
            exchange,
            late_reply,
            open: RefCell::default(),
            opening: RefCell::default(),
            requests: Cell::new(0),
            experience: RefCell::default(),
            alone: Semaphore::new(ALONE_MAX),
            lone_requests: Semaphore::new(LONE_REQUESTS_MAX),
            retired: RefCell::default(),
        })
    }

    /// Publishes a message and waits for the broker's confirmation.
    ///
    /// A message that the broker may have refused by closing the channel is sent again on a channel of its own, so that its fault is
    /// its own; it may then arrive twice. Dropping the future leaves it open whether the message was stored.
    ///
    /// # Errors
    /// UNAVAILABLE: not reachable, not routable, not stored, each to be retried as it is; or unknown. PERMISSION_DENIED and
    /// INVALID_ARGUMENT where the broker refuses this message for good.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), Fault> {
        self.publish_noting(&Rc::new(publication), &Cell::new(false)).await
    }

    /// As [`Publisher::publish`], for at most `time`; a message that was not sent by then was not sent at all.
    pub(crate) async fn publish_within(&self, time: Duration, publication: Publication) -> Result<(), Fault> {
        let (publication, is_sent) = (Rc::new(publication), Cell::new(false));
        let published = tokio::time::timeout(time, self.publish_noting(&publication, &is_sent)).await;
        published.unwrap_or_else(|_| {
            Err(if is_sent.get() { unconfirmed("no confirmation in time") } else { unreachable("no channel in time") })
        })
    }

    /// Publishes on the shared channel or alone; notes once the message may have been sent.
    async fn publish_noting(&self, publication: &Rc<Publication>, is_sent: &Cell<bool>) -> Result<(), Fault> {
        if self.experience.borrow_mut().expects_refusal(publication, Instant::now()) {
            return self.publish_alone(publication, is_sent).await;
        }
        let mut not_sent = unreachable("the channel was closed");
        for _ in 0..CHANNELS_MAX {
            let open = self.channel().await?;
            is_sent.set(true);
            match self.publish_on(&open, publication).await {
                Ok(()) => return Ok(()),
                Err(Failure::Fault(fault)) => return Err(fault),
                // The next one of the shared connection would harm its neighbours again.
                Err(Failure::Suspect(refusal)) if refusal.is_hard => {
                    return Err(connection_refused(refusal.code));
                }
                Err(Failure::Suspect(_)) => return self.publish_alone(publication, is_sent).await,
                Err(Failure::NotSent(fault)) => {
                    is_sent.set(false);
                    not_sent = fault;
                }
            }
        }
        Err(not_sent)
    }

    /// Publishes on a channel of its own: a refusal is this message's.
    async fn publish_alone(&self, publication: &Rc<Publication>, is_sent: &Cell<bool>) -> Result<(), Fault> {
        let Ok(_turn) = self.alone.acquire().await else { return Err(unreachable("the publisher has ended")) };
        let open = open(Arc::clone(&self.broker), self.exchange.clone(), None).await?;
        is_sent.set(true);
        let published = self.publish_on(&open, publication).await;
        self.learn_alone(publication, published)
    }

    fn learn_alone(&self, publication: &Publication, published: Result<(), Failure>) -> Result<(), Fault> {
        match published {
            Ok(()) => {
                self.experience.borrow_mut().accepted(publication);
                Ok(())
            }
            Err(Failure::Suspect(refusal)) if refusal.is_hard => Err(connection_refused(refusal.code)),
            Err(Failure::Suspect(refusal)) => {
                self.experience.borrow_mut().refused(publication, &refusal, Instant::now());
                Err(refusal.fault(self.exchange.as_str()))
            }
            Err(Failure::Fault(fault) | Failure::NotSent(fault)) => Err(fault),
        }
    }

    /// Publishes a request, and waits for its reply; `publication` gets the queue and identity of the reply.
    ///
    /// Replies end with the channel that their request was sent on, so that a refused request would take away its neighbours'. A
    /// request of a kind that the broker has not accepted yet therefore has a channel of its own.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; UNAVAILABLE where the connection is lost; RESOURCE_EXHAUSTED where too many wait.
    pub(crate) async fn request(&self, publication: Publication) -> Result<Delivery, Fault> {
        let is_known = || self.experience.borrow_mut().expects_acceptance(&publication, Instant::now());
        if !is_known() {
            let ended = |_| unreachable("the publisher has ended");
            // Capacity first: a call that waits for it must not delay those that have it.
            let _room = self.lone_requests.acquire().await.map_err(ended)?;
            let turn = self.alone.acquire().await.map_err(ended)?;
            // Another of its kind may have been accepted meanwhile.
            if !is_known() {
                let open = open(Arc::clone(&self.broker), self.exchange.clone(), self.late_reply.clone()).await?;
                self.retire(&open);
                let (publication, expected) = self.expecting(&open, publication)?;
                let published = self.publish_on(&open, &publication).await;
                self.learn_alone(&publication, published)?;
                drop(turn);
                return expected.await.ok_or_else(reply_lost);
            }
        }
        let open = self.channel().await?;
        let (publication, expected) = self.expecting(&open, publication)?;
        // A reply may come before the confirmation.
        match self.publish_on(&open, &publication).await {
            Ok(()) => expected.await.ok_or_else(reply_lost),
            Err(Failure::Fault(fault) | Failure::NotSent(fault)) => Err(fault),
            // It may have been executed: it is not resent.
            Err(Failure::Suspect(_)) => Err(unconfirmed("the broker closed the channel")),
        }
    }

    /// A request with the address and identity of its reply, and the reply.
    fn expecting(
        &self,
        open: &Rc<Open>,
        mut publication: Publication,
    ) -> Result<(Rc<Publication>, Expected<Delivery>), Fault> {
        let number = self.requests.get();
        self.requests.set(number + 1);
        let mut correlation = format!("{:x}.{number:x}", open.live.number);
        if let (Some(_), Some(request)) = (&self.late_reply, publication.properties.message_id()) {
            // Whoever takes a late reply is told what it replies to.
            correlation.push('.');
            correlation.push_str(request.as_str());
        }
        let id = ShortString::from(correlation.as_str());
        publication.properties = publication.properties.with_reply_to(DIRECT_REPLY.into()).with_correlation_id(id);
        let expected = open.replies.expect(correlation.into())?;
        Ok((Rc::new(publication), expected))
    }

    /// Keeps the channel of a request a while longer, where a late reply may come by it.
    fn retire(&self, open: &Rc<Open>) {
        if self.late_reply.is_none() {
            return;
        }
        let mut retired = self.retired.borrow_mut();
        if retired.len() == RETIRED_MAX {
            retired.pop_front();
        }
        retired.push_back(Rc::clone(open));
    }

    async fn publish_on(&self, open: &Rc<Open>, publication: &Rc<Publication>) -> Result<(), Failure> {
        if open.live.connection.status().blocked() {
            return Err(Failure::Fault(blocked()));
        }
        // lapin sends what the broker ends the connection for.
        let frame = usize::try_from(open.live.connection.configuration().frame_max()).unwrap_or(usize::MAX);
        if mapping::weight(&publication.properties).saturating_add(FRAME_OVERHEAD) > frame {
            return Err(Failure::Fault(headers_too_large(frame)));
        }
        let Ok(credit) = Arc::clone(&open.credit).try_acquire_owned() else {
            let message = "the broker has not confirmed as many messages as may be on their way";
            let fault = Fault::new(Code::ResourceExhausted, "UNCONFIRMED", message);
            return Err(Failure::Fault(fault.with_retry(Retry::After(Duration::from_secs(1)))));
        };
        let (done, outcome) = oneshot::channel();
        let (exchange, publication) = (self.exchange.clone(), Rc::clone(publication));
        let to_send = ToSend { exchange, publication, done, credit };
        // There is room for all that has credit, while the channel is there.
        if open.to_send.try_send(to_send).is_err() {
            return Err(Failure::NotSent(unreachable("the channel was closed")));
        }
        outcome.await.unwrap_or_else(|_| Err(Failure::Fault(unconfirmed("the channel was closed"))))
    }

    async fn channel(&self) -> Result<Rc<Open>, Fault> {
        if let Some(open) = self.open.borrow().as_ref().filter(|open| open.is_up()) {
            return Ok(Rc::clone(open));
        }
        let opening = {
            let mut opening = self.opening.borrow_mut();
            let open = || {
                open(Arc::clone(&self.broker), self.exchange.clone(), self.late_reply.clone()).boxed_local().shared()
            };
            opening.get_or_insert_with(open).clone()
        };
        let opened = opening.clone().await;
        let mut pending = self.opening.borrow_mut();
        // The first of those who waited.
        if pending.as_ref().is_some_and(|pending| pending.ptr_eq(&opening)) {
            *pending = None;
            *self.open.borrow_mut() = opened.as_ref().ok().cloned();
        }
        opened
    }
}

/// A channel to an exchange that is there.
async fn open(broker: Arc<Broker>, exchange: ShortString, late: Option<ShortString>) -> Result<Rc<Open>, Fault> {
    let live = broker.live().await?;
    tokio::select! {
        biased;
        () = is_blocked(&live) => Err(blocked()),
        () = live.lost() => Err(unreachable("the connection was lost")),
        opened = open_on(live.clone(), Arc::clone(&broker), exchange, late) => opened,
        () = tokio::time::sleep(OPEN_TIME) => Err(unreachable("no channel in time")),
    }
}

/// Waits until the broker takes no messages.
async fn is_blocked(live: &Live) {
    while !live.connection.status().blocked() {
        tokio::time::sleep(BLOCKED_INTERVAL).await;
    }
}

async fn open_on(
    live: Live,
    broker: Arc<Broker>,
    exchange: ShortString,
    late: Option<ShortString>,
) -> Result<Rc<Open>, Fault> {
    check_exchange(&live, &exchange).await?;
    let channel = live.connection.create_channel().await.map_err(unreachable)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(unreachable)?;
    let consume = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(DIRECT_REPLY.into(), ShortString::default(), consume, FieldTable::default());
    let consumer = consumer.await.map_err(unreachable)?;
    let (to_send, sending) = mpsc::channel(UNCONFIRMED_MAX);
    let (replies, credit) = (PendingReplies::new(WAITING_MAX), Arc::new(Semaphore::new(UNCONFIRMED_MAX)));
    tokio::task::spawn_local(send_and_confirm(channel.clone(), live.clone(), sending));
    let late = late.map(|queue| LateReplies { queue, to_send: to_send.clone(), credit: Arc::clone(&credit) });
    tokio::task::spawn_local(take_replies(live.clone(), consumer, Rc::clone(&replies), late));
    Ok(Rc::new(Open { live, channel, to_send, credit, replies, broker }))
}

/// Asks whether an exchange is there, on a channel that may be closed for it.
async fn check_exchange(live: &Live, exchange: &ShortString) -> Result<(), Fault> {
    if exchange.as_str().is_empty() {
        return Ok(());
    }
    let channel = live.connection.create_channel().await.map_err(unreachable)?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    // Of an exchange that is there, the kind is not looked at.
    let asked = channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, options, FieldTable::default());
    match asked.await {
        Ok(()) => {
            let _ = channel.close(200, "OK".into()).await;
            Ok(())
        }
        Err(error) if error.is_amqp_soft_error() => Err(no_exchange(exchange.as_str(), error)),
        Err(error) => Err(unreachable(error)),
    }
}

/// Hands replies to those who wait for them, until the channel ends.
async fn take_replies(
    live: Live,
    mut consumer: Consumer,
    replies: Rc<PendingReplies<Delivery>>,
    late: Option<LateReplies>,
) {
    let mut lost = pin!(live.lost());
    loop {
        let delivery = tokio::select! {
            biased;
            delivery = consumer.next() => delivery,
            () = &mut lost => None,
        };
        let Some(Ok(delivery)) = delivery else { break };
        let id = delivery.properties.correlation_id().as_ref().map(|id| ByteString::from(id.as_str()));
        let Some(id) = id else {
            tracing::warn!("a reply has no correlation id; it was dropped");
            continue;
        };
        match (replies.answer(&id, delivery), &late) {
            (Ok(()), _) => {}
            (Err((Unwanted::Late, delivery)), Some(late)) => late.hand_on(delivery),
            (Err((unwanted, _)), _) => tracing::debug!(?unwanted, "a reply that nobody waits for was dropped"),
        }
    }
    replies.close();
}

/// Where replies go that nobody waits for any more.
struct LateReplies {
    queue: ShortString,
    to_send: mpsc::Sender<ToSend>,
    credit: Arc<Semaphore>,
}

impl LateReplies {
    /// Sends a late reply on as it came; its correlation id says which request it is to. It is lost where that fails: the broker
    /// keeps no reply of a caller who left either.
    fn hand_on(&self, reply: Delivery) {
        let properties = mapping::late_reply(&reply.properties);
        let body = Bytes::from(reply.data);
        let publication = Rc::new(Publication { key: self.queue.clone(), mandatory: true, properties, body });
        let (done, outcome) = oneshot::channel();
        let sent = Arc::clone(&self.credit).try_acquire_owned().ok().is_some_and(|credit| {
            let exchange = ShortString::default();
            self.to_send.try_send(ToSend { exchange, publication, done, credit }).is_ok()
        });
        let queue = self.queue.clone();
        tokio::task::spawn_local(async move {
            match outcome.await {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => tracing::warn!(%queue, ?problem, "a late reply was lost"),
                Err(_) => tracing::warn!(%queue, sent, "a late reply was lost"),
            }
        });
    }
}
