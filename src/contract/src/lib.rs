//! Contracts: read into one type model, with codecs compiled from it.
//!
//! ```text
//! descriptor set ─▶ Contract { records, enumerations, services } ─▶ TypeRef: bytes ⇄ Value, bytes ⇄ bytes
//! ```
//!
//! Types come from the contract and are never guessed: a number that does not fit its field is rejected, a list of one item is a list,
//! and a name that is not in the contract is an error with its position. Nothing here performs I/O: sources of files are passed in.
//!
//! | module | contents |
//! | --- | --- |
//! | `model` | the type model, neutral of the contract language |
//! | `proto` | reads descriptor sets of protobuf into the model; `crossdock-proto` compiles `.proto` files into them |
//! | `codec` | converts between protobuf, ProtoJSON and values |
//! | [`AvroType`] | a type of Apache Avro as the body of a message |
//! | [`TypeRef`] | one type of a contract, with its codecs |
//! | [`Typed`] | a type as the body of a message |
//! | [`Contracts`] | all contracts of a process |
//! | [`show`] | shows a contract as outline, `.proto` text and JSON Schema |

mod avro;
mod codec;
mod model;
mod proto;
mod set;
pub mod show;
mod type_ref;
mod typed;

pub use avro::AvroType;
pub use codec::{CodecError, Problem};
pub use model::{
    Bound, Cardinality, Contract, Encoding, EnumId, EnumType, FacetViolation, Facets, Field, HttpRule, JsonField,
    JsonNumbers, Kind, Matches, Method, Pattern, ProtobufField, RecordId, RecordType, Scalar, Service, SourceFile,
    VariantTag, Variants, WellKnownType, XmlField, XmlNode,
};
pub use proto::{ProtoError, SourceRange, from_descriptor_set};
pub use set::Contracts;
pub use type_ref::{TypeRef, UnknownFields};
pub use typed::{CallType, FieldPath, Param, Typed};

#[cfg(test)]
mod tests;
