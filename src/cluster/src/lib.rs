//! Runs Zab between instances: write-ahead log, transport and driver.
//!
//! ```text
//! Client ─▶ driver ─▶ Zab ─▶ transport ─▶ other instances      (one thread)
//!                        └▶ log ─▶ transport                 (log thread)
//!                               ◀─────── transport ◀───────────
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`Node`], [`Client`] | a running instance, and a handle for requests to it |
//! | `driver` | the event loop: collects inputs, calls the core, sends messages, submits writes |
//! | `log` | the log thread: makes queued writes durable, then sends the messages they unlock |
//! | [`wal`] | the write-ahead log and its snapshots |
//! | `transport`, `wire` | connections to the other instances, and their protocol (`schemas/cluster.proto`) |
//! | `state` | the state thread: applies what is committed, answers proposers, restores and freezes the state |
//! | [`StateMachine`], [`Machines`], [`Replica`] | replicated states: their interface, several behind one log, and their users |
//! | `platform` | the clock, threads, files, sockets and random numbers of an instance, in one place; simulated with the feature `simulation` |
//! | [`backup`] | backups, and clusters that are made from them |
//! | [`register`] | a small state machine for tests and benchmarks |

mod activity;
mod address;
pub mod backup;
mod driver;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod injected_bug;
mod latency;
mod log;
mod machines;
mod node;
#[cfg(feature = "simulation")]
pub mod platform;
#[cfg(not(feature = "simulation"))]
mod platform;
pub mod register;
mod replica;
mod request;
mod settings;
mod state;
mod state_machine;
mod status;
mod temporary_file;
mod transport;
pub mod wal;
mod wire;

pub use activity::{Activity, LinksEnded, Snapshots};
pub use address::{Address, InvalidAddress};
pub use error::{RequestError, StartError, with_causes};
#[cfg(feature = "simulation")]
pub use injected_bug::InjectedBug;
pub use latency::{Latencies, Latency};
pub use machines::{ClientError, MachineId, Machines, read_message, write_message};
pub use node::{Client, Node, Proposal, init};
pub use platform::wall_clock_millis;
pub use replica::{Notice, Published, Replica, Subscription};
pub use settings::{Limits, Member, Settings};
pub use state_machine::{Command, InvalidState, Outbox, StateMachine, View};
pub use status::{Disk, Peer, Status, Stopped};
