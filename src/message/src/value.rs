//! The typed value that all formats are read into and written from.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Decimal, Time, TimeSpan};

/// A value of a message.
///
/// Readers pick the narrowest kind that represents the text exactly, and never round: `1` is `Int`, `18446744073709551615` is `UInt`, `1.10` and
/// `-0` are `Decimal`. Text never becomes a number, nor a number text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An explicit null. A missing field is absent from its [`Record`] instead.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number that fits in an `i64`.
    Int(i64),
    /// A whole number above `i64::MAX` that fits in a `u64`. Smaller numbers are `Int`.
    UInt(u64),
    /// Any other number, as its text.
    Decimal(Decimal),
    /// A single-precision number declared by a contract. It has its own shortest text.
    F32(f32),
    /// A double-precision number, computed or declared by a contract; never read from decimal text.
    F64(f64),
    /// Unicode text.
    Text(ByteString),
    /// Bytes.
    Bytes(Bytes),
    /// A timestamp.
    Time(Time),
    /// A duration.
    Duration(TimeSpan),
    /// Values in order.
    List(Vec<Value>),
    /// Named fields in order, with unique names.
    Record(Record),
}

impl Value {
    /// The kind of value, for error messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) => "an integer",
            Self::Decimal(_) => "a decimal",
            Self::F32(_) => "a float",
            Self::F64(_) => "a double",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Time(_) => "a timestamp",
            Self::Duration(_) => "a duration",
            Self::List(_) => "a list",
            Self::Record(_) => "a record",
        }
    }

    /// The field of a record; `None` if it is absent or the value is not a record.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Record(record) => record.get(name),
            _ => None,
        }
    }

    /// The text of a scalar for a header, a path or XML: numbers with all digits, `true` and `false`. `None` for null, bytes, lists and records, for
    /// NaN and infinities, and for times out of range.
    #[must_use]
    pub fn scalar_text(&self) -> Option<ByteString> {
        match self {
            Self::Bool(true) => Some(ByteString::from_static("true")),
            Self::Bool(false) => Some(ByteString::from_static("false")),
            Self::Int(number) => Some(itoa::Buffer::new().format(*number).into()),
            Self::UInt(number) => Some(itoa::Buffer::new().format(*number).into()),
            Self::Decimal(number) => Some(number.as_str().into()),
            Self::F32(number) if number.is_finite() => Some(ryu::Buffer::new().format_finite(*number).into()),
            Self::F64(number) if number.is_finite() => Some(ryu::Buffer::new().format_finite(*number).into()),
            Self::Text(text) => Some(text.clone()),
            Self::Time(time) => time.text().map(ByteString::from),
            Self::Duration(span) => span.text().map(ByteString::from),
            Self::F32(_) | Self::F64(_) | Self::Null | Self::Bytes(_) | Self::List(_) | Self::Record(_) => None,
        }
    }
}

impl Value {
    /// The bytes that a clone copies: those of lists. Text, bytes and records are shared.
    #[must_use]
    pub fn copied_len(&self) -> usize {
        match self {
            Self::List(items) => items.len() * size_of::<Self>() + items.iter().map(Self::copied_len).sum::<usize>(),
            _ => 0,
        }
    }

    /// The approximate encoded length in bytes, without escapes. Stops counting above `max`, which limits the cost of the call.
    #[must_use]
    pub fn written_len(&self, max: usize) -> usize {
        /// A number with its punctuation.
        const SMALL_LEN: usize = 8;
        let mut len: usize = 0;
        let mut open: Vec<&Self> = vec![self];
        while let Some(value) = open.pop() {
            len = len.saturating_add(match value {
                Self::Text(text) => text.len() + SMALL_LEN / 2,
                Self::Bytes(bytes) => bytes.len() / 3 * 4 + SMALL_LEN,
                Self::Decimal(number) => number.as_str().len() + 1,
                // Each item has at least one byte.
                Self::List(items) if items.len() > max => return items.len(),
                Self::Record(record) if record.len() > max => return record.len(),
                Self::List(items) => {
                    open.extend(items);
                    2
                }
                Self::Record(record) => {
                    open.extend(record.iter().map(|(_, value)| value));
                    record.iter().map(|(name, _)| name.len() + SMALL_LEN / 2).sum::<usize>() + 2
                }
                _ => SMALL_LEN,
            });
            if len > max {
                break;
            }
        }
        len
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<ByteString> for Value {
    fn from(text: ByteString) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Self {
        Self::Record(record)
    }
}

/// What a contract defines for all records of a type: its name, and the defaults of absent fields.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// The full name of the type.
    pub name: ByteString,
    /// The defaults of fields without presence, such as the scalars of proto3.
    pub defaults: Vec<(ByteString, Value)>,
}

#[derive(Debug, Default)]
struct Fields {
    list: Vec<(ByteString, Value)>,
    shape: Option<Arc<Shape>>,
    /// Unknown fields of the contract in protobuf encoding. Boxed, because they are rare.
    unknown: Option<Box<Bytes>>,
    /// The index of each name in a long list, built on the first lookup.
    #[expect(clippy::box_collection, reason = "records are many, and this part of one is nearly never there")]
    index: OnceLock<Box<HashMap<ByteString, usize>>>,
}

/// Does not copy the index: a record is cloned to be changed.
impl Clone for Fields {
    fn clone(&self) -> Self {
        let Self { list, shape, unknown, .. } = self;
        Self { list: list.clone(), shape: shape.clone(), unknown: unknown.clone(), index: OnceLock::new() }
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list && self.shape == other.shape && self.unknown == other.unknown
    }
}

/// Minimum number of fields for an index: shorter lists are searched faster linearly.
const INDEXED_LEN_MIN: usize = 24;

impl Fields {
    fn position(&self, name: &str) -> Option<usize> {
        if self.list.len() < INDEXED_LEN_MIN {
            return self.list.iter().position(|(key, _)| key == name);
        }
        let index = self
            .index
            .get_or_init(|| Box::new(self.list.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect()));
        index.get(name).copied()
    }

