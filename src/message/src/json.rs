//! Converts JSON (RFC 8259) to and from [`Value`](crate::Value) without loss.
//!
//! This is a codec of our own, because serde visitors receive fractions as `f64`, which loses digits. Numbers keep their text, duplicate keys and
//! lone surrogates are rejected, and documents are limited by [`Limits`](crate::Limits).

mod cursor;
mod read;
mod write;

pub use cursor::{Cursor, JsonError, JsonErrorKind, Read, Token, text_of};
pub use read::{read, read_value};
pub use write::{JsonWriteError, append_string, write, write_into};

#[cfg(test)]
mod tests;
