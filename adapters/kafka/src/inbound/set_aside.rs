//! Sets records aside that cannot be processed: for good in a dead letter topic, for a while in a retry topic.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossdock_delivery::cycle_delay;
use crossdock_delivery::dead_letter as letter;
use crossdock_message::{ByteString, Fault};
use rdkafka::message::{Header, OwnedHeaders};

use super::handler::Handler;
use super::member::Delivery;
use super::retry_backoff;
use crate::config::{Entry, RejectPolicy, RetryTopic};
use crate::mapping;
use crate::producer::Record;
use crate::received::ReceivedRecord;

/// The header of a record in a retry topic with the time of its next attempt, in milliseconds since 1970.
const DUE: &str = "crossdock-due";
/// The header of a record in a retry topic with its own timestamp. That of the copy is the time at which it was moved, as the brokers delete records by it.
const TIME: &str = "crossdock-time";

/// Where a record was first received. A record of a retry topic says so in headers, which only the gateway writes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) topic: ByteString,
    /// Topic, partition and offset.
    pub(super) position: ByteString,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
    /// The attempts that count against the limit, before it was set aside.
    pub(super) attempts: u32,
}

impl Origin {
    /// That of a record, if it comes from one of these retry topics.
    pub(super) fn of(record: &ReceivedRecord, retry_topics: &[RetryTopic]) -> Option<Self> {
        if !retry_topics.iter().any(|retry| *retry.topic == *record.topic) {
            return None;
        }
        let text = |name| record.exact_text(name);
        let (topic, position) = text(letter::QUEUE).zip(text(mapping::POSITION))?;
        let attempts = text(letter::ATTEMPTS).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Self { topic, position, timestamp: text(TIME).and_then(|text| text.parse().ok()), attempts })
    }
}

/// When the next attempt of a record is due; `None` for records that are not in a retry topic.
fn due(record: &ReceivedRecord, retry_topics: &[RetryTopic]) -> Option<SystemTime> {
    let retry = retry_topics.iter().find(|retry| *retry.topic == *record.topic)?;
    let millis = record.exact_text(DUE)?.parse().ok()?;
    let due = UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
    // A clock that is far ahead does not hold a record for longer than its topic says.
    Some(due.min(now().checked_add(retry.after)?))
}

#[expect(clippy::disallowed_methods, reason = "the time was written by another process")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Waits until the next attempt of a record is due; `false` if its partition is being revoked.
pub(super) async fn wait_until_due(entry: &Entry, delivery: &Delivery) -> bool {
    let due = due(&delivery.record, &entry.retry_topics);
    let left = due.and_then(|due| due.duration_since(now()).ok()).unwrap_or_default();
    if left.is_zero() {
        return true;
    }
    // Boxed: few records wait.
    Box::pin(async {
        tokio::select! {
            biased;
            () = delivery.stop.cancelled() => false,
            () = tokio::time::sleep(left) => true,
        }
    })
    .await
}

