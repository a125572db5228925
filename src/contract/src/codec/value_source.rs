//! Reads a value.

use bytes::Bytes;
use crossdock_message::{ByteString, Record, Time, TimeSpan, Value};

use super::error::{Outcome, Problem, fail};
use super::json_sink::any_type;
use super::json_source::{mask_paths, unknown_field, unknown_name, wrong_text};
use super::numbers::{leaf_of_text, leaf_of_value};
use super::value_sink::{RAW_PAYLOAD, TYPE, VALUE};
use super::wire_sink::WireSink;
use super::{ANY_MAX, BytesRef, DEPTH_MAX, Leaf, Position, Sink, Slot, TextRef};
use crate::model::{Cardinality, Contract, EnumType, Field, Kind, RecordId, RecordType, Scalar, WellKnownType};

/// Drives a sink with a value. Fields may have their names of the contract or of JSON.
pub(crate) struct ValueSource<'c, 's, S> {
    contract: &'c Contract,
    sink: &'s mut S,
    any_left: usize,
}

impl<'c, 's, S: Sink> ValueSource<'c, 's, S> {
    pub(crate) fn new(contract: &'c Contract, sink: &'s mut S) -> Self {
        Self { contract, sink, any_left: ANY_MAX }
    }

    /// Reads a whole document.
    pub(crate) fn document(&mut self, id: RecordId, value: &Value) -> Outcome<()> {
        let root = Field::of_document(id);
        self.record(Slot::new(&root, Position::Root), id, value, DEPTH_MAX)
    }

