//! Codecs driven by a contract: they convert between the wire format of protobuf, ProtoJSON and [`Value`](crossdock_message::Value).
//!
//! Three sources drive three sinks, so that every conversion is one pass without an intermediate tree:
//!
//! ```text
//! wire_source  ─┐                       ┌─▶ wire_sink
//! json_source  ─┼─▶ Sink: leaf, record, ┼─▶ json_sink
//! value_source ─┘   list, map, unknown  └─▶ value_sink
//! ```
//!
//! Before it drives a sink, a source establishes what depends on the whole record: the values of a field are contiguous, a oneof has at
//! most one member, and the keys of a map are unique.

mod dynamic;
mod error;
mod json_sink;
mod json_source;
mod numbers;
mod value_sink;
mod value_source;
mod wire;
mod wire_sink;
mod wire_source;

use bytes::Bytes;
use crossdock_message::{ByteString, Time, TimeSpan, Value};

pub use error::{CodecError, Problem};
pub(crate) use wire::wire_type;

pub(crate) use error::{Failure, Outcome, fail};
pub(crate) use json_sink::JsonSink;
pub(crate) use json_source::JsonSource;
pub(crate) use numbers::leaf_of_value;
pub(crate) use value_sink::ValueSink;
pub(crate) use value_source::ValueSource;
pub(crate) use wire_sink::WireSink;
pub(crate) use wire_source::{Input, WireSource};

use crate::model::{Cardinality, Encoding, Facets, Field, Kind, RecordType};

/// Levels of nested records: the limit of the protobuf parsers.
pub(crate) const DEPTH_MAX: usize = 100;
/// Levels of nested `google.protobuf.Any`.
pub(crate) const ANY_MAX: usize = 32;

/// The position of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The whole document.
    Root,
    /// The single value of a field.
    Single,
    /// An item of a list.
    Item,
    /// The key of a map entry.
    Key,
    /// The value of a map entry.
    Value,
}

/// A field and the position of a value in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'c> {
    pub(crate) field: &'c Field,
    pub(crate) position: Position,
}

impl<'c> Slot<'c> {
    pub(crate) fn new(field: &'c Field, position: Position) -> Self {
        Self { field, position }
    }

    /// The kind of the value.
    pub(crate) fn kind(&self) -> Kind {
        match (self.position, self.field.map_key()) {
            (Position::Key, Some(key)) => Kind::Scalar(key),
            _ => self.field.kind,
        }
    }

    /// Its encoding in protobuf.
    pub(crate) fn encoding(&self) -> Encoding {
        if self.position == Position::Key { self.field.protobuf.key_encoding } else { self.field.protobuf.encoding }
    }

    /// Whether null is allowed.
    pub(crate) fn is_nullable(&self) -> bool {
        self.field.nullable && self.position != Position::Key
    }

    /// Checks a value against the facets of its field.
    pub(crate) fn check(&self, leaf: &Leaf<'_>) -> Outcome<()> {
        match &self.field.facets {
            Some(facets) if self.position != Position::Key => check_facets(facets, leaf),
            _ => Ok(()),
        }
    }

    /// Whether the default is omitted.
    pub(crate) fn is_implicit(&self) -> bool {
        self.position == Position::Single && self.field.cardinality == Cardinality::Implicit
    }
}

/// A string, and the buffer that it is a slice of, if that can be shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextRef<'a> {
    pub(crate) text: &'a str,
    pub(crate) owner: Option<&'a Bytes>,
}

impl TextRef<'_> {
    pub(crate) fn shared(self) -> ByteString {
        match self.owner {
            // Never fails: a `str` is valid UTF-8.
            Some(owner) => ByteString::try_from(owner.slice_ref(self.text.as_bytes())).unwrap_or_default(),
            None => self.text.into(),
        }
    }
}

/// Bytes, and the buffer that they are a slice of, if that can be shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BytesRef<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) owner: Option<&'a Bytes>,
}

