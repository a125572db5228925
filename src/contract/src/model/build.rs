//! Builds a contract: lookup tables, shapes, and well-known types by name.

use std::collections::HashMap;
use std::sync::Arc;

use crossdock_message::{ByteString, Record, Shape, Value, json};

use super::{
    Cardinality, Contract, EnumId, EnumType, Field, Kind, NO_FIELD, ProtobufRecord, RecordId, RecordType, Scalar,
    Service, SourceFile, WellKnownType,
};
use crate::codec::wire_type;

/// Field numbers below this are looked up in a table.
const TABLE_LEN_MAX: u32 = 512;

/// A contract under construction.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) records: Vec<RecordType>,
    pub(crate) enums: Vec<EnumType>,
    pub(crate) services: Vec<Service>,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) names: HashMap<ByteString, RecordId>,
    pub(crate) enum_names: HashMap<ByteString, EnumId>,
}

impl Builder {
    /// Declares a record without fields, so that others can refer to it.
    pub(crate) fn declare_record(&mut self, name: ByteString, doc: String) -> RecordId {
        let id = RecordId(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        self.records.push(RecordType {
            well_known: well_known(&name),
            shape: Arc::new(Shape { name: name.clone(), defaults: Vec::new() }),
            name: name.clone(),
            fields: Vec::new(),
            variants: Vec::new(),
            doc,
            protobuf: ProtobufRecord::default(),
            by_name: HashMap::new(),
            required: Vec::new(),
        });
        self.names.insert(name, id);
        id
    }

    pub(crate) fn add_enum(&mut self, name: ByteString, values: Vec<(ByteString, i32)>, closed: bool, doc: String) {
        let id = EnumId(u32::try_from(self.enums.len()).unwrap_or(u32::MAX));
        let by_name = values.iter().cloned().collect();
        let mut by_number = HashMap::new();
        for (index, (_, number)) in (0..).zip(&values) {
            // Of several names, the first is written.
            by_number.entry(*number).or_insert(index);
        }
        let null = name == "google.protobuf.NullValue";
        self.enum_names.insert(name.clone(), id);
        self.enums.push(EnumType { name, values, closed, doc, null, by_name, by_number });
    }

    pub(crate) fn record_mut(&mut self, id: RecordId) -> &mut RecordType {
        &mut self.records[id.0 as usize]
    }

    /// Builds the tables. All references must be resolved.
    pub(crate) fn finish(mut self) -> Contract {
        for index in 0..self.records.len() {
            self.finish_record(index);
        }
        Contract {
            records: self.records,
            enums: self.enums,
            services: self.services,
            names: self.names,
            files: self.files,
        }
    }

    fn finish_record(&mut self, index: usize) {
        let mut fields = std::mem::take(&mut self.records[index].fields);
        let defaults = fields.iter().filter_map(|field| Some((field.name.clone(), self.default_of(field)?))).collect();
        let record = &mut self.records[index];
        record.shape = Arc::new(Shape { name: record.name.clone(), defaults });
        let largest = fields.iter().map(|field| field.protobuf.number).filter(|number| *number < TABLE_LEN_MAX).max();
        record.protobuf.by_number = vec![NO_FIELD; largest.map_or(0, |number| number as usize + 1)];
        for (index, field) in (0..NO_FIELD).zip(&mut fields) {
            field.index = index;
            let mut key = Vec::with_capacity(field.json.name.len() + 3);
            json::append_string(&field.json.name, &mut key);
            key.push(b':');
            field.json.key = key.into_boxed_slice();
            field.protobuf.tag = u64::from(field.protobuf.number) << 3 | u64::from(wire_type(field));
            match record.protobuf.by_number.get_mut(field.protobuf.number as usize) {
                Some(slot) => *slot = index,
                None => {
                    record.protobuf.by_large_number.insert(field.protobuf.number, index);
                }
            }
            record.by_name.entry(field.name.clone()).or_insert(index);
            if field.cardinality == Cardinality::Required {
                record.required.push(index);
            }
        }
        for (index, field) in (0..NO_FIELD).zip(&fields) {
            // If the JSON name of one field is the name of another, the JSON name wins.
            record.by_name.insert(field.json.name.clone(), index);
        }
        record.fields = fields;
    }

    /// The value of an absent field; `None` if absence differs from every value.
    fn default_of(&self, field: &Field) -> Option<Value> {
        match field.cardinality {
            Cardinality::Required | Cardinality::Optional => return None,
            Cardinality::Repeated => return Some(Value::List(Vec::new())),
            Cardinality::Map(_) => return Some(Value::Record(Record::new())),
            Cardinality::Implicit => {}
        }
        Some(match field.kind {
            Kind::Scalar(Scalar::Bool) => Value::Bool(false),
            Kind::Scalar(Scalar::Text | Scalar::Lexical) => Value::Text(ByteString::new()),
            Kind::Scalar(Scalar::Bytes) => Value::Bytes(bytes::Bytes::new()),
            Kind::Scalar(Scalar::Float) => Value::F32(0.0),
            Kind::Scalar(Scalar::Double) => Value::F64(0.0),
            Kind::Scalar(_) => Value::Int(0),
            Kind::Enum(id) => {
                let zero = self.enums[id.0 as usize].name_of(0);
                zero.map_or(Value::Int(0), |name| Value::Text(name.clone()))
            }
            Kind::Record(_) => return None,
        })
    }
}

fn well_known(name: &str) -> Option<WellKnownType> {
    Some(match name {
        "google.protobuf.Any" => WellKnownType::Any,
        "google.protobuf.Timestamp" => WellKnownType::Time,
        "google.protobuf.Duration" => WellKnownType::Duration,
        "google.protobuf.FieldMask" => WellKnownType::FieldMask,
        "google.protobuf.Struct" => WellKnownType::Struct,
        "google.protobuf.Value" => WellKnownType::Value,
        "google.protobuf.ListValue" => WellKnownType::List,
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => WellKnownType::Wrapper,
        _ => return None,
    })
}
