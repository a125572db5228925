//! Reads contracts from `.proto` files and descriptor sets.

mod compile;
mod convert;
mod descriptor;
mod features;
#[cfg(test)]
mod tests;

pub use compile::{Files, ProtoError, SourceRange, compile};
pub(crate) use convert::camel_case;
pub use convert::from_descriptor_set;
