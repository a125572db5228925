//! The embedded engine of coordination: the state of `crossdock-coordination` on the log of the cluster.
//!
//! ```text
//!   Engine ─▶ Replica ─▶ cluster ─▶ Machine (Coordination)
//!     ▲                                │ events
//!     ├ follow    tells each request what became of it ◀┘
//!     ├ session   keeps the session of this instance alive
//!     ├ port      what routes use
//!     ├ queues    produces and consumes messages
//!     ├ generations  proposes and prepares versions of the routes
//!     ├ releases  releases what was dropped
//!     └ expiry    proposes ticks while this instance leads
//! ```
//!
//! All requests of an instance belong to its session. A request is cancelled, or its locks are released, when its handle is
//! dropped, whatever became of it.

mod engine;
mod error;
mod expiry;
mod follow;
mod generations;
mod locks;
mod machine;
mod outside;
mod port;
mod queues;
mod releases;
mod requests;
mod sequences;
mod session;

pub use engine::{Engine, Options, Running};
pub use error::{AcquireError, CommandError};
pub use locks::{Held, LockRequest, NewResult, Validity, Wait};
pub use machine::{COORDINATION, Machine, State, add};
pub use outside::{News, SessionWatch};
pub use queues::{
    Consumer, Delivery, EnqueueError, Finished, NewMessage, Placed, QueueEvent, SettleError, SlotValidity, Watch,
};
pub use requests::Loss;
