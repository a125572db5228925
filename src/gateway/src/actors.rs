//! The control plane: the guardian watches hosts, each host runs one listener, the routes actor publishes generations.
//!
//! Actors hold no decisions of their own: they turn messages into calls of plain code and send on what comes out.

mod guardian;
mod host;
mod routes;

pub(crate) use guardian::{Apply, Guardian, Listening, StopAll};
pub(crate) use routes::{LastError, ReloadRoutes, Routes};
