//! Messages that a broker refuses by closing their channel or connection.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crossdock_message::{Code, EndpointVerdict, Fault, Retry};
use lapin::protocol::AMQPErrorKind;
use lapin::types::ShortString;
use lapin::{Error, ErrorKind};

use super::Publication;
use crate::error::{no_exchange, refused_permanently};

/// Reply codes (AMQP 0.9.1 §1.2).
const CONTENT_TOO_LARGE: u16 = 311;
const CONNECTION_FORCED: u16 = 320;
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;

/// How long a refusal is remembered; permissions and limits may change.
const REFUSAL_TTL: Duration = Duration::from_secs(60);
/// The maximum number of accepted and of refused keys that are remembered.
const KEYS_MAX: usize = 16_384;
/// Bodies up to this length are expected to be accepted.
const SMALL_LEN: usize = 64 << 10;

/// The reason that a broker gave for closing a channel or connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    text: String,
    /// A connection exception: the broker closed the connection, not only the channel.
    pub(crate) is_hard: bool,
}

impl Refusal {
    /// The refusal in an error; `None` if no message can have caused the error.
    pub(super) fn of(error: &Error) -> Option<Self> {
        let ErrorKind::ProtocolError(error) = error.kind() else { return None };
        let (code, is_hard) = match error.kind() {
            AMQPErrorKind::Soft(soft) => (soft.get_id(), false),
            // Closed by an operator or a shutdown of the broker.
            AMQPErrorKind::Hard(hard) if hard.get_id() == CONNECTION_FORCED => return None,
            AMQPErrorKind::Hard(hard) => (hard.get_id(), true),
        };
        Some(Self { code, text: error.get_message().as_str().to_owned(), is_hard })
    }

    /// The fault of a message that was published on an isolated channel.
    pub(super) fn fault(&self, exchange: &str) -> Fault {
        tracing::warn!(exchange, code = self.code, text = %self.text, "message refused by broker");
        match self.code {
            NOT_FOUND => no_exchange(exchange, &self.text),
            RESOURCE_LOCKED => {
                let message = "the exchange or queue is locked by another connection";
                Fault::new(Code::Unavailable, "LOCKED", message)
                    .with_retry(Retry::Same)
                    .with_endpoint_verdict(EndpointVerdict::None)
            }
            ACCESS_REFUSED => refused_permanently(Code::PermissionDenied, self.code),
            CONTENT_TOO_LARGE => refused_permanently(Code::InvalidArgument, self.code).with_http_status(413),
            PRECONDITION_FAILED if self.is_size_limit() => {
                refused_permanently(Code::InvalidArgument, self.code).with_http_status(413)
            }
            _ => refused_permanently(Code::InvalidArgument, self.code),
        }
    }

    fn is_size_limit(&self) -> bool {
        self.code == CONTENT_TOO_LARGE || (self.code == PRECONDITION_FAILED && self.text.contains("size"))
    }
}

/// Messages that the broker accepted and refused on one exchange. Decides which messages must be isolated.
#[derive(Default)]
pub(super) struct History {
    refused_keys: HashMap<ShortString, Instant>,
    /// The shortest body refused because of its length.
    refused_len: Option<(usize, Instant)>,
    accepted_keys: HashSet<ShortString>,
    accepted_len: usize,
}

impl History {
    /// Whether a similar message was refused recently.
    pub(super) fn expects_refusal(&mut self, publication: &Publication, now: Instant) -> bool {
        self.refused_keys.retain(|_, since| now.duration_since(*since) < REFUSAL_TTL);
        self.refused_len = self.refused_len.filter(|(_, since)| now.duration_since(*since) < REFUSAL_TTL);
        self.refused_len.is_some_and(|(len, _)| publication.body.len() >= len)
            || self.refused_keys.contains_key(&publication.key)
    }

    /// Whether messages with this key, and messages of this length, were accepted before.
    pub(super) fn expects_acceptance(&mut self, publication: &Publication, now: Instant) -> bool {
        publication.body.len() <= self.accepted_len.max(SMALL_LEN)
            && self.accepted_keys.contains(&publication.key)
            && !self.expects_refusal(publication, now)
    }

    pub(super) fn record_accepted(&mut self, publication: &Publication) {
        self.accepted_len = self.accepted_len.max(publication.body.len());
        if !self.accepted_keys.contains(&publication.key) {
            if self.accepted_keys.len() >= KEYS_MAX {
                // Any will do: it is learned again with its next request.
                let evicted = self.accepted_keys.iter().next().cloned();
                evicted.map(|evicted| self.accepted_keys.remove(&evicted));
            }
            self.accepted_keys.insert(publication.key.clone());
        }
        self.refused_keys.remove(&publication.key);
        self.refused_len = self.refused_len.filter(|(len, _)| *len > publication.body.len());
    }

    pub(super) fn record_refused(&mut self, publication: &Publication, refusal: &Refusal, now: Instant) {
        if refusal.is_size_limit() {
            let len = publication.body.len();
            self.refused_len = Some((self.refused_len.map_or(len, |(known, _)| known.min(len)), now));
            self.accepted_len = self.accepted_len.min(len.saturating_sub(1));
        } else if refusal.code == ACCESS_REFUSED {
            self.accepted_keys.remove(&publication.key);
            if self.refused_keys.len() < KEYS_MAX {
                self.refused_keys.insert(publication.key.clone(), now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::BasicProperties;

    fn publication(key: &str, len: usize) -> Publication {
        Publication {
            key: key.into(),
            mandatory: true,
            properties: BasicProperties::default(),
            body: vec![0; len].into(),
        }
    }

    fn refusal(code: u16, text: &str) -> Refusal {
        Refusal { code, text: text.to_owned(), is_hard: false }
    }

    #[test]
    fn a_refused_length_is_expected_to_be_refused_until_accepted_or_expired() {
        let (mut history, now) = (History::default(), Instant::now());
        history.record_refused(&publication("k", 100), &refusal(406, "message size 100 is larger than 90"), now);
        assert!(history.expects_refusal(&publication("other", 100), now));
        assert!(!history.expects_refusal(&publication("k", 99), now));
        assert!(!history.expects_refusal(&publication("k", 100), now + REFUSAL_TTL));
        history.record_refused(&publication("k", 100), &refusal(406, "size"), now);
        history.record_accepted(&publication("k", 100));
        assert!(!history.expects_refusal(&publication("k", 100), now));
    }

    #[test]
    fn a_refused_key_does_not_affect_other_keys() {
        let (mut history, now) = (History::default(), Instant::now());
        history.record_accepted(&publication("k", 1));
        assert!(history.expects_acceptance(&publication("k", SMALL_LEN), now));
        assert!(!history.expects_acceptance(&publication("k", SMALL_LEN + 1), now));
        assert!(!history.expects_acceptance(&publication("new", 1), now));
        history.record_refused(&publication("k", 1), &refusal(403, "access"), now);
        assert!(history.expects_refusal(&publication("k", 1), now));
        assert!(!history.expects_acceptance(&publication("k", 1), now));
        assert!(!history.expects_refusal(&publication("other", 1), now));
    }
}
