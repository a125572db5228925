//! Bodies, which stay raw bytes until their value is needed.

use std::any::Any;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{Code, Fault, Limits, StreamCell, Value, json, xml};

/// Raw bytes in the pieces in which they arrived. Cloning and forwarding copy no bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunks {
    first: Bytes,
    /// Boxed, because most bodies come in one piece.
    #[expect(clippy::box_collection, reason = "a message is moved often, and this part of it is nearly never there")]
    rest: Option<Box<VecDeque<Bytes>>>,
    kept: Kept,
}

/// A guard that is dropped with the last copy of the bytes.
#[derive(Clone, Default)]
struct Kept(Option<Arc<dyn Any + Send + Sync>>);

impl Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "kept" } else { "none" })
    }
}

/// Equality ignores the guard.
impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Kept {}

impl Chunks {
    /// No bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a piece; ignores an empty one.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.first.is_empty() {
            self.first = chunk;
        } else {
            self.rest.get_or_insert_default().push_back(chunk);
        }
    }

    /// Keeps a guard until the last copy of these bytes is dropped, such as their memory reservation.
    pub fn keep(&mut self, kept: Option<Arc<dyn Any + Send + Sync>>) {
        self.kept = Kept(kept);
    }

    /// The total number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().flat_map(|rest| rest.iter()).map(Bytes::len).sum::<usize>()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Removes and returns the first piece.
    pub fn pop_front(&mut self) -> Option<Bytes> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front()).unwrap_or_default();
        let first = std::mem::replace(&mut self.first, next);
        (!first.is_empty()).then_some(first)
    }

    /// All bytes in one piece. Copies them only if there are several pieces.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let Some(rest) = self.rest.as_ref().filter(|rest| !rest.is_empty()) else {
            return self.first.clone();
        };
        let mut all = BytesMut::with_capacity(self.len());
        all.extend_from_slice(&self.first);
        for chunk in rest.iter() {
            all.extend_from_slice(chunk);
        }
        all.freeze()
    }
}

impl From<Bytes> for Chunks {
    fn from(bytes: Bytes) -> Self {
        Self { first: bytes, rest: None, kept: Kept::default() }
    }
}

/// The format of the bytes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON (RFC 8259).
    Json,
    /// XML 1.0 without a document type declaration.
    Xml,
    /// The protobuf wire format, which can be read only with a contract.
    Protobuf,
    /// The binary encoding of Apache Avro, which can be read only with its schema.
    Avro,
    /// Opaque bytes.
    Raw,
}

impl Format {
    /// The format of a media type, including the suffixes of RFC 6839. Parameters are ignored.
    #[must_use]
    pub fn of_media_type(media_type: &str) -> Self {
        let essence = media_type.split(';').next().unwrap_or("").trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        let ends = |suffix: &str| {
            essence
                .len()
                .checked_sub(suffix.len())
                .is_some_and(|at| essence.as_bytes()[at..].eq_ignore_ascii_case(suffix.as_bytes()))
        };
        if is("application/json") || is("text/json") || ends("+json") {
            Self::Json
        } else if is("application/xml") || is("text/xml") || ends("+xml") {
            Self::Xml
        } else if is("application/protobuf") || is("application/x-protobuf") {
            Self::Protobuf
        } else {
            Self::Raw
        }
    }

    /// The media type of bodies written in this format.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml => "application/xml",
            Self::Protobuf => "application/protobuf",
            Self::Avro => "avro/binary",
            Self::Raw => "application/octet-stream",
        }
    }

    /// The name in route files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Xml => "xml",
            Self::Protobuf => "protobuf",
            Self::Avro => "avro",
            Self::Raw => "raw",
        }
    }
}

/// The type that a contract gives a body: reads and writes its bytes.
///
/// The type carries its own limits, so that every reader of it has the same.
pub trait BodyType: Debug + Send + Sync {
    /// The full name of the type. Types with the same name are the same type.
    fn name(&self) -> &str;

    /// Reads bytes of a format.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with position and field if the bytes are not of this type.
    fn read(&self, bytes: &Bytes, format: Format) -> Result<Value, Fault>;

    /// Writes a value in a format.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the field if the value is not of this type or the format cannot represent it.
    fn write(&self, value: &Value, format: Format) -> Result<Bytes, Fault>;

    /// Converts from one format to another in one pass.
    ///
    /// # Errors
    /// Those of [`BodyType::read`] and [`BodyType::write`].
    fn recode(&self, bytes: &Bytes, from: Format, to: Format) -> Result<Bytes, Fault>;
}

/// The body of a message. Clones of raw bytes share them, and their decoded value if there is one.
#[derive(Debug)]
pub enum Body {
    /// No body, as in a GET request.
    Empty,
    /// An explicit null, such as a tombstone of Kafka. A protocol without such a thing has no body instead.
    Null,
    /// Bytes as received. They are decoded when the value is first needed.
    Raw {
        /// The bytes.
        chunks: Chunks,
        /// Their format.
        format: Format,
        /// The type given by a contract, which then reads them.
        of_type: Option<Arc<dyn BodyType>>,
        /// The decoded value.
        decoded: OnceCell<Arc<Value>>,
    },
    /// A value made by the gateway, not yet encoded.
    Value(Value),
    /// A stream of bodies.
    Stream(StreamCell),
}

impl Body {
    /// Bytes of a format; [`Body::Empty`] if there are no bytes.
    #[must_use]
    pub fn raw(chunks: Chunks, format: Format) -> Self {
        if chunks.is_empty() {
            Self::Empty
        } else {
            Self::Raw { chunks, format, of_type: None, decoded: OnceCell::new() }
        }
    }

