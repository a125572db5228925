//! Maps fields of a message to the query of a request. A field that cannot be sent is an error. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crossdock_message::{Body, BodyType, ByteString, Code, Fault, Format, Limits, Message, Record, Value, json};
use crossdock_ports::OperationSpec as _;

use crate::config::Operation;
use crate::path;

/// Maximum nesting of records in the name of a parameter.
const DEPTH_MAX: usize = 32;

/// Appends the query to a target.
///
/// A list becomes one parameter per item, a record one per field (`name.inner`), bytes are base64. With a contract, a field is written
/// as in ProtoJSON, as `google.api.http` specifies. Absent and null fields are omitted.
///
/// # Errors
/// INVALID_ARGUMENT with the name of a field that cannot be written in a query or that the operation does not accept.
pub(super) fn append(out: &mut String, operation: &Operation, message: &Message) -> Result<(), Fault> {
    check_accepted(operation, message)?;
    if operation.sends_unlisted_query
        && let Some(query) = &message.query
    {
        out.push('?');
        out.push_str(query);
        return Ok(());
    }
    let mut fields = BodyFields { operation, message, json: None };
    for param in &operation.query {
        if let Some(value) = message.params.get(&param.field) {
            append_value(out, &param.name, value, 0)?;
        } else if let Some(value) = fields.get(&param.field)? {
            append_value(out, &param.name, &value, 0)?;
        }
    }
    if operation.sends_unlisted_query {
        let is_sent = |name: &ByteString| {
            operation.params().contains(name) || operation.query.iter().any(|param| param.field == *name)
        };
        for (name, value) in message.params.iter().filter(|(name, _)| !is_sent(name)) {
            append_value(out, name, value, 0)?;
        }
        if operation.body().is_none() {
            for (name, value) in fields.all()?.iter().filter(|(name, _)| !is_sent(name)) {
                append_value(out, name, value, 0)?;
            }
        }
    }
    Ok(())
}

/// Checks that an operation without a body sends all fields of the message's body.
fn check_accepted(operation: &Operation, message: &Message) -> Result<(), Fault> {
    if operation.body().is_some() {
        return Ok(());
    }
    let value = match &message.body {
        Body::Empty | Body::Null | Body::Stream(_) => None,
        Body::Value(value) => Some(value),
        Body::Raw { chunks, .. } if chunks.is_empty() => None,
        Body::Raw { of_type: None, .. } => return Err(not_accepted(operation, "a body", None)),
        typed @ Body::Raw { .. } => typed.value(&Limits::default())?,
    };
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Record(record)) => {
            let is_lost = |name: &str, value: &Value| !matches!(value, Value::Null) && !operation.has_place_for(name);
            match record.iter().find(|(name, value)| is_lost(name, value)) {
                Some((name, _)) => Err(not_accepted(operation, &format!("the field `{name}`"), Some(name))),
                None => Ok(()),
            }
        }
        Some(_) => Err(not_accepted(operation, "a body", None)),
    }
}

fn not_accepted(operation: &Operation, what: &str, field: Option<&ByteString>) -> Fault {
    let message = format!("`{}` does not accept {what}", operation.describe());
    let fault = Fault::caller(Code::InvalidArgument, "NO_PLACE", message);
    match field {
        Some(field) => fault.with_detail("field", field.clone()),
        None => fault,
    }
}

fn append_value(out: &mut String, name: &str, value: &Value, depth: usize) -> Result<(), Fault> {
    match value {
        Value::Null => {}
        Value::List(items) => {
            for item in items {
                let text =
                    item_text(item).ok_or_else(|| not_writable(name, "a list of items that are not single values"))?;
                path::append_query(out, name, &text);
            }
        }
        Value::Record(record) if depth < DEPTH_MAX => {
            for (inner, value) in record.iter() {
                append_value(out, &format!("{name}.{inner}"), value, depth + 1)?;
            }
        }
        other => {
            let text = item_text(other).ok_or_else(|| not_writable(name, other.kind()))?;
            path::append_query(out, name, &text);
        }
    }
    Ok(())
}

