//! What can go wrong between here and a service, as faults.

use crossdock_message::{Code, Fault};

/// The connection ended after the request may have been read.
pub(crate) fn connection_lost() -> Fault {
    Fault::new(Code::Unavailable, "CONNECTION_LOST", "the connection to the service ended before its reply")
}

/// The reply breaks HTTP's rules.
pub(crate) fn bad_reply(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "BAD_REPLY", format!("the service's reply cannot be used: {problem}"))
}
