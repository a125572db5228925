//! Shows a contract to people and editors: as outline, `.proto` file and JSON Schema.

mod json_schema;
mod outline;
mod proto;

pub use json_schema::json_schema;
pub use outline::outline;
pub use proto::proto;

use crate::model::{Cardinality, Contract, Field, Kind, RecordType};

/// The records that a contract declares itself, without well-known types and map entries.
fn own_records(contract: &Contract) -> impl Iterator<Item = &RecordType> {
    contract.records().iter().filter(|record| !record.protobuf.is_map_entry && is_own(&record.name))
}

/// Whether a name belongs to the contract, not to protobuf or the HTTP annotations.
fn is_own(name: &str) -> bool {
    !name.starts_with("google.protobuf.") && !name.starts_with("google.api.")
}

/// The type of a field's values, as in `.proto` files.
fn type_name(contract: &Contract, field: &Field) -> String {
    match field.kind {
        Kind::Scalar(scalar) => field.protobuf.encoding.name().unwrap_or(scalar.name()).to_owned(),
        Kind::Enum(id) => contract.enumeration(id).name.to_string(),
        Kind::Record(id) => contract.record(id).name.to_string(),
    }
}

/// The type of a field, as in `.proto` files.
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
