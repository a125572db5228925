//! Reads contracts from descriptor sets of protobuf.

mod convert;
mod descriptor;
mod error;
mod features;
mod order;
#[cfg(test)]
mod tests;

pub(crate) use convert::camel_case;
pub use convert::from_descriptor_set;
pub use error::{ProtoError, SourceRange};
