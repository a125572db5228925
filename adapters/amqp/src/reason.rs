//! The reasons of faults by which the adapter decides.

use crossdock_message::Reason;

pub(crate) const CONNECTION_REFUSED: Reason = Reason::new("CONNECTION_REFUSED");
pub(crate) const HEADERS_TOO_LARGE: Reason = Reason::new("HEADERS_TOO_LARGE");
pub(crate) const REFUSED: Reason = Reason::new("REFUSED");
pub(crate) const REPLY_ADDRESS: Reason = Reason::new("REPLY_ADDRESS");
pub(crate) const UNCONFIRMED: Reason = Reason::new("UNCONFIRMED");
pub(crate) const UNROUTABLE: Reason = Reason::new("UNROUTABLE");