    fn push(&mut self, name: ByteString, value: Value) {
        if let Some(index) = self.index.get_mut() {
            index.insert(name.clone(), self.list.len());
        }
        self.list.push((name, value));
    }
}

/// Named fields in the order in which they were read or set. Names are unique.
///
/// Lookup is linear in short records and by hash in long ones. Clones share the fields until one of them is changed (copy on write).
///
/// A record read by a contract knows its [`Shape`]. [`Record::get`] then returns the default of an absent field without presence. Everything else
/// (order, length, iteration) considers present fields only.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    fields: Arc<Fields>,
}

impl Record {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty record with room for `fields` fields.
    #[must_use]
    pub fn with_capacity(fields: usize) -> Self {
        Self::from_unique(Vec::with_capacity(fields))
    }

    /// The approximate size in bytes of a record with this many fields, without the heap memory of their values.
    #[must_use]
    pub const fn made_len(fields: usize) -> usize {
        /// The reference counts of the `Arc`.
        const COUNTS_LEN: usize = 16;
        size_of::<Self>() + COUNTS_LEN + size_of::<Fields>() + fields * size_of::<(ByteString, Value)>()
    }

    /// A record of fields whose names are known to be unique.
    #[must_use]
    pub fn from_unique(list: Vec<(ByteString, Value)>) -> Self {
        Self { fields: Arc::new(Fields { list, ..Fields::default() }) }
    }

    /// A record of a contract's type, of fields whose names are known to be unique. `unknown` are the unknown fields in protobuf encoding.
    #[must_use]
    pub fn with_shape(shape: Arc<Shape>, list: Vec<(ByteString, Value)>, unknown: Bytes) -> Self {
        let unknown = (!unknown.is_empty()).then(|| Box::new(unknown));
        Self { fields: Arc::new(Fields { list, shape: Some(shape), unknown, index: OnceLock::new() }) }
    }

    /// The type given by a contract.
    #[must_use]
    pub fn shape(&self) -> Option<&Arc<Shape>> {
        self.fields.shape.as_ref()
    }

    /// Unknown fields of the contract in protobuf encoding. They are meaningful only in a record of the same type.
    #[must_use]
    pub fn unknown(&self) -> Option<&Bytes> {
        self.fields.unknown.as_deref()
    }

    /// The field with this name, or the default of an absent field without presence.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        if let Some(at) = self.fields.position(name) {
            return Some(&self.fields.list[at].1);
        }
        let defaults = &self.fields.shape.as_ref()?.defaults;
        defaults.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether a field is present. Defaults are not present.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.fields.position(name).is_some()
    }

    /// A mutable reference to the field with this name, if it is present.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.fields.position(name)?;
        Arc::make_mut(&mut self.fields).list.get_mut(at).map(|(_, value)| value)
    }

    /// Sets a field, in place if it is present, otherwise at the end. Returns the old value.
    pub fn set(&mut self, name: impl Into<ByteString>, value: Value) -> Option<Value> {
        let name = name.into();
        match self.get_mut(&name) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => {
                Arc::make_mut(&mut self.fields).push(name, value);
                None
            }
        }
    }

    /// Removes a field and keeps the order of the others.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.fields.position(name)?;
        let fields = Arc::make_mut(&mut self.fields);
        fields.index = OnceLock::new();
        Some(fields.list.remove(at).1)
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &Value)> {
        self.fields.list.iter().map(|(key, value)| (key, value))
    }

    /// The fields in order, followed by the defaults of absent fields without presence.
    pub fn iter_with_defaults(&self) -> impl Iterator<Item = (&ByteString, &Value)> {
        let defaults = self.fields.shape.as_ref().map_or(&[][..], |shape| shape.defaults.as_slice());
        let missing = |(name, _): &&(ByteString, Value)| self.fields.position(name).is_none();
        self.iter().chain(defaults.iter().filter(missing).map(|(name, value)| (name, value)))
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.list.len()
    }

    /// Whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.list.is_empty()
    }
}

impl<K: Into<ByteString>> FromIterator<(K, Value)> for Record {
    /// A repeated name replaces the value and keeps the first position.
    fn from_iter<T: IntoIterator<Item = (K, Value)>>(fields: T) -> Self {
        let mut record = Self::new();
        for (name, value) in fields {
            record.set(name, value);
        }
        record
    }
}
