//! The HTTP/1.1 adapter.
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | settings as written and as checked |
//! | `adapter` | opening listeners and ports |
//! | `front` | the strict front: takes requests out of the stream before actix sees them |
//! | `inbound` | a request, through the ingress, to an answer |
//! | `outbound` | a message, over a pooled connection, to a reply |
//! | `mapping` | canonical messages to and from HTTP's heads |
//! | `settle` | outcome to status and problem document |
//! | `path` | one normal form of paths |
//! | `streams` | streams as lines of JSON and server-sent events |

mod adapter;
mod config;
mod error;
mod front;
mod inbound;
mod mapping;
mod outbound;
mod path;
mod settle;
mod streams;

pub use adapter::HttpAdapter;
