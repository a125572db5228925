//! The type model into which contracts of every language are read.
//!
//! Types, fields, cardinality, facets and documentation are neutral. What a format needs to know about a field or record – a number, an
//! encoding, a name, an order – is kept apart for each format: [`ProtobufField`], [`JsonField`], [`XmlField`]. Types refer to one another
//! by index, so that recursive types are cheap.

mod build;
mod facets;
mod field;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{ByteString, Shape};

pub(crate) use build::Builder;
pub use facets::{Bound, FacetViolation, Facets, Matches, Pattern};
pub use field::{Cardinality, Encoding, Field, JsonField, JsonNumbers, Kind, ProtobufField, Scalar, XmlField, XmlNode};

/// The index of a record in its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordId(pub(crate) u32);

/// The index of an enumeration in its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnumId(pub(crate) u32);

/// All types and services of one contract. Every reference resolves.
#[derive(Debug)]
pub struct Contract {
    pub(crate) records: Vec<RecordType>,
    pub(crate) enums: Vec<EnumType>,
    pub(crate) services: Vec<Service>,
    pub(crate) names: HashMap<ByteString, RecordId>,
    pub(crate) files: Vec<SourceFile>,
}

/// A `.proto` file that the contract was read from, for gRPC server reflection.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its name, as in imports.
    pub name: String,
    /// The files that it imports.
    pub imports: Vec<String>,
    /// Full names of the messages, enumerations, services, methods and extensions in it.
    pub symbols: Vec<String>,
    /// Its extensions: the full name of the extended message, and the field number.
    pub extensions: Vec<(String, u32)>,
    /// A `google.protobuf.FileDescriptorProto`.
    pub descriptor: Bytes,
}

/// Records whose values have a special representation (the well-known types of ProtoJSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WellKnownType {
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
    /// `google.protobuf.StringValue` and the other wrappers: the value, or null.
    Wrapper,
}

/// A record.
#[derive(Debug)]
pub struct RecordType {
    /// The full name, such as `shop.v1.Order`.
    pub name: ByteString,
    /// In the order of the declaration; extensions last.
    pub fields: Vec<Field>,
    /// Groups of fields of which at most one is set.
    pub variants: Vec<Variants>,
    /// Its special representation, if it is a well-known type.
    pub well_known: Option<WellKnownType>,
    /// Its documentation in the contract.
    pub doc: String,
    /// What protobuf needs to know.
    pub(crate) protobuf: ProtobufRecord,
    pub(crate) shape: Arc<Shape>,
    pub(crate) by_name: HashMap<ByteString, u16>,
    pub(crate) required: Vec<u16>,
}

/// A record in protobuf.
#[derive(Debug, Default)]
pub(crate) struct ProtobufRecord {
    /// It has the encoding of `option message_set_wire_format`.
    pub(crate) is_message_set: bool,
    /// It is the entry of a map.
    pub(crate) is_map_entry: bool,
    /// Field indices by number: a table for small numbers, a map for the others.
    pub(crate) by_number: Vec<u16>,
    pub(crate) by_large_number: HashMap<u32, u16>,
}

/// A group of fields of which at most one is set: alternatives with different content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variants {
    /// Its name; in protobuf, that of the `oneof`.
    pub name: ByteString,
    /// What determines which of them is set.
    pub tag: VariantTag,
}

/// What determines which variant is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariantTag {
    /// The presence of its field (`oneof` of protobuf, `choice` of XML Schema, unions of Avro).
    Presence,
    /// The value of another field, by name (`discriminator` of OpenAPI).
    Field(ByteString),
}

/// An enumeration.
#[derive(Debug)]
pub struct EnumType {
    /// The full name.
    pub name: ByteString,
    /// Names and numbers in the order of the declaration; several names may have one number.
    pub values: Vec<(ByteString, i32)>,
    /// Numbers without a name are invalid.
    pub closed: bool,
    /// Its documentation in the contract.
    pub doc: String,
    /// It is `google.protobuf.NullValue`, which is null in JSON.
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
    /// Its documentation in the contract.
    pub doc: String,
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// Its name.
    pub name: ByteString,
    /// Its request.
    pub input: RecordId,
    /// Its reply.
    pub output: RecordId,
    /// The request is a stream.
    pub client_streaming: bool,
    /// The reply is a stream.
    pub server_streaming: bool,
    /// Executing it twice has the effect of executing it once.
    pub idempotent: bool,
    /// Its documentation in the contract.
    pub doc: String,
    /// How `google.api.http` binds it to HTTP.
    pub http: Vec<HttpRule>,
}

/// A binding of `google.api.http` (`google/api/http.proto`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRule {
    /// `GET`, `POST`, or another method.
    pub method: String,
    /// The path template, as written.
    pub path: String,
    /// The field that is the request body: `*` for all fields that the path does not bind, empty for no body.
    pub body: String,
    /// The field of the reply that is the response body; empty for the whole reply.
    pub response_body: String,
}

impl Contract {
    /// Finds a record by its full name.
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

    /// Finds a service by its full name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Finds a method by `pkg.Service/Method`.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<(&Service, &Method)> {
        let (service, method) = path.split_once('/')?;
        let service = self.service(service)?;
        let method = service.methods.iter().find(|other| other.name == method)?;
        Some((service, method))
    }

    /// The `.proto` files that it was read from, each after its imports.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }
}

/// The index of an unknown field.
pub(crate) const NO_FIELD: u16 = u16::MAX;

impl RecordType {
    /// Finds a field by its number.
    #[must_use]
    pub fn field_by_number(&self, number: u32) -> Option<&Field> {
        let index = match self.protobuf.by_number.get(number as usize) {
            Some(index) => *index,
            None => *self.protobuf.by_large_number.get(&number)?,
        };
        self.fields.get(usize::from(index))
    }

    /// Finds a field by its name in the contract or in JSON.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.by_name.get(name).map(|index| &self.fields[usize::from(*index)])
    }

    /// The names of its fields in the contract.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }
}

impl EnumType {
    /// The first name of a number.
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
