//! Zab, the atomic broadcast protocol of ZooKeeper (Junqueira, Reed, Serafini, "Zab: High-performance broadcast for
//! primary-backup systems", DSN 2011), as a pure state machine.
//!
//! ```text
//! Input (tick, connection, message, write durable, proposal) ─▶ Zab::handle ─▶ Action (send, persist, deliver)
//! ```
//!
//! This crate performs no I/O, reads no clock, draws no random numbers and starts no threads. The driver of a [`Zab`]
//! executes its actions in order and reports the results as inputs.
//!
//! | module | phase | contents |
//! | --- | --- | --- |
//! | `forming` | | the founders of a cluster agree on its first membership |
//! | `election` | 0 | fast leader election |
//! | `discovery` | 1 | a quorum accepts a new epoch |
//! | `synchronisation` | 2 | a quorum adopts the leader's history |
//! | `catch_up` | 2–3 | what a follower lacks is sent piece by piece |
//! | `broadcast` | 3 | proposals, acknowledgements, commits |
//! | `reads` | 3 | linearizable reads |
//! | `leading`, `following` | 1–3 | the two roles: which messages are valid in which stage |
//! | `members` | 3 | changes of the voters |
//! | `divergence` | 1–3 | detects that histories differ |
//! | `claims` | 1 | bounds on the epochs that peers may claim |
//! | `log_state`, `history` | | the result of a log's writes, shared by recovery and the running server |
//!
//! Safety is encoded in the types. A message that requires a durable write travels with that write
//! ([`Action::Persist`]). The write that ends a synchronisation also installs the epoch ([`Write`]). Numbered
//! connections, sessions and writes expose stale input. A history accepts only the direct successor of its last
//! transaction ([`LogState::apply`]).

mod base;
mod broadcast;
mod catch_up;
mod claims;
mod config;
mod discovery;
mod divergence;
mod election;
mod following;
mod forming;
mod history;
mod ids;
mod injected_bug;
mod io;
mod leading;
mod log_state;
mod members;
mod membership;
mod message;
mod patience;
mod reads;
mod synchronisation;
mod txn;
mod vote;
mod zab;

pub use config::Config;
pub use history::History;
pub use ids::{Blob, ClusterId, Epoch, Link, LogId, Request, ServerId, Session, WriteId, Zxid};
pub use injected_bug::InjectedBug;
pub use io::{Action, Fatal, Input, Refusal, Role};
pub use leading::FollowerStatus;
pub use log_state::{InvalidWrite, LogState, Write};
pub use membership::{MemberChange, Membership};
pub use message::{Message, ToFollower, ToLeader};
pub use txn::{Payload, Point, Summary, Txn};
pub use vote::{Notification, ServerState, Vote};
pub use zab::{Rejected, Zab};
