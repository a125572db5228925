//! Run-time values of expressions: borrowed from a message, or computed.

mod compare;
mod convert;
mod map;

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use crossdock_message::{ByteString, Record, Time, TimeSpan, Value};

pub use self::compare::{compare, compare_within, equal};
pub use self::convert::ConversionError;
pub use self::map::{InsertError, Key, OwnedMap};
use crate::number::Dec;
use crate::types::TypeName;

/// The cost of a byte of a decimal, in bytes of text.
const DECIMAL_FACTOR: usize = 16;

/// Bytes of an optional, without its value.
pub(crate) const OPTIONAL_LEN: usize = size_of::<Val<'_>>() + 16;

/// A run-time value. Data of the message and literals of the expression are borrowed for `'v`.
#[derive(Debug, Clone)]
pub enum Val<'v> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// An unsigned 64-bit integer.
    UInt(u64),
    /// A double.
    Double(f64),
    /// An exact decimal.
    Decimal(Dec<'v>),
    /// A string.
    Text(Cow<'v, ByteString>),
    /// Bytes.
    Bytes(Cow<'v, Bytes>),
    /// A timestamp.
    Time(Time),
    /// A duration.
    Duration(TimeSpan),
    /// A list.
    List(List<'v>),
    /// A map or a record, in entry order.
    Map(Map<'v>),
    /// A type.
    Type(TypeName),
    /// An optional.
    Optional(Option<Rc<Val<'v>>>),
}

/// A list.
#[derive(Debug, Clone)]
pub enum List<'v> {
    /// Borrowed from a message; `true` in the view of an XML document.
    Data(&'v [Value], bool),
    /// Computed by the expression.
    Owned(Rc<Vec<Val<'v>>>),
}

/// A map.
#[derive(Debug, Clone)]
pub enum Map<'v> {
    /// Borrowed from a message; `true` in the view of an XML document, where a missing element is an empty list.
    Data(&'v Record, bool),
    /// Computed by the expression.
    Owned(Rc<OwnedMap<'v>>),
}

impl<'v> Val<'v> {
    /// Borrows a message value; `xml` if it is part of the view of an XML document.
    #[must_use]
    #[expect(clippy::inline_always, reason = "constructing the value in place halves the cost")]
    #[inline(always)]
    pub fn data(value: &'v Value, xml: bool) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Int(number) => Self::Int(*number),
            Value::UInt(number) => Self::UInt(*number),
            Value::Decimal(number) => Self::Decimal(Dec::Written(number)),
            // The double with the shortest text of the single.
            Value::F32(number) => Self::Double(single(value, *number)),
            Value::F64(number) => Self::Double(*number),
            Value::Text(text) => Self::Text(Cow::Borrowed(text)),
            Value::Bytes(bytes) => Self::Bytes(Cow::Borrowed(bytes)),
            Value::Time(time) => Self::Time(*time),
            Value::Duration(span) => Self::Duration(*span),
            Value::List(items) => Self::List(List::Data(items, xml)),
            Value::Record(record) => Self::Map(Map::Data(record, xml)),
        }
    }

    /// An element that is missing from an XML document: a special empty list.
    #[must_use]
    pub const fn missing_element() -> Self {
        Self::List(List::Data(&[], true))
    }

    /// Whether it is an element that is missing from an XML document. An element that exists occurs at least once.
    pub(crate) fn is_missing_element(&self) -> bool {
        matches!(self, Self::List(List::Data([], true)))
    }

    /// A computed string.
    #[must_use]
    pub fn text(text: impl Into<ByteString>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// Computed bytes.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Cow::Owned(bytes.into()))
    }

    /// A computed list.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Owned(Rc::new(items)))
    }

    /// An optional with a value.
    #[must_use]
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// Its kind, as shown in errors.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) => "an integer",
            Self::Double(_) => "a double",
            Self::Decimal(_) => "a decimal",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Time(_) => "a timestamp",
            Self::Duration(_) => "a duration",
            Self::List(_) => "a list",
            Self::Map(_) => "a record",
            Self::Type(_) => "a type",
            Self::Optional(_) => "an optional",
        }
    }

    /// The result of `type(x)`.
    #[must_use]
    pub fn type_name(&self) -> TypeName {
        TypeName::from(match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::Double(_) => "double",
            Self::Decimal(_) => "decimal",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(Map::Data(record, _)) if record.shape().is_some() => {
                return record.shape().map_or(TypeName::from("map"), |shape| TypeName::named(shape.name.clone()));
            }
            Self::Map(_) => "map",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
        })
    }

    /// Bytes scanned to compare it or to use it as a key.
    pub(crate) fn scan_len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            // Arithmetic on long decimals costs more than a scan.
            Self::Decimal(number) => DECIMAL_FACTOR * number.weight(),
            _ => 0,
        }
    }

    /// Whether it is the default value of its type.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(truth) => !truth,
            Self::Int(number) => *number == 0,
            Self::UInt(number) => *number == 0,
            Self::Double(number) => *number == 0.0,
            Self::Decimal(number) => number.compare(&Dec::from_integer(0)).is_eq(),
            Self::Text(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Time(time) => time.seconds == 0 && time.nanos == 0,
            Self::Duration(span) => span.seconds == 0 && span.nanos == 0,
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Type(_) | Self::Optional(_) => false,
        }
    }
}

