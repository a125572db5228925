//! The replicated state of coordination: sessions, fenced locks, sequences, ordered queues, rate budgets, results of processed
//! messages and generations of the routes.
//!
//! ```text
//!   Command, zxid, time ─▶ Coordination::apply ─▶ Answer, events
//!                             │
//!                             ├ Clock      time that passes only while a leader works
//!                             ├ Sessions   who may hold something, and until when
//!                             ├ Locks      requests, holders and waiters
//!                             ├ Sequences  rising numbers
//!                             ├ Queues     messages in lanes, their consumers, dead letters
//!                             ├ Budgets    rates that all instances share
//!                             ├ Results    of messages that were processed once
//!                             └ Generations  one version of the route files
//! ```
//!
//! All instances of a cluster apply the same commands in the same order, and end up with the same state. There is no I/O, no
//! clock and no randomness here: time comes with each command, and nothing expires but by a [`Tick`](command::Tick) of the
//! leader.
//!
//! | module | contents |
//! | --- | --- |
//! | [`command`], [`answer`], [`event`] | the input, the answer to its proposer, and the events for subscribers on each instance |
//! | [`Coordination`], [`View`] | the state that changes, and the immutable states that readers see |
//! | [`Locks`], [`Sessions`], [`Sequences`], [`Queues`], [`Budgets`], [`Results`], [`Generations`], [`Clock`] | its parts |
//! | [`saved`] | the state in snapshots |
//! | [`limits`] | the limits of everything |

pub mod answer;
mod budgets;
mod clock;
pub mod command;
mod context;
mod coordination;
pub mod event;
mod generations;
mod ids;
mod injected_bug;
pub mod limits;
mod locks;
mod queues;
mod results;
pub mod saved;
mod sequences;
mod sessions;
mod wheel;

pub use answer::{Answer, Outcome, Refusal};
pub use budgets::{Budget, Budgets, Rate};
pub use clock::Clock;
pub use command::{Command, Operation};
pub use coordination::{Coordination, View};
pub use event::{EndReason, Event};
pub use generations::{Generation, Generations, Hash, Proposal, hash_of, hex_of};
pub use ids::{RequestId, SessionId, Token};
#[cfg(feature = "injected-bugs")]
pub use injected_bug::InjectedBug;
pub use locks::{Broken, Claim, Lock, Locks, Mode, Request, RequestState};
pub use queues::{DeadLetter, Message, Place, Queue, Queues, Slot, Slots};
pub use results::{Remembered, ResultGroup, Results};
pub use sequences::Sequences;
pub use sessions::{Session, Sessions};
