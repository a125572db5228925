//! Canonical messages, and outcomes of processing them, as bytes: what a queue of the cluster contains.
//!
//! A message is stored as it arrived, and its body is not decoded, so that another instance processes it as this one would have. A
//! body with a type of a contract is stored with the name of the type: the contract itself is that of the instance that reads it.
//! The bytes are protobuf, so that later releases can add fields.
//!
//! | module | contents |
//! | --- | --- |
//! | `message` | messages |
//! | `outcome` | replies and faults |
//! | `wire` | both on the wire |

mod message;
mod outcome;
mod wire;

pub use message::{StoredMessage, digest, restore, store};
pub use outcome::{restore_outcome, store_outcome};

/// Why something cannot be stored or restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are damaged, or of a later release.
    #[error("it cannot be read by this release")]
    Unreadable,
    /// The body has a type of a contract that the route does not have any more.
    #[error("its body has the type `{0}`, which the route does not have any more")]
    OtherType(String),
    /// A stream cannot be stored.
    #[error("a stream cannot be stored")]
    Stream,
    /// A value has no text.
    #[error("a value cannot be written: {0}")]
    Value(String),
}
