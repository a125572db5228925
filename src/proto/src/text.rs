//! The text format of protobuf, for people at a terminal. prost-reflect implements it for proto2 and proto3.

use bytes::Bytes;
use crossdock_contract::TypeRef;
use crossdock_message::Limits;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

fn descriptor(of_type: &TypeRef) -> Result<MessageDescriptor, String> {
    let file = of_type.contract().files().iter().map(|file| file.descriptor.clone()).collect();
    let pool = DescriptorPool::decode(FileSet { file }.encode_to_vec().as_slice())
        .map_err(|error| format!("the contract cannot be used with the text format: {error}"))?;
    pool.get_message_by_name(of_type.name()).ok_or_else(|| format!("`{}` has no text format", of_type.name()))
}

/// Converts a protobuf message to the text format.
///
/// # Errors
/// A message, if the bytes are not of this type.
pub fn wire_to_text(of_type: &TypeRef, bytes: &Bytes, limits: &Limits) -> Result<String, String> {
    // Rejects deep nesting: the writer recurses without a limit.
    of_type.decode(bytes, limits).map_err(|error| error.to_string())?;
    let message = DynamicMessage::decode(descriptor(of_type)?, bytes.clone()).map_err(|error| error.to_string())?;
    let format = prost_reflect::text_format::FormatOptions::new().pretty(true);
    Ok(message.to_text_format_with_options(&format))
}

/// Converts the text format to a protobuf message.
///
/// # Errors
/// A message with the position, if the text is not of this type.
pub fn text_to_wire(of_type: &TypeRef, text: &str) -> Result<Vec<u8>, String> {
    let parsed = DynamicMessage::parse_text_format(descriptor(of_type)?, text).map_err(|error| {
        let at = miette::Diagnostic::labels(&error).and_then(|mut labels| labels.next()).map(|label| label.offset());
        let at = at.unwrap_or(0).min(text.len());
        let before = &text.as_bytes()[..at];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        format!("line {line}, column {column}: {error}")
    })?;
    Ok(parsed.encode_to_vec())
}
