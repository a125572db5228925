//! Writing a canonical body in the format of the other side.

use std::borrow::Cow;

use bytes::Bytes;
use crossdock_message::xml::ExpandedName;
use crossdock_message::{Body, ByteString, Chunks, Code, Fault, Format, Message, Value, json, xml};

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

/// The bytes of a message's body. Raw bytes are handed on uncopied with the media type that they came with.
///
/// # Errors
/// INVALID_ARGUMENT (415) where raw bytes are of another format than the other side takes. INVALID_ARGUMENT with the place in the value where the format cannot say it.
pub fn encode_body(message: &Message, format: &WriteFormat) -> Result<EncodedBody, Fault> {
    match &message.body {
        Body::Empty => Ok(EncodedBody { chunks: Chunks::new(), content_type: None }),
        Body::Raw { chunks, format: given, .. } => {
            if *given != format.format() && *format != WriteFormat::Raw {
                return Err(wrong_format(*given, format.format()));
            }
            let content_type =
                message.content_type.clone().or_else(|| Some(ByteString::from_static(given.media_type())));
            Ok(EncodedBody { chunks: chunks.clone(), content_type })
        }
        Body::Value(value) => {
            let bytes = write(value, format).map_err(|problem| {
                let message = format!("the body cannot be written as {}: {problem}", format.format().name());
                Fault::caller(Code::InvalidArgument, "BODY_UNWRITABLE", message)
            })?;
            let content_type = Some(ByteString::from_static(format.format().media_type()));
            Ok(EncodedBody { chunks: bytes.into(), content_type })
        }
    }
}

fn wrong_format(given: Format, wanted: Format) -> Fault {
    let message = format!("the body is {}, where {} is needed", given.name(), wanted.name());
    Fault::caller(Code::InvalidArgument, "BODY_FORMAT", message).with_http_status(415)
}

fn write(value: &Value, format: &WriteFormat) -> Result<Bytes, Cow<'static, str>> {
    match (format, value) {
        (WriteFormat::Json, _) => json::write(value).map(Bytes::from).map_err(|error| error.to_string().into()),
        (WriteFormat::Xml { root }, _) => {
            xml::write(root, value).map(Bytes::from).map_err(|error| error.to_string().into())
        }
        (WriteFormat::Raw, Value::Bytes(bytes)) => Ok(bytes.clone()),
        (WriteFormat::Raw, Value::Text(text)) => Ok(text.clone().into_bytes()),
        (WriteFormat::Raw, other) => Err(format!("{} is neither text nor bytes", other.kind()).into()),
    }
}
