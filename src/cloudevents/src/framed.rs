//! Events as sent, in either mode.

use bytes::Bytes;
use crossdock_message::{ByteString, Code, Event, EventError, Fault, Limits, Message, Value};

use crate::Envelope;
use crate::attributes::VERSION;
use crate::structured::{STRUCTURED, is_structured, write_structured};

/// An event to send.
#[derive(Debug, Clone, PartialEq)]
pub enum Framed {
    /// In binary mode: headers have these attributes, `specversion` among them; the body stays as it is, and this is its media type.
    Binary(Vec<(ByteString, Value)>, Option<ByteString>),
    /// In structured mode: this is the body, and its media type.
    Structured(Bytes, ByteString),
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

/// The event that a message is sent as, with its encoded body as data, which has this media type; `None` without an envelope.
///
/// # Errors
/// Those of [`outgoing`]. INVALID_ARGUMENT for data whose media type would make its receiver take it for the event, in binary mode.
pub fn send(
    envelope: Envelope,
    message: &Message,
    content_type: Option<&ByteString>,
    data: impl FnOnce() -> Option<Bytes>,
) -> Result<Option<Framed>, Fault> {
    if envelope == Envelope::Plain {
        return Ok(None);
    }
    let event = outgoing(message)?;
    // An event may have a media type without data.
    let content_type = content_type.or(message.content_type.as_ref());
    if envelope == Envelope::Structured {
        let content_type = content_type.map(|text| &**text);
        let document = write_structured(&event, content_type, data().as_ref(), &Limits::default())?;
        return Ok(Some(Framed::Structured(document, ByteString::from_static(STRUCTURED))));
    }
    if content_type.is_some_and(|content_type| is_structured(content_type)) {
        let problem = "data that is an event itself can only be sent in structured mode";
        return Err(Fault::caller(Code::InvalidArgument, "EVENT", problem));
    }
    let version = (ByteString::from_static("specversion"), Value::Text(ByteString::from_static(VERSION)));
    let attributes = event.attributes().iter().map(|(name, value)| (name.clone(), value.clone()));
    Ok(Some(Framed::Binary(std::iter::once(version).chain(attributes).collect(), content_type.cloned())))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn an_event_in_an_event_is_not_taken_for_it() {
        let mut message = Message::new("1".into(), "".into());
        let mut event = Event::default();
        event.set("source", text("/a")).expect("valid");
        event.set("type", text("t")).expect("valid");
        message.event = Some(event);
        message.content_type = Some("Application/CloudEvents+json; charset=utf-8".into());
        let data = || Some(Bytes::from_static(b"{}"));
        let binary = send(Envelope::CloudEvents, &message, None, data).expect_err("ambiguous");
        assert_eq!(binary.code, Code::InvalidArgument);
        assert!(send(Envelope::Structured, &message, None, data).is_ok());
    }

    #[test]
    fn the_envelope_decides_the_mode() {
        let mut message = Message::new("1".into(), "".into());
        let mut event = Event::default();
        event.set("source", text("/a")).expect("valid");
        event.set("type", text("t")).expect("valid");
        message.event = Some(event);
        let send = |envelope| send(envelope, &message, None, || Some(Bytes::from_static(b"x"))).expect("complete");
        assert_eq!(send(Envelope::Plain), None);
        let binary = [("specversion", "1.0"), ("source", "/a"), ("type", "t"), ("id", "1")];
        let binary = binary.map(|(name, value)| (ByteString::from_static(name), text(value)));
        assert_eq!(send(Envelope::CloudEvents), Some(Framed::Binary(binary.to_vec(), None)));
        assert!(matches!(send(Envelope::Structured), Some(Framed::Structured(document, media_type))
            if document.ends_with(b"\"data_base64\":\"eA==\"}") && media_type == STRUCTURED));
    }
}
