//! Converts values and types of `cel.expr`, compares and formats them.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crossdock_expression::value::{Map, OwnedMap};
use crossdock_expression::{Type, TypeName, Val};
use crossdock_message::{Time, TimeSpan};
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};

use super::messages::Messages;

/// A value that cannot be converted.
#[derive(Debug, Clone)]
pub(crate) enum Unsupported {
    /// A message of an unknown type.
    Message(String),
    /// Another kind.
    Kind(String),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(name) => write!(f, "a message {name}"),
            Self::Kind(kind) => f.write_str(kind),
        }
    }
}

type ReadResult = Result<Val<'static>, Unsupported>;

fn field(of: &DynamicMessage, name: &str) -> Value {
    of.get_field_by_name(name).unwrap_or_else(|| panic!("a field {name}")).into_owned()
}

/// A message field; `None` if not set.
pub(crate) fn message(of: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    match of.has_field_by_name(name).then(|| field(of, name)) {
        Some(Value::Message(message)) => Some(message),
        _ => None,
    }
}

/// The messages of a repeated field.
pub(crate) fn repeated(of: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let Value::List(items) = field(of, name) else { return Vec::new() };
    let messages = items.into_iter().filter_map(|item| match item {
        Value::Message(message) => Some(message),
        _ => None,
    });
    messages.collect()
}

/// The text of a field.
pub(crate) fn text(of: &DynamicMessage, name: &str) -> String {
    field(of, name).as_str().unwrap_or("").to_owned()
}

/// The boolean value of a field.
pub(crate) fn boolean(of: &DynamicMessage, name: &str) -> bool {
    field(of, name).as_bool().unwrap_or(false)
}

/// The name and value of the field that is set; messages here have at most one.
fn set_field(of: &DynamicMessage) -> Option<(String, Value)> {
    of.fields().next().map(|(field, value)| (field.name().to_owned(), value.clone()))
}

/// Reads a `cel.expr.Value`.
pub(crate) fn read_value(of: &DynamicMessage, messages: &Messages) -> ReadResult {
    let Some((kind, value)) = set_field(of) else { return Err(Unsupported::Kind("a value without a kind".to_owned())) };
    Ok(match (kind.as_str(), value) {
        ("type_value", Value::String(name)) => Val::Type(TypeName::named(name.into())),
        ("object_value", Value::Message(any)) => read_any(&any, messages)?,
        ("list_value", Value::Message(list)) => {
            let items = repeated(&list, "values");
            Val::list(items.iter().map(|item| read_value(item, messages)).collect::<Result<_, _>>()?)
        }
        ("map_value", Value::Message(map)) => {
            let entries = repeated(&map, "entries");
            let part =
                |entry: &DynamicMessage, name| read_value(&message(entry, name).expect("a part of an entry"), messages);
            read_map(entries.iter().map(|entry| Ok((part(entry, "key")?, part(entry, "value")?))))?
        }
        ("null_value", _) => Val::Null,
        ("enum_value", Value::Message(of)) => return Err(Unsupported::Kind(format!("an enum {}", text(&of, "type")))),
        (_, scalar) => read_scalar(scalar)?,
    })
}

fn read_map(entries: impl Iterator<Item = Result<(Val<'static>, Val<'static>), Unsupported>>) -> ReadResult {
    let mut map = OwnedMap::with_capacity(0);
    for entry in entries {
        let (key, value) = entry?;
        map.insert(key, value).map_err(|problem| Unsupported::Kind(format!("an invalid entry: {problem:?}")))?;
    }
    Ok(Val::Map(Map::Owned(Rc::new(map))))
}

fn read_scalar(of: Value) -> ReadResult {
    Ok(match of {
        Value::Bool(value) => Val::Bool(value),
        Value::I32(number) => Val::Int(number.into()),
        Value::I64(number) => Val::Int(number),
        Value::U32(number) => Val::UInt(number.into()),
        Value::U64(number) => Val::UInt(number),
        Value::F32(number) => Val::Double(number.into()),
        Value::F64(number) => Val::Double(number),
        Value::String(text) => Val::text(text),
        Value::Bytes(bytes) => Val::bytes(bytes),
        other => return Err(Unsupported::Kind(format!("{other:?}"))),
    })
}

fn read_any(any: &DynamicMessage, messages: &Messages) -> ReadResult {
    let url = text(any, "type_url");
    let name = url.rsplit('/').next().unwrap_or("");
    let Value::Bytes(bytes) = field(any, "value") else { return Err(Unsupported::Message(name.to_owned())) };
    let known = name.strip_prefix("google.protobuf.").and(any.descriptor().parent_pool().get_message_by_name(name));
    let Some(of) = known else {
        let read = messages.read(name, &bytes).ok_or_else(|| Unsupported::Message(name.to_owned()))?;
        return read.map_err(Unsupported::Kind);
    };
    let inner = DynamicMessage::decode(of, bytes).map_err(|error| Unsupported::Kind(error.to_string()))?;
    read_message(&inner, messages)
}

