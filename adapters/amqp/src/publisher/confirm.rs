//! Sending messages, and which message each confirmation is of.

use std::collections::HashMap;

use crossdock_adapter_api::failpoint;
use crossdock_message::Fault;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Publication;
use crate::error::{refused, unconfirmed, unreachable, unroutable};

/// Returned messages that wait for their own confirmation.
const RETURNED_MAX: usize = 10_000;

/// What returned messages are told apart by. Where two are alike in all of it, the broker treats them alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Envelope {
    exchange: ShortString,
    key: ShortString,
    id: Option<ShortString>,
}

/// A message on its way out, and who waits for its confirmation.
pub(super) struct ToSend {
    pub(super) exchange: ShortString,
    pub(super) publication: Publication,
    pub(super) done: oneshot::Sender<Result<(), Fault>>,
    /// Given back once it is confirmed, whether anybody waits for that or not.
    pub(super) credit: OwnedSemaphorePermit,
}

/// Sends messages and tells their senders what became of them, until the channel ends.
///
/// lapin hands a returned message to whichever confirmation comes next, which need not be its own, and completes those that one
/// frame confirms in any order. The broker returns a message before it confirms it; so all that is known at one moment is
/// gathered before anything of it is told. For that, all that lapin knows of has to be here: a message is sent here as well, and
/// nobody's leaving takes a confirmation away.
pub(super) async fn send_and_confirm(channel: Channel, mut sending: mpsc::Receiver<ToSend>) {
    let mut waiting = FuturesUnordered::new();
    let mut returned: HashMap<Envelope, usize> = HashMap::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        let mut settled = Vec::new();
        tokio::select! {
            biased;
            next = sending.recv(), if open => match next {
                Some(next) => waiting.push(send(&channel, next)),
                None => open = false,
            },
            Some(one) = waiting.next(), if !waiting.is_empty() => settled.push(one),
        }
        // Those that are new are begun at once, and those that are confirmed are gathered.
        loop {
            while let Ok(next) = sending.try_recv() {
                waiting.push(send(&channel, next));
            }
            match waiting.next().now_or_never().flatten() {
                Some(one) => settled.push(one),
                None => break,
            }
        }
        let outcomes: Vec<_> = settled.into_iter().map(|settled| settled.noting(&mut returned)).collect();
        if returned.len() > RETURNED_MAX {
            // Their senders were told of another failure; what is forgotten here can make nothing a success but itself.
            tracing::warn!("too many returned messages have no sender; they are forgotten");
            returned.clear();
        }
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

/// Sends one message; ends when it is confirmed, or cannot be any more.
async fn send(channel: &Channel, message: ToSend) -> Settled {
    let ToSend { exchange, publication, done, credit } = message;
    let Publication { key, mandatory, properties, body } = publication;
    let envelope = Envelope { exchange: exchange.clone(), key: key.clone(), id: properties.message_id().clone() };
    let options = BasicPublishOptions { mandatory, immediate: false };
    let outcome = if channel.status().connected() {
        match channel.basic_publish(exchange, key, options, &body, properties).await {
            Ok(confirm) => {
                failpoint("amqp.published");
                let confirmed = confirm.await.map_err(unconfirmed);
                failpoint("amqp.confirmed");
                confirmed
            }
            // Some of it may have been written.
            Err(error) => Err(unconfirmed(error)),
        }
    } else {
        Err(unreachable("the channel was closed"))
    };
    Settled { envelope, done, outcome, _credit: credit }
}

struct Settled {
    envelope: Envelope,
    done: oneshot::Sender<Result<(), Fault>>,
    outcome: Result<Confirmation, Fault>,
    _credit: OwnedSemaphorePermit,
}

impl Settled {
    /// What it says of its own message; a returned message, which may be another's, is noted.
    fn noting(
        self,
        returned: &mut HashMap<Envelope, usize>,
    ) -> (Envelope, oneshot::Sender<Result<(), Fault>>, Result<(), Fault>) {
        let mut note = |message: Option<BasicReturnMessage>| {
            if let Some(message) = message {
                let delivery = message.delivery;
                let id = delivery.properties.message_id().clone();
                let envelope = Envelope { exchange: delivery.exchange, key: delivery.routing_key, id };
                *returned.entry(envelope).or_default() += 1;
            }
        };
        let outcome = match self.outcome {
            Ok(Confirmation::Ack(message)) => {
                note(message);
                Ok(())
            }
            Ok(Confirmation::Nack(message)) => {
                note(message);
                Err(refused())
            }
            // Confirmations were asked for: without one, nothing is known.
            Ok(Confirmation::NotRequested) => Err(unconfirmed("the broker was not asked to confirm")),
            Err(fault) => Err(fault),
        };
        (self.envelope, self.done, outcome)
    }
}
