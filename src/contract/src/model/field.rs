//! Fields: what they hold, how often, within which bounds, and what each format needs to know about them.

use crossdock_message::ByteString;
use crossdock_message::xml::ExpandedName;

use super::{EnumId, Facets, RecordId};

/// How often a field occurs in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    /// Exactly once.
    Required,
    /// At most once; absence differs from the default.
    Optional,
    /// At most once; absence means the default.
    Implicit,
    /// A list.
    Repeated,
    /// Values by key.
    Map(Scalar),
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A single value.
    Scalar(Scalar),
    /// One of a set of names.
    Enum(EnumId),
    /// A record.
    Record(RecordId),
}

/// Single values, whatever their encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// True or false.
    Bool,
    /// Unicode text.
    Text,
    /// Bytes.
    Bytes,
    /// A signed integer of 32 bits.
    Int32,
    /// A signed integer of 64 bits.
    Int64,
    /// An unsigned integer of 32 bits.
    UInt32,
    /// An unsigned integer of 64 bits.
    UInt64,
    /// An integer of any size.
    Integer,
    /// A decimal number of any precision, whose digits are kept.
    Decimal,
    /// A binary floating-point number of 32 bits (IEEE 754).
    Float,
    /// A binary floating-point number of 64 bits (IEEE 754).
    Double,
    /// A value that is known by its text alone, which is kept as it is written, such as a date without a time zone.
    Lexical,
}

impl Scalar {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Float => "float",
            Self::Double => "double",
            Self::Lexical => "lexical",
        }
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_number(self) -> bool {
        !matches!(self, Self::Bool | Self::Text | Self::Bytes | Self::Lexical)
    }
}

/// A field of a record.
#[derive(Debug)]
pub struct Field {
    /// Its name in the contract, which route files use.
    pub name: ByteString,
    /// How often it occurs.
    pub cardinality: Cardinality,
    /// What it holds; the values of a map.
    pub kind: Kind,
    /// Null is one of its values, distinct from its absence; in a list or map, one of the values of each item.
    pub nullable: bool,
    /// The position of its group in [`RecordType::variants`](super::RecordType::variants).
    pub variant_of: Option<u16>,
    /// Bounds on its values.
    pub facets: Option<Box<Facets>>,
    /// Its documentation in the contract.
    pub doc: String,
    /// What JSON needs to know.
    pub json: JsonField,
    /// What protobuf needs to know.
    pub protobuf: ProtobufField,
    /// What XML needs to know; `None` in a contract that does not describe XML.
    pub xml: Option<Box<XmlField>>,
    /// Its position in its record.
    pub(crate) index: u16,
}

/// A field in JSON.
#[derive(Debug, Default)]
pub struct JsonField {
    /// Its name.
    pub name: ByteString,
    /// How its numbers are written; both forms are read.
    pub numbers: JsonNumbers,
    /// The name with its quotes and colon.
    pub(crate) key: Box<[u8]>,
}

/// How numbers are written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JsonNumbers {
    /// As numbers.
    #[default]
    Number,
    /// As text, so that readers with binary floating-point numbers do not round them (ProtoJSON's 64-bit integers).
    Text,
}

/// A field in protobuf.
#[derive(Debug)]
pub struct ProtobufField {
    /// Its number.
    pub number: u32,
    /// How its values are encoded.
    pub encoding: Encoding,
    /// How the keys of a map are encoded.
    pub key_encoding: Encoding,
    /// A list is written as one run of values after a single length.
    pub packed: bool,
    /// A record is written between two tags (a group), not after its length.
    pub delimited: bool,
    /// The tag as it is written.
    pub(crate) tag: u64,
}

impl ProtobufField {
    /// A field of a contract without protobuf: it has no number, so that it cannot be written.
    pub(crate) fn absent() -> Self {
        let encoding = Encoding::Message;
        Self { number: 0, encoding, key_encoding: Encoding::String, packed: false, delimited: false, tag: 0 }
    }
}

/// The types of protobuf, each with its encoding on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "these are the names of protobuf")]
pub enum Encoding {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Bytes,
    Uint32,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
    Enum,
    Message,
}

impl Encoding {
    /// The name in a `.proto` file; that of an enumeration or a message is its own.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Double => "double",
            Self::Float => "float",
            Self::Int64 => "int64",
            Self::Uint64 => "uint64",
            Self::Int32 => "int32",
            Self::Fixed64 => "fixed64",
            Self::Fixed32 => "fixed32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Uint32 => "uint32",
            Self::Sfixed32 => "sfixed32",
            Self::Sfixed64 => "sfixed64",
            Self::Sint32 => "sint32",
            Self::Sint64 => "sint64",
            Self::Enum | Self::Message => return None,
        })
    }

    /// The value that it encodes; `None` for an enumeration or a message.
    #[must_use]
    pub fn scalar(self) -> Option<Scalar> {
        Some(match self {
            Self::Double => Scalar::Double,
            Self::Float => Scalar::Float,
            Self::Int64 | Self::Sint64 | Self::Sfixed64 => Scalar::Int64,
            Self::Uint64 | Self::Fixed64 => Scalar::UInt64,
            Self::Int32 | Self::Sint32 | Self::Sfixed32 => Scalar::Int32,
            Self::Uint32 | Self::Fixed32 => Scalar::UInt32,
            Self::Bool => Scalar::Bool,
            Self::String => Scalar::Text,
            Self::Bytes => Scalar::Bytes,
            Self::Enum | Self::Message => return None,
        })
    }

    /// Whether a list of it can be packed.
    pub(crate) fn is_packable(self) -> bool {
        !matches!(self, Self::String | Self::Bytes | Self::Message)
    }
}

/// A field in XML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmlField {
    /// Its name and namespace.
    pub name: ExpandedName,
    /// Its kind of node.
    pub node: XmlNode,
    /// Its position among its siblings in a sequence; fields with equal positions may come in any order.
    pub order: u16,
}

/// The kind of node that represents a field in an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XmlNode {
    /// A child element.
    Element,
    /// An attribute.
    Attribute,
    /// The character data.
    Text,
}

impl Field {
    /// What the keys of a map are; `None` for any other field.
    #[must_use]
    pub fn map_key(&self) -> Option<Scalar> {
        match self.cardinality {
            Cardinality::Map(key) => Some(key),
            _ => None,
        }
    }

    /// Whether it holds several values.
    #[must_use]
    pub fn is_collection(&self) -> bool {
        matches!(self.cardinality, Cardinality::Repeated | Cardinality::Map(_))
    }

    /// A field that represents a whole document.
    pub(crate) fn of_document(id: RecordId) -> Self {
        Self {
            name: ByteString::new(),
            cardinality: Cardinality::Optional,
            kind: Kind::Record(id),
            nullable: false,
            variant_of: None,
            facets: None,
            doc: String::new(),
            json: JsonField::default(),
            protobuf: ProtobufField::absent(),
            xml: None,
            index: 0,
        }
    }
}
