//! Sending messages on one channel, and what became of each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crossdock_adapter_api::failpoint;
use crossdock_message::Fault;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Publication;
use super::refusal::Refusal;
use crate::broker::Live;
use crate::error::{not_stored, returned_by_mistake, unconfirmed, unreachable, unroutable};
use crate::frames::{Returned, body_digest};

/// What messages of a lost connection wait for their errors.
const LOST_GRACE: Duration = Duration::from_secs(1);

/// A message on its way out, and who waits for its confirmation.
pub(super) struct ToSend {
    pub(super) exchange: ShortString,
    pub(super) publication: Rc<Publication>,
    pub(super) done: oneshot::Sender<Result<(), Failure>>,
    /// Given back once it is confirmed, whether anybody waits for that or not.
    pub(super) credit: OwnedSemaphorePermit,
}

/// Why a message is not confirmed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was never handed to the broker: it can be sent on another channel.
    NotSent(Fault),
    /// The broker closed the channel or the connection for a message, which may be this one. It may also have stored this one.
    Suspect(Refusal),
    /// Anything else.
    Fault(Fault),
}

/// Sends messages and reports what became of them, until the channel ends.
///
/// The broker returns a message before it confirms it, and [`Returns`] has a returned message before lapin can know of its
/// confirmation. So once a confirmation is known, whether its message was returned is known as well.
pub(super) async fn send_and_confirm(channel: Channel, live: Live, mut sending: mpsc::Receiver<ToSend>) {
    let returns = &live.returns;
    // lapin is given the time to say why the connection ended.
    let mut lost = pin!(async {
        live.lost().await;
        tokio::time::sleep(LOST_GRACE).await;
    });
    let mut waiting = FuturesUnordered::new();
    let mut unconfirmed = Unconfirmed::default();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            biased;
            next = sending.recv(), if open => match next {
                Some(next) => waiting.push(send(&channel, unconfirmed.add(&next), next)),
                None => open = false,
            },
            Some(settled) = waiting.next(), if !waiting.is_empty() => {
                let settled: Settled = settled;
                unconfirmed.note(returns.take(channel.id()));
                settled.report(&mut unconfirmed);
            }
            // The waiting publishers get an error: the outcome is unknown.
            () = &mut lost => return,
        }
        // New messages are sent at once, so that they leave together.
        while let Ok(next) = sending.try_recv() {
            waiting.push(send(&channel, unconfirmed.add(&next), next));
            if let Some(Some(settled)) = waiting.next().now_or_never() {
                unconfirmed.note(returns.take(channel.id()));
                settled.report(&mut unconfirmed);
            }
        }
    }
}

/// Messages of one channel that are sent and not confirmed, in the order of their sending.
#[derive(Default)]
struct Unconfirmed {
    sent: BTreeMap<u64, Sent>,
    next: u64,
    /// Behind the message that was matched last: a broker returns messages in the order in which they were sent.
    matched: u64,
}

struct Sent {
    exchange: ShortString,
    publication: Rc<Publication>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No return is known.
    Open,
    Returned,
    /// A returned message could be this one or another, because the broker changed it.
    Unclear,
}

impl Sent {
    fn may_be(&self, returned: &Returned) -> bool {
        self.fate != Fate::Returned
            && self.publication.mandatory
            && self.publication.key == returned.key
            && self.exchange == returned.exchange
    }

    /// Two messages that are the same in all of this are indistinguishable to the broker and to consumers.
    fn is(&self, returned: &Returned) -> bool {
        self.may_be(returned)
            && self.publication.body.len() as u64 == returned.body_len
            && self.publication.properties == returned.properties
            && body_digest(&self.publication.body) == returned.body_digest
    }
}

impl Unconfirmed {
    fn add(&mut self, message: &ToSend) -> u64 {
        let number = self.next;
        self.next += 1;
        let (exchange, publication) = (message.exchange.clone(), Rc::clone(&message.publication));
        self.sent.insert(number, Sent { exchange, publication, fate: Fate::Open });
        number
    }

    fn note(&mut self, returned: Vec<Returned>) {
        for returned in returned {
            self.note_one(&returned);
        }
    }

    fn note_one(&mut self, returned: &Returned) {
        let matched = self.matched;
        let (behind, before) = (self.sent.range(matched..), self.sent.range(..matched));
        let found = behind.chain(before).find(|(_, sent)| sent.is(returned)).map(|(number, _)| *number);
        if let Some(number) = found {
            self.matched = number + 1;
            self.set(number, Fate::Returned);
            return;
        }
        // A broker with an interceptor, or one that removes headers, returns other properties than it was sent.
        let may_be: Vec<u64> =
            self.sent.iter().filter(|(_, sent)| sent.may_be(returned)).map(|(number, _)| *number).collect();
        match may_be[..] {
            [] => tracing::warn!(exchange = %returned.exchange, "a returned message is none that was sent"),
            [one] if self.sent.get(&one).is_some_and(|sent| sent.fate == Fate::Open) => self.set(one, Fate::Returned),
            // One that is unclear already may be this one as well.
            _ => may_be.iter().for_each(|number| self.set(*number, Fate::Unclear)),
        }
    }

    fn set(&mut self, number: u64, fate: Fate) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.fate = fate;
        }
    }
}

