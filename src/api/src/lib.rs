//! The messages of `schemas/gateway.proto`, and the stubs of clients and servers, as they are generated.

#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
mod generated {
    tonic::include_proto!("crossdock.v1");
}

pub use generated::*;

/// The descriptor of the API, as bytes of a `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gateway.binpb"));
