//! The typed value that every format is read into and written from.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Decimal, Time, TimeSpan};

/// One value of a message.
///
/// A reader picks the narrowest kind that holds the text exactly and never rounds: `1` is `Int`, `18446744073709551615`
/// is `UInt`, `1.10` and `-0` are `Decimal`. Text is never taken for a number, nor a number for text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Present and null; a missing field is absent from its [`Record`] instead.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number that fits in 64 signed bits.
    Int(i64),
    /// A whole number above `i64::MAX` that fits in 64 unsigned bits. Smaller ones are `Int`.
    UInt(u64),
    /// Any other number, as its text.
    Decimal(Decimal),
    /// A single that a contract declares as one: its shortest text is that of a single.
    F32(f32),
    /// A double that was computed or declared as one; never the reading of a decimal text.
    F64(f64),
    /// Unicode text.
    Text(ByteString),
    /// Bytes.
    Bytes(Bytes),
    /// A moment.
    Time(Time),
    /// A length of time.
    Duration(TimeSpan),
    /// Values in order.
    List(Vec<Value>),
    /// Named fields in order, each name once.
    Record(Record),
}

impl Value {
    /// What a person calls this kind of value in an error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) => "a whole number",
            Self::Decimal(_) => "a decimal number",
            Self::F32(_) => "a single",
            Self::F64(_) => "a double",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Time(_) => "a moment",
            Self::Duration(_) => "a length of time",
            Self::List(_) => "a list",
            Self::Record(_) => "a record",
        }
    }

    /// The field of a record; nothing for another kind.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Record(record) => record.get(name),
            _ => None,
        }
    }

    /// The text of a scalar as it stands in a header, a path or an XML text: numbers in their exact digits, `true` and `false`.
    /// Nothing for null, bytes, lists and records, which have no one such text.
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
    /// Bytes that a copy takes: those of lists. Texts, bytes and records are shared.
    #[must_use]
    pub fn copied_len(&self) -> usize {
        match self {
            Self::List(items) => items.len() * size_of::<Self>() + items.iter().map(Self::copied_len).sum::<usize>(),
            _ => 0,
        }
    }

    /// About the bytes that the value has when it is written, escapes not counted; no further than `max`, so that it costs no more than that.
    #[must_use]
    pub fn written_len(&self, max: usize) -> usize {
        /// A number, with what stands around any value.
        const SMALL_LEN: usize = 8;
        let mut len: usize = 0;
        let mut open: Vec<&Self> = vec![self];
        while let Some(value) = open.pop() {
            len = len.saturating_add(match value {
                Self::Text(text) => text.len() + SMALL_LEN / 2,
                Self::Bytes(bytes) => bytes.len() / 3 * 4 + SMALL_LEN,
                Self::Decimal(number) => number.as_str().len() + 1,
                // Each of them has a byte at the least.
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

/// What a contract says of every record of one type: its name, and what a field stands for that is not there.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// The type's full name.
    pub name: ByteString,
    /// Fields without presence, such as the scalars of proto3, with the value that they have where they were not sent.
    pub defaults: Vec<(ByteString, Value)>,
}

#[derive(Debug, Default)]
struct Fields {
    list: Vec<(ByteString, Value)>,
    shape: Option<Arc<Shape>>,
    /// Fields that the contract does not know, as protobuf wrote them. Boxed, because they are nearly never there.
    unknown: Option<Box<Bytes>>,
    /// Where each name stands, of a long list that was looked into.
    #[expect(clippy::box_collection, reason = "records are many, and this part of one is nearly never there")]
    places: OnceLock<Box<HashMap<ByteString, usize>>>,
}

/// A copy is made to be changed, and finds its places anew.
impl Clone for Fields {
    fn clone(&self) -> Self {
        let Self { list, shape, unknown, .. } = self;
        Self { list: list.clone(), shape: shape.clone(), unknown: unknown.clone(), places: OnceLock::new() }
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list && self.shape == other.shape && self.unknown == other.unknown
    }
}

/// Fields from which on their places are remembered: in shorter lists, they are found faster by looking.
const PLACES_MIN: usize = 24;

impl Fields {
    fn place(&self, name: &str) -> Option<usize> {
        if self.list.len() < PLACES_MIN {
            return self.list.iter().position(|(key, _)| key == name);
        }
        let places = self
            .places
            .get_or_init(|| Box::new(self.list.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect()));
        places.get(name).copied()
    }

    fn push(&mut self, name: ByteString, value: Value) {
        if let Some(places) = self.places.get_mut() {
            places.insert(name.clone(), self.list.len());
        }
        self.list.push((name, value));
    }
}

/// Named fields in the order in which they were read or set; each name stands once.
///
/// Look-up is linear in short records, and by hash in long ones. A copy shares the fields until
/// one of the two is changed, so that handing a part of a message on costs nothing.
///
/// A record that was read by a contract knows its [`Shape`]: [`Record::get`] then gives a field without presence its
/// default where it was not sent. All else – order, length, iteration – is about fields that are there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    fields: Arc<Fields>,
}

impl Record {
    /// A record without fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A record without fields, with room for some.
    #[must_use]
    pub fn with_capacity(fields: usize) -> Self {
        Self::from_unique(Vec::with_capacity(fields))
    }

    /// About the bytes that a record with room for so many fields takes, without their values' own.
    #[must_use]
    pub const fn made_len(fields: usize) -> usize {
        /// What counts the copies of a record.
        const COUNTS_LEN: usize = 16;
        size_of::<Self>() + COUNTS_LEN + size_of::<Fields>() + fields * size_of::<(ByteString, Value)>()
    }

    /// For readers that have made sure that each name stands once.
    #[must_use]
    pub fn from_unique(list: Vec<(ByteString, Value)>) -> Self {
        Self { fields: Arc::new(Fields { list, ..Fields::default() }) }
    }

    /// A record of a contract's type, for readers that have made sure that each name stands once; with fields that the
    /// contract does not know, as protobuf wrote them.
    #[must_use]
    pub fn of_shape(shape: Arc<Shape>, list: Vec<(ByteString, Value)>, unknown: Bytes) -> Self {
        let unknown = (!unknown.is_empty()).then(|| Box::new(unknown));
        Self { fields: Arc::new(Fields { list, shape: Some(shape), unknown, places: OnceLock::new() }) }
    }

    /// The type that a contract gave it.
    #[must_use]
    pub fn shape(&self) -> Option<&Arc<Shape>> {
        self.fields.shape.as_ref()
    }

    /// Fields that the contract does not know, as protobuf wrote them; they only mean something in a record of the same type.
    #[must_use]
    pub fn unknown(&self) -> Option<&Bytes> {
        self.fields.unknown.as_deref()
    }

    /// The field of that name; the default of one that was not sent and has no presence.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        if let Some(at) = self.fields.place(name) {
            return Some(&self.fields.list[at].1);
        }
        let defaults = &self.fields.shape.as_ref()?.defaults;
        defaults.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether a field is there; a default of the contract is not.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.fields.place(name).is_some()
    }

    /// The field of that name, to change; only one that is there.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.fields.place(name)?;
        Arc::make_mut(&mut self.fields).list.get_mut(at).map(|(_, value)| value)
    }

    /// Sets a field: in its old place where the name stands, else at the end. Gives back what stood there.
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

    /// Takes a field out; the order of the others stays.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.fields.place(name)?;
        let fields = Arc::make_mut(&mut self.fields);
        fields.places = OnceLock::new();
        Some(fields.list.remove(at).1)
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &Value)> {
        self.fields.list.iter().map(|(key, value)| (key, value))
    }

    /// The fields in order, and behind them the defaults of those without presence that were not sent.
    pub fn iter_with_defaults(&self) -> impl Iterator<Item = (&ByteString, &Value)> {
        let defaults = self.fields.shape.as_ref().map_or(&[][..], |shape| shape.defaults.as_slice());
        let missing = |(name, _): &&(ByteString, Value)| self.fields.place(name).is_none();
        self.iter().chain(defaults.iter().filter(missing).map(|(name, value)| (name, value)))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.list.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.list.is_empty()
    }
}

impl<K: Into<ByteString>> FromIterator<(K, Value)> for Record {
    /// A name that comes again replaces the value and keeps the first place.
    fn from_iter<T: IntoIterator<Item = (K, Value)>>(fields: T) -> Self {
        let mut record = Self::new();
        for (name, value) in fields {
            record.set(name, value);
        }
        record
    }
}
