//! Builds a value.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use crossdock_message::{ByteString, Decimal, Limits, Record, Shape, Value};

use super::error::{Outcome, Problem, fail};
use super::json_sink::any_type;
use super::wire_source::{Input, WireSource};
use super::{ANY_MAX, BytesRef, Leaf, Position, Sink, Slot, TextRef};
use crate::model::{Contract, Field, Kind, RecordType};

/// The field of an `Any` of an unknown or mismatched type: its payload as received.
pub(super) const RAW_PAYLOAD: &str = "@value";
/// The field of an `Any` with its type URL.
pub(super) const TYPE: &str = "@type";
/// The field of an `Any` of a well-known type with its payload.
pub(super) const VALUE: &str = "value";

/// Builds one value.
pub(crate) struct ValueSink<'c> {
    contract: &'c Contract,
    limits: &'c Limits,
    any_left: usize,
    open: Vec<Open>,
    done: Option<Value>,
}

enum Open {
    /// `first_unknown` shares the only run of unknown fields; several are copied to `unknown`.
    Record {
        shape: Arc<Shape>,
        fields: Vec<(ByteString, Value)>,
        unknown: BytesMut,
        first_unknown: Bytes,
    },
    List(Vec<Value>),
    Map {
        entries: Vec<(ByteString, Value)>,
        key: ByteString,
    },
}

impl<'c> ValueSink<'c> {
    pub(crate) fn new(contract: &'c Contract, limits: &'c Limits) -> Self {
        Self { contract, limits, any_left: ANY_MAX, open: Vec::new(), done: None }
    }

    /// The finished value.
    pub(crate) fn finish(self) -> Value {
        self.done.unwrap_or(Value::Null)
    }

    fn put(&mut self, slot: Slot<'_>, value: Value) {
        match self.open.last_mut() {
            None => self.done = Some(value),
            Some(Open::Record { fields, .. }) => fields.push((slot.field.name.clone(), value)),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Map { entries, key }) => entries.push((std::mem::take(key), value)),
        }
    }

    fn value(&mut self, kind: Kind, leaf: Leaf<'_>) -> Outcome<Value> {
        Ok(match leaf {
            Leaf::Bool(truth) => Value::Bool(truth),
            Leaf::Int(number) => Value::Int(number),
            Leaf::UInt(number) => Value::from(number),
            // Never null: the text of a leaf is a valid number.
            Leaf::Number(text) => match text.parse::<i64>() {
                Ok(number) => Value::Int(number),
                Err(_) => Decimal::new(text).map_or(Value::Null, Value::Decimal),
            },
            Leaf::Null => Value::Null,
            Leaf::Float(number) => Value::F32(number),
            Leaf::Double(number) => Value::F64(number),
            Leaf::Text(text) => Value::Text(text.shared()),
            Leaf::Bytes(bytes) => Value::Bytes(bytes.shared()),
            Leaf::Enum(number) => match kind {
                Kind::Enum(id) if number == 0 && self.contract.enumeration(id).null => Value::Null,
                Kind::Enum(id) => match self.contract.enumeration(id).name_of(number) {
                    Some(name) => Value::Text(name.clone()),
                    None => Value::Int(i64::from(number)),
                },
                _ => Value::Int(i64::from(number)),
            },
            Leaf::Time(time) => Value::Time(time),
            Leaf::Duration(span) => Value::Duration(span),
            Leaf::Mask(paths) => {
                let paths = paths.iter().cloned().map(Value::Text).collect();
                Value::Record(Record::from_unique(vec![("paths".into(), Value::List(paths))]))
            }
            Leaf::Dynamic(value) => value.clone(),
            Leaf::Any { url, payload, depth_left } => return self.any(url, payload, depth_left),
        })
    }

    /// Decodes the payload if its type is known, as ProtoJSON does.
    fn any(&mut self, url: TextRef<'_>, payload: BytesRef<'_>, depth_left: usize) -> Outcome<Value> {
        if url.text.is_empty() && payload.bytes.is_empty() {
            return Ok(Value::Record(Record::new()));
        }
        let mut fields = vec![(ByteString::from_static(TYPE), Value::Text(url.shared()))];
        let Some(id) = any_type(self.contract, url.text) else {
            fields.push((ByteString::from_static(RAW_PAYLOAD), Value::Bytes(payload.shared())));
            return Ok(Value::Record(Record::from_unique(fields)));
        };
        let Some(any_left) = self.any_left.checked_sub(1) else { return fail(Problem::AnyDepth(ANY_MAX)) };
        let owner = payload.shared();
        let mut inner = ValueSink { any_left, ..ValueSink::new(self.contract, self.limits) };
        let mut source = WireSource::new(self.contract, &mut inner, self.limits);
        if let Err(failure) = source.document(id, Input { owner: &owner, bytes: &owner }, depth_left) {
            return match failure.problem {
                Problem::Nodes(_) | Problem::Depth(_) | Problem::AnyDepth(_) => Err(failure),
                // Steps that do not use the payload must not fail because of it, so it is kept as received.
                _ => {
                    fields.push((ByteString::from_static(RAW_PAYLOAD), Value::Bytes(owner)));
                    Ok(Value::Record(Record::from_unique(fields)))
                }
            };
        }
        let value = inner.finish();
        match value {
            Value::Record(record) if self.contract.record(id).well_known.is_none() => {
                fields.extend(record.iter().map(|(name, value)| (name.clone(), value.clone())));
                let unknown = record.unknown().cloned().unwrap_or_default();
                let shape = Arc::clone(&self.contract.record(id).shape);
                return Ok(Value::Record(Record::with_shape(shape, fields, unknown)));
            }
            other => fields.push((ByteString::from_static(VALUE), other)),
        }
        Ok(Value::Record(Record::from_unique(fields)))
    }
}

