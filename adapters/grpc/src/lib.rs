//! The gRPC adapter: serves and calls every method of a contract, without generated code.
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | settings as written and as checked |
//! | `adapter` | opens listeners and ports |
//! | `inbound` | dispatches calls to routes; health and reflection services |
//! | `outbound` | calls services over shared connections |
//! | `framing` | length-prefixed messages and compression |
//! | `mapping` | maps canonical messages to and from metadata |
//! | `reflection` | answers server reflection requests |
//! | `settle` | maps faults to and from gRPC status |
//! | [`client`] | calls services for commands and tests of routes |
//! | `describe` | reads the contract of a service by reflection |

mod adapter;
pub mod client;
mod config;
mod describe;
mod event;
mod framing;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod inbound;
mod mapping;
mod outbound;
mod reason;
mod reflection;
mod settle;

pub use adapter::GrpcAdapter;
pub use describe::reflect;
