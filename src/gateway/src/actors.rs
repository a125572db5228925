//! The control plane: the guardian supervises hosts, each host runs one listener, and the routes actor publishes generations.
//!
//! Actors make no decisions: they translate messages into calls of plain code and send the results.

mod guardian;
mod host;
mod routes;

pub(crate) use guardian::{Apply, Guardian, Listening, StopAll};
pub(crate) use routes::{DiscardPrepared, LastError, PrepareRoutes, Pushed, ReloadRoutes, Routes, SwitchRoutes};
