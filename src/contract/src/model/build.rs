//! Putting a contract together: look-up tables, shapes, and what follows from names.

use std::collections::HashMap;
use std::sync::Arc;

use crossdock_message::{ByteString, Record, Shape, Value, json};

use super::{
    Arity, Contract, EnumId, EnumType, Field, Kind, NO_FIELD, RecordId, RecordType, Scalar, Service, SourceFile,
    Special,
};
use crate::codec::wire_type;

/// Numbers below this are found in a table.
const TABLE_LEN_MAX: u32 = 512;

/// A contract that is being read.
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
    /// Makes room for a record, so that others can refer to it.
    pub(crate) fn declare_record(&mut self, name: ByteString, doc: String) -> RecordId {
        let id = RecordId(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        self.records.push(RecordType {
            special: special(&name),
            shape: Arc::new(Shape { name: name.clone(), defaults: Vec::new() }),
            name: name.clone(),
            fields: Vec::new(),
            oneofs: Vec::new(),
            doc,
            message_set: false,
            map_entry: false,
            by_number: Vec::new(),
            by_large_number: HashMap::new(),
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
            // The first name of a number is the one that is written.
            by_number.entry(*number).or_insert(index);
        }
        let null = name == "google.protobuf.NullValue";
        self.enum_names.insert(name.clone(), id);
        self.enums.push(EnumType { name, values, closed, doc, null, by_name, by_number });
    }

    pub(crate) fn record_mut(&mut self, id: RecordId) -> &mut RecordType {
        &mut self.records[id.0 as usize]
    }

    /// Makes the tables. All references were resolved before.
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
        let largest = fields.iter().map(|field| field.number).filter(|number| *number < TABLE_LEN_MAX).max();
        record.by_number = vec![NO_FIELD; largest.map_or(0, |number| number as usize + 1)];
        for (index, field) in (0..NO_FIELD).zip(&mut fields) {
            field.index = index;
            let mut key = Vec::with_capacity(field.json_name.len() + 3);
            json::append_string(&field.json_name, &mut key);
            key.push(b':');
            field.json_key = key.into_boxed_slice();
            field.tag = u64::from(field.number) << 3 | u64::from(wire_type(field));
            match record.by_number.get_mut(field.number as usize) {
                Some(slot) => *slot = index,
                None => {
                    record.by_large_number.insert(field.number, index);
                }
            }
            record.by_name.entry(field.name.clone()).or_insert(index);
            if field.arity == Arity::Required {
                record.required.push(index);
            }
        }
        for (index, field) in (0..NO_FIELD).zip(&fields) {
            // Where one field's JSON name is another's own name, JSON means the first.
            record.by_name.insert(field.json_name.clone(), index);
        }
        record.fields = fields;
    }

    /// What a field without presence stands for where it was not sent.
    fn default_of(&self, field: &Field) -> Option<Value> {
        match field.arity {
            Arity::Required | Arity::Optional => return None,
            Arity::Many => return Some(Value::List(Vec::new())),
            Arity::Map => return Some(Value::Record(Record::new())),
            Arity::Implicit => {}
        }
        Some(match field.kind {
            Kind::Scalar(Scalar::Bool) => Value::Bool(false),
            Kind::Scalar(Scalar::String) => Value::Text(ByteString::new()),
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

fn special(name: &str) -> Special {
    match name {
        "google.protobuf.Any" => Special::Any,
        "google.protobuf.Timestamp" => Special::Time,
        "google.protobuf.Duration" => Special::Duration,
        "google.protobuf.FieldMask" => Special::FieldMask,
        "google.protobuf.Struct" => Special::Struct,
        "google.protobuf.Value" => Special::Value,
        "google.protobuf.ListValue" => Special::List,
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => Special::Wrapper,
        _ => Special::None,
    }
}
