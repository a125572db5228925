//! The type model: what any kind of contract is read into.
//!
//! Types refer to one another by place, so that recursion costs nothing. What a field is called in JSON and which number
//! it has in protobuf stand next to one another; other formats add their own names.

mod build;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{ByteString, Shape};

pub(crate) use build::Builder;

/// A record's place in its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordId(pub(crate) u32);

/// An enumeration's place in its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnumId(pub(crate) u32);

/// All types and services of one contract, checked: every reference leads somewhere.
#[derive(Debug)]
pub struct Contract {
    pub(crate) records: Vec<RecordType>,
    pub(crate) enums: Vec<EnumType>,
    pub(crate) services: Vec<Service>,
    pub(crate) names: HashMap<ByteString, RecordId>,
    pub(crate) files: Vec<SourceFile>,
}

/// A file that the contract was read from, for those who ask a server for its descriptors.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its name, as imports name it.
    pub name: String,
    /// The files that it imports.
    pub imports: Vec<String>,
    /// Full names of the messages, enumerations, services, methods and extensions in it.
    pub symbols: Vec<String>,
    /// Extensions in it: the full name of the message that is extended, and the number.
    pub extensions: Vec<(String, u32)>,
    /// A `google.protobuf.FileDescriptorProto`.
    pub descriptor: Bytes,
}

/// What a record is beyond its fields: types that have a form of their own in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Nothing.
    None,
    /// `google.protobuf.Any`.
    Any,
    /// `google.protobuf.Timestamp`.
    Time,
    /// `google.protobuf.Duration`.
    Duration,
    /// `google.protobuf.FieldMask`.
    FieldMask,
    /// `google.protobuf.Struct`.
    Struct,
    /// `google.protobuf.Value`.
    Value,
    /// `google.protobuf.ListValue`.
    List,
    /// `google.protobuf.StringValue` and its like: the value, or null.
    Wrapper,
}

/// A record: a message of protobuf.
#[derive(Debug)]
pub struct RecordType {
    /// The full name, such as `shop.v1.Order`.
    pub name: ByteString,
    /// In the order of the declaration; extensions last.
    pub fields: Vec<Field>,
    /// Groups of fields of which at most one is set, by name.
    pub oneofs: Vec<ByteString>,
    /// A form of its own in JSON.
    pub special: Special,
    /// What the contract says of it.
    pub doc: String,
    /// The encoding of `option message_set_wire_format`.
    pub(crate) message_set: bool,
    /// It only stands for an entry of a map.
    pub(crate) map_entry: bool,
    pub(crate) shape: Arc<Shape>,
    /// Fields by number: a table for small numbers, and the rest.
    pub(crate) by_number: Vec<u16>,
    pub(crate) by_large_number: HashMap<u32, u16>,
    pub(crate) by_name: HashMap<ByteString, u16>,
    pub(crate) required: Vec<u16>,
}

/// How often a field stands in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// It has to be there (proto2's `required`).
    Required,
    /// It may be missing, which differs from its default.
    Optional,
    /// Without presence: missing is its default.
    Implicit,
    /// Any number of values in order.
    Many,
    /// Values by key.
    Map,
}

/// A field of a record.
#[derive(Debug)]
pub struct Field {
    /// The name in the contract: what route files call it.
    pub name: ByteString,
    /// The name in JSON.
    pub json_name: ByteString,
    /// The number in protobuf.
    pub number: u32,
    /// How often it stands.
    pub arity: Arity,
    /// What it holds; of a map, its values.
    pub kind: Kind,
    /// Of a map, what its keys are.
    pub key: Option<Scalar>,
    /// Its place in the record's oneofs.
    pub oneof: Option<u16>,
    /// Numbers are written as one run.
    pub packed: bool,
    /// The record stands between two tags (a group), not behind its length.
    pub delimited: bool,
    /// What the contract says of it.
    pub doc: String,
    /// Its place in its record.
    pub(crate) index: u16,
    /// The JSON name with its quotes and colon.
    pub(crate) json_key: Box<[u8]>,
    /// The tag on the wire, as it is written.
    pub(crate) tag: u64,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain value.
    Scalar(Scalar),
    /// One of named numbers.
    Enum(EnumId),
    /// A record.
    Record(RecordId),
}

/// Plain values, with their encoding in protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "these are the names of protobuf's scalar types")]
pub enum Scalar {
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
}