    fn record(&mut self, slot: Slot<'_>, id: RecordId, value: &Value, depth_left: usize) -> Outcome<()> {
        let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(DEPTH_MAX)) };
        let record = self.contract.record(id);
        if record.well_known.is_some() {
            return self.well_known(slot, record, value, depth_left);
        }
        let Value::Record(fields) = value else { return wrong_type(&format!("a record ({})", record.name), value) };
        let mark = self.sink.begin_record(slot, record)?;
        self.fields(record, fields, depth_left)?;
        self.sink.end_record(slot, mark)
    }

    fn fields(&mut self, record: &RecordType, fields: &Record, depth_left: usize) -> Outcome<()> {
        let mut given: Vec<u16> = Vec::with_capacity(fields.len());
        let mut oneofs: Vec<u16> = Vec::new();
        for (name, value) in fields.iter() {
            let Some(field) = record.field(name) else {
                if &**name == TYPE {
                    continue;
                }
                return fail(unknown_field(record, name));
            };
            if given.contains(&field.index) {
                return fail(Problem::DuplicateField(field.name.to_string()));
            }
            if *value == Value::Null && !self.accepts_null(field) {
                continue;
            }
            given.push(field.index);
            if let Some(oneof) = field.variant_of {
                if oneofs.contains(&oneof) {
                    return fail(Problem::OneofConflict(record.variants[usize::from(oneof)].name.to_string()));
                }
                oneofs.push(oneof);
            }
            self.field(field, value, depth_left).map_err(|failure| failure.inside(&field.name))?;
        }
        for index in &record.required {
            if !given.contains(index) {
                return fail(Problem::MissingField(record.fields[usize::from(*index)].name.to_string()));
            }
        }
        if let Some(unknown) = fields.unknown()
            && fields.shape().is_some_and(|shape| shape.name == record.name)
        {
            self.sink.unknown(BytesRef { bytes: unknown, owner: Some(unknown) });
        }
        Ok(())
    }

    fn accepts_null(&self, field: &Field) -> bool {
        !field.is_collection() && self.is_nullable(field)
    }

    /// Whether null is a value of the field or of its items.
    fn is_nullable(&self, field: &Field) -> bool {
        field.nullable
            || match field.kind {
                Kind::Record(id) => self.contract.record(id).well_known == Some(WellKnownType::Value),
                Kind::Enum(id) => self.contract.enumeration(id).null,
                Kind::Scalar(_) => false,
            }
    }

    fn field(&mut self, field: &Field, value: &Value, depth_left: usize) -> Outcome<()> {
        match field.cardinality {
            Cardinality::Repeated => {
                let Value::List(items) = value else { return wrong_type("a list", value) };
                let mark = self.sink.begin_list(field)?;
                for (index, item) in items.iter().enumerate() {
                    self.item(Slot::new(field, Position::Item), item, depth_left)
                        .map_err(|failure| failure.at_index(index))?;
                }
                self.sink.end_list(field, mark)
            }
            Cardinality::Map(_) => {
                let Value::Record(entries) = value else { return wrong_type("a map", value) };
                let mark = self.sink.begin_map(field)?;
                for (key, value) in entries.iter() {
                    self.entry(field, key, value, depth_left).map_err(|failure| failure.inside(key))?;
                }
                self.sink.end_map(field, mark)
            }
            _ => self.single(Slot::new(field, Position::Single), value, depth_left),
        }
    }

    fn item(&mut self, slot: Slot<'_>, value: &Value, depth_left: usize) -> Outcome<()> {
        if *value == Value::Null && !self.is_nullable(slot.field) {
            return fail(Problem::NullItem);
        }
        self.single(slot, value, depth_left)
    }

    fn entry(&mut self, field: &Field, key: &ByteString, value: &Value, depth_left: usize) -> Outcome<()> {
        let mark = self.sink.begin_entry(field)?;
        let mut scratch = Vec::new();
        let text = TextRef { text: key, owner: Some(key.as_bytes()) };
        let leaf = leaf_of_text(field.map_key().unwrap_or(Scalar::Text), text, &mut scratch)?;
        self.sink.leaf(Slot::new(field, Position::Key), leaf)?;
        self.item(Slot::new(field, Position::Value), value, depth_left)?;
        self.sink.end_entry(field, mark)
    }

    fn single(&mut self, slot: Slot<'_>, value: &Value, depth_left: usize) -> Outcome<()> {
        if *value == Value::Null && slot.is_nullable() {
            return self.sink.leaf(slot, Leaf::Null);
        }
        match slot.kind() {
            Kind::Record(id) => self.record(slot, id, value, depth_left),
            Kind::Enum(id) => {
                let number = enum_value(self.contract.enumeration(id), value)?;
                self.sink.leaf(slot, Leaf::Enum(number))
            }
            Kind::Scalar(scalar) => {
                let mut scratch = Vec::new();
                let leaf = leaf_of_value(scalar, value, &mut scratch)?;
                slot.check(&leaf)?;
                self.sink.leaf(slot, leaf)
            }
        }
    }

    fn well_known(&mut self, slot: Slot<'_>, record: &RecordType, value: &Value, depth_left: usize) -> Outcome<()> {
        let Some(well_known) = record.well_known else { return fail(Problem::Tag) };
        match (well_known, value) {
            (WellKnownType::Time, Value::Time(time)) => self.sink.leaf(slot, Leaf::Time(*time)),
            (WellKnownType::Time, Value::Text(text)) => match Time::parse(text) {
                Some(time) => self.sink.leaf(slot, Leaf::Time(time)),
                None => wrong_text("a timestamp such as 2026-01-31T12:00:00Z"),
            },
            (WellKnownType::Time, other) => wrong_type("a timestamp such as 2026-01-31T12:00:00Z", other),
            (WellKnownType::Duration, Value::Duration(span)) => self.sink.leaf(slot, Leaf::Duration(*span)),
            (WellKnownType::Duration, Value::Text(text)) => match TimeSpan::parse(text) {
                Some(span) => self.sink.leaf(slot, Leaf::Duration(span)),
                None => wrong_text("a duration such as 1.5s"),
            },
            (WellKnownType::Duration, other) => wrong_type("a duration such as 1.5s", other),
            (WellKnownType::FieldMask, value) => {
                let paths = field_mask(value)?;
                self.sink.leaf(slot, Leaf::Mask(&paths))
            }
            (WellKnownType::Struct | WellKnownType::Value | WellKnownType::List, value) => {
                self.sink.leaf(slot, Leaf::Dynamic(value))
            }
            (WellKnownType::Wrapper, value) => {
                let Some(inner) = record.fields.first() else { return fail(Problem::Tag) };
                let Kind::Scalar(scalar) = inner.kind else { return fail(Problem::Tag) };
                let mut scratch = Vec::new();
                let leaf = leaf_of_value(scalar, value, &mut scratch)?;
                self.sink.wrapped(slot, inner, leaf)
            }
            (WellKnownType::Any, Value::Record(record)) => self.any(slot, record, depth_left),
            (WellKnownType::Any, other) => wrong_type("a record with `@type`", other),
        }
    }

    fn any(&mut self, slot: Slot<'_>, record: &Record, depth_left: usize) -> Outcome<()> {
        let Some(Value::Text(url)) = record.get(TYPE) else {
            if record.is_empty() {
                let none = TextRef { text: "", owner: None };
                let payload = BytesRef { bytes: &[], owner: None };
                return self.sink.leaf(slot, Leaf::Any { url: none, payload, depth_left });
            }
            return fail(Problem::MalformedAny("an `Any` must have its type URL in `@type`"));
        };
        let url_ref = TextRef { text: url, owner: Some(url.as_bytes()) };
        if let Some(Value::Bytes(raw)) = record.get(RAW_PAYLOAD) {
            let payload = BytesRef { bytes: raw, owner: Some(raw) };
            return self.sink.leaf(slot, Leaf::Any { url: url_ref, payload, depth_left });
        }
        let Some(id) = any_type(self.contract, url) else {
            return fail(Problem::AnyType(url.chars().take(256).collect()));
        };
        // Raw payloads do not count, just as in the other direction.
        let Some(any_left) = self.any_left.checked_sub(1) else { return fail(Problem::AnyDepth(ANY_MAX)) };
        let mut payload = Vec::new();
        let mut sink = WireSink { contract: self.contract, out: &mut payload };
        let mut inner = ValueSource { contract: self.contract, sink: &mut sink, any_left };
        let inner_type = self.contract.record(id);
        if inner_type.well_known.is_none() {
            let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(DEPTH_MAX)) };
            inner.fields(inner_type, record, depth_left)?;
        } else {
            let Some(value) = record.get(VALUE) else {
                return fail(Problem::MalformedAny("an `Any` of this type must have `value`"));
            };
            let root = Field::of_document(id);
            inner.record(Slot::new(&root, Position::Root), id, value, depth_left)?;
        }
        let owner = Bytes::from(payload);
        let payload = BytesRef { bytes: &owner, owner: Some(&owner) };
        self.sink.leaf(slot, Leaf::Any { url: url_ref, payload, depth_left })
    }
}

