//! Publishes messages with publisher confirms on one data arbiter, and receives the replies to requests.

mod confirm;
mod refusal;
pub(crate) mod replies;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_delivery::{Expected, PendingReplies, Unwanted};
use crossdock_message::{ByteString, Code, Fault, Retry};
use futures_util::StreamExt as _;
use futures_util::future::{FutureExt as _, LocalBoxFuture, Shared};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::confirm::{Failure, Outgoing, send_and_confirm};
use self::refusal::History;
use crate::broker::{Broker, Live, is_up};
use crate::error::{blocked, connection_refused, headers_too_large, no_exchange, reply_lost, unconfirmed, unreachable};
use crate::mapping;

/// The maximum number of requests that wait for replies on one channel.
const PENDING_REPLIES_MAX: usize = 100_000;
/// The pseudo-queue for the replies to one channel (RabbitMQ, "Direct Reply-to").
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";
/// The maximum number of unconfirmed messages on one channel.
const UNCONFIRMED_MAX: usize = 10_000;
/// How often a blocked connection is polled for while a channel is opened.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(100);
/// For opening a channel on an open connection, and for closing it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// An upper bound of the bytes in a header frame besides properties and headers.
const FRAME_OVERHEAD: usize = 512;

/// The maximum number of channels tried for a message that has not been sent.
const CHANNELS_MAX: usize = 3;
/// The maximum number of messages published at once on isolated channels, one each.
const ISOLATED_MAX: usize = 4;
/// The maximum number of requests that wait for replies on isolated channels.
const ISOLATED_REQUESTS_MAX: usize = 256;
/// The maximum number of isolated channels kept open for late replies.
const RETIRED_MAX: usize = 16;

/// A message to publish.
pub(crate) struct Publication {
    pub(crate) key: ShortString,
    /// An unroutable message is an error.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// Publishes to one exchange on one data arbiter, on a separate channel: publishing to a missing exchange makes the broker close the channel, with
/// all its unconfirmed messages.
pub(crate) struct Publisher {
    broker: Arc<Broker>,
    exchange: ShortString,
    /// The queue for late replies.
    late_reply: Option<ShortString>,
    open: RefCell<Option<Rc<OpenChannel>>>,
    /// A channel being opened; the next caller resumes it if all waiting callers have been dropped.
    opening: RefCell<Option<Opening>>,
    requests: Cell<u64>,
    history: RefCell<History>,
    isolated: Semaphore,
    isolated_requests: Semaphore,
    retired: RefCell<VecDeque<Rc<OpenChannel>>>,
}

type Opening = Shared<LocalBoxFuture<'static, Result<Rc<OpenChannel>, Fault>>>;

struct OpenChannel {
    live: Live,
    channel: Channel,
    outgoing: mpsc::Sender<Outgoing>,
    permits: Arc<Semaphore>,
    replies: Rc<PendingReplies<Delivery>>,
    broker: Arc<Broker>,
}

impl OpenChannel {
    fn is_up(&self) -> bool {
        is_up(&self.live) && self.channel.status().connected()
    }
}

impl Drop for OpenChannel {
    /// Closes the channel; lapin's consumer of the replies would otherwise keep it open until the connection ends.
    fn drop(&mut self) {
        let channel = self.channel.clone();
        if channel.status().connected() {
            self.broker.spawn(async move {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "OK".into())).await;
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
            history: RefCell::default(),
            isolated: Semaphore::new(ISOLATED_MAX),
            isolated_requests: Semaphore::new(ISOLATED_REQUESTS_MAX),
            retired: RefCell::default(),
        })
    }