impl Sink for ValueSink<'_> {
    type Mark = ();

    fn leaf(&mut self, slot: Slot<'_>, leaf: Leaf<'_>) -> Outcome<()> {
        let value = self.value(slot.kind(), leaf)?;
        if slot.position == Position::Key {
            if let Some(Open::Map { key, .. }) = self.open.last_mut() {
                *key = value.scalar_text().unwrap_or_default();
            }
            return Ok(());
        }
        self.put(slot, value);
        Ok(())
    }

    fn wrapped(&mut self, slot: Slot<'_>, inner: &Field, leaf: Leaf<'_>) -> Outcome<()> {
        let value = self.value(inner.kind, leaf)?;
        self.put(slot, value);
        Ok(())
    }

    fn begin_record(&mut self, _: Slot<'_>, record: &RecordType) -> Outcome<()> {
        let shape = Arc::clone(&record.shape);
        let (unknown, first_unknown) = (BytesMut::new(), Bytes::new());
        self.open.push(Open::Record { shape, fields: Vec::new(), unknown, first_unknown });
        Ok(())
    }

    fn end_record(&mut self, slot: Slot<'_>, (): ()) -> Outcome<()> {
        if let Some(Open::Record { shape, fields, unknown, first_unknown }) = self.open.pop() {
            let unknown = if unknown.is_empty() { first_unknown } else { unknown.freeze() };
            self.put(slot, Value::Record(Record::with_shape(shape, fields, unknown)));
        }
        Ok(())
    }

    fn begin_list(&mut self, _: &Field) -> Outcome<()> {
        self.open.push(Open::List(Vec::new()));
        Ok(())
    }

    fn end_list(&mut self, field: &Field, (): ()) -> Outcome<()> {
        if let Some(Open::List(items)) = self.open.pop() {
            self.put(Slot::new(field, Position::Single), Value::List(items));
        }
        Ok(())
    }

    fn begin_map(&mut self, _: &Field) -> Outcome<()> {
        self.open.push(Open::Map { entries: Vec::new(), key: ByteString::new() });
        Ok(())
    }

    fn end_map(&mut self, field: &Field, (): ()) -> Outcome<()> {
        if let Some(Open::Map { entries, .. }) = self.open.pop() {
            self.put(Slot::new(field, Position::Single), Value::Record(Record::from_unique(entries)));
        }
        Ok(())
    }

    fn begin_entry(&mut self, _: &Field) -> Outcome<()> {
        Ok(())
    }

    fn end_entry(&mut self, _: &Field, (): ()) -> Outcome<()> {
        Ok(())
    }

    fn unknown(&mut self, new: BytesRef<'_>) {
        let Some(Open::Record { unknown, first_unknown, .. }) = self.open.last_mut() else { return };
        if unknown.is_empty() && first_unknown.is_empty() {
            *first_unknown = new.shared();
            return;
        }
        if unknown.is_empty() {
            unknown.extend_from_slice(first_unknown);
        }
        unknown.extend_from_slice(new.bytes);
    }
}
