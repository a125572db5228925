//! The protobuf event format (Protobuf Event Format for CloudEvents 1.0.2).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crossdock_cloudevents::{self as cloudevents, Attributes};
use crossdock_message::{Body, ByteString, Code, Fault, Format, Message, Time, Value};
use crossdock_ports::EncodedBody;
use prost::Message as _;

/// `io.cloudevents.v1.CloudEvent`.
#[derive(Clone, PartialEq, prost::Message)]
struct CloudEvent {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    spec_version: String,
    #[prost(string, tag = "4")]
    r#type: String,
    #[prost(btree_map = "string, message", tag = "5")]
    attributes: BTreeMap<String, AttributeValue>,
    #[prost(oneof = "Data", tags = "6, 7, 8")]
    data: Option<Data>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Data {
    #[prost(bytes = "bytes", tag = "6")]
    Binary(Bytes),
    #[prost(string, tag = "7")]
    Text(String),
    #[prost(message, tag = "8")]
    Proto(AnyMessage),
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttributeValue {
    #[prost(oneof = "Attribute", tags = "1, 2, 3, 4, 5, 6, 7")]
    attr: Option<Attribute>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Attribute {
    #[prost(bool, tag = "1")]
    Boolean(bool),
    #[prost(int32, tag = "2")]
    Integer(i32),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bytes = "bytes", tag = "4")]
    Bytes(Bytes),
    #[prost(string, tag = "5")]
    Uri(String),
    #[prost(string, tag = "6")]
    UriReference(String),
    #[prost(message, tag = "7")]
    Timestamp(Timestamp),
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn refused(problem: impl Into<ByteString>) -> Fault {
    Fault::caller(Code::InvalidArgument, "EVENT", problem)
}

/// Reads the `CloudEvent` that is the body of a message. The type of data in an `Any` becomes the attribute `dataschema`, unless there is one.
///
/// # Errors
/// INVALID_ARGUMENT if it is not an event.
pub(super) fn read(message: &mut Message) -> Result<(), Fault> {
    let Body::Raw { chunks, .. } = &message.body else { return Err(refused("expected a CloudEvent")) };
    let decoded = CloudEvent::decode(chunks.to_bytes());
    let CloudEvent { id, source, spec_version, r#type, attributes, data } =
        decoded.map_err(|_| refused("the message is not a valid `io.cloudevents.v1.CloudEvent`"))?;
    let mut collected = Attributes::default();
    for (name, value) in [("specversion", spec_version), ("id", id), ("source", source), ("type", r#type)] {
        // An empty text is a field that was not set.
        if !value.is_empty() {
            collected.add(name, Value::Text(value.into()))?;
        }
    }
    for (name, AttributeValue { attr }) in attributes {
        let Some(value) = attr else { continue };
        let value = value_of(value).ok_or_else(|| refused(format!("the time `{name}` is out of range")))?;
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refused(format!("`{name}` is not the name of an attribute: names are in lower case")));
        }
        collected.add(&name, value)?;
    }
    let (mut event, mut content_type) = collected.finish(None)?;
    let body = match data {
        None => Body::Empty,
        Some(Data::Binary(bytes)) => body_of(bytes, content_type.as_ref()),
        Some(Data::Text(text)) => body_of(text.into(), content_type.as_ref()),
        Some(Data::Proto(AnyMessage { type_url, value })) => {
            if event.get("dataschema").is_none() {
                event.set("dataschema", Value::Text(type_url.into())).map_err(|error| refused(error.to_string()))?;
            }
            content_type.get_or_insert(ByteString::from_static(Format::Protobuf.media_type()));
            Body::protobuf(value.into())
        }
    };
    (message.event, message.content_type, message.body) = (Some(event), content_type, body);
    Ok(())
}

/// Says what the bytes of the body are.
pub(super) fn set_media_type(message: &mut Message, content_type: ByteString) {
    if let Body::Raw { chunks, .. } = &message.body {
        message.body = Body::present(chunks.clone(), Format::of_media_type(&content_type));
    }
    message.content_type = Some(content_type);
}

fn body_of(bytes: Bytes, content_type: Option<&ByteString>) -> Body {
    Body::present(bytes.into(), content_type.map_or(Format::Raw, |media_type| Format::of_media_type(media_type)))
}

fn value_of(attribute: Attribute) -> Option<Value> {
    Some(match attribute {
        Attribute::Boolean(value) => Value::Bool(value),
        Attribute::Integer(number) => Value::Int(number.into()),
        Attribute::Text(text) | Attribute::Uri(text) | Attribute::UriReference(text) => Value::Text(text.into()),
        Attribute::Bytes(bytes) => Value::Text(STANDARD.encode(bytes).into()),
        Attribute::Timestamp(Timestamp { seconds, nanos }) => Value::Text(Time { seconds, nanos }.text()?.into()),
    })
}

/// The `CloudEvent` that a message is sent as, with its encoded body as data: as text if it is JSON or XML in UTF-8, as bytes otherwise.
///
/// # Errors
/// INTERNAL if the route did not give it all that an event needs.
pub(crate) fn write(message: &Message, body: &EncodedBody) -> Result<Bytes, Fault> {
    let event = cloudevents::outgoing(message)?;
    let text = |name: &str| event.get(name).and_then(Value::scalar_text).unwrap_or_default().to_string();
    let others = event.attributes().iter().filter(|(name, _)| !matches!(&***name, "id" | "source" | "type"));
    let mut attributes: BTreeMap<String, AttributeValue> = others
        .map(|(name, value)| (name.to_string(), AttributeValue { attr: Some(attribute_of(name, value)) }))
        .collect();
    let data = if cloudevents::has_data(message) {
        if let Some(media_type) = &body.content_type {
            let attr = Some(Attribute::Text(media_type.to_string()));
            attributes.insert("datacontenttype".to_owned(), AttributeValue { attr });
        }
        let format = body.content_type.as_deref().map_or(Format::Raw, Format::of_media_type);
        let bytes = body.chunks.to_bytes();
        match str::from_utf8(&bytes) {
            Ok(text) if matches!(format, Format::Json | Format::Xml) => Some(Data::Text(text.to_owned())),
            _ => Some(Data::Binary(bytes)),
        }
    } else {
        None
    };
    let event = CloudEvent {
        id: text("id"),
        source: text("source"),
        spec_version: cloudevents::VERSION.to_owned(),
        r#type: text("type"),
        attributes,
        data,
    };
    Ok(event.encode_to_vec().into())
}

/// The types of the attributes that CloudEvents defines; extensions keep that of their value.
fn attribute_of(name: &str, value: &Value) -> Attribute {
    match (name, value) {
        (_, Value::Bool(value)) => Attribute::Boolean(*value),
        (_, Value::Int(number)) if i32::try_from(*number).is_ok() => {
            Attribute::Integer(i32::try_from(*number).unwrap_or_default())
        }
        ("time", Value::Text(text)) => match Time::parse(text) {
            Some(Time { seconds, nanos }) => Attribute::Timestamp(Timestamp { seconds, nanos }),
            None => Attribute::Text(text.to_string()),
        },
        ("dataschema", Value::Text(text)) => Attribute::Uri(text.to_string()),
        (_, other) => Attribute::Text(other.scalar_text().unwrap_or_default().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use crossdock_message::Event;

    use super::*;

    fn text(text: &'static str) -> Value {
        Value::Text(ByteString::from_static(text))
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let attributes = [
            ("id", text("1")),
            ("source", text("/ä b")),
            ("type", text("t")),
            ("time", text("2026-01-31T06:00:00.250Z")),
            ("dataschema", text("urn:s")),
            ("flag", Value::Bool(true)),
            ("number", Value::Int(-7)),
        ];
        let mut event = Event::default();
        for (name, value) in &attributes {
            event.set(*name, value.clone()).expect("valid");
        }
        for (media_type, data) in [
            (Some("application/json"), &b"{\"a\":1.50}"[..]),
            (Some("application/json"), b"\xff"),
            (Some("text/xml"), b"<a/>"),
            (Some("application/octet-stream"), b"\xff\x00"),
            (None, b"\xff"),
            (None, b""),
        ] {
            let content_type = media_type.map(ByteString::from_static);
            let mut message = Message::new("m".into(), "".into());
            message.event = Some(event.clone());
            message.body = body_of(Bytes::from_static(data), content_type.as_ref());
            let body = EncodedBody { chunks: Bytes::from_static(data).into(), content_type: content_type.clone() };
            let written = write(&message, &body).expect("complete");
            let mut received = Message::new("r".into(), "".into());
            received.body = Body::protobuf(written.into());
            read(&mut received).expect("an event");
            let given = received.event.as_ref().expect("an event");
            for (name, value) in &attributes {
                assert_eq!(given.get(name), Some(value), "{name}");
            }
            assert_eq!(received.content_type, content_type);
            let bytes = match &received.body {
                Body::Raw { chunks, .. } => chunks.to_bytes(),
                _ => Bytes::new(),
            };
            assert_eq!(bytes, data, "{media_type:?}");
        }
    }
}