fn wrong_type<T>(expected: &str, found: &Value) -> Outcome<T> {
    fail(Problem::WrongType { expected: expected.to_owned(), found: found.kind() })
}

fn enum_value(enumeration: &EnumType, value: &Value) -> Outcome<i32> {
    match value {
        Value::Text(name) => match enumeration.number_of(name) {
            Some(number) => Ok(number),
            None => fail(unknown_name(enumeration, name)),
        },
        Value::Int(number) => match i32::try_from(*number) {
            Ok(number) if !enumeration.closed || enumeration.name_of(number).is_some() => Ok(number),
            _ => fail(unknown_name(enumeration, itoa::Buffer::new().format(*number))),
        },
        Value::Null if enumeration.null => Ok(0),
        other => wrong_type(&format!("a value of `{}`", enumeration.name), other),
    }
}

/// The paths of a field mask: of a record with `paths`, or of a string of ProtoJSON.
fn field_mask(value: &Value) -> Outcome<Vec<ByteString>> {
    match value {
        Value::Text(text) => mask_paths(text),
        Value::Record(record) => match record.get("paths") {
            None => Ok(Vec::new()),
            Some(Value::List(items)) => items
                .iter()
                .map(|item| match item {
                    Value::Text(path) => Ok(path.clone()),
                    other => wrong_type("a field path", other),
                })
                .collect(),
            Some(other) => wrong_type("a list of field paths", other),
        },
        other => wrong_type("a record with `paths`", other),
    }
}
