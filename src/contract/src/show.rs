//! A contract as people and editors read it: an outline, a `.proto` file, a JSON Schema.

mod json_schema;
mod outline;
mod proto;

pub use json_schema::json_schema;
pub use outline::outline;
pub use proto::proto;

use crate::model::{Cardinality, Contract, Field, Kind, RecordType};

/// The records that are a contract's own: not those that every contract may import, nor entries of maps.
fn own_records(contract: &Contract) -> impl Iterator<Item = &RecordType> {
    contract.records().iter().filter(|record| !record.protobuf.is_map_entry && is_own(&record.name))
}

/// Whether a name is of the contract, and not of protobuf or of the annotations for HTTP.
fn is_own(name: &str) -> bool {
    !name.starts_with("google.protobuf.") && !name.starts_with("google.api.")
}

/// What a field holds, as `.proto` files write it.
fn type_name(contract: &Contract, field: &Field) -> String {
    match field.kind {
        Kind::Scalar(scalar) => field.protobuf.encoding.name().unwrap_or(scalar.name()).to_owned(),
        Kind::Enum(id) => contract.enumeration(id).name.to_string(),
        Kind::Record(id) => contract.record(id).name.to_string(),
    }
}

/// A field's whole type, as `.proto` files write it.
fn field_type(contract: &Contract, field: &Field) -> String {
    let inner = type_name(contract, field);
    match field.cardinality {
        Cardinality::Map(key) => {
            format!("map<{}, {inner}>", field.protobuf.key_encoding.name().unwrap_or(key.name()))
        }
        Cardinality::Repeated => format!("repeated {inner}"),
        Cardinality::Required | Cardinality::Optional | Cardinality::Implicit => inner,
    }
}
