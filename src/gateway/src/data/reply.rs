//! Outcomes that other instances answer with: encoded as their entry encodes them, and stored.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{Body, BodyType, Code, Fault, Message};
use crossdock_offload::encode_and_take_body;
use crossdock_ports::{EntrySpec, Outcome, WriteFormat};
use crossdock_stored::store_outcome;

/// Encodes the reply of an outcome as its entry does. If that fails, so does the outcome.
pub(super) async fn encode_reply(outcome: &mut Outcome, entry: &dyn EntrySpec) {
    if let Outcome::Replied(reply) = outcome
        && let Some(format) = entry.answer()
        && let Err(fault) = encode(reply, format, entry).await
    {
        // A reply that cannot be encoded is an internal error, not the caller's.
        *outcome = Outcome::Failed(Fault { code: Code::Internal, http_status: None, ..fault });
    }
}

/// An outcome as bytes, if there are not more than `max`.
///
/// # Errors
/// Why it cannot be stored.
pub(super) fn stored_within(outcome: &Outcome, max: usize) -> Result<Bytes, String> {
    match store_outcome(outcome) {
        Ok(stored) if stored.len() <= max => Ok(stored),
        Ok(stored) => Err(format!("it has {} bytes, and can have {max}", stored.len())),
        Err(problem) => Err(problem.to_string()),
    }
}

/// Encodes a body that a step made, or that has a type.
async fn encode(reply: &mut Message, format: &WriteFormat, entry: &dyn EntrySpec) -> Result<(), Fault> {
    if matches!(reply.body, Body::Empty | Body::Null | Body::Raw { of_type: None, .. }) {
        return Ok(());
    }
    let of_type = entry.call_type().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
    encode_and_take_body(reply, format, of_type.as_ref()).await?.put_into(reply, format, of_type);
    Ok(())
}
