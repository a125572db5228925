//! Values and their sorts, as exchanged with the evaluators in JSON.

use std::rc::Rc;
use std::sync::Arc;

use crossdock_expression::value::{Map, OwnedMap};
use crossdock_expression::{Type, Val};
use crossdock_message::{Record, Time, TimeSpan, Value};
use serde_json::{Value as Json, json};

/// The type of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sort {
    Int,
    UInt,
    Double,
    Text,
    Bytes,
    Bool,
    Time,
    Duration,
    List(Box<Sort>),
    Map(Box<Sort>, Box<Sort>),
    Optional(Box<Sort>),
    /// A type as a value.
    Kind,
}

impl Sort {
    pub(crate) fn list(of: Sort) -> Self {
        Self::List(Box::new(of))
    }

    pub(crate) fn map(key: Sort, of: Sort) -> Self {
        Self::Map(Box::new(key), Box::new(of))
    }

    pub(crate) fn optional(of: Sort) -> Self {
        Self::Optional(Box::new(of))
    }

    /// The notation of CEL.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Int => "int".to_owned(),
            Self::UInt => "uint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Time => "timestamp".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::List(of) => format!("list({})", of.text()),
            Self::Map(key, of) => format!("map({}, {})", key.text(), of.text()),
            Self::Optional(of) => format!("optional_type({})", of.text()),
            Self::Kind => "type".to_owned(),
        }
    }

    /// A simple expression of the sort.
    pub(crate) fn plain(&self) -> &'static str {
        match self {
            Self::Int => "1",
            Self::UInt => "1u",
            Self::Double => "1.0",
            Self::Text => "'a'",
            Self::Bytes => "b'a'",
            Self::Bool => "true",
            Self::Time => "timestamp(0)",
            Self::Duration => "duration('1s')",
            Self::List(_) => "[]",
            Self::Map(..) => "{}",
            Self::Optional(_) => "optional.none()",
            Self::Kind => "int",
        }
    }

    pub(crate) fn to_type(&self) -> Type {
        match self {
            Self::Int => Type::Int,
            Self::UInt => Type::UInt,
            Self::Double => Type::Double,
            Self::Text => Type::Text,
            Self::Bytes => Type::Bytes,
            Self::Bool => Type::Bool,
            Self::Time => Type::Time,
            Self::Duration => Type::Duration,
            Self::List(of) => Type::list(of.to_type()),
            Self::Map(key, of) => Type::map(key.to_type(), of.to_type()),
            Self::Optional(of) => Type::optional(of.to_type()),
            Self::Kind => Type::Type(Arc::new(Type::Dyn)),
        }
    }
}

/// A value of any of the evaluators, tagged with its kind.
#[derive(Debug, Clone)]
pub(crate) enum Tagged {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Time(Time),
    Duration(TimeSpan),
    List(Vec<Tagged>),
    Map(Vec<(Tagged, Tagged)>),
    Kind(String),
    Optional(Option<Box<Tagged>>),
    /// A value that the other evaluators do not have.
    Other(String),
}

impl Tagged {
    pub(crate) fn time(text: &str) -> Self {
        Self::Time(Time::parse(text).expect("a timestamp"))
    }

    pub(crate) fn nanos(nanos: i64) -> Self {
        let part = i32::try_from(nanos % 1_000_000_000).expect("less than a second");
        Self::Duration(TimeSpan { seconds: nanos / 1_000_000_000, nanos: part })
    }

    /// Whether the value is more precise than microseconds, the precision of Python.
    pub(crate) fn is_below_micros(&self) -> bool {
        match self {
            Self::Time(Time { nanos, .. }) | Self::Duration(TimeSpan { nanos, .. }) => nanos % 1000 != 0,
            _ => false,
        }
    }

    pub(crate) fn of(value: &Val<'_>) -> Self {
        match value {
            Val::Null => Self::Null,
            Val::Bool(value) => Self::Bool(*value),
            Val::Int(number) => Self::Int(*number),
            Val::UInt(number) => Self::UInt(*number),
            Val::Double(number) => Self::Double(*number),
            Val::Decimal(number) => Self::Other(format!("decimal {}", number.text())),
            Val::Text(text) => Self::Text(text.to_string()),
            Val::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Val::Time(time) => Self::Time(*time),
            Val::Duration(span) => Self::Duration(*span),
            Val::List(list) => Self::List(list.iter().map(|item| Self::of(&item)).collect()),
            Val::Map(map) => Self::Map(map.entries().map(|(key, value)| (Self::of(&key), Self::of(&value))).collect()),
            Val::Type(name) => Self::Kind(name.as_str().to_owned()),
            Val::Optional(inner) => Self::Optional(inner.as_ref().map(|inner| Box::new(Self::of(inner)))),
        }
    }