    /// Publishes a message and waits for its confirm.
    ///
    /// If the broker closes the channel, possibly because of this message, the message is resent on an isolated channel, where a refusal can only
    /// concern itself; it may then be stored twice. If the future is dropped, it is unknown whether the message is stored.
    ///
    /// # Errors
    /// UNAVAILABLE: the broker is unreachable, or the message is unroutable, nacked or unconfirmed; all but the last can be retried unchanged.
    /// PERMISSION_DENIED and INVALID_ARGUMENT if the broker refuses this message permanently.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), Fault> {
        self.publish_tracked(&Rc::new(publication), &Cell::new(false)).await
    }

    /// Like [`Publisher::publish`], for at most `time`; a message that has not been sent by then is never sent.
    pub(crate) async fn publish_within(&self, time: Duration, publication: Publication) -> Result<(), Fault> {
        let (publication, may_be_sent) = (Rc::new(publication), Cell::new(false));
        let published = tokio::time::timeout(time, self.publish_tracked(&publication, &may_be_sent)).await;
        published.unwrap_or_else(|_| {
            Err(if may_be_sent.get() {
                unconfirmed("the confirm timeout expired")
            } else {
                unreachable("opening a channel timed out")
            })
        })
    }

    /// Publishes on the shared or an isolated channel; sets `may_be_sent` once the message may have been sent.
    async fn publish_tracked(&self, publication: &Rc<Publication>, may_be_sent: &Cell<bool>) -> Result<(), Fault> {
        if self.history.borrow_mut().expects_refusal(publication, Instant::now()) {
            return self.publish_isolated(publication, may_be_sent).await;
        }
        let mut not_sent = unreachable("the channel was closed");
        for _ in 0..CHANNELS_MAX {
            let open = self.channel().await?;
            may_be_sent.set(true);
            match self.publish_on(&open, publication).await {
                Ok(()) => return Ok(()),
                Err(Failure::Fault(fault)) => return Err(fault),
                // A retry on the shared connection might make the broker close it again.
                Err(Failure::Suspect(refusal)) if refusal.is_hard => {
                    return Err(connection_refused(refusal.code));
                }
                Err(Failure::Suspect(_)) => return self.publish_isolated(publication, may_be_sent).await,
                Err(Failure::NotSent(fault)) => {
                    may_be_sent.set(false);
                    not_sent = fault;
                }
            }
        }
        Err(not_sent)
    }

    /// Publishes on an isolated channel: a refusal can only concern this message.
    async fn publish_isolated(&self, publication: &Rc<Publication>, may_be_sent: &Cell<bool>) -> Result<(), Fault> {
        let Ok(_permit) = self.isolated.acquire().await else { return Err(unreachable("the publisher was closed")) };
        let open = open(Arc::clone(&self.broker), self.exchange.clone(), None).await?;
        may_be_sent.set(true);
        let published = self.publish_on(&open, publication).await;
        self.record_isolated(publication, published)
    }

    fn record_isolated(&self, publication: &Publication, published: Result<(), Failure>) -> Result<(), Fault> {
        match published {
            Ok(()) => {
                self.history.borrow_mut().record_accepted(publication);
                Ok(())
            }
            Err(Failure::Suspect(refusal)) if refusal.is_hard => Err(connection_refused(refusal.code)),
            Err(Failure::Suspect(refusal)) => {
                self.history.borrow_mut().record_refused(publication, &refusal, Instant::now());
                Err(refusal.fault(self.exchange.as_str()))
            }
            Err(Failure::Fault(fault) | Failure::NotSent(fault)) => Err(fault),
        }
    }

    /// Publishes a request and waits for its reply; sets `reply_to` and the correlation id of `publication`.
    ///
    /// Replies are lost when the channel of their requests closes, so a refused request would lose the replies to all others on its channel. A
    /// request of a kind that the broker has not accepted yet is therefore published on an isolated channel.
    ///
    /// # Errors
    /// Like [`Publisher::publish`]; UNAVAILABLE if the connection is lost; RESOURCE_EXHAUSTED if too many requests wait for replies.
    pub(crate) async fn request(&self, publication: Publication) -> Result<Delivery, Fault> {
        let is_known = || self.history.borrow_mut().expects_acceptance(&publication, Instant::now());
        if !is_known() {
            let ended = |_| unreachable("the publisher was closed");
            // Acquired before the permit to publish, so that a request that waits here does not block others.
            let _request_permit = self.isolated_requests.acquire().await.map_err(ended)?;
            let publish_permit = self.isolated.acquire().await.map_err(ended)?;
            // A request of the same kind may have been accepted meanwhile.
            if !is_known() {
                let open = open(Arc::clone(&self.broker), self.exchange.clone(), self.late_reply.clone()).await?;
                self.retire(&open);
                let (publication, expected) = self.with_reply_address(&open, publication)?;
                let published = self.publish_on(&open, &publication).await;
                self.record_isolated(&publication, published)?;
                drop(publish_permit);
                return expected.await.ok_or_else(reply_lost);
            }
        }
        let open = self.channel().await?;
        let (publication, expected) = self.with_reply_address(&open, publication)?;
        // The reply may arrive before the confirm.
        match self.publish_on(&open, &publication).await {
            Ok(()) => expected.await.ok_or_else(reply_lost),
            Err(Failure::Fault(fault) | Failure::NotSent(fault)) => Err(fault),
            // It may have been executed: do not resend it.
            Err(Failure::Suspect(_)) => Err(unconfirmed("the broker closed the channel")),
        }
    }

    /// Sets the reply address and the correlation id of a request, and registers its reply.
    fn with_reply_address(
        &self,
        open: &Rc<OpenChannel>,
        mut publication: Publication,
    ) -> Result<(Rc<Publication>, Expected<Delivery>), Fault> {
        let number = self.requests.get();
        self.requests.set(number + 1);
        let mut correlation = format!("{:x}.{number:x}", open.live.number);
        if let (Some(_), Some(request)) = (&self.late_reply, publication.properties.message_id()) {
            // Identifies the request in a late reply.
            correlation.push('.');
            correlation.push_str(request.as_str());
        }
        let id = ShortString::from(correlation.as_str());
        publication.properties = publication.properties.with_reply_to(DIRECT_REPLY.into()).with_correlation_id(id);
        let expected = open.replies.expect(correlation.into())?;
        Ok((Rc::new(publication), expected))
    }

    /// Keeps the channel of a request open for late replies.
    fn retire(&self, open: &Rc<OpenChannel>) {
        if self.late_reply.is_none() {
            return;
        }
        let mut retired = self.retired.borrow_mut();
        if retired.len() == RETIRED_MAX {
            retired.pop_front();
        }
        retired.push_back(Rc::clone(open));
    }

    async fn publish_on(&self, open: &Rc<OpenChannel>, publication: &Rc<Publication>) -> Result<(), Failure> {
        if open.live.connection.status().blocked() {
            return Err(Failure::Fault(blocked()));
        }
        // lapin does not enforce the limit, and the broker would close the connection.
        let frame = usize::try_from(open.live.connection.configuration().frame_max()).unwrap_or(usize::MAX);
        if mapping::encoded_len_max(&publication.properties).saturating_add(FRAME_OVERHEAD) > frame {
            return Err(Failure::Fault(headers_too_large(frame)));
        }
        let Ok(permit) = Arc::clone(&open.permits).try_acquire_owned() else {
            let message = "too many messages await publisher confirms";
            let fault = Fault::new(Code::ResourceExhausted, "CONFIRMS_PENDING", message);
            return Err(Failure::Fault(fault.with_retry(Retry::After(Duration::from_secs(1)))));
        };
        let (done, outcome) = oneshot::channel();
        let (exchange, publication) = (self.exchange.clone(), Rc::clone(publication));
        let outgoing = Outgoing { exchange, publication, done, permit };
        // A permit guarantees capacity as long as the channel is open.
        if open.outgoing.try_send(outgoing).is_err() {
            return Err(Failure::NotSent(unreachable("the channel was closed")));
        }
        outcome.await.unwrap_or_else(|_| Err(Failure::Fault(unconfirmed("the channel was closed"))))
    }

    async fn channel(&self) -> Result<Rc<OpenChannel>, Fault> {
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
        // The first of the waiting callers stores the result.
        if pending.as_ref().is_some_and(|pending| pending.ptr_eq(&opening)) {
            *pending = None;
            *self.open.borrow_mut() = opened.as_ref().ok().cloned();
        }
        opened
    }
}

