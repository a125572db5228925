//! What lapin's errors mean to a call.

use std::time::Duration;

use crossdock_message::{Code, Fault, Retry};

/// The message was not handed to the broker: it may be sent again as it is.
pub(crate) fn unreachable(problem: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Unavailable, "UNREACHABLE", format!("the broker cannot be reached: {problem}"))
        .logged()
        .with_retry(Retry::Same)
}

/// Nobody knows whether the broker has the message.
pub(crate) fn unconfirmed(problem: impl std::fmt::Display) -> Fault {
    let message = format!("the broker may or may not have the message, which it did not confirm: {problem}");
    Fault::new(Code::Unavailable, "UNCONFIRMED", message).logged()
}

/// The broker takes no messages for now; it does not even read what it is sent.
pub(crate) fn blocked() -> Fault {
    let fault = Fault::new(Code::Unavailable, "BLOCKED", "the broker takes no messages for now").logged();
    fault.with_retry(Retry::After(Duration::from_secs(1)))
}

/// The headers do not fit into one frame, as AMQP wants them to.
pub(crate) fn headers_too_large(frame: usize) -> Fault {
    let message = format!("the headers of the message are larger than the {frame} bytes that the broker takes");
    Fault::caller(Code::InvalidArgument, "HEADERS_TOO_LARGE", message)
}

/// A name or media type of more than the 255 bytes that AMQP has for it.
pub(crate) fn too_long(what: &str) -> Fault {
    Fault::caller(
        Code::InvalidArgument,
        "TOO_LONG",
        format!("the {what} is longer than the 255 bytes that AMQP has for it"),
    )
}

/// The broker answered with a negative acknowledgement.
pub(crate) fn not_stored() -> Fault {
    Fault::new(Code::Unavailable, "NACKED", "the broker could not store the message").logged().with_retry(Retry::Same)
}

/// The broker changed a message before it returned it, and it could be this one.
pub(crate) fn returned_by_mistake() -> Fault {
    unconfirmed("it returned a message that may be this one")
}

/// The broker closed the connection for a message that was unconfirmed on it, which may be this one.
pub(crate) fn connection_refused(reply_code: u16) -> Fault {
    let message = format!("the broker closed the connection with reply code {reply_code}, perhaps for this message");
    Fault::new(Code::Unavailable, "CONNECTION_REFUSED", message).logged()
}

/// The broker closed the channel for this message, and would do so again. What it said is in the log: it may name its users.
pub(crate) fn refused_for_good(code: Code, reply_code: u16) -> Fault {
    Fault::new(code, "REFUSED", format!("the broker refuses the message with reply code {reply_code}")).logged()
}

/// No queue took the message.
pub(crate) fn unroutable(exchange: &str, key: &str) -> Fault {
    let place = match exchange {
        "" => format!("there is no queue `{key}`"),
        exchange => format!("no queue takes what exchange `{exchange}` gets with key `{key}`"),
    };
    Fault::new(Code::Unavailable, "UNROUTABLE", format!("the broker returned the message: {place}"))
        .with_retry(Retry::Same)
}

/// The connection was lost while a request waited for its reply.
pub(crate) fn reply_lost() -> Fault {
    Fault::new(Code::Unavailable, "CONNECTION_LOST", "the connection to the broker ended before the reply").logged()
}

/// The exchange is not there.
pub(crate) fn no_exchange(exchange: &str, problem: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Unavailable, "NO_EXCHANGE", format!("the exchange `{exchange}` cannot be used: {problem}"))
        .logged()
        .with_retry(Retry::Same)
}

/// A reply that cannot be used.
pub(crate) fn bad_reply(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "BAD_REPLY", format!("the service's reply cannot be used: {problem}")).logged()
}
