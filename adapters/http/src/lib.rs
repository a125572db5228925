//! The HTTP adapter: versions 1.1 and 2.
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | settings as written and as checked |
//! | `adapter` | opening listeners and ports |
//! | `inbound` | listeners: from a connection to one of HTTP's versions |
//! | `front` | HTTP/1.1: the strict front takes requests out of the stream before actix sees them |
//! | `http2` | HTTP/2, checked as strictly |
//! | `request`, `answer` | what both versions give and take |
//! | `exchange` | a request, through the ingress, to an answer |
//! | `outbound` | a message, over a pooled connection, to a reply |
//! | `mapping` | canonical messages to and from HTTP's heads |
//! | `settle` | outcome to status and problem document |
//! | `path` | one normal form of paths |
//! | `streams` | streams as lines of JSON and server-sent events |

mod adapter;
mod answer;
mod config;
mod error;
mod exchange;
mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http2;
mod inbound;
mod mapping;
mod outbound;
mod path;
mod request;
mod settle;
mod streams;

pub use adapter::HttpAdapter;
