//! What adapters of message brokers share.
//!
//! | item | purpose |
//! | --- | --- |
//! | [`settle`] | decides after each attempt whether a message is acknowledged, retried or rejected |
//! | [`cycle_delay`] | delays messages that circulate between dead letter queues |
//! | [`Backoff`] | exponential delays between attempts |
//! | [`dead_letter`] | the headers of dead letters |
//! | [`fault_body`], [`reported_fault`] | replies that report a fault |
//! | [`Supervised`] | a connection to a broker that is reopened when it is lost |
//! | [`run_on_own_thread`] | runs a listener on a data arbiter of its own |
//! | [`PendingReplies`] | matches replies to the requests that wait for them |
//! | [`failpoint()`] | ends the process at a chosen point, for tests of crashes |

mod arbiter;
mod backoff;
pub mod dead_letter;
mod failpoint;
mod fault_reply;
mod pending;
mod settlement;
mod supervised;

pub use arbiter::run_on_own_thread;
pub use backoff::{Backoff, jittered};
pub use failpoint::failpoint;
pub use fault_reply::{fault_body, reported_fault};
pub use pending::{Expected, PendingReplies, Unwanted};
pub use settlement::{RetryPolicy, Settlement, cycle_delay, settle};
pub use supervised::{Connector, Live, Supervised};
