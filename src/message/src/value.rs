//! The typed value that every format is read into and written from.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::Decimal;

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
    /// A double that was computed or declared as one; never the reading of a decimal text.
    F64(f64),
    /// Unicode text.
    Text(ByteString),
    /// Bytes.
    Bytes(Bytes),
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
            Self::F64(_) => "a double",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
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
            Self::F64(number) if number.is_finite() => Some(ryu::Buffer::new().format_finite(*number).into()),
            Self::Text(text) => Some(text.clone()),
            Self::F64(_) | Self::Null | Self::Bytes(_) | Self::List(_) | Self::Record(_) => None,
        }
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

/// Named fields in the order in which they were read or set; each name stands once.
///
/// Look-up is linear: records of messages are short, and readers bound the number of keys. A copy shares the fields until
/// one of the two is changed, so that handing a part of a message on costs nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    fields: Arc<Vec<(ByteString, Value)>>,
}

impl Record {
    /// A record without fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For readers that have made sure that each name stands once.
    pub(crate) fn from_unique(fields: Vec<(ByteString, Value)>) -> Self {
        Self { fields: Arc::new(fields) }
    }

    /// The field of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The field of that name, to change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        Arc::make_mut(&mut self.fields).iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Sets a field: in its old place where the name stands, else at the end. Gives back what stood there.
    pub fn set(&mut self, name: impl Into<ByteString>, value: Value) -> Option<Value> {
        let name = name.into();
        match self.get_mut(&name) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => {
                Arc::make_mut(&mut self.fields).push((name, value));
                None
            }
        }
    }

    /// Takes a field out; the order of the others stays.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.fields.iter().position(|(key, _)| key == name)?;
        Some(Arc::make_mut(&mut self.fields).remove(at).1)
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &Value)> {
        self.fields.iter().map(|(key, value)| (key, value))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
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