/// Reads a message of a well-known type.
fn read_message(of: &DynamicMessage, messages: &Messages) -> ReadResult {
    let seconds = || match (field(of, "seconds"), field(of, "nanos")) {
        (Value::I64(seconds), Value::I32(nanos)) => (seconds, nanos),
        _ => (0, 0),
    };
    match of.descriptor().full_name() {
        "google.protobuf.Any" => read_any(of, messages),
        "google.protobuf.Timestamp" => {
            let (seconds, nanos) = seconds();
            Ok(Val::Time(Time { seconds, nanos }))
        }
        "google.protobuf.Duration" => {
            let (seconds, nanos) = seconds();
            Ok(Val::Duration(TimeSpan { seconds, nanos }))
        }
        "google.protobuf.Struct" => {
            let Value::Map(fields) = field(of, "fields") else { return Err(Unsupported::Kind("no fields".to_owned())) };
            read_map(fields.into_iter().map(|(key, value)| {
                let key = Val::text(key.as_str().unwrap_or("").to_owned());
                let value = value.as_message().map_or(Ok(Val::Null), |value| read_message(value, messages))?;
                Ok((key, value))
            }))
        }
        "google.protobuf.ListValue" => {
            let items = repeated(of, "values");
            Ok(Val::list(items.iter().map(|item| read_message(item, messages)).collect::<Result<_, _>>()?))
        }
        "google.protobuf.Value" => match set_field(of) {
            None => Ok(Val::Null),
            Some((kind, _)) if kind == "null_value" => Ok(Val::Null),
            Some((_, Value::Message(inner))) => read_message(&inner, messages),
            Some((_, scalar)) => read_scalar(scalar),
        },
        name if wrapped_type(name).is_some() => read_scalar(field(of, "value")),
        name => Err(Unsupported::Message(name.to_owned())),
    }
}

/// The type that a wrapper message wraps.
fn wrapped_type(name: &str) -> Option<Type> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "BoolValue" => Type::Bool,
        "Int32Value" | "Int64Value" => Type::Int,
        "UInt32Value" | "UInt64Value" => Type::UInt,
        "FloatValue" | "DoubleValue" => Type::Double,
        "StringValue" => Type::Text,
        "BytesValue" => Type::Bytes,
        _ => return None,
    })
}

/// The name of an enum value.
fn value_name(of: &DynamicMessage, name: &str) -> String {
    let number = field(of, name).as_enum_number().unwrap_or(0);
    match of.descriptor().get_field_by_name(name).map(|field| field.kind()) {
        Some(Kind::Enum(names)) => names.get_value(number).map_or(String::new(), |value| value.name().to_owned()),
        _ => String::new(),
    }
}

/// Reads a `cel.expr.Type`.
pub(crate) fn read_type(of: &DynamicMessage, messages: &Messages) -> Type {
    let primitive = |name: &str| match value_name(of, name).as_str() {
        "BOOL" => Type::Bool,
        "INT64" => Type::Int,
        "UINT64" => Type::UInt,
        "DOUBLE" => Type::Double,
        "STRING" => Type::Text,
        "BYTES" => Type::Bytes,
        _ => Type::Dyn,
    };
    let part =
        |of: &DynamicMessage, name: &str| message(of, name).map_or(Type::Dyn, |inner| read_type(&inner, messages));
    match set_field(of) {
        Some((kind, Value::Message(inner))) => match kind.as_str() {
            "list_type" => Type::list(part(&inner, "elem_type")),
            "map_type" => Type::map(part(&inner, "key_type"), part(&inner, "value_type")),
            "type" => Type::Type(Arc::new(read_type(&inner, messages))),
            "abstract_type" if text(&inner, "name") == "optional_type" => {
                let parameters = repeated(&inner, "parameter_types");
                Type::optional(parameters.first().map_or(Type::Dyn, |of| read_type(of, messages)))
            }
            "abstract_type" => Type::Named(read_type_text(of, messages).into()),
            _ => Type::Dyn,
        },
        Some((kind, _)) => match kind.as_str() {
            "null" => Type::Null,
            "primitive" => primitive("primitive"),
            "wrapper" => Type::Wrapper(Arc::new(primitive("wrapper"))),
            "well_known" => match value_name(of, "well_known").as_str() {
                "TIMESTAMP" => Type::Time,
                "DURATION" => Type::Duration,
                _ => Type::Dyn,
            },
            "message_type" => type_of_message(&text(of, "message_type"), messages),
            _ => Type::Dyn,
        },
        None => Type::Dyn,
    }
}

fn type_of_message(name: &str, messages: &Messages) -> Type {
    match name {
        "google.protobuf.Timestamp" => Type::Time,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Any" | "google.protobuf.Value" => Type::Dyn,
        "google.protobuf.Struct" => Type::map(Type::Text, Type::Dyn),
        "google.protobuf.ListValue" => Type::list(Type::Dyn),
        name => match wrapped_type(name) {
            Some(of) => Type::Wrapper(Arc::new(of)),
            None => messages.type_of(name).unwrap_or_else(|| Type::Named(name.into())),
        },
    }
}

