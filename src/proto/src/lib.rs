//! Compiles `.proto` files into [contracts](crossdock_contract::Contract), and converts messages to and from the text format of
//! protobuf.
//!
//! Both need a compiler and reflection of protobuf. They are a crate of their own so that codecs, adapters and everything else that
//! only uses contracts are built without them. Nothing here performs I/O: [`Files`] passes the files in.

mod compile;
mod text;

pub use compile::{Files, compile};
pub use text::{TextFormatError, text_to_wire, wire_to_text};
