//! Codecs that a contract guides: protobuf's wire format, ProtoJSON and [`Value`](crossdock_message::Value), each into each.
//!
//! Three sources drive three sinks, so that every pair is one pass without a tree between:
//!
//! ```text
//! wire_source  ─┐                       ┌─▶ wire_sink
//! json_source  ─┼─▶ Sink: leaf, record, ┼─▶ json_sink
//! value_source ─┘   list, map, unknown  └─▶ value_sink
//! ```
//!
//! A source has done what needs to know the whole record before it hands on: fields come grouped, a oneof has one member,
//! a key of a map stands once.

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

pub(crate) use error::{Done, Failure, fail};
pub(crate) use json_sink::JsonSink;
pub(crate) use json_source::JsonSource;
pub(crate) use value_sink::ValueSink;
pub(crate) use value_source::ValueSource;
pub(crate) use wire_sink::WireSink;
pub(crate) use wire_source::{Input, WireSource};

use crate::model::{Cardinality, Encoding, Facets, Field, Kind, RecordType};

/// Records inside one another, as protobuf's own readers limit them.
pub(crate) const DEPTH_MAX: usize = 100;
/// `google.protobuf.Any` inside one another.
pub(crate) const ANY_MAX: usize = 32;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the document.
    Root,
    /// It is the value of a field.
    Single,
    /// It is one item of a list.
    Item,
    /// It is the key of a map's entry.
    Key,
    /// It is the value of a map's entry.
    Value,
}

/// A field and a place in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'c> {
    pub(crate) field: &'c Field,
    pub(crate) place: Place,
}

impl<'c> Slot<'c> {
    pub(crate) fn new(field: &'c Field, place: Place) -> Self {
        Self { field, place }
    }

    /// What stands there.
    pub(crate) fn kind(&self) -> Kind {
        match (self.place, self.field.map_key()) {
            (Place::Key, Some(key)) => Kind::Scalar(key),
            _ => self.field.kind,
        }
    }

    /// How protobuf encodes it.
    pub(crate) fn encoding(&self) -> Encoding {
        if self.place == Place::Key { self.field.protobuf.key_encoding } else { self.field.protobuf.encoding }
    }

    /// Whether null is a value of it.
    pub(crate) fn is_nullable(&self) -> bool {
        self.field.nullable && self.place != Place::Key
    }

    /// Checks a value against the facets of its field.
    pub(crate) fn check(&self, leaf: &Leaf<'_>) -> Done<()> {
        match &self.field.facets {
            Some(facets) if self.place != Place::Key => check_facets(facets, leaf),
            _ => Ok(()),
        }
    }

    /// Whether a default may be left out.
    pub(crate) fn is_implicit(&self) -> bool {
        self.place == Place::Single && self.field.cardinality == Cardinality::Implicit
    }
}

/// A text that may be a part of bytes which can be shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextRef<'a> {
    pub(crate) text: &'a str,
    pub(crate) owner: Option<&'a Bytes>,
}

impl TextRef<'_> {
    pub(crate) fn shared(self) -> ByteString {
        match self.owner {
            // A part of a text of the same bytes: valid UTF-8 again.
            Some(owner) => ByteString::try_from(owner.slice_ref(self.text.as_bytes())).unwrap_or_default(),
            None => self.text.into(),
        }
    }
}

/// Bytes that may be a part of others which can be shared.
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

/// A value that is handed on whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leaf<'a> {
    Bool(bool),
    /// Of a signed kind.
    Int(i64),
    /// Of an unsigned kind.
    UInt(u64),
    /// A number without bounds on its size or precision, in JSON's grammar.
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
    /// Paths of a `FieldMask`, as the contract names fields.
    Mask(&'a [ByteString]),
    /// What a `Struct`, `Value` or `ListValue` holds.
    Dynamic(&'a Value),
    /// The payload of an `Any`, in protobuf; `depth_left` is what it may still nest.
    Any {
        url: TextRef<'a>,
        payload: BytesRef<'a>,
        depth_left: usize,
    },
}

impl Leaf<'_> {
    /// Whether it is what a field without presence stands for where it was not sent.
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

/// What a source drives.
pub(crate) trait Sink {
    /// Remembers where something began.
    type Mark: Copy;

    fn leaf(&mut self, slot: Slot<'_>, leaf: Leaf<'_>) -> Done<()>;
    /// A wrapper such as `Int32Value`, whose one field is `inner`.
    fn wrapped(&mut self, slot: Slot<'_>, inner: &Field, leaf: Leaf<'_>) -> Done<()>;
    fn begin_record(&mut self, slot: Slot<'_>, record: &RecordType) -> Done<Self::Mark>;
    fn end_record(&mut self, slot: Slot<'_>, mark: Self::Mark) -> Done<()>;
    fn begin_list(&mut self, field: &Field) -> Done<Self::Mark>;
    fn end_list(&mut self, field: &Field, mark: Self::Mark) -> Done<()>;
    fn begin_map(&mut self, field: &Field) -> Done<Self::Mark>;
    fn end_map(&mut self, field: &Field, mark: Self::Mark) -> Done<()>;
    /// An entry of a map: then come its key and its value.
    fn begin_entry(&mut self, field: &Field) -> Done<Self::Mark>;
    fn end_entry(&mut self, field: &Field, mark: Self::Mark) -> Done<()>;
    /// Fields that the record's contract does not know, with their tags.
    fn unknown(&mut self, fields: BytesRef<'_>);
}

/// Checks a value against facets.
fn check_facets(facets: &Facets, leaf: &Leaf<'_>) -> Done<()> {
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
    checked.or_else(|rule| fail(Problem::Facet(rule)))
}