/// A `cel.expr.Type` in the notation of [`type_text`].
pub(crate) fn read_type_text(of: &DynamicMessage, messages: &Messages) -> String {
    match message(of, "abstract_type") {
        Some(inner) if text(&inner, "name") != "optional_type" => {
            let parameters = repeated(&inner, "parameter_types");
            let parameters: Vec<_> = parameters.iter().map(|of| read_type_text(of, messages)).collect();
            format!("{}({})", text(&inner, "name"), parameters.join(", "))
        }
        _ => type_text(&read_type(of, messages)),
    }
}

/// A type in CEL notation; an unknown type is `dyn`.
pub(crate) fn type_text(of: &Type) -> String {
    match of {
        Type::Dyn | Type::Param(_) => "dyn".to_owned(),
        Type::Null => "null_type".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int => "int".to_owned(),
        Type::UInt => "uint".to_owned(),
        Type::Double => "double".to_owned(),
        Type::Decimal => "decimal".to_owned(),
        Type::Text => "string".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Time => "google.protobuf.Timestamp".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        Type::List(inner) => format!("list({})", type_text(inner)),
        Type::Map(parts) => format!("map({}, {})", type_text(&parts.0), type_text(&parts.1)),
        Type::Record(record) => record.name().to_owned(),
        Type::Enum(of) => of.name().to_owned(),
        Type::Optional(inner) => format!("optional_type({})", type_text(inner)),
        Type::Type(inner) => format!("type({})", type_text(inner)),
        Type::Wrapper(inner) => format!("wrapper({})", type_text(inner)),
        Type::Named(name) => name.to_string(),
    }
}

/// Whether two values and their types are the same, ignoring the order of map entries.
#[expect(clippy::float_cmp, reason = "the exact double is expected")]
pub(crate) fn is_same(left: &Val<'_>, right: &Val<'_>) -> bool {
    match (left, right) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(left), Val::Bool(right)) => left == right,
        (Val::Int(left), Val::Int(right)) => left == right,
        (Val::UInt(left), Val::UInt(right)) => left == right,
        (Val::Double(left), Val::Double(right)) => left == right || (left.is_nan() && right.is_nan()),
        (Val::Text(left), Val::Text(right)) => left == right,
        (Val::Bytes(left), Val::Bytes(right)) => left == right,
        (Val::Time(left), Val::Time(right)) => left == right,
        (Val::Duration(left), Val::Duration(right)) => left == right,
        (Val::Type(left), Val::Type(right)) => left == right,
        (Val::List(left), Val::List(right)) => {
            left.len() == right.len() && left.iter().zip(right.iter()).all(|(left, right)| is_same(&left, &right))
        }
        (Val::Map(left), Val::Map(right)) => {
            let others: Vec<_> = right.entries().collect();
            left.len() == right.len()
                && shape_name(left) == shape_name(right)
                && left.entries().all(|(key, value)| {
                    others.iter().any(|(other, other_value)| is_same(&key, other) && is_same(&value, other_value))
                })
        }
        (Val::Optional(left), Val::Optional(right)) => match (left, right) {
            (Some(left), Some(right)) => is_same(left, right),
            (left, right) => left.is_none() && right.is_none(),
        },
        _ => false,
    }
}

/// The message type of a map, if it has one.
fn shape_name<'m>(of: &'m Map<'_>) -> Option<&'m str> {
    match of {
        Map::Data(record, _) => record.shape().map(|shape| &*shape.name),
        Map::Owned(_) => None,
    }
}

/// A value in CEL notation, as far as it has one.
pub(crate) fn show(of: &Val<'_>) -> String {
    match of {
        Val::Null => "null".to_owned(),
        Val::Bool(value) => value.to_string(),
        Val::Int(number) => number.to_string(),
        Val::UInt(number) => format!("{number}u"),
        Val::Double(number) => format!("double({number:?})"),
        Val::Decimal(number) => format!("decimal({})", number.to_decimal()),
        Val::Text(text) => format!("{:?}", &**text),
        Val::Bytes(bytes) => format!("b\"{}\"", bytes.escape_ascii()),
        Val::Time(time) => match time.text() {
            Some(text) => format!("timestamp({text})"),
            None => format!("{time:?}"),
        },
        Val::Duration(span) => match span.text() {
            Some(text) => format!("duration({text})"),
            None => format!("{span:?}"),
        },
        Val::List(list) => format!("[{}]", list.iter().map(|item| show(&item)).collect::<Vec<_>>().join(", ")),
        Val::Map(map) => {
            let entries: Vec<_> =
                map.entries().map(|(key, value)| format!("{}: {}", show(&key), show(&value))).collect();
            format!("{}{{{}}}", shape_name(map).unwrap_or(""), entries.join(", "))
        }
        Val::Type(name) => format!("type {}", name.as_str()),
        Val::Optional(Some(inner)) => format!("optional.of({})", show(inner)),
        Val::Optional(None) => "optional.none()".to_owned(),
    }
}
