//! Sends messages on one channel and reports the outcome of each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crossdock_delivery::failpoint;
use crossdock_message::Fault;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Error, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Publication;
use super::refusal::Refusal;
use crate::broker::Live;
use crate::error::{ambiguous_return, nacked, unconfirmed, unreachable, unroutable};
use crate::frames::{Returned, body_digest};

/// How long the messages of a lost connection wait for lapin to report the reason.
const LOST_GRACE: Duration = Duration::from_secs(1);

/// A message to send, and the publisher that waits for its confirm.
pub(super) struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) publication: Rc<Publication>,
    pub(super) done: oneshot::Sender<Result<(), Failure>>,
    /// Released once the message is confirmed, even if the publisher no longer waits.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Why a message was not confirmed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent: it can be sent on another channel.
    NotSent(Fault),
    /// The broker closed the channel or connection because of a message, possibly this one. It may also have stored this one.
    Suspect(Refusal),
    /// Anything else.
    Fault(Fault),
}

impl Failure {
    /// Why `basic.publish` failed. lapin also drops queued messages when the broker closes their channel; part of them may have been written.
    fn of_publish(error: &Error) -> Self {
        match error.kind() {
            // The broker closed the channel after its status was checked.
            ErrorKind::InvalidChannelState(..) => Self::NotSent(unreachable(error)),
            _ => Self::of_confirm(error),
        }
    }

    /// Why a message that was sent is not confirmed.
    fn of_confirm(error: &Error) -> Self {
        Refusal::of(error).map_or_else(|| Self::Fault(unconfirmed(error)), Self::Suspect)
    }
}

/// Sends messages and reports their outcomes, until the channel is closed.
///
/// The broker returns a message before it confirms it, and `Returns` records the return before lapin receives the confirm. So once a
/// confirm is received, it is known whether the message was returned.
pub(super) async fn send_and_confirm(channel: Channel, live: Live, mut sending: mpsc::Receiver<Outgoing>) {
    let returns = &live.connection.returns;
    // Gives lapin time to report why the connection was lost.
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
            Some(completed) = waiting.next(), if !waiting.is_empty() => {
                let completed: Completed = completed;
                unconfirmed.match_returns(returns.take(channel.id()));
                completed.report(&mut unconfirmed);
            }
            // Dropping the senders tells waiting publishers that the outcome is unknown.
            () = &mut lost => return,
        }
        // Send all queued messages before waiting, so that they are written together.
        while let Ok(next) = sending.try_recv() {
            waiting.push(send(&channel, unconfirmed.add(&next), next));
            if let Some(Some(completed)) = waiting.next().now_or_never() {
                unconfirmed.match_returns(returns.take(channel.id()));
                completed.report(&mut unconfirmed);
            }
        }
    }
}

/// The unconfirmed messages of one channel, in the order in which they were sent.
#[derive(Default)]
struct Unconfirmed {
    sent: BTreeMap<u64, Sent>,
    next: u64,
    /// The position after the last match: a broker returns messages in the order in which they were sent.
    matched: u64,
}

struct Sent {
    exchange: ShortString,
    publication: Rc<Publication>,
    return_status: ReturnStatus,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReturnStatus {
    /// No return was recorded.
    NotReturned,
    Returned,
    /// The broker returned a modified message, which could be this one or another.
    Ambiguous,
}

impl Sent {
    fn may_match(&self, returned: &Returned) -> bool {
        self.return_status != ReturnStatus::Returned
            && self.publication.mandatory
            && self.publication.key == returned.key
            && self.exchange == returned.exchange
    }

    /// Messages that agree in all of these are indistinguishable to the broker and to consumers.
    fn matches(&self, returned: &Returned) -> bool {
        self.may_match(returned)
            && self.publication.body.len() as u64 == returned.body_len
            && self.publication.properties == returned.properties
            && body_digest(&self.publication.body) == returned.body_digest
    }
}

impl Unconfirmed {
    fn add(&mut self, message: &Outgoing) -> u64 {
        let number = self.next;
        self.next += 1;
        let (exchange, publication) = (message.exchange.clone(), Rc::clone(&message.publication));
        self.sent.insert(number, Sent { exchange, publication, return_status: ReturnStatus::NotReturned });
        number
    }

    fn match_returns(&mut self, returned: Vec<Returned>) {
        for returned in returned {
            self.match_return(&returned);
        }
    }

    fn match_return(&mut self, returned: &Returned) {
        let matched = self.matched;
        let (after, before) = (self.sent.range(matched..), self.sent.range(..matched));
        let found = after.chain(before).find(|(_, sent)| sent.matches(returned)).map(|(number, _)| *number);
        if let Some(number) = found {
            self.matched = number + 1;
            self.set(number, ReturnStatus::Returned);
            return;
        }
        // A broker with an interceptor, or one that removes headers, returns modified properties.
        let candidates: Vec<u64> =
            self.sent.iter().filter(|(_, sent)| sent.may_match(returned)).map(|(number, _)| *number).collect();
        match candidates[..] {
            [] => tracing::warn!(exchange = %returned.exchange, "returned message matches no sent message"),
            [one] if self.sent.get(&one).is_some_and(|sent| sent.return_status == ReturnStatus::NotReturned) => {
                self.set(one, ReturnStatus::Returned);
            }
            // A candidate that is already ambiguous may match this return too.
            _ => candidates.iter().for_each(|number| self.set(*number, ReturnStatus::Ambiguous)),
        }
    }

    fn set(&mut self, number: u64, return_status: ReturnStatus) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.return_status = return_status;
        }
    }
}

