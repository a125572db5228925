//! A contract as JSON Schema: what ProtoJSON takes and gives.

use serde_json::{Map, Value, json};

use super::own_records;
use crate::model::{Arity, Contract, Field, Kind, RecordType, Scalar, Special};

/// The JSON Schema (draft 2020-12) of every record, below `$defs` by full name.
#[must_use]
pub fn json_schema(contract: &Contract) -> Value {
    let records = own_records(contract).map(|record| (record.name.to_string(), of_record(contract, record)));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": records.collect::<Map<_, _>>(),
    })
}

fn of_record(contract: &Contract, record: &RecordType) -> Value {
    let mut properties = Map::new();
    for field in &record.fields {
        let mut schema = of_field(contract, field);
        if let (Value::Object(schema), false) = (&mut schema, field.doc.is_empty()) {
            schema.insert("description".into(), json!(field.doc));
        }
        properties.insert(field.json_name.to_string(), schema);
    }
    let required: Vec<&str> =
        record.fields.iter().filter(|field| field.arity == Arity::Required).map(|field| &*field.json_name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if !record.doc.is_empty() {
        schema["description"] = json!(record.doc);
    }
    schema
}

fn of_field(contract: &Contract, field: &Field) -> Value {
    let one = of_kind(contract, field.kind);
    match field.arity {
        Arity::Many => json!({ "type": "array", "items": one }),
        Arity::Map => json!({ "type": "object", "additionalProperties": one }),
        _ => one,
    }
}

fn of_kind(contract: &Contract, kind: Kind) -> Value {
    match kind {
        Kind::Scalar(scalar) => of_scalar(scalar),
        Kind::Enum(id) => {
            let names: Vec<&str> = contract.enumeration(id).values.iter().map(|(name, _)| &**name).collect();
            json!({ "anyOf": [{ "enum": names }, { "type": "integer" }] })
        }
        Kind::Record(id) => {
            let record = contract.record(id);
            match record.special {
                Special::None if record.name.starts_with("google.protobuf.") => of_record(contract, record),
                Special::None => json!({ "$ref": format!("#/$defs/{}", record.name) }),
                Special::Any => json!({ "type": "object", "properties": { "@type": { "type": "string" } } }),
                Special::Time => json!({ "type": "string", "format": "date-time" }),
                Special::Duration => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" }),
                Special::FieldMask => json!({ "type": "string" }),
                Special::Struct => json!({ "type": "object" }),
                Special::Value => json!({}),
                Special::List => json!({ "type": "array" }),
                Special::Wrapper => match record.fields.first().map(|inner| inner.kind) {
                    Some(kind) => json!({ "anyOf": [of_kind(contract, kind), { "type": "null" }] }),
                    None => json!({}),
                },
            }
        }
    }
}

fn of_scalar(scalar: Scalar) -> Value {
    let number_or_text =
        |pattern: &str| json!({ "anyOf": [{ "type": "integer" }, { "type": "string", "pattern": pattern }] });
    match scalar {
        Scalar::Bool => json!({ "type": "boolean" }),
        Scalar::String => json!({ "type": "string" }),
        Scalar::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Scalar::Double | Scalar::Float => {
            json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
        }
        Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 => number_or_text("^-?[0-9]+$"),
        Scalar::Uint64 | Scalar::Fixed64 => number_or_text("^[0-9]+$"),
        Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 => {
            json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX })
        }
        Scalar::Uint32 | Scalar::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
    }
}
