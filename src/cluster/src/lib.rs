//! What carries Zab between instances and keeps it on disk.
//!
//! ```text
//! Client ─▶ driver ─▶ Zab ─▶ transport ─▶ other instances      (one thread)
//!                        └▶ log ─▶ transport                 (a thread of its own)
//!                               ◀─────── transport ◀───────────
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`Node`], [`Client`] | an instance, and those who ask it |
//! | `driver` | the one loop: takes what has come, asks the core, sends, hands over what is to be written |
//! | `log` | the log's thread: makes durable what waits, and sends what that unlocks |
//! | [`wal`] | the write-ahead log, and snapshots beside it |
//! | `transport`, `wire` | connections with the other instances, and what goes over them (`schemas/cluster.proto`) |
//! | [`Machine`], [`register`] | what transactions change; a small one for tests and measurements |

mod driver;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod latency;
mod log;
mod machine;
mod node;
pub mod register;
mod settings;
mod transport;
pub mod wal;
mod wire;

pub use latency::{Latencies, Latency};
pub use machine::{Machine, Snapshotting};
pub use node::{AskError, Client, Node, Peer, StartError, Status, Stopped, init, init_again};
pub use settings::{Member, Settings};
