//! Events as sent, in either mode.

use bytes::Bytes;
use crossdock_message::{Body, ByteString, Code, Event, EventError, Fault, Limits, Message, Value};

use crate::Envelope;
use crate::attributes::VERSION;
use crate::structured::{STRUCTURED, is_structured, write_structured};

/// A message as it is sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Framed {
    /// The attributes that headers have in binary mode, `specversion` among them; none otherwise.
    pub attributes: Vec<(ByteString, Value)>,
    /// The media type of the body.
    pub content_type: Option<ByteString>,
    /// In structured mode, the body; otherwise it stays as it is.
    pub document: Option<Bytes>,
}

/// The attributes of the event that a message is sent as. Its `id` is that of the message if the route sets none: the same for every attempt.
///
/// # Errors
/// INTERNAL if the route gave it no `source` or `type`.
pub fn outgoing(message: &Message) -> Result<Event, Fault> {
    let mut event = message.event.clone().unwrap_or_default();
    let incomplete = |error: EventError| {
        Fault::new(Code::Internal, "EVENT", format!("the event cannot be sent: {error}; a step `event` can set it"))
    };
    if event.get("id").is_none() {
        event.set("id", Value::Text(message.id.clone())).map_err(incomplete)?;
    }
    event.check().map_err(incomplete)?;
    Ok(event)
}

/// Frames a message whose encoded body has this media type; `encoded` is asked for that body in structured mode.
///
/// # Errors
/// Those of [`outgoing`]. INVALID_ARGUMENT for data whose media type would make its receiver take it for the event, in binary mode.
pub fn frame(
    envelope: Envelope,
    message: &Message,
    content_type: Option<&ByteString>,
    encoded: impl FnOnce() -> Bytes,
) -> Result<Framed, Fault> {
    if envelope == Envelope::Plain {
        return Ok(Framed { content_type: content_type.cloned(), ..Framed::default() });
    }
    let event = outgoing(message)?;
    // An event may have a media type without data.
    let content_type = content_type.or(message.content_type.as_ref());
    if envelope == Envelope::Structured {
        let data = has_data(message).then(encoded);
        let content_type = content_type.map(|text| &**text);
        let document = write_structured(&event, content_type, data.as_ref(), &Limits::default())?;
        let content_type = Some(ByteString::from_static(STRUCTURED));
        return Ok(Framed { content_type, document: Some(document), ..Framed::default() });
    }
    if content_type.is_some_and(|content_type| is_structured(content_type)) {
        let problem = "data that is an event itself can only be sent in structured mode";
        return Err(Fault::caller(Code::InvalidArgument, "EVENT", problem));
    }
    let version = (ByteString::from_static("specversion"), Value::Text(ByteString::from_static(VERSION)));
    let attributes = event.attributes().iter().map(|(name, value)| (name.clone(), value.clone()));
    let attributes = std::iter::once(version).chain(attributes).collect();
    Ok(Framed { attributes, content_type: content_type.cloned(), document: None })
}

/// Whether the event that a message is sent as has data, which may be empty.
#[must_use]
pub fn has_data(message: &Message) -> bool {
    !matches!(message.body, Body::Empty | Body::Null)
}

#[cfg(test)]
mod tests {
    use crossdock_message::Format;

    use super::*;

    fn text(text: &'static str) -> Value {
        Value::Text(ByteString::from_static(text))
    }

    #[test]
    fn an_event_has_the_id_of_its_message_by_default() {
        let mut message = Message::new("m-1".into(), "".into());
        assert!(outgoing(&message).is_err_and(|fault| fault.message.contains("`source` is missing")));
        let mut event = Event::default();
        event.set("source", text("/a")).expect("valid");
        event.set("type", text("t")).expect("valid");
        message.event = Some(event.clone());
        assert_eq!(outgoing(&message).expect("complete").get("id"), Some(&text("m-1")));
        event.set("id", text("own")).expect("valid");
        message.event = Some(event);
        assert_eq!(outgoing(&message).expect("complete").get("id"), Some(&text("own")));
    }

    /// A message with bytes, as an event that is complete.
    fn complete() -> Message {
        let mut message = Message::new("1".into(), "".into());
        let mut event = Event::default();
        event.set("source", text("/a")).expect("valid");
        event.set("type", text("t")).expect("valid");
        message.event = Some(event);
        message.body = Body::raw(Bytes::from_static(b"x").into(), Format::Raw);
        message
    }

    #[test]
    fn an_event_in_an_event_is_not_taken_for_it() {
        let mut message = complete();
        message.content_type = Some("Application/CloudEvents+json; charset=utf-8".into());
        let encoded = || Bytes::from_static(b"{}");
        let binary = frame(Envelope::CloudEvents, &message, None, encoded).expect_err("ambiguous");
        assert_eq!(binary.code, Code::InvalidArgument);
        assert!(frame(Envelope::Structured, &message, None, encoded).is_ok());
    }

    #[test]
    fn the_envelope_decides_the_mode() {
        let mut message = complete();
        let framed = |message: &Message, envelope| {
            frame(envelope, message, None, || Bytes::from_static(b"x")).expect("complete")
        };
        assert_eq!(framed(&message, Envelope::Plain), Framed::default());
        let binary = [("specversion", "1.0"), ("source", "/a"), ("type", "t"), ("id", "1")];
        let attributes = binary.map(|(name, value)| (ByteString::from_static(name), text(value))).to_vec();
        assert_eq!(framed(&message, Envelope::CloudEvents), Framed { attributes, ..Framed::default() });
        let structured = framed(&message, Envelope::Structured);
        assert_eq!(structured.content_type.as_deref(), Some(STRUCTURED));
        assert!(structured.document.expect("a document").ends_with(b"\"data_base64\":\"eA==\"}"));
        assert!(structured.attributes.is_empty());
        message.body = Body::Empty;
        let structured = framed(&message, Envelope::Structured).document.expect("a document");
        assert!(structured.ends_with(b"\"id\":\"1\"}"), "no data: {structured:?}");
    }
}
