//! Reads events in either mode.

use bytes::Bytes;
use crossdock_message::{ByteString, Fault, Limits};

use crate::attributes::Attributes;
use crate::received::{Data, Received};
use crate::structured::{is_structured, read_structured};

/// Reads the event that a message is: in structured mode if its media type says so, otherwise with the attributes that `binary` adds from its headers.
///
/// # Errors
/// INVALID_ARGUMENT for a message that is not an event, or not one that CloudEvents allows; with the HTTP status 415 for an event format other than
/// JSON. Those of `binary`.
pub fn receive(
    content_type: Option<&ByteString>,
    limits: &Limits,
    body: impl FnOnce() -> Bytes,
    binary: impl FnOnce(&mut Attributes) -> Result<(), Fault>,
) -> Result<Received, Fault> {
    if let Some(content_type) = content_type.filter(|content_type| is_structured(content_type)) {
        return read_structured(content_type, &body(), limits);
    }
    let mut attributes = Attributes::default();
    binary(&mut attributes)?;
    let (event, content_type) = attributes.finish(content_type)?;
    Ok(Received { event, content_type, data: Data::Body })
}
