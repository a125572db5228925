//! Contracts from protobuf: `.proto` files and descriptor sets.

mod compile;
mod convert;
mod descriptor;
mod features;
#[cfg(test)]
mod tests;

pub use compile::{Files, Place, ProtoError, compile};
pub(crate) use convert::camel_case;
pub use convert::from_descriptor_set;
