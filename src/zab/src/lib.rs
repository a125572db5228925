//! Zab: one order of transactions over servers that fail (Junqueira, Reed, Serafini, "Zab: High-performance broadcast for
//! primary-backup systems", DSN 2011), as a pure state machine.
//!
//! ```text
//! Input (tick, connection, message, write done, proposal) ─▶ Zab::handle ─▶ Action (send, persist, deliver)
//! ```
//!
//! Nothing here performs I/O, reads a clock, draws a random number, or knows of a thread. Whoever drives a [`Zab`] does the actions in
//! their order and tells what came of them.
//!
//! | module | phase | holds |
//! | --- | --- | --- |
//! | `election` | 0 | whom to follow |
//! | `discovery` | 1 | a new epoch that a majority promises |
//! | `synchronisation` | 2 | the leader's history, at a majority |
//! | `broadcast` | 3 | proposals, acknowledgements, commits |
//! | `reads` | 3 | reads that see all that was committed before |
//! | `leading`, `following` | 1–3 | the two roles: which message belongs to which of their stages |
//! | `claims` | 1 | bounds the epochs that peers may claim |
//! | `ledger` | | what the writes of a log come to; recovery and the running server share it |
//!
//! What makes it safe stands in the types: a message that a write unlocks travels with the write ([`Action::Persist`]); an epoch is
//! installed by the write that ends a synchronisation ([`Write`]); what is of an earlier connection, session or write is told by its
//! number; a history takes nothing that does not stand right behind its end ([`Ledger::apply`]).

mod base;
mod broadcast;
mod claims;
mod config;
mod discovery;
mod election;
mod following;
mod ids;
mod io;
mod leading;
mod ledger;
mod message;
mod planted;
mod reads;
mod synchronisation;
mod vote;
mod zab;

pub use config::Config;
pub use ids::{Blob, Epoch, Io, Link, Request, ServerId, Session, Zxid};
pub use io::{Action, Fatal, Input, Refusal, Role};
pub use leading::Followed;
pub use ledger::{History, Inconsistent, Ledger, Txn, Write};
pub use message::{Message, ToFollower, ToLeader};
pub use planted::Planted;
pub use vote::{Doing, Notification, Vote};
pub use zab::{Counts, Zab};
