//! Faults of transactions with services.

use crossdock_message::{Code, Fault};

/// The connection was closed after the service may have read the request.
pub(crate) fn connection_lost() -> Fault {
    Fault::new(
        Code::Unavailable,
        "CONNECTION_LOST",
        "the service closed the connection before its response was complete",
    )
    .logged()
}

/// The service's response is malformed or not accepted.
pub(crate) fn bad_response(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "BAD_REPLY", format!("invalid response from the service: {problem}")).logged()
}