/// Opens a channel; checks that the exchange exists.
async fn open(broker: Arc<Broker>, exchange: ShortString, late: Option<ShortString>) -> Result<Rc<OpenChannel>, Fault> {
    let live = broker.connection().await?;
    tokio::select! {
        biased;
        () = wait_blocked(&live) => Err(blocked()),
        () = live.lost() => Err(unreachable("the connection was lost")),
        opened = open_on(live.clone(), Arc::clone(&broker), exchange, late) => opened,
        () = tokio::time::sleep(OPEN_TIMEOUT) => Err(unreachable("opening a channel timed out")),
    }
}

/// Waits until the broker blocks publishing.
async fn wait_blocked(live: &Live) {
    while !live.connection.status().blocked() {
        tokio::time::sleep(BLOCKED_INTERVAL).await;
    }
}

async fn open_on(
    live: Live,
    broker: Arc<Broker>,
    exchange: ShortString,
    late: Option<ShortString>,
) -> Result<Rc<OpenChannel>, Fault> {
    check_exchange(&live, &exchange).await?;
    let channel = live.connection.create_channel().await.map_err(unreachable)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(unreachable)?;
    let consume = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(DIRECT_REPLY.into(), ShortString::default(), consume, FieldTable::default());
    let consumer = consumer.await.map_err(unreachable)?;
    let (outgoing, sending) = mpsc::channel(UNCONFIRMED_MAX);
    let (replies, permits) = (PendingReplies::new(PENDING_REPLIES_MAX), Arc::new(Semaphore::new(UNCONFIRMED_MAX)));
    tokio::task::spawn_local(send_and_confirm(channel.clone(), live.clone(), sending));
    let late = late.map(|queue| LateReplyQueue { queue, outgoing: outgoing.clone(), permits: Arc::clone(&permits) });
    tokio::task::spawn_local(dispatch_replies(live.clone(), consumer, Rc::clone(&replies), late));
    Ok(Rc::new(OpenChannel { live, channel, outgoing, permits, replies, broker }))
}

