//! HTTP/1.1: a strict parser in front of actix.
//!
//! actix-http accepts ambiguous requests, has no timeout for bodies, and decodes a pipelined request before the response
//! to the previous one. Therefore [`StrictStream`] reads the connection: it parses and validates each head, decodes the
//! body's framing, and holds pipelined requests back until the response is written. It gives actix a fixed head with
//! just what determines the framing of the response: whether the method is HEAD, the version, and whether the
//! connection stays open. The handler takes the actual request from the [`Connection`].
//!
//! A rejected request gets its response here; actix never sees it.

mod body;
mod connection;
mod head;
mod response;
mod stream;

pub(crate) use connection::{Connection, ConnectionList, IncomingBody};
pub(crate) use head::HeadLimits;
pub(crate) use response::{ResponseBody, respond};
pub(crate) use stream::{Limits, StrictStream, Timeouts};
#[cfg(feature = "fuzzing")]
pub(crate) use {
    body::BodyDecoder,
    head::{find_end, parse},
};