/// Sends one message; completes once it is confirmed or can no longer be.
async fn send(channel: &Channel, number: u64, message: Outgoing) -> Completed {
    let Outgoing { exchange, publication, done, permit } = message;
    let Publication { key, mandatory, properties, body } = &*publication;
    let options = BasicPublishOptions { mandatory: *mandatory, immediate: false };
    let outcome = if channel.status().connected() {
        match channel.basic_publish(exchange, key.clone(), options, body, properties.clone()).await {
            Ok(confirm) => {
                failpoint("amqp.published");
                let confirmed = confirm.await.map_err(|error| Failure::of_confirm(&error));
                failpoint("amqp.confirmed");
                confirmed
            }
            Err(error) => Err(Failure::of_publish(&error)),
        }
    } else {
        Err(Failure::NotSent(unreachable("the channel was closed")))
    };
    Completed { number, done, outcome, _permit: permit }
}

struct Completed {
    number: u64,
    done: oneshot::Sender<Result<(), Failure>>,
    outcome: Result<Confirmation, Failure>,
    _permit: OwnedSemaphorePermit,
}

impl Completed {
    fn report(self, unconfirmed_messages: &mut Unconfirmed) {
        let sent = match unconfirmed_messages.sent.entry(self.number) {
            Entry::Occupied(sent) => sent.remove(),
            Entry::Vacant(_) => return,
        };
        let outcome = match (self.outcome, sent.return_status) {
            (_, ReturnStatus::Returned) => {
                Err(Failure::Fault(unroutable(sent.exchange.as_str(), sent.publication.key.as_str())))
            }
            (Ok(Confirmation::Ack(_)), ReturnStatus::NotReturned) => Ok(()),
            (Ok(Confirmation::Ack(_)), ReturnStatus::Ambiguous) => Err(Failure::Fault(ambiguous_return())),
            (Ok(Confirmation::Nack(_)), _) => Err(Failure::Fault(nacked())),
            // Unreachable, since confirm mode is on; otherwise nothing would be known.
            (Ok(Confirmation::NotRequested), _) => {
                Err(Failure::Fault(unconfirmed("the channel is not in confirm mode")))
            }
            (Err(failure), _) => Err(failure),
        };
        // The publisher may have been dropped.
        let _ = self.done.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};
    use lapin::types::{AMQPValue, FieldTable};
    use lapin::{BasicProperties, ChannelState};
    use tokio::sync::Semaphore;

    fn properties(region: &str) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("region".into(), AMQPValue::LongString(region.into()));
        BasicProperties::default().with_message_id("one-id".into()).with_headers(headers)
    }

    fn sent(unconfirmed: &mut Unconfirmed, region: &str, body: &'static str) -> u64 {
        let (done, _) = oneshot::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let publication = Rc::new(Publication {
            key: "k".into(),
            mandatory: true,
            properties: properties(region),
            body: Bytes::from_static(body.as_bytes()),
        });
        unconfirmed.add(&Outgoing { exchange: "x".into(), publication, done, permit })
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

    fn statuses(unconfirmed: &Unconfirmed) -> Vec<ReturnStatus> {
        unconfirmed.sent.values().map(|sent| sent.return_status).collect()
    }

    #[test]
    fn messages_dropped_when_their_channel_closes_are_suspects_or_not_sent() {
        let refused =
            |kind: AMQPErrorKind| Error::from(ErrorKind::ProtocolError(AMQPError::new(kind, "refused".into())));
        let soft = refused(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED));
        assert!(matches!(Failure::of_publish(&soft), Failure::Suspect(refusal) if !refusal.is_hard));
        assert!(matches!(Failure::of_confirm(&soft), Failure::Suspect(refusal) if !refusal.is_hard));
        let forced = refused(AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED));
        assert!(matches!(Failure::of_publish(&forced), Failure::Fault(_)));
        let closed = Error::from(ErrorKind::InvalidChannelState(ChannelState::Closed, "basic.publish"));
        assert!(matches!(Failure::of_publish(&closed), Failure::NotSent(_)));
        assert!(matches!(Failure::of_confirm(&closed), Failure::Fault(_)));
    }

    #[test]
    fn a_returned_message_is_matched_by_its_entire_content() {
        let mut unconfirmed = Unconfirmed::default();
        for (region, body) in [("eu", "1"), ("mars", "1"), ("mars", "2"), ("eu", "2")] {
            sent(&mut unconfirmed, region, body);
        }
        unconfirmed.match_returns(vec![returned("mars", "2"), returned("mars", "1")]);
        assert!(
            statuses(&unconfirmed)
                == [
                    ReturnStatus::NotReturned,
                    ReturnStatus::Returned,
                    ReturnStatus::Returned,
                    ReturnStatus::NotReturned
                ]
        );
    }

    #[test]
    fn each_return_matches_one_of_several_equal_messages() {
        let mut unconfirmed = Unconfirmed::default();
        for _ in 0..3 {
            sent(&mut unconfirmed, "mars", "1");
        }
        unconfirmed.match_returns(vec![returned("mars", "1"), returned("mars", "1")]);
        assert!(statuses(&unconfirmed) == [ReturnStatus::Returned, ReturnStatus::Returned, ReturnStatus::NotReturned]);
    }

    #[test]
    fn a_modified_return_never_leaves_its_message_confirmed() {
        let mut unconfirmed = Unconfirmed::default();
        let first = sent(&mut unconfirmed, "eu", "1");
        unconfirmed.match_returns(vec![returned("changed", "1")]);
        assert!(statuses(&unconfirmed) == [ReturnStatus::Returned]);
        unconfirmed.sent.remove(&first);
        sent(&mut unconfirmed, "eu", "1");
        sent(&mut unconfirmed, "mars", "1");
        unconfirmed.match_returns(vec![returned("changed", "1")]);
        assert!(statuses(&unconfirmed) == [ReturnStatus::Ambiguous, ReturnStatus::Ambiguous]);
    }
}