impl<'v> List<'v> {
    /// The number of its elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Data(items, _) => items.len(),
            Self::Owned(items) => items.len(),
        }
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at an index.
    #[must_use]
    #[expect(clippy::inline_always, reason = "constructing the value in place halves the cost")]
    #[inline(always)]
    pub fn get(&self, at: usize) -> Option<Val<'v>> {
        match self {
            Self::Data(items, xml) => items.get(at).map(|item| Val::data(item, *xml)),
            Self::Owned(items) => items.get(at).cloned(),
        }
    }

    /// Its elements.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Val<'v>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// Bytes of a copy of `items` elements, without what the elements own.
    #[must_use]
    pub fn copy_len(items: usize) -> usize {
        /// The vector, its reference counts and its minimum allocation.
        const OWN_LEN: usize = 40;
        OWN_LEN + items * size_of::<Val<'_>>()
    }
}

impl<'v> Map<'v> {
    /// The number of its entries.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Data(record, _) => record.iter_with_defaults().count(),
            Self::Owned(map) => map.len(),
        }
    }

    /// Whether it has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a string key or field; `None` if missing.
    #[must_use]
    #[expect(clippy::inline_always, reason = "constructing the value in place halves the cost")]
    #[inline(always)]
    pub fn field(&self, name: &str) -> Option<Val<'v>> {
        match self {
            Self::Data(record, xml) => match record.get(name) {
                Some(value) => Some(Val::data(value, *xml)),
                None if *xml && !name.starts_with(['@', '$']) => Some(Val::missing_element()),
                None => None,
            },
            Self::Owned(map) => map.get_text(name),
        }
    }

    /// Whether a field is present. In a record of a contract, a field without explicit presence is present unless it has its default value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Data(record, _) => record.has(name),
            Self::Owned(map) => map.get_text(name).is_some(),
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Val<'_>) -> Option<Val<'v>> {
        match (self, key) {
            (Self::Data(record, xml), Val::Text(name)) => record.get(name).map(|value| Val::data(value, *xml)),
            (Self::Data(..), _) => None,
            (Self::Owned(map), key) => map.get(key),
        }
    }

    /// Its entries in order.
    pub fn entries(&self) -> Box<dyn Iterator<Item = (Val<'v>, Val<'v>)> + '_> {
        match self {
            Self::Data(record, xml) => Box::new(
                record
                    .iter_with_defaults()
                    .map(|(name, value)| (Val::Text(Cow::Borrowed(name)), Val::data(value, *xml))),
            ),
            Self::Owned(map) => Box::new(map.entries().iter().cloned()),
        }
    }
}

#[cold]
#[inline(never)]
fn single(value: &Value, number: f32) -> f64 {
    if !number.is_finite() {
        return f64::from(number);
    }
    value.scalar_text().and_then(|text| text.parse().ok()).unwrap_or(f64::from(number))
}
