//! Writing a canonical body in the format of the other side.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::xml::ExpandedName;
use crossdock_message::{Body, BodyType, ByteString, Chunks, Code, Fault, Format, Message, Value, json, xml};

use crate::offload::{self, INLINE_LEN, Priority, offload};

/// How a body that was made in the gateway is written. A body that came as bytes goes on as those bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteFormat {
    /// A JSON document.
    Json,
    /// An XML document with this root element.
    Xml {
        /// The root element's name.
        root: ExpandedName,
    },
    /// A message of protobuf.
    Protobuf,
    /// Text or bytes as they are.
    Raw,
}

impl WriteFormat {
    /// The format that it writes.
    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Xml { .. } => Format::Xml,
            Self::Protobuf => Format::Protobuf,
            Self::Raw => Format::Raw,
        }
    }
}

/// A body ready for the wire.
#[derive(Debug, Clone)]
pub struct EncodedBody {
    /// The bytes.
    pub chunks: Chunks,
    /// Their media type; `None` where there is no body.
    pub content_type: Option<ByteString>,
}

impl EncodedBody {
    /// Makes it the body of a message. An adapter that takes that format and type forwards it unchanged.
    pub fn put_into(self, message: &mut Message, format: &WriteFormat, of_type: Option<Arc<dyn BodyType>>) {
        message.body = match of_type {
            Some(of_type) => Body::typed(self.chunks, format.format(), of_type),
            None => Body::raw(self.chunks, format.format()),
        };
        message.content_type = self.content_type;
    }
}

/// The bytes of a message's body. Raw bytes of the format that is wanted are handed on uncopied with the media type that
/// they came with; of another format, they are written anew by the type that they, or those who take them, have. Bytes of which nobody
/// said what they are go at the taker's word, where that is protobuf without a contract.
///
/// # Errors
/// INVALID_ARGUMENT (415) where raw bytes are of another format than the other side takes and no type says what they
/// mean. INVALID_ARGUMENT with the place in the value where the format cannot say it. INTERNAL for a stream.
pub fn encode_body(
    message: &Message,
    format: &WriteFormat,
    of_type: Option<&dyn BodyType>,
) -> Result<EncodedBody, Fault> {
    let wanted = format.format();
    let made = |bytes: Bytes| EncodedBody {
        chunks: bytes.into(),
        content_type: Some(ByteString::from_static(wanted.media_type())),
    };
    match &message.body {
        // In protobuf, no bytes are a message of defaults.
        Body::Empty | Body::Null if wanted == Format::Protobuf => Ok(made(Bytes::new())),
        Body::Empty | Body::Null => Ok(EncodedBody { chunks: Chunks::new(), content_type: None }),
        Body::Stream(_) => Err(Fault::new(Code::Internal, "STREAM", "a stream stands where one message is needed")),
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
                    writer.write(&reader.read(&bytes, *given)?, wanted).map(made)
                }
                // The taker's type may say more, such as that only one field is wanted.
                (_, Some(of_type)) | (Some(of_type), None) => of_type.recode(&bytes, *given, wanted).map(made),
                (None, None)
                    if wanted == Format::Protobuf && *given == Format::Raw && message.content_type.is_none() =>
                {
                    Ok(made(bytes))
                }
                (None, None) => Err(wrong_format(message.content_type.as_deref(), *given, wanted)),
            }
        }
        Body::Value(value) => match of_type.filter(|_| matches!(wanted, Format::Json | Format::Protobuf)) {
            Some(of_type) => of_type.write(value, wanted).map(made),
            None => {
                let bytes = write(value, format).map_err(|problem| {
                    let message = format!("the body cannot be written as {}: {problem}", wanted.name());
                    Fault::caller(Code::InvalidArgument, "BODY_UNWRITABLE", message)
                })?;
                Ok(made(bytes))
            }
        },
    }
}

/// As [`encode_body`], on the thread pool if the body is long. A long body is moved there and dropped there: the message is left without it.
///
/// # Errors
/// As [`encode_body`].
pub async fn take_body_apart(
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

/// Whether writing a body in that format takes long.
#[must_use]
pub fn is_long_to_encode(body: &Body, format: &WriteFormat, of_type: Option<&dyn BodyType>) -> bool {
    match body {
        Body::Raw { chunks, format: given, of_type: given_type, .. } => {
            chunks.len() > INLINE_LEN && !passes_unchanged(*given, given_type.as_deref(), format, of_type)
        }
        other => offload::is_long(other),
    }
}

fn is_same_type(given: Option<&dyn BodyType>, wanted: Option<&dyn BodyType>) -> bool {
    match (given, wanted) {
        (Some(given), Some(wanted)) => given.name() == wanted.name(),
        _ => true,
    }
}

/// Whether the bytes of a body are forwarded unchanged.
fn passes_unchanged(
    given: Format,
    given_type: Option<&dyn BodyType>,
    format: &WriteFormat,
    of_type: Option<&dyn BodyType>,
) -> bool {
    *format == WriteFormat::Raw || (given == format.format() && is_same_type(given_type, of_type))
}

fn wrong_format(media_type: Option<&str>, given: Format, wanted: Format) -> Fault {
    let given = media_type.unwrap_or(given.name());
    let message = format!("the body is {given}, where {} ({}) is needed", wanted.name(), wanted.media_type());
    Fault::caller(Code::InvalidArgument, "BODY_FORMAT", message).with_http_status(415)
}

fn write(value: &Value, format: &WriteFormat) -> Result<Bytes, Cow<'static, str>> {
    match (format, value) {
        (WriteFormat::Json, _) => json::write(value).map(Bytes::from).map_err(|error| error.to_string().into()),
        (WriteFormat::Xml { root }, _) => {
            xml::write(root, value).map(Bytes::from).map_err(|error| error.to_string().into())
        }
        (WriteFormat::Protobuf, _) => Err("protobuf needs a contract".into()),
        (WriteFormat::Raw, Value::Bytes(bytes)) => Ok(bytes.clone()),
        (WriteFormat::Raw, Value::Text(text)) => Ok(text.clone().into_bytes()),
        (WriteFormat::Raw, other) => Err(format!("{} is neither text nor bytes", other.kind()).into()),
    }
}