fn item_text(value: &Value) -> Option<ByteString> {
    match value {
        Value::Bytes(bytes) => Some(STANDARD.encode(bytes).into()),
        other => other.scalar_text(),
    }
}

fn not_writable(name: &str, kind: &str) -> Fault {
    let message = format!("the field `{name}` cannot be a query parameter: it is {kind}");
    Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", message).with_detail("field", ByteString::from(name))
}

/// The fields of a message's body; with a contract, in their ProtoJSON form.
struct BodyFields<'m> {
    operation: &'m Operation,
    message: &'m Message,
    /// Cached by [`Self::proto_json`].
    json: Option<Record>,
}

impl BodyFields<'_> {
    fn get(&mut self, name: &str) -> Result<Option<Value>, Fault> {
        match &self.message.body {
            Body::Value(value) if self.operation.call.is_none() => Ok(value.get(name).cloned()),
            Body::Value(_) | Body::Raw { of_type: Some(_), .. } => {
                let camel = lower_camel(name);
                let found = self.proto_json()?.iter().find(|(key, _)| **key == *name || **key == *camel);
                Ok(found.map(|(_, value)| value.clone()))
            }
            _ => Ok(None),
        }
    }

    fn all(&mut self) -> Result<Record, Fault> {
        match &self.message.body {
            Body::Value(Value::Record(record)) if self.operation.call.is_none() => Ok(record.clone()),
            Body::Value(_) | Body::Raw { of_type: Some(_), .. } => self.proto_json().cloned(),
            _ => Ok(Record::new()),
        }
    }

    fn proto_json(&mut self) -> Result<&Record, Fault> {
        if self.json.is_none() {
            let text = match (&self.message.body, &self.operation.call) {
                (Body::Value(value), Some(call)) => call.request.write(value, Format::Json)?,
                (Body::Raw { chunks, format, of_type: Some(of_type), .. }, _) => {
                    of_type.recode(&chunks.to_bytes(), *format, Format::Json)?
                }
                _ => Bytes::from_static(b"{}"),
            };
            self.json = match json::read(&text, &Limits::default()) {
                Ok(Value::Record(record)) => Some(record),
                _ => {
                    return Err(Fault::new(
                        Code::Internal,
                        "BODY_UNWRITABLE",
                        "the body cannot be written as a JSON object",
                    ));
                }
            };
        }
        Ok(self.json.get_or_insert_with(Record::new))
    }
}

/// The ProtoJSON name of a protobuf field (lowerCamelCase).
fn lower_camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        if letter == '_' {
            upper = true;
        } else {
            camel.push(if std::mem::take(&mut upper) { letter.to_ascii_uppercase() } else { letter });
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, value: &Value) -> Result<String, Fault> {
        let mut out = String::from("/a");
        append_value(&mut out, name, value, 0).map(|()| out)
    }

    #[test]
    fn values_are_written_or_rejected() {
        let list = Value::List(vec![Value::from("x"), Value::from("y z")]);
        let fields = [("b", Value::Int(1)), ("c", list)].map(|(name, value)| (ByteString::from(name), value));
        let inner: Record = fields.into_iter().collect();
        for (value, expected) in [
            (Value::Text("a&b".into()), "/a?n=a%26b"),
            (Value::Bool(false), "/a?n=false"),
            (Value::Bytes(Bytes::from_static(b"\xff\x00")), "/a?n=%2FwA%3D"),
            (Value::List(vec![Value::Int(1), Value::Int(2)]), "/a?n=1&n=2"),
            (Value::List(Vec::new()), "/a"),
            (Value::Null, "/a"),
            (Value::Record(inner.clone()), "/a?n.b=1&n.c=x&n.c=y%20z"),
        ] {
            assert_eq!(written("n", &value).as_deref(), Ok(expected), "{value:?}");
        }
        for value in [Value::List(vec![Value::Record(inner)]), Value::List(vec![Value::Null]), Value::F64(f64::NAN)] {
            assert_eq!(written("n", &value).map_err(|fault| fault.reason), Err("ADDRESS_FIELD".into()), "{value:?}");
        }
    }
}
