//! Encodes a canonical body in the format of the receiver.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::xml::ExpandedName;
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Format, Message, Value, json, xml};

/// How a body that the gateway creates is encoded. A body of the same format that is forwarded stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteFormat {
    format: Format,
    xml_root: Option<ExpandedName>,
}

impl WriteFormat {
    /// A JSON document.
    #[must_use]
    pub const fn json() -> Self {
        Self { format: Format::Json, xml_root: None }
    }

    /// An XML document with this root element.
    #[must_use]
    pub const fn xml(root: ExpandedName) -> Self {
        Self { format: Format::Xml, xml_root: Some(root) }
    }

    /// A protobuf message.
    #[must_use]
    pub const fn protobuf() -> Self {
        Self { format: Format::Protobuf, xml_root: None }
    }

    /// Avro's binary encoding.
    #[must_use]
    pub const fn avro() -> Self {
        Self { format: Format::Avro, xml_root: None }
    }

    /// Text or bytes, unchanged.
    #[must_use]
    pub const fn raw() -> Self {
        Self { format: Format::Raw, xml_root: None }
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether values can only be encoded with the types of a contract.
    #[must_use]
    pub fn needs_contract(&self) -> bool {
        matches!(self.format, Format::Protobuf | Format::Avro)
    }

    /// Whether bytes of any format are forwarded unchanged.
    #[must_use]
    pub fn accepts_any_bytes(&self) -> bool {
        self.format == Format::Raw
    }

    /// Encodes a value without a contract.
    fn encode(&self, value: &Value) -> Result<Bytes, Cow<'static, str>> {
        match (self.format, value) {
            (Format::Json, _) => json::write(value).map(Bytes::from).map_err(|error| error.to_string().into()),
            (Format::Xml, _) => match &self.xml_root {
                Some(root) => xml::write(root, value).map(Bytes::from).map_err(|error| error.to_string().into()),
                None => Err("XML needs a root element".into()),
            },
            (Format::Protobuf, _) => Err("protobuf needs a contract".into()),
            (Format::Avro, _) => Err("Avro needs a schema".into()),
            (Format::Raw, Value::Bytes(bytes)) => Ok(bytes.clone()),
            (Format::Raw, Value::Text(text)) => Ok(text.clone().into_bytes()),
            (Format::Raw, other) => Err(format!("{} is neither a string nor bytes", other.kind()).into()),
        }
    }
}

/// An encoded body.
#[derive(Debug, Clone)]
pub struct EncodedBody {
    /// The bytes.
    pub chunks: Chunks,
    /// Their media type; `None` if there is no body.
    pub content_type: Option<ByteString>,
}

impl EncodedBody {
    /// Sets it as the body of a message. An adapter that accepts this format and type forwards it unchanged.
    pub fn put_into(self, message: &mut Message, format: &WriteFormat, of_type: Option<Arc<dyn BodyType>>) {
        message.body = match of_type {
            Some(of_type) => Body::typed(self.chunks, format.format(), of_type),
            None => Body::raw(self.chunks, format.format()),
        };
        message.content_type = self.content_type;
    }
}

/// Encodes the body of a message. Bytes that are of the wanted format are forwarded uncopied, with their media type. Bytes of another format are
/// converted by their type, or by that of the receiver. Bytes without a media type are forwarded to a protobuf receiver without a contract.
///
/// # Errors
/// INVALID_ARGUMENT (415) if the bytes are of another format than the receiver accepts and there is no type to convert them.
/// INVALID_ARGUMENT with the path in the value if the format cannot represent it. INTERNAL for a stream.
pub fn encode_body(
    message: &Message,
    format: &WriteFormat,
    of_type: Option<&dyn BodyType>,
) -> Result<EncodedBody, Fault> {
    let wanted = format.format();
    let encoded = |bytes: Bytes| EncodedBody {
        chunks: bytes.into(),
        content_type: Some(ByteString::from_static(wanted.media_type())),
    };
    match &message.body {
        // An empty protobuf message has the default values.
        Body::Empty | Body::Null if wanted == Format::Protobuf => Ok(encoded(Bytes::new())),
        Body::Empty | Body::Null => Ok(EncodedBody { chunks: Chunks::new(), content_type: None }),
        Body::Stream(_) => Err(Fault::new(Code::Internal, "STREAM", "expected one message, found a stream")),
        Body::Raw { chunks, format: given, of_type: given_type, .. } => {
            let given_type = given_type.as_deref();
            if passes_unchanged(*given, given_type, format, of_type) {
                let content_type =
                    message.content_type.clone().or_else(|| Some(ByteString::from_static(given.media_type())));
                return Ok(EncodedBody { chunks: chunks.clone(), content_type });
            }
            let bytes = chunks.to_bytes();
            match (given_type, of_type) {
                (Some(reader), Some(writer)) if !is_same_type(given_type, of_type) => {
                    writer.write(&reader.read(&bytes, *given)?, wanted).map(encoded)
                }
                // The type of the receiver may select one field.
                (_, Some(of_type)) | (Some(of_type), None) => of_type.recode(&bytes, *given, wanted).map(encoded),
                (None, None)
                    if wanted == Format::Protobuf && *given == Format::Raw && message.content_type.is_none() =>
                {
                    Ok(encoded(bytes))
                }
                (None, None) => Err(wrong_format(message.content_type.as_deref(), *given, wanted)),
            }
        }
        Body::Value(value) => {
            match of_type.filter(|_| matches!(wanted, Format::Json | Format::Protobuf | Format::Avro)) {
                Some(of_type) => of_type.write(value, wanted).map(encoded),
                None => {
                    let bytes = format.encode(value).map_err(|problem| {
                        let message = format!("the body cannot be encoded as {}: {problem}", wanted.name());
                        Fault::caller(Code::InvalidArgument, "BODY_UNWRITABLE", message)
                    })?;
                    Ok(encoded(bytes))
                }
            }
        }
    }
}

fn is_same_type(given: Option<&dyn BodyType>, wanted: Option<&dyn BodyType>) -> bool {
    match (given, wanted) {
        (Some(given), Some(wanted)) => given.name() == wanted.name(),
        _ => true,
    }
}

/// Whether [`encode_body`] forwards bytes of this format and type unchanged.
#[must_use]
pub fn passes_unchanged(
    given: Format,
    given_type: Option<&dyn BodyType>,
    format: &WriteFormat,
    of_type: Option<&dyn BodyType>,
) -> bool {
    format.accepts_any_bytes() || (given == format.format() && is_same_type(given_type, of_type))
}

fn wrong_format(media_type: Option<&str>, given: Format, wanted: Format) -> Fault {
    let given = media_type.unwrap_or(given.name());
    let message = format!("the body is {given}, expected {} ({})", wanted.name(), wanted.media_type());
    Fault::caller(Code::InvalidArgument, "BODY_FORMAT", message).with_http_status(415)
}