    /// Bytes of a format, of which there may be none: unlike no body, an empty one has a media type.
    #[must_use]
    pub fn present(chunks: Chunks, format: Format) -> Self {
        Self::Raw { chunks, format, of_type: None, decoded: OnceCell::new() }
    }

    /// A protobuf message without a contract. No bytes are a valid body: a message of defaults.
    #[must_use]
    pub fn protobuf(chunks: Chunks) -> Self {
        Self::present(chunks, Format::Protobuf)
    }

    /// Bytes of a format and type. No bytes are a valid body: in protobuf, a message of defaults.
    #[must_use]
    pub fn typed(chunks: Chunks, format: Format, of_type: Arc<dyn BodyType>) -> Self {
        Self::Raw { chunks, format, of_type: Some(of_type), decoded: OnceCell::new() }
    }

    /// Whether there is no body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty | Self::Null)
    }

    /// The number of bytes that [`Body::value`] would decode; 0 if they are decoded already or there are none.
    #[must_use]
    pub fn unread_len(&self) -> usize {
        match self {
            Self::Raw { chunks, decoded, .. } if decoded.get().is_none() => chunks.len(),
            _ => 0,
        }
    }

    /// Whether the bytes have been decoded.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Raw { decoded, .. } if decoded.get().is_some())
    }

    /// Takes over the decoded value of a clone, which may have been decoded on another thread.
    pub fn adopt_reading(&self, copy: &Self) {
        if let (Self::Raw { decoded, .. }, Self::Raw { decoded: of_copy, .. }) = (self, copy)
            && let Some(value) = of_copy.get()
        {
            let _ = decoded.set(Arc::clone(value));
        }
    }

    /// The value. The first call decodes the bytes and caches the result.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: with `line` and `column` if the bytes are not valid in their format, or if the format is opaque. INTERNAL for a stream.
    pub fn value(&self, limits: &Limits) -> Result<Option<&Value>, Fault> {
        match self {
            Self::Empty | Self::Null => Ok(None),
            Self::Value(value) => Ok(Some(value)),
            Self::Stream(_) => Err(Fault::new(Code::Internal, "STREAM", "a stream has no value of its own")),
            Self::Raw { chunks, format, of_type, decoded } => {
                if decoded.get().is_none() {
                    let bytes = chunks.to_bytes();
                    let value = match of_type {
                        Some(of_type) => of_type.read(&bytes, *format)?,
                        None => decode(&bytes, *format, limits)?,
                    };
                    return Ok(Some(decoded.get_or_init(|| Arc::new(value))));
                }
                Ok(decoded.get().map(|value| &**value))
            }
        }
    }
}

impl Clone for Body {
    fn clone(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Null => Self::Null,
            Self::Raw { chunks, format, of_type, decoded } => Self::Raw {
                chunks: chunks.clone(),
                format: *format,
                of_type: of_type.clone(),
                decoded: decoded.clone(),
            },
            Self::Value(value) => Self::Value(value.clone()),
            Self::Stream(stream) => Self::Stream(stream.clone()),
        }
    }
}

fn decode(bytes: &Bytes, format: Format, limits: &Limits) -> Result<Value, Fault> {
    match format {
        Format::Json => json::read(bytes, limits)
            .map_err(|error| bad_body("JSON", &error.kind.to_string(), error.line, error.column)),
        Format::Xml => {
            xml::read(bytes, limits).map_err(|error| bad_body("XML", &error.kind.to_string(), error.line, error.column))
        }
        Format::Protobuf | Format::Avro | Format::Raw => Err(Fault::caller(
            Code::InvalidArgument,
            "BODY_FORMAT",
            "the body has to be JSON or XML, with the content type that says so",
        )
        .with_http_status(415)),
    }
}

fn bad_body(format: &str, problem: &str, line: usize, column: usize) -> Fault {
    Fault::caller(
        Code::InvalidArgument,
        "BODY_MALFORMED",
        format!("the body is not valid {format}: line {line}, column {column}: {problem}"),
    )
    .with_detail("line", line.to_string())
    .with_detail("column", column.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_their_order_and_are_not_copied() {
        let mut chunks = Chunks::new();
        let first = Bytes::from_static(b"ab");
        for chunk in [Bytes::new(), first.clone(), Bytes::new(), Bytes::from_static(b"cd")] {
            chunks.push(chunk);
        }
        assert_eq!(chunks.to_bytes(), "abcd");
        assert_eq!(chunks.len(), 4);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| chunks.pop_front()).collect();
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0].as_ptr(), first.as_ptr());
    }

    #[test]
    fn formats_of_media_types() {
        for (media_type, format) in [
            ("application/json; charset=utf-8", Format::Json),
            ("APPLICATION/PROBLEM+JSON", Format::Json),
            ("text/xml", Format::Xml),
            ("application/soap+xml;action=a", Format::Xml),
            ("application/x-protobuf", Format::Protobuf),
            ("text/plain", Format::Raw),
            ("application/jsonish", Format::Raw),
            ("", Format::Raw),
        ] {
            assert_eq!(Format::of_media_type(media_type), format, "{media_type}");
        }
    }

    #[test]
    fn bytes_are_read_once_and_stay_as_they_are() {
        let bytes = Bytes::from_static(b"{ \"a\" : 1.0 }");
        let body = Body::raw(bytes.clone().into(), Format::Json);
        let first: *const Value = body.value(&Limits::default()).expect("valid").expect("a value");
        let second: *const Value = body.value(&Limits::default()).expect("valid").expect("a value");
        assert_eq!(first, second);
        assert!(matches!(&body, Body::Raw { chunks, .. } if chunks.to_bytes() == bytes));
    }
}