impl BytesRef<'_> {
    pub(crate) fn shared(self) -> Bytes {
        match self.owner {
            Some(owner) => owner.slice_ref(self.bytes),
            None => Bytes::copy_from_slice(self.bytes),
        }
    }
}

/// A value that is passed to a sink as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leaf<'a> {
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// A number of unbounded size or precision, in the grammar of JSON.
    Number(&'a str),
    Float(f32),
    Double(f64),
    /// The value of a nullable field.
    Null,
    Text(TextRef<'a>),
    Bytes(BytesRef<'a>),
    Enum(i32),
    Time(Time),
    Duration(TimeSpan),
    /// The paths of a `FieldMask`, with the field names of the contract.
    Mask(&'a [ByteString]),
    /// The content of a `Struct`, `Value` or `ListValue`.
    Dynamic(&'a Value),
    /// An `Any` with its payload in protobuf, which may nest `depth_left` levels.
    Any {
        url: TextRef<'a>,
        payload: BytesRef<'a>,
        depth_left: usize,
    },
}

impl Leaf<'_> {
    /// Whether it is the default of a field without presence.
    pub(crate) fn is_default(&self) -> bool {
        match self {
            Self::Bool(truth) => !truth,
            Self::Int(number) => *number == 0,
            Self::UInt(number) => *number == 0,
            Self::Float(number) => number.to_bits() == 0,
            Self::Double(number) => number.to_bits() == 0,
            Self::Text(text) => text.text.is_empty(),
            Self::Bytes(bytes) => bytes.bytes.is_empty(),
            Self::Enum(number) => *number == 0,
            _ => false,
        }
    }
}

/// The output of a codec, driven by a source.
pub(crate) trait Sink {
    /// Where a record, list, map or entry began.
    type Mark: Copy;

    fn leaf(&mut self, slot: Slot<'_>, leaf: Leaf<'_>) -> Outcome<()>;
    /// A wrapper such as `Int32Value`, whose only field is `inner`.
    fn wrapped(&mut self, slot: Slot<'_>, inner: &Field, leaf: Leaf<'_>) -> Outcome<()>;
    fn begin_record(&mut self, slot: Slot<'_>, record: &RecordType) -> Outcome<Self::Mark>;
    fn end_record(&mut self, slot: Slot<'_>, mark: Self::Mark) -> Outcome<()>;
    fn begin_list(&mut self, field: &Field) -> Outcome<Self::Mark>;
    fn end_list(&mut self, field: &Field, mark: Self::Mark) -> Outcome<()>;
    fn begin_map(&mut self, field: &Field) -> Outcome<Self::Mark>;
    fn end_map(&mut self, field: &Field, mark: Self::Mark) -> Outcome<()>;
    /// Begins a map entry; its key and value follow.
    fn begin_entry(&mut self, field: &Field) -> Outcome<Self::Mark>;
    fn end_entry(&mut self, field: &Field, mark: Self::Mark) -> Outcome<()>;
    /// Unknown fields of the record, with their tags.
    fn unknown(&mut self, fields: BytesRef<'_>);
}

/// Checks a value against facets.
fn check_facets(facets: &Facets, leaf: &Leaf<'_>) -> Outcome<()> {
    let checked = match leaf {
        Leaf::Text(text) => facets.check_text(text.text),
        Leaf::Bytes(bytes) => facets.check_bytes(bytes.bytes.len()),
        Leaf::Int(number) => facets.check_number(itoa::Buffer::new().format(*number)),
        Leaf::UInt(number) => facets.check_number(itoa::Buffer::new().format(*number)),
        Leaf::Number(text) => facets.check_number(text),
        Leaf::Float(number) => facets.check_number(ryu::Buffer::new().format(*number)),
        Leaf::Double(number) => facets.check_number(ryu::Buffer::new().format(*number)),
        _ => Ok(()),
    };
    checked.or_else(|violation| fail(Problem::Facet(violation)))
}
