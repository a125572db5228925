//! The gRPC adapter: every method of a contract, in and out, without generated code.
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | settings as written and as checked |
//! | `adapter` | opening listeners and ports |
//! | `inbound` | a call, through the ingress, to an answer; health and reflection |
//! | `outbound` | a message, over a shared connection, to a reply |
//! | `framing` | messages in and out of HTTP/2's data frames, compressed or not |
//! | `mapping` | canonical messages to and from metadata |
//! | `settle` | outcome to status, fault to status and back |
//! | `describe` | asking a service for its contract by reflection |

mod adapter;
mod config;
mod describe;
mod framing;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod inbound;
mod mapping;
mod outbound;
mod reflection;
mod settle;

pub use adapter::GrpcAdapter;
pub use describe::reflect;
