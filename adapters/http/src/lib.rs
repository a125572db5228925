//! The HTTP adapter: versions 1.1 and 2.
//!
//! | module | purpose |
//! | --- | --- |
//! | `config` | settings as written and as validated |
//! | `adapter` | opens listeners and outbound ports |
//! | `inbound` | listeners; detects the HTTP version of a connection |
//! | `http1` | HTTP/1.1: a strict parser in front of actix |
//! | `http2` | HTTP/2: the same checks on requests from hyper |
//! | `request`, `response` | request and response, independent of the version |
//! | `transaction` | processes one request through the ingress |
//! | `outbound` | sends requests to services over pooled connections |
//! | `mapping` | maps request and response heads to and from canonical messages |
//! | `accept` | whether a caller prefers JSON or XML |
//! | `settle` | maps an outcome to a status and a problem document |
//! | `problem` | problem documents (RFC 9457) |
//! | `path` | normalises and escapes paths and queries |
//! | [`client`], `test_client` | a client for commands and for tests of routes |
//! | `streams` | streams as NDJSON and server-sent events |

mod accept;
mod adapter;
pub mod client;
mod config;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http1;
mod http2;
mod inbound;
mod mapping;
mod outbound;
mod path;
mod problem;
mod request;
mod response;
mod settle;
mod streams;
mod test_client;
mod transaction;

pub use adapter::HttpAdapter;
