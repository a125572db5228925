//! Encodes long bodies on the thread pool.

use std::sync::Arc;

use crossdock_message::{Body, BodyType, ByteString, Fault, Message};
use crossdock_ports::{EncodedBody, WriteFormat, encode_body, passes_unchanged};

use crate::pool::{INLINE_LEN, Priority, is_long, offload};

/// Like [`encode_body`], on the thread pool if the body is long. A long body is moved to the pool and dropped there; the message loses it.
///
/// # Errors
/// As [`encode_body`].
pub async fn encode_and_take_body(
    message: &mut Message,
    format: &WriteFormat,
    of_type: Option<&Arc<dyn BodyType>>,
) -> Result<EncodedBody, Fault> {
    if !is_long_to_encode(&message.body, format, of_type.map(|of_type| &**of_type)) {
        return encode_body(message, format, of_type.map(|of_type| &**of_type));
    }
    let body = std::mem::replace(&mut message.body, Body::Empty);
    // Boxed, so that the future of the common short case stays small.
    Box::pin(encode_long(body, message.content_type.clone(), format, of_type)).await
}

async fn encode_long(
    body: Body,
    content_type: Option<ByteString>,
    format: &WriteFormat,
    of_type: Option<&Arc<dyn BodyType>>,
) -> Result<EncodedBody, Fault> {
    let (format, of_type) = (format.clone(), of_type.cloned());
    let mut message = Message::new(ByteString::new(), ByteString::new());
    (message.content_type, message.body) = (content_type, body);
    offload(Priority::Begun, move || encode_body(&message, &format, of_type.as_deref())).await
}

/// Whether encoding a body in this format takes long.
#[must_use]
pub fn is_long_to_encode(body: &Body, format: &WriteFormat, of_type: Option<&dyn BodyType>) -> bool {
    match body {
        Body::Raw { chunks, format: given, of_type: given_type, .. } => {
            chunks.len() > INLINE_LEN && !passes_unchanged(*given, given_type.as_deref(), format, of_type)
        }
        other => is_long(other),
    }
}
