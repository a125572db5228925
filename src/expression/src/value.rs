//! Values while an expression is evaluated: those of messages as they stand there, and those that are made.

mod compare;
mod convert;
mod map;

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use crossdock_message::{ByteString, Record, Time, TimeSpan, Value};

pub use self::compare::{compare, compare_within, equal};
pub use self::convert::NoValue;
pub use self::map::{Key, MadeMap, NoEntry};
use crate::number::Dec;
use crate::types::TypeName;

/// What work on a byte of a decimal costs, in bytes of text.
const DECIMAL_FACTOR: usize = 16;

/// Bytes that an optional with a value takes beside the value's own.
pub(crate) const OPTIONAL_LEN: usize = size_of::<Val<'_>>() + 16;

/// A value of an expression. What stands in a message or in the expression itself is borrowed for `'v`.
#[derive(Debug, Clone)]
pub enum Val<'v> {
    /// Null.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed number of 64 bits.
    Int(i64),
    /// An unsigned number of 64 bits.
    UInt(u64),
    /// A double.
    Double(f64),
    /// An exact decimal.
    Decimal(Dec<'v>),
    /// Text.
    Text(Cow<'v, ByteString>),
    /// Bytes.
    Bytes(Cow<'v, Bytes>),
    /// A moment.
    Time(Time),
    /// A length of time.
    Duration(TimeSpan),
    /// Values in order.
    List(List<'v>),
    /// Keys with values, or fields with values, in order.
    Map(Map<'v>),
    /// The type of a value.
    Type(TypeName),
    /// An optional, which has a value or none.
    Optional(Option<Rc<Val<'v>>>),
}

/// A list.
#[derive(Debug, Clone)]
pub enum List<'v> {
    /// A message's; `true` where it is of the view of an XML document.
    Data(&'v [Value], bool),
    /// One that was made.
    Made(Rc<Vec<Val<'v>>>),
}

/// A map.
#[derive(Debug, Clone)]
pub enum Map<'v> {
    /// A message's; `true` where it is of the view of an XML document, in which an element that is not there is an empty list.
    Data(&'v Record, bool),
    /// One that was made.
    Made(Rc<MadeMap<'v>>),
}

impl<'v> Val<'v> {
    /// A value of a message, as it stands there.
    #[must_use]
    #[expect(clippy::inline_always, reason = "a value that is made in the place where it stays is half the work")]
    #[inline(always)]
    pub fn data(value: &'v Value, xml: bool) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Int(number) => Self::Int(*number),
            Value::UInt(number) => Self::UInt(*number),
            Value::Decimal(number) => Self::Decimal(Dec::Written(number)),
            // The double that has the single's shortest text.
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

    /// An element that an XML document does not have: an empty list that is not there.
    #[must_use]
    pub const fn missing_element() -> Self {
        Self::List(List::Data(&[], true))
    }

    /// Whether it is an element that an XML document does not have. One that is there stands once at the least.
    pub(crate) fn is_missing_element(&self) -> bool {
        matches!(self, Self::List(List::Data([], true)))
    }

    /// A text that was made.
    #[must_use]
    pub fn text(text: impl Into<ByteString>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// Bytes that were made.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Cow::Owned(bytes.into()))
    }

    /// A list that was made.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Made(Rc::new(items)))
    }

    /// An optional with a value.
    #[must_use]
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// What errors call its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) => "a whole number",
            Self::Double(_) => "a double",
            Self::Decimal(_) => "a decimal number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Time(_) => "a moment",
            Self::Duration(_) => "a length of time",
            Self::List(_) => "a list",
            Self::Map(_) => "a record",
            Self::Type(_) => "a type",
            Self::Optional(_) => "an optional",
        }
    }

    /// The type that `type(x)` gives.
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

    /// Bytes that comparing it, or making a key of it, looks through.
    pub(crate) fn scan_len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            // Arithmetic on long decimals takes longer than looking at them.
            Self::Decimal(number) => DECIMAL_FACTOR * number.weight(),
            _ => 0,
        }
    }

    /// Whether it is the value that a field of its type has where nothing was set.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(truth) => !truth,
            Self::Int(number) => *number == 0,
            Self::UInt(number) => *number == 0,
            Self::Double(number) => *number == 0.0,
            Self::Decimal(number) => number.compare(&Dec::whole(0)).is_eq(),
            Self::Text(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Time(time) => time.seconds == 0 && time.nanos == 0,
            Self::Duration(span) => span.seconds == 0 && span.nanos == 0,
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Type(_) => false,
            Self::Optional(inner) => inner.is_none(),
        }
    }
}

impl<'v> List<'v> {
    /// The number of its elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Data(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element of that place.
    #[must_use]
    #[expect(clippy::inline_always, reason = "a value that is made in the place where it stays is half the work")]
    #[inline(always)]
    pub fn get(&self, at: usize) -> Option<Val<'v>> {
        match self {
            Self::Data(items, xml) => items.get(at).map(|item| Val::data(item, *xml)),
            Self::Made(items) => items.get(at).cloned(),
        }
    }

    /// Its elements.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Val<'v>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// Bytes that a copy of it takes, its elements' own not counted.
    #[must_use]
    pub fn copy_len(items: usize) -> usize {
        /// The list itself, what counts its copies, and the least that a list takes when it grows.
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
            Self::Made(map) => map.len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a text key, or of a field; nothing where it is not there.
    #[must_use]
    #[expect(clippy::inline_always, reason = "a value that is made in the place where it stays is half the work")]
    #[inline(always)]
    pub fn field(&self, name: &str) -> Option<Val<'v>> {
        match self {
            Self::Data(record, xml) => match record.get(name) {
                Some(value) => Some(Val::data(value, *xml)),
                None if *xml && !name.starts_with(['@', '$']) => Some(Val::missing_element()),
                None => None,
            },
            Self::Made(map) => map.get_text(name),
        }
    }

    /// Whether a field is there: in records of a contract, one without presence that has its default is not.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Data(record, _) => record.has(name),
            Self::Made(map) => map.get_text(name).is_some(),
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Val<'_>) -> Option<Val<'v>> {
        match (self, key) {
            (Self::Data(record, xml), Val::Text(name)) => record.get(name).map(|value| Val::data(value, *xml)),
            (Self::Data(..), _) => None,
            (Self::Made(map), key) => map.get(key),
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
            Self::Made(map) => Box::new(map.entries().iter().cloned()),
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
