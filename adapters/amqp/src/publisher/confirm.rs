//! Which message each confirmation is of.

use std::collections::HashMap;
use std::future::Future;

use crossdock_message::Fault;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use lapin::{Confirmation, PublisherConfirm};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::error::{refused, unconfirmed, unroutable};

/// Returned messages that wait for their own confirmation.
const RETURNED_MAX: usize = 10_000;

/// What returned messages are told apart by. Where two are alike in all of it, the broker treats them alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Envelope {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) id: Option<ShortString>,
}

/// A message that was sent.
pub(super) struct Sent {
    pub(super) confirm: PublisherConfirm,
    pub(super) envelope: Envelope,
    pub(super) done: oneshot::Sender<Result<(), Fault>>,
    /// Given back once it is confirmed, whether anybody waits for that or not.
    pub(super) credit: OwnedSemaphorePermit,
}

/// Tells publishers what became of their messages, until the channel ends.
///
/// lapin hands a returned message to whichever confirmation comes next, which need not be its own. The broker returns a message
/// before it confirms it; so all that is known at one moment is gathered before anything of it is told.
pub(super) async fn confirm(mut sent: mpsc::Receiver<Sent>) {
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

struct Settled {
    envelope: Envelope,
    done: oneshot::Sender<Result<(), Fault>>,
    confirmation: lapin::Result<Confirmation>,
    _credit: OwnedSemaphorePermit,
}

fn confirmed(sent: Sent) -> impl Future<Output = Settled> {
    let Sent { confirm, envelope, done, credit } = sent;
    async move { Settled { envelope, done, confirmation: confirm.await, _credit: credit } }
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
            Ok(Confirmation::NotRequested) => Err(unconfirmed("the broker was not asked to confirm")),
            Err(error) => Err(unconfirmed(error)),
        };
        (self.envelope, self.done, outcome)
    }
}