    /// Converts to a value of a message; `None` if messages have no such value.
    pub(crate) fn to_data(&self) -> Option<Value> {
        Some(match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(number) => Value::Int(*number),
            Self::UInt(number) => Value::UInt(*number),
            Self::Double(number) => Value::F64(*number),
            Self::Text(text) => Value::Text(text.as_str().into()),
            Self::Bytes(bytes) => Value::Bytes(bytes.clone().into()),
            Self::Time(time) => Value::Time(*time),
            Self::Duration(span) => Value::Duration(*span),
            Self::List(items) => Value::List(items.iter().map(Self::to_data).collect::<Option<_>>()?),
            Self::Map(entries) => {
                let mut record = Record::new();
                for (key, value) in entries {
                    let Self::Text(name) = key else { return None };
                    record.set(name.as_str(), value.to_data()?);
                }
                Value::Record(record)
            }
            _ => return None,
        })
    }

    /// Converts to a value that an expression computes.
    pub(crate) fn to_computed(&self) -> Val<'static> {
        match self {
            Self::Null | Self::Other(_) | Self::Kind(_) | Self::Optional(_) => Val::Null,
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(number) => Val::Int(*number),
            Self::UInt(number) => Val::UInt(*number),
            Self::Double(number) => Val::Double(*number),
            Self::Text(text) => Val::text(text.as_str()),
            Self::Bytes(bytes) => Val::bytes(bytes.clone()),
            Self::Time(time) => Val::Time(*time),
            Self::Duration(span) => Val::Duration(*span),
            Self::List(items) => Val::list(items.iter().map(Self::to_computed).collect()),
            Self::Map(entries) => {
                let mut map = OwnedMap::with_capacity(entries.len());
                for (key, value) in entries {
                    map.insert(key.to_computed(), value.to_computed()).expect("keys of a map");
                }
                Val::Map(Map::Owned(Rc::new(map)))
            }
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Null => json!({ "null": null }),
            Self::Bool(value) => json!({ "bool": value }),
            Self::Int(number) => json!({ "int": number.to_string() }),
            Self::UInt(number) => json!({ "uint": number.to_string() }),
            Self::Double(number) => json!({ "double": format!("{number:?}") }),
            Self::Text(text) => json!({ "string": text }),
            Self::Bytes(bytes) => json!({ "bytes": base64(bytes) }),
            Self::Time(time) => json!({ "timestamp": time.text() }),
            Self::Duration(span) => json!({ "duration": span.text() }),
            Self::List(items) => json!({ "list": items.iter().map(Self::to_json).collect::<Vec<_>>() }),
            Self::Map(entries) => {
                let pairs = entries.iter().map(|(key, value)| json!([key.to_json(), value.to_json()]));
                json!({ "map": pairs.collect::<Vec<_>>() })
            }
            Self::Kind(name) => json!({ "type": name }),
            Self::Optional(inner) => json!({ "optional": inner.as_ref().map(|inner| inner.to_json()) }),
            Self::Other(text) => json!({ "other": text }),
        }
    }

    pub(crate) fn of_json(json: &Json) -> Self {
        let wrong = || Self::Other(json.to_string());
        let Some((kind, inner)) = json.as_object().and_then(|parts| parts.iter().next()) else { return wrong() };
        let text = inner.as_str().unwrap_or_default();
        let read = match kind.as_str() {
            "null" => Some(Self::Null),
            "bool" => inner.as_bool().map(Self::Bool),
            "int" => text.parse().ok().map(Self::Int),
            "uint" => text.parse().ok().map(Self::UInt),
            "double" => text.parse().ok().map(Self::Double),
            "string" => inner.as_str().map(|text| Self::Text(text.to_owned())),
            "bytes" => unbase64(text).map(Self::Bytes),
            "timestamp" => Time::parse(text).map(Self::Time),
            "duration" => TimeSpan::parse(text).map(Self::Duration),
            "type" => Some(Self::Kind(text.to_owned())),
            "list" => inner.as_array().map(|items| Self::List(items.iter().map(Self::of_json).collect())),
            "map" => inner.as_array().map(|pairs| {
                Self::Map(pairs.iter().map(|pair| (Self::of_json(&pair[0]), Self::of_json(&pair[1]))).collect())
            }),
            "optional" if inner.is_null() => Some(Self::Optional(None)),
            "optional" => Some(Self::Optional(Some(Box::new(Self::of_json(inner))))),
            _ => None,
        };
        read.unwrap_or_else(wrong)
    }

    /// Whether two values and their kinds are the same, ignoring the order of map entries.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Int(left), Self::Int(right)) => left == right,
            (Self::UInt(left), Self::UInt(right)) => left == right,
            // Zeros of different sign differ, NaNs do not.
            (Self::Double(left), Self::Double(right)) => {
                left.to_bits() == right.to_bits() || left.is_nan() && right.is_nan()
            }
            (Self::Text(left), Self::Text(right)) | (Self::Kind(left), Self::Kind(right)) => left == right,
            (Self::Bytes(left), Self::Bytes(right)) => left == right,
            (Self::Time(left), Self::Time(right)) => left == right,
            (Self::Duration(left), Self::Duration(right)) => left == right,
            (Self::List(left), Self::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is_same(right))
            }
            (Self::Map(left), Self::Map(right)) => {
                let is_there = |(key, value): &(Self, Self)| {
                    right.iter().any(|(other, other_value)| key.is_same(other) && value.is_same(other_value))
                };
                left.len() == right.len() && left.iter().all(is_there)
            }
            (Self::Optional(left), Self::Optional(right)) => match (left, right) {
                (Some(left), Some(right)) => left.is_same(right),
                (left, right) => left.is_none() && right.is_none(),
            },
            _ => false,
        }
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_usize, 0);
    for digit in text.trim_end_matches('=').bytes() {
        bits = (bits << 6 | DIGITS.iter().position(|known| *known == digit)?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 255).ok()?);
        }
    }
    Some(bytes)
}
