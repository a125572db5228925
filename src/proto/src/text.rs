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

/// Why a message cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextFormatError {
    /// prost-reflect cannot use the contract.
    #[error("the contract cannot be used with the text format: {0}")]
    Contract(String),
    /// The type is not a message of protobuf.
    #[error("`{0}` has no text format")]
    NoMessage(String),
    /// The bytes are not a message of this type.
    #[error("{0}")]
    Wire(String),
    /// The text is not a message of this type.
    #[error("line {line}, column {column}: {problem}")]
    Text {
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
}

fn descriptor(of_type: &TypeRef) -> Result<MessageDescriptor, TextFormatError> {
    let file = of_type.contract().files().iter().map(|file| file.descriptor.clone()).collect();
    let pool = DescriptorPool::decode(FileSet { file }.encode_to_vec().as_slice())
        .map_err(|error| TextFormatError::Contract(error.to_string()))?;
    pool.get_message_by_name(of_type.name()).ok_or_else(|| TextFormatError::NoMessage(of_type.name().to_string()))
}

/// Converts a protobuf message to the text format.
///
/// # Errors
/// [`TextFormatError`] if the bytes are not of this type.
pub fn wire_to_text(of_type: &TypeRef, bytes: &Bytes, limits: &Limits) -> Result<String, TextFormatError> {
    // Rejects deep nesting: the writer recurses without a limit.
    of_type.decode(bytes, limits).map_err(|error| TextFormatError::Wire(error.to_string()))?;
    let message = DynamicMessage::decode(descriptor(of_type)?, bytes.clone());
    let message = message.map_err(|error| TextFormatError::Wire(error.to_string()))?;
    let format = prost_reflect::text_format::FormatOptions::new().pretty(true);
    Ok(message.to_text_format_with_options(&format))
}

/// Converts the text format to a protobuf message.
///
/// # Errors
/// [`TextFormatError`], with the position, if the text is not of this type.
pub fn text_to_wire(of_type: &TypeRef, text: &str) -> Result<Vec<u8>, TextFormatError> {
    let parsed = DynamicMessage::parse_text_format(descriptor(of_type)?, text).map_err(|error| {
        let at = miette::Diagnostic::labels(&error).and_then(|mut labels| labels.next()).map(|label| label.offset());
        let at = at.unwrap_or(0).min(text.len());
        let before = &text.as_bytes()[..at];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        TextFormatError::Text { line, column, problem: error.to_string() }
    })?;
    Ok(parsed.encode_to_vec())
}
