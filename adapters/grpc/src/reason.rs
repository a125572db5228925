//! The reasons of faults by which the adapter decides.

use crossdock_message::Reason;

/// The compression of a message is not supported, or invalid.
pub(crate) const ENCODING: Reason = Reason::new("ENCODING");