impl Handler<'_> {
    /// Moves the record to the next retry topic, or to the last one again; returns whether it is settled, as the brokers have stored it there.
    pub(super) async fn move_to_retry_topic(&self, entry: &Entry, fault: &Fault, attempts: u32) -> bool {
        let record = self.record();
        let stage = entry.retry_topics.iter().position(|retry| *retry.topic == *record.topic);
        let next = stage.map_or(0, |stage| stage + 1).min(entry.retry_topics.len() - 1);
        let RetryTopic { topic, after } = &entry.retry_topics[next];
        let (from, partition, offset) = (&record.topic, record.partition, record.offset);
        let due = (now() + *after).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis().to_string();
        let headers = self.headers_set_aside(fault, attempts, letter::count(|name| record.exact_text(name)));
        let headers = headers.insert(Header { key: DUE, value: Some(&due) });
        let headers = match self.timestamp() {
            Some(time) => headers.insert(Header { key: TIME, value: Some(&time.to_string()) }),
            None => headers,
        };
        match self.write_copy(topic, headers, None).await {
            Ok(()) => {
                tracing::warn!(topic = %from, partition, offset, code = %fault.code, reason = %fault.reason, attempts, retry_topic = %topic, ?after, "record moved to a retry topic");
                self.context.member.events().retries.add(1);
                true
            }
            Err(problem) => {
                tracing::warn!(topic = %from, partition, offset, retry_topic = %topic, %problem, "record not moved to a retry topic; retried in its place");
                false
            }
        }
    }

    /// Rejects the record by the policy of its entry; returns whether it is settled. A dead letter is settled once the brokers have stored it.
    pub(super) async fn reject(&self, fault: &Fault, policy: &RejectPolicy, attempts: u32) -> bool {
        let record = self.record();
        let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
        let log = |action| tracing::warn!(%topic, partition, offset, code = %fault.code, reason = %fault.reason, attempts, "{action}");
        let dead = match policy {
            RejectPolicy::Discard => {
                log("record discarded");
                return true;
            }
            RejectPolicy::DeadLetter(dead) => dead,
        };
        let count = letter::count(|name| record.exact_text(name));
        if let Some(delay) = cycle_delay(count) {
            tracing::error!(%topic, dead_letter = %dead, count, ?delay, "dead letter cycle detected; record delayed");
            if !self.sleep(delay).await {
                return false;
            }
        }
        let mut backoff = retry_backoff();
        loop {
            let headers = self.headers_set_aside(fault, attempts, count.saturating_add(1));
            match self.write_copy(dead, headers, self.timestamp()).await {
                Ok(()) => {
                    self.context.member.events().dead_letters.add(1);
                    log("record dead-lettered");
                    return true;
                }
                Err(problem) => {
                    tracing::warn!(%topic, dead_letter = %dead, %problem, "dead-lettering failed; retrying");
                }
            }
            // A transaction has failed, too.
            let is_in_transaction = self.participant.borrow().is_some();
            if is_in_transaction || !backoff.wait(self.delivery.stop.cancelled()).await {
                return false;
            }
        }
    }

    /// When the record was first written.
    pub(super) fn timestamp(&self) -> Option<i64> {
        self.origin().map_or(self.record().timestamp, |origin| origin.timestamp)
    }

    /// Writes the record to another topic, with other headers; in its transaction, if it is processed in one.
    async fn write_copy(&self, to: &str, headers: OwnedHeaders, timestamp: Option<i64>) -> Result<(), Fault> {
        let record = self.record();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let copy = Record { topic: to, partition: None, key, value, headers, timestamp };
        let participant = self.participant.borrow().clone();
        match participant {
            Some(participant) => participant.send(copy).await,
            None => self.context.producer.send(copy).await,
        }
    }

    /// The headers of the record in their order, without those of an earlier time that it was set aside, and those that say why it is. `count` is how often it
    /// was dead-lettered.
    fn headers_set_aside(&self, fault: &Fault, attempts: u32, count: u32) -> OwnedHeaders {
        let record = self.record();
        let (topic, position) = match self.origin() {
            Some(origin) => (origin.topic, origin.position),
            None => ((&*record.topic).into(), record.position()),
        };
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 9);
        for (key, value) in record.headers.iter().filter(|(name, _)| !letter::is_added(name)) {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let of_fault = letter::FaultHeaders::new(fault);
        let added = [
            (letter::STATUS, of_fault.status.to_string()),
            (letter::REASON, of_fault.reason.to_owned()),
            (letter::ERROR, of_fault.error.to_owned()),
            (letter::ORIGIN, of_fault.origin.to_owned()),
            (letter::QUEUE, topic.to_string()),
            (mapping::POSITION, position.to_string()),
            (letter::ATTEMPTS, attempts.to_string()),
            (letter::HOPS, count.to_string()),
        ];
        for (key, value) in &added {
            headers = headers.insert(Header { key, value: Some(value.as_str()) });
        }
        if record.has_unreadable_headers {
            headers = headers.insert(Header { key: letter::DROPPED, value: Some("true") });
        }
        match mapping::replays(record) {
            0 => headers,
            replays => headers.insert(Header { key: letter::REPLAYS, value: Some(&replays.to_string()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::received::tests::record_with_headers;

    fn record(topic: &str, headers: &[(&str, &str)]) -> ReceivedRecord {
        let owned =
            headers.iter().map(|(name, value)| ((*name).to_owned(), Some(Bytes::copy_from_slice(value.as_bytes()))));
        ReceivedRecord { topic: topic.into(), ..record_with_headers(owned.collect()) }
    }

    fn retry_topics() -> [RetryTopic; 1] {
        [RetryTopic { topic: "later".to_owned(), after: Duration::from_secs(60) }]
    }

    #[test]
    fn only_records_of_retry_topics_say_where_they_came_from() {
        let headers = [(letter::QUEUE, "orders"), (mapping::POSITION, "orders/1/5"), (letter::ATTEMPTS, "2")];
        let origin = |topic: &str, headers: &[(&str, &str)]| {
            let origin = Origin::of(&record(topic, headers), &retry_topics());
            origin.map(|Origin { topic, position, attempts, .. }| (topic.to_string(), position.to_string(), attempts))
        };
        assert_eq!(origin("later", &headers), Some(("orders".to_owned(), "orders/1/5".to_owned(), 2)));
        assert_eq!(origin("orders", &headers), None);
        assert_eq!(origin("later", &headers[..1]), None);
    }

    #[test]
    fn a_record_is_never_held_for_longer_than_its_topic_says() {
        let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_millis().to_string();
        let left = |topic: &str, due_at: &str| {
            let due = due(&record(topic, &[(DUE, due_at)]), &retry_topics())?;
            Some(due.duration_since(now()).map_or(0, |left| left.as_secs()))
        };
        let soon = millis(now() + Duration::from_secs(30));
        assert!(left("later", &soon).is_some_and(|left| (28..=30).contains(&left)));
        assert_eq!(left("orders", &soon), None, "not a retry topic");
        assert_eq!(left("later", "soon"), None);
        assert_eq!(left("later", "0"), Some(0));
        let far = millis(now() + Duration::from_secs(86_400));
        assert!(left("later", &far).is_some_and(|left| (58..=60).contains(&left)));
    }
}
