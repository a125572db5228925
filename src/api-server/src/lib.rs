//! The API of a cluster for other programs, over gRPC and HTTP: `schemas/gateway.proto`.
//!
//! ```text
//!   connection ─▶ server ─▶ access ─▶ grpc ─▶ services ─▶ Engine
//!                             │         ▲
//!                             └▶ json ──┘   JSON becomes a call of the same method
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | `access` | who may call what: clients, their tokens and certificates, their scopes |
//! | `server` | the listener: connections, TLS, limits |
//! | `grpc` | which service serves a call |
//! | `counts` | what was called, for metrics |
//! | `json` | calls as JSON over HTTP |
//! | `services` | the methods, one file for each service |
//! | `status` | errors of the engine as those of gRPC |
//!
//! An instance keeps nothing of a client but its open calls: sessions, locks and messages are in the state of the cluster, so that any instance
//! serves any call.

mod access;
mod counts;
mod grpc;
mod json;
mod server;
mod services;
mod status;

pub use access::{Access, AccessError, new_token};
pub use counts::Counts;
pub use server::{ApiServer, Options, StartError};