/// Checks that an exchange exists, on a separate channel, which the broker closes otherwise.
async fn check_exchange(live: &Live, exchange: &ShortString) -> Result<(), Fault> {
    if exchange.as_str().is_empty() {
        return Ok(());
    }
    let channel = live.connection.create_channel().await.map_err(unreachable)?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    // The broker ignores the kind in a passive declaration.
    let declared = channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, options, FieldTable::default());
    match declared.await {
        Ok(()) => {
            let _ = channel.close(200, "OK".into()).await;
            Ok(())
        }
        Err(error) if error.is_amqp_soft_error() => Err(no_exchange(exchange.as_str(), error)),
        Err(error) => Err(unreachable(error)),
    }
}

/// Delivers replies to the waiting callers, until the channel is closed.
async fn dispatch_replies(
    live: Live,
    mut consumer: Consumer,
    replies: Rc<PendingReplies<Delivery>>,
    late: Option<LateReplyQueue>,
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
            tracing::warn!("reply without correlation id dropped");
            continue;
        };
        match (replies.answer(&id, delivery), &late) {
            (Ok(()), _) => {}
            (Err((Unwanted::Late, delivery)), Some(late)) => late.forward(delivery),
            (Err((unwanted, _)), _) => tracing::debug!(?unwanted, "unexpected reply dropped"),
        }
    }
    replies.close();
}

/// Forwards late replies to a queue.
struct LateReplyQueue {
    queue: ShortString,
    outgoing: mpsc::Sender<Outgoing>,
    permits: Arc<Semaphore>,
}

impl LateReplyQueue {
    /// Forwards a late reply, with the id of its request as correlation id. If that fails, the reply is lost, as the broker would drop it too
    /// once its caller has left.
    fn forward(&self, reply: Delivery) {
        let properties = mapping::late_reply_properties(&reply.properties);
        let body = Bytes::from(reply.data);
        let publication = Rc::new(Publication { key: self.queue.clone(), mandatory: true, properties, body });
        let (done, outcome) = oneshot::channel();
        let sent = Arc::clone(&self.permits).try_acquire_owned().ok().is_some_and(|permit| {
            let exchange = ShortString::default();
            self.outgoing.try_send(Outgoing { exchange, publication, done, permit }).is_ok()
        });
        let queue = self.queue.clone();
        tokio::task::spawn_local(async move {
            match outcome.await {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => tracing::warn!(%queue, ?problem, "late reply lost"),
                Err(_) => tracing::warn!(%queue, sent, "late reply lost"),
            }
        });
    }
}
