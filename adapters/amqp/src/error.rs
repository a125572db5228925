//! Faults of the adapter.

use std::time::Duration;

use crossdock_message::{Code, EndpointVerdict, Fault, Retry};

use crate::reason;

/// The message was not sent: it can be retried unchanged.
pub(crate) fn unreachable(problem: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Unavailable, "UNREACHABLE", format!("the broker cannot be reached: {problem}"))
        .with_endpoint_verdict(EndpointVerdict::Unreachable)
        .logged()
        .with_retry(Retry::Same)
}

/// The broker may or may not have stored the message.
pub(crate) fn unconfirmed(problem: impl std::fmt::Display) -> Fault {
    let message = format!("the broker did not confirm the message, and may or may not have stored it: {problem}");
    Fault::new(Code::Unavailable, reason::UNCONFIRMED, message).logged()
}

/// The broker has blocked publishers (`connection.blocked`); it does not read from the connection.
pub(crate) fn blocked() -> Fault {
    let fault = Fault::new(Code::Unavailable, "BLOCKED", "the broker has blocked publishing").logged();
    fault.with_retry(Retry::After(Duration::from_secs(1)))
}

/// The headers do not fit into one frame, as AMQP requires.
pub(crate) fn headers_too_large(frame: usize) -> Fault {
    let message = format!("the headers of the message exceed the broker's maximum frame size of {frame} bytes");
    Fault::caller(Code::InvalidArgument, reason::HEADERS_TOO_LARGE, message)
}

/// A name or media type exceeds the 255 bytes of an AMQP short string.
pub(crate) fn too_long(what: &str) -> Fault {
    Fault::caller(
        Code::InvalidArgument,
        "TOO_LONG",
        format!("the {what} exceeds the 255 bytes of an AMQP short string"),
    )
}

/// The broker sent a nack.
pub(crate) fn nacked() -> Fault {
    Fault::new(Code::Unavailable, "NACKED", "the broker could not store the message").logged().with_retry(Retry::Same)
}

/// The broker returned a modified message, which may be this one.
pub(crate) fn ambiguous_return() -> Fault {
    unconfirmed("it returned a message that may be this one")
}

/// The broker closed the connection because of an unconfirmed message, which may be this one.
pub(crate) fn connection_refused(reply_code: u16) -> Fault {
    let message =
        format!("the broker closed the connection with reply code {reply_code}, possibly because of this message");
    Fault::new(Code::Unavailable, reason::CONNECTION_REFUSED, message).logged()
}

/// The broker closed the channel because of this message, and would do so again. The reply text is only logged: it may contain user names.
pub(crate) fn refused_permanently(code: Code, reply_code: u16) -> Fault {
    Fault::new(code, reason::REFUSED, format!("the broker refuses the message with reply code {reply_code}")).logged()
}

/// The message was unroutable.
pub(crate) fn unroutable(exchange: &str, key: &str) -> Fault {
    let problem = match exchange {
        "" => format!("there is no queue `{key}`"),
        exchange => format!("no queue is bound to exchange `{exchange}` for routing key `{key}`"),
    };
    Fault::new(Code::Unavailable, reason::UNROUTABLE, format!("the broker returned the message: {problem}"))
        .with_endpoint_verdict(EndpointVerdict::None)
        .with_retry(Retry::Same)
}

/// The connection was lost before the reply to a request arrived.
pub(crate) fn reply_lost() -> Fault {
    Fault::new(Code::Unavailable, "CONNECTION_LOST", "the connection to the broker was lost before the reply arrived")
        .logged()
}

/// The exchange does not exist.
pub(crate) fn no_exchange(exchange: &str, problem: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Unavailable, "NO_EXCHANGE", format!("the exchange `{exchange}` cannot be used: {problem}"))
        .with_endpoint_verdict(EndpointVerdict::None)
        .logged()
        .with_retry(Retry::Same)
}

/// The reply is invalid.
pub(crate) fn bad_reply(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "BAD_REPLY", format!("the service's reply cannot be used: {problem}")).logged()
}
