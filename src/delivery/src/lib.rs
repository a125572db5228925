//! What adapters of message brokers share.
//!
//! | item | purpose |
//! | --- | --- |
//! | [`PendingReplies`] | matches replies to the requests that wait for them |
//! | [`failpoint`] | ends the process at a chosen point, for tests of crashes |

mod failpoint;
mod pending;

pub use failpoint::failpoint;
pub use pending::{Expected, PendingReplies, Unwanted};