/// Sends one message; ends when it is confirmed, or cannot be any more.
async fn send(channel: &Channel, number: u64, message: ToSend) -> Settled {
    let ToSend { exchange, publication, done, credit } = message;
    let Publication { key, mandatory, properties, body } = &*publication;
    let options = BasicPublishOptions { mandatory: *mandatory, immediate: false };
    let outcome = if channel.status().connected() {
        match channel.basic_publish(exchange, key.clone(), options, body, properties.clone()).await {
            Ok(confirm) => {
                failpoint("amqp.published");
                let confirmed = confirm.await.map_err(|error| match Refusal::of(&error) {
                    Some(refusal) => Failure::Suspect(refusal),
                    None => Failure::Fault(unconfirmed(error)),
                });
                failpoint("amqp.confirmed");
                confirmed
            }
            // Some of it may have been written.
            Err(error) => Err(Failure::Fault(unconfirmed(error))),
        }
    } else {
        Err(Failure::NotSent(unreachable("the channel was closed")))
    };
    Settled { number, done, outcome, _credit: credit }
}

struct Settled {
    number: u64,
    done: oneshot::Sender<Result<(), Failure>>,
    outcome: Result<Confirmation, Failure>,
    _credit: OwnedSemaphorePermit,
}

impl Settled {
    fn report(self, unconfirmed_messages: &mut Unconfirmed) {
        let sent = match unconfirmed_messages.sent.entry(self.number) {
            Entry::Occupied(sent) => sent.remove(),
            Entry::Vacant(_) => return,
        };
        let outcome = match (self.outcome, sent.fate) {
            (_, Fate::Returned) => {
                Err(Failure::Fault(unroutable(sent.exchange.as_str(), sent.publication.key.as_str())))
            }
            (Ok(Confirmation::Ack(_)), Fate::Open) => Ok(()),
            (Ok(Confirmation::Ack(_)), Fate::Unclear) => Err(Failure::Fault(returned_by_mistake())),
            (Ok(Confirmation::Nack(_)), _) => Err(Failure::Fault(not_stored())),
            // Confirmations were asked for: without one, nothing is known.
            (Ok(Confirmation::NotRequested), _) => {
                Err(Failure::Fault(unconfirmed("the broker was not asked to confirm")))
            }
            (Err(failure), _) => Err(failure),
        };
        // A publisher who left does not want to know.
        let _ = self.done.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;
    use lapin::BasicProperties;
    use lapin::types::{AMQPValue, FieldTable};
    use tokio::sync::Semaphore;

    fn properties(region: &str) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("region".into(), AMQPValue::LongString(region.into()));
        BasicProperties::default().with_message_id("one-id".into()).with_headers(headers)
    }

    fn sent(unconfirmed: &mut Unconfirmed, region: &str, body: &'static str) -> u64 {
        let (done, _) = oneshot::channel();
        let credit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let publication = Rc::new(Publication {
            key: "k".into(),
            mandatory: true,
            properties: properties(region),
            body: Bytes::from_static(body.as_bytes()),
        });
        unconfirmed.add(&ToSend { exchange: "x".into(), publication, done, credit })
    }

    fn returned(region: &str, body: &str) -> Returned {
        Returned {
            exchange: "x".into(),
            key: "k".into(),
            properties: properties(region),
            body_len: body.len() as u64,
            body_digest: body_digest(body.as_bytes()),
        }
    }

    fn fates(unconfirmed: &Unconfirmed) -> Vec<Fate> {
        unconfirmed.sent.values().map(|sent| sent.fate).collect()
    }

    #[test]
    fn a_returned_message_is_matched_by_all_of_its_content() {
        let mut unconfirmed = Unconfirmed::default();
        for (region, body) in [("eu", "1"), ("mars", "1"), ("mars", "2"), ("eu", "2")] {
            sent(&mut unconfirmed, region, body);
        }
        unconfirmed.note(vec![returned("mars", "2"), returned("mars", "1")]);
        assert!(fates(&unconfirmed) == [Fate::Open, Fate::Returned, Fate::Returned, Fate::Open]);
    }

    #[test]
    fn of_equal_messages_as_many_are_returned_as_came_back() {
        let mut unconfirmed = Unconfirmed::default();
        for _ in 0..3 {
            sent(&mut unconfirmed, "mars", "1");
        }
        unconfirmed.note(vec![returned("mars", "1"), returned("mars", "1")]);
        assert!(fates(&unconfirmed) == [Fate::Returned, Fate::Returned, Fate::Open]);
    }

    #[test]
    fn a_message_that_the_broker_changed_is_never_taken_for_a_confirmed_one() {
        let mut unconfirmed = Unconfirmed::default();
        let first = sent(&mut unconfirmed, "eu", "1");
        unconfirmed.note(vec![returned("changed", "1")]);
        assert!(fates(&unconfirmed) == [Fate::Returned]);
        unconfirmed.sent.remove(&first);
        sent(&mut unconfirmed, "eu", "1");
        sent(&mut unconfirmed, "mars", "1");
        unconfirmed.note(vec![returned("changed", "1")]);
        assert!(fates(&unconfirmed) == [Fate::Unclear, Fate::Unclear]);
    }
}
