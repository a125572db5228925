//! Events of CloudEvents, which has no binding for gRPC: in binary mode, metadata has the attributes as headers of HTTP do; in structured mode, the
//! message of a call is a `io.cloudevents.v1.CloudEvent`.

mod proto;

use bytes::Bytes;
use crossdock_cloudevents::{self as cloudevents, Attributes, Envelope};
use crossdock_message::{ByteString, Fault, Message, Value};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use proto::write;

/// The prefix of metadata with attributes.
const PREFIX: &str = "ce-";

/// Reads the event that a call is. An opaque message without attributes in its metadata is a `CloudEvent`.
///
/// # Errors
/// INVALID_ARGUMENT if it is not an event.
pub(crate) fn receive(metadata: &HeaderMap, is_opaque: bool, message: &mut Message) -> Result<(), Fault> {
    let is_binary = metadata.keys().any(|name| name.as_str().starts_with(PREFIX));
    if is_opaque && !is_binary {
        return proto::read(message);
    }
    let mut attributes = Attributes::default();
    for (name, value) in metadata {
        if let Some(name) = name.as_str().strip_prefix(PREFIX) {
            attributes.add(name, cloudevents::decode_header(name, value.as_bytes())?)?;
        }
    }
    let (event, content_type) = attributes.finish(None)?;
    message.event = Some(event);
    if let Some(content_type) = content_type.filter(|_| is_opaque) {
        // What an opaque message is, only its sender knows.
        proto::set_media_type(message, content_type);
    }
    Ok(())
}

/// The attributes of the event that a message is sent as in binary mode.
///
/// # Errors
/// INTERNAL if the route did not give it all that an event needs.
pub(crate) fn attributes(message: &Message) -> Result<Vec<(ByteString, Value)>, Fault> {
    Ok(cloudevents::frame(Envelope::CloudEvents, message, None, Bytes::new)?.attributes)
}

/// Adds attributes to metadata, in place of metadata that could be taken for some.
pub(crate) fn append(attributes: &[(ByteString, Value)], metadata: &mut HeaderMap) {
    if attributes.is_empty() {
        return;
    }
    let others: Vec<HeaderName> = metadata.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in others {
        metadata.remove(name);
    }
    for (name, value) in attributes {
        let name = HeaderName::from_bytes(format!("{PREFIX}{name}").as_bytes());
        let value = HeaderValue::from_maybe_shared(cloudevents::encode_header(value).into_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            metadata.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crossdock_message::Event;

    use super::*;

    #[test]
    fn metadata_has_the_attributes_of_one_event_only() {
        let mut metadata = HeaderMap::new();
        for (name, value) in [("ce-id", "forwarded"), ("ce-other", "forwarded"), ("x-a", "kept")] {
            metadata.insert(name, HeaderValue::from_static(value));
        }
        let (mut event, source) = (Event::default(), Value::Text("/ä".into()));
        event.set("source", source.clone()).expect("valid");
        event.set("type", Value::Text("t".into())).expect("valid");
        let mut message = Message::new("m".into(), "".into());
        message.event = Some(event);
        append(&attributes(&message).expect("complete"), &mut metadata);
        let found = metadata.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text")));
        let expected =
            [("ce-id", "m"), ("ce-source", "/%C3%A4"), ("ce-specversion", "1.0"), ("ce-type", "t"), ("x-a", "kept")];
        assert_eq!(found.collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
        let mut received = Message::new("r".into(), "".into());
        receive(&metadata, false, &mut received).expect("an event");
        assert_eq!(received.event.expect("an event").get("source"), Some(&source));
        assert!(receive(&HeaderMap::new(), false, &mut Message::new("r".into(), "".into())).is_err());
    }
}
