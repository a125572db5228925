//! The headers that the gateway adds to dead letters and to replies with a fault.

use crossdock_message::{ByteString, Fault, Origin};
use crossdock_ports::DeadLetter;

/// The prefix of the gateway's headers, which are never forwarded.
pub const PREFIX: &str = "crossdock-";
/// The number of the fault's code.
pub const STATUS: &str = "crossdock-status";
/// The fault's reason.
pub const REASON: &str = "crossdock-reason";
/// The fault's message.
pub const ERROR: &str = "crossdock-error";
/// The fault's origin: `caller`, `gateway`, or the name of a service.
pub const ORIGIN: &str = "crossdock-origin";
/// The queue that the message came from.
pub const QUEUE: &str = "crossdock-queue";
/// The number of attempts.
pub const ATTEMPTS: &str = "crossdock-attempts";
/// How often the message was dead-lettered, this dead letter included.
pub const HOPS: &str = "crossdock-hops";

/// Marks a dead letter that lost headers of its message.
pub const DROPPED: &str = "crossdock-headers-dropped";
/// How often a message was replayed, where its source cannot count. It stays with the message.
pub const REPLAYS: &str = "crossdock-replays";

/// The longest fault message in a header, in bytes.
const ERROR_LEN_MAX: usize = 1024;

/// The values of [`STATUS`], [`REASON`], [`ERROR`] and [`ORIGIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultHeaders<'f> {
    /// The number of the code.
    pub status: i32,
    /// The reason.
    pub reason: &'f str,
    /// The message, truncated to 1024 bytes. Safe to show: messages of internal errors of services have been replaced before.
    pub error: &'f str,
    /// The origin.
    pub origin: &'f str,
}

impl<'f> FaultHeaders<'f> {
    /// The headers of a fault.
    #[must_use]
    pub fn new(fault: &'f Fault) -> Self {
        let origin = match &fault.origin {
            Origin::Caller => "caller",
            Origin::Gateway => "gateway",
            Origin::Service(name) => name,
        };
        let error = &fault.message[..fault.message.floor_char_boundary(ERROR_LEN_MAX)];
        Self { status: i32::from(fault.code as u8), reason: fault.reason.as_str(), error, origin }
    }
}

/// Sets the fields of a dead letter that have headers. `text` returns the text of a header with exactly this name; other spellings come from a
/// sender.
pub fn read_headers(letter: &mut DeadLetter, text: impl Fn(&str) -> Option<ByteString>) {
    letter.code = text(STATUS).and_then(|text| text.parse().ok());
    letter.reason = text(REASON);
    letter.error = text(ERROR);
    letter.origin = text(ORIGIN);
    letter.source = text(QUEUE);
    letter.attempts = text(ATTEMPTS);
}

/// How often gateways have dead-lettered a message; zero unless it has all headers of a dead letter. A sender that forges these headers only
/// delays its own message.
pub fn count(text: impl Fn(&str) -> Option<ByteString>) -> u32 {
    let is_dead_letter = [STATUS, REASON, ORIGIN, QUEUE].iter().all(|name| text(name).is_some());
    let hops = text(HOPS).filter(|_| is_dead_letter);
    hops.and_then(|hops| hops.parse().ok()).unwrap_or(0)
}

/// Whether a header is one of the gateway's, in any spelling.
#[must_use]
pub fn is_added(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

#[cfg(test)]
mod tests {
    use crossdock_message::Code;

    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let fault = Fault::new(Code::Internal, "R", "é".repeat(1000)).with_origin(Origin::Service("shop".into()));
        let headers = FaultHeaders::new(&fault);
        assert_eq!((headers.status, headers.reason, headers.error.len(), headers.origin), (13, "R", 1024, "shop"));
        let odd = Fault::new(Code::Internal, "R", format!("a{}", "é".repeat(1000)));
        assert_eq!(FaultHeaders::new(&odd).error.len(), 1023);
    }

    #[test]
    fn only_complete_dead_letters_count() {
        let all = [(STATUS, "3"), (REASON, "R"), (ORIGIN, "caller"), (QUEUE, "q"), (HOPS, "7")];
        let text = |headers: &[(&str, &str)], name: &str| {
            headers.iter().find(|(other, _)| *other == name).map(|(_, value)| ByteString::from(*value))
        };
        assert_eq!(count(|name| text(&all, name)), 7);
        for missing in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(missing);
            assert_eq!(count(|name| text(&some, name)), 0, "without {}", all[missing].0);
        }
    }
}
