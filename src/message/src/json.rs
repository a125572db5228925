//! Exact JSON (RFC 8259) to and from [`Value`](crate::Value).
//!
//! Read and written by our own code, because a serde visitor is handed every fraction as an `f64`, after the digits
//! are lost. Numbers keep their text, duplicate keys and lone surrogates are refused, and every document is bounded by
//! [`Limits`](crate::Limits).

mod cursor;
mod read;
mod write;

pub use cursor::{Cursor, JsonError, JsonErrorKind, Read, Token, text_of};
pub use read::{read, read_value};
pub use write::{JsonWriteError, append_string, write, write_into};

#[cfg(test)]
mod tests;