/// An enumeration.
#[derive(Debug)]
pub struct EnumType {
    /// The full name.
    pub name: ByteString,
    /// Names and numbers in the order of the declaration; several names may have one number.
    pub values: Vec<(ByteString, i32)>,
    /// Numbers that have no name are not values of it (proto2).
    pub closed: bool,
    /// What the contract says of it.
    pub doc: String,
    /// `google.protobuf.NullValue`: JSON's null.
    pub(crate) null: bool,
    pub(crate) by_name: HashMap<ByteString, i32>,
    pub(crate) by_number: HashMap<i32, u32>,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// The full name.
    pub name: ByteString,
    /// In the order of the declaration.
    pub methods: Vec<Method>,
    /// What the contract says of it.
    pub doc: String,
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// Its name.
    pub name: ByteString,
    /// What it takes.
    pub input: RecordId,
    /// What it gives.
    pub output: RecordId,
    /// It takes a stream.
    pub client_streaming: bool,
    /// It gives a stream.
    pub server_streaming: bool,
    /// Carrying it out twice is as carrying it out once, by the option `idempotency_level`.
    pub idempotent: bool,
    /// What the contract says of it.
    pub doc: String,
    /// How `google.api.http` binds it to HTTP.
    pub http: Vec<HttpRule>,
}

/// A binding of `google.api.http` (`google/api/http.proto`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRule {
    /// `GET`, `POST`, or another method in capitals.
    pub method: String,
    /// The path template, as written.
    pub path: String,
    /// The field that the body is; `*` for all fields that the path does not bind; nothing for no body.
    pub body: String,
    /// The field of the answer that the body of the answer is; empty for the whole answer.
    pub response_body: String,
}

impl Contract {
    /// The record of that full name.
    #[must_use]
    pub fn find_record(&self, name: &str) -> Option<RecordId> {
        self.names.get(name).copied()
    }

    /// A record.
    #[must_use]
    pub fn record(&self, id: RecordId) -> &RecordType {
        &self.records[id.0 as usize]
    }

    /// An enumeration.
    #[must_use]
    pub fn enumeration(&self, id: EnumId) -> &EnumType {
        &self.enums[id.0 as usize]
    }

    /// All records, in the order of the files.
    #[must_use]
    pub fn records(&self) -> &[RecordType] {
        &self.records
    }

    /// All enumerations, in the order of the files.
    #[must_use]
    pub fn enumerations(&self) -> &[EnumType] {
        &self.enums
    }

    /// All services, in the order of the files.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service of that full name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The method that `pkg.Service/Method` names.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<(&Service, &Method)> {
        let (service, method) = path.split_once('/')?;
        let service = self.service(service)?;
        let method = service.methods.iter().find(|other| other.name == method)?;
        Some((service, method))
    }

    /// The files that it was read from; each stands behind those that it imports.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }
}

impl Field {
    /// Whether values of it can be written as one run.
    pub(crate) fn is_packable(&self) -> bool {
        match self.kind {
            Kind::Scalar(scalar) => scalar.is_packable(),
            Kind::Enum(_) => true,
            Kind::Record(_) => false,
        }
    }
}

/// No field.
pub(crate) const NO_FIELD: u16 = u16::MAX;

impl RecordType {
    /// The field of that number.
    #[must_use]
    pub fn field_by_number(&self, number: u32) -> Option<&Field> {
        let index = match self.by_number.get(number as usize) {
            Some(index) => *index,
            None => *self.by_large_number.get(&number)?,
        };
        self.fields.get(usize::from(index))
    }

    /// The field of that name in the contract or in JSON.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.by_name.get(name).map(|index| &self.fields[usize::from(*index)])
    }

    /// Names of its fields in the contract.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }
}

impl EnumType {
    /// The name that a number is written with.
    #[must_use]
    pub fn name_of(&self, number: i32) -> Option<&ByteString> {
        self.by_number.get(&number).map(|index| &self.values[*index as usize].0)
    }

    /// The number of a name.
    #[must_use]
    pub fn number_of(&self, name: &str) -> Option<i32> {
        self.by_name.get(name).copied()
    }
}

impl Scalar {
    /// The name in a `.proto` file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
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
        }
    }

    /// Whether values of it can be written as one run.
    pub(crate) fn is_packable(self) -> bool {
        !matches!(self, Self::String | Self::Bytes)
    }
}
