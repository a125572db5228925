//! The strict front: takes requests out of a connection's bytes before actix sees them.
//!
//! actix-http takes what two parsers could read in two ways, has no deadline for bodies, and decodes a pipelined
//! request while the one before is unanswered. So the front does the reading: it parses and checks each head, takes the
//! body out of its framing, and keeps what is pipelined back until the answer is written. To actix it hands a fixed
//! head that says only what decides how an answer is framed: whether the method is HEAD, which version, and whether the
//! connection stays open. The handler gets the real request from the [`Connection`].
//!
//! A request that is refused is answered here, before actix learns of it.

mod answer;
mod body;
mod connection;
mod head;
mod stream;

pub(crate) use answer::{AnswerBody, respond};
pub(crate) use connection::{Connection, Incoming, Watchlist};
pub(crate) use head::HeadLimits;
pub(crate) use stream::{Front, Limits, Timeouts};
#[cfg(feature = "fuzzing")]
pub(crate) use {
    body::BodyDecoder,
    head::{find_end, parse},
};
