//! A contract as the JSON Schema of its ProtoJSON.

use serde_json::{Map, Value, json};

use super::own_records;
use crate::model::{Bound, Cardinality, Contract, Facets, Field, Kind, RecordType, Scalar, WellKnownType};

/// The JSON Schema (draft 2020-12) of every record, in `$defs` by full name.
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
        properties.insert(field.json.name.to_string(), schema);
    }
    let required: Vec<&str> = record
        .fields
        .iter()
        .filter(|field| field.cardinality == Cardinality::Required)
        .map(|field| &*field.json.name)
        .collect();
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
    let mut schema = of_kind(contract, field.kind);
    if let Some(facets) = &field.facets {
        schema = with_facets(&schema, facets);
    }
    if field.nullable {
        schema = json!({ "anyOf": [schema, { "type": "null" }] });
    }
    match field.cardinality {
        Cardinality::Repeated => json!({ "type": "array", "items": schema }),
        Cardinality::Map(_) => json!({ "type": "object", "additionalProperties": schema }),
        _ => schema,
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
            let Some(well_known) = record.well_known else {
                if record.name.starts_with("google.protobuf.") {
                    return of_record(contract, record);
                }
                return json!({ "$ref": format!("#/$defs/{}", record.name) });
            };
            match well_known {
                WellKnownType::Any => json!({ "type": "object", "properties": { "@type": { "type": "string" } } }),
                WellKnownType::Time => json!({ "type": "string", "format": "date-time" }),
                WellKnownType::Duration => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" }),
                WellKnownType::FieldMask => json!({ "type": "string" }),
                WellKnownType::Struct => json!({ "type": "object" }),
                WellKnownType::Value => json!({}),
                WellKnownType::List => json!({ "type": "array" }),
                WellKnownType::Wrapper => match record.fields.first().map(|inner| inner.kind) {
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
        Scalar::Text | Scalar::Lexical => json!({ "type": "string" }),
        Scalar::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Scalar::Double | Scalar::Float => {
            json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
        }
        Scalar::Int64 => number_or_text("^-?[0-9]+$"),
        Scalar::UInt64 => number_or_text("^[0-9]+$"),
        Scalar::Int32 => json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX }),
        Scalar::UInt32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Scalar::Integer => json!({ "type": "integer" }),
        Scalar::Decimal => json!({ "type": "number" }),
    }
}

fn with_facets(schema: &Value, facets: &Facets) -> Value {
    let mut rules = Map::new();
    let mut add = |key: &str, value: Option<Value>| rules.extend(value.map(|value| (key.to_owned(), value)));
    let number = |bound: &Bound| serde_json::from_str(bound.number.as_str()).unwrap_or(Value::Null);
    let end = |bound: &Option<Bound>, is_exclusive: bool| {
        bound.as_ref().filter(|bound| bound.is_exclusive == is_exclusive).map(number)
    };
    add("minLength", facets.length_min.map(Value::from));
    add("maxLength", facets.length_max.map(Value::from));
    add("minimum", end(&facets.min, false));
    add("exclusiveMinimum", end(&facets.min, true));
    add("maximum", end(&facets.max, false));
    add("exclusiveMaximum", end(&facets.max, true));
    add("pattern", facets.pattern.as_ref().map(|pattern| json!(pattern.source)));
    add("enum", (!facets.values.is_empty()).then(|| json!(facets.values.iter().map(|v| &**v).collect::<Vec<_>>())));
    json!({ "allOf": [schema, rules] })
}
