//! `google.protobuf.Struct`, `Value` and `ListValue`: JSON without a contract.

use std::collections::HashMap;

use crossdock_message::{ByteString, Record, Value};

use super::error::{Outcome, Problem, fail};
use super::wire::{FIXED64, LENGTH, VARINT, patch_len, push_varint, read_tag, read_varint, skip_value};
use super::wire_source::{Input, NodeBudget, shared_text};
use super::{DEPTH_MAX, numbers};
use crate::model::WellKnownType;

/// Reads a value of one of the three types.
pub(super) fn read(
    well_known: WellKnownType,
    input: Input<'_>,
    depth_left: usize,
    nodes: &mut NodeBudget,
) -> Outcome<Value> {
    let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(DEPTH_MAX)) };
    nodes.charge()?;
    match well_known {
        WellKnownType::Struct => read_struct(input, depth_left, nodes),
        WellKnownType::List => {
            let mut items = Vec::new();
            for_each_field(input, |number, wire, part| {
                if (number, wire) == (1, LENGTH) {
                    items.push(read(WellKnownType::Value, part, depth_left, nodes)?);
                }
                Ok(())
            })?;
            Ok(Value::List(items))
        }
        _ => read_value(input, depth_left, nodes),
    }
}

fn read_struct(input: Input<'_>, depth_left: usize, nodes: &mut NodeBudget) -> Outcome<Value> {
    let mut fields: Vec<(ByteString, Value)> = Vec::new();
    let mut indices: HashMap<ByteString, usize> = HashMap::new();
    for_each_field(input, |number, wire, entry| {
        if (number, wire) != (1, LENGTH) {
            return Ok(());
        }
        let (mut key, mut value) = (ByteString::new(), Value::Null);
        for_each_field(entry, |number, wire, part| {
            match (number, wire) {
                (1, LENGTH) => key = shared_text(part)?,
                (2, LENGTH) => value = read(WellKnownType::Value, part, depth_left, nodes)?,
                _ => {}
            }
            Ok(())
        })?;
        match indices.get(&key) {
            Some(index) => fields[*index].1 = value,
            None => {
                indices.insert(key.clone(), fields.len());
                fields.push((key, value));
            }
        }
        Ok(())
    })?;
    Ok(Value::Record(Record::from_unique(fields)))
}

fn read_value(input: Input<'_>, depth_left: usize, nodes: &mut NodeBudget) -> Outcome<Value> {
    let mut value = Value::Null;
    for_each_field(input, |number, wire, part| {
        match (number, wire) {
            (1, VARINT) => value = Value::Null,
            (2, FIXED64) => {
                let bytes = part.bytes.try_into().unwrap_or([0; 8]);
                value = Value::F64(f64::from_le_bytes(bytes));
            }
            (3, LENGTH) => value = Value::Text(shared_text(part)?),
            (4, VARINT) => value = Value::Bool(read_varint(part.bytes, &mut 0)? != 0),
            (5, LENGTH) => value = read(WellKnownType::Struct, part, depth_left, nodes)?,
            (6, LENGTH) => value = read(WellKnownType::List, part, depth_left, nodes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(value)
}

fn for_each_field<'a>(input: Input<'a>, mut visit: impl FnMut(u32, u8, Input<'a>) -> Outcome<()>) -> Outcome<()> {
    let mut at = 0;
    while at < input.bytes.len() {
        let (number, wire) = read_tag(input.bytes, &mut at)?;
        let (start, end) = skip_value(input.bytes, &mut at, number, wire, DEPTH_MAX)?;
        visit(number, wire, Input { owner: input.owner, bytes: &input.bytes[start..end] })?;
    }
    Ok(())
}

/// Writes the content of one of the three types.
pub(super) fn write(well_known: WellKnownType, value: &Value, out: &mut Vec<u8>) -> Outcome<()> {
    match (well_known, value) {
        (WellKnownType::Struct, Value::Record(record)) => {
            for (name, field) in record.iter_with_defaults() {
                let entry = open(1, out);
                out.push(1 << 3 | LENGTH);
                push_varint(out, name.len() as u64);
                out.extend_from_slice(name.as_bytes());
                let inner = open(2, out);
                write(WellKnownType::Value, field, out)?;
                patch_len(out, inner);
                patch_len(out, entry);
            }
            Ok(())
        }
        (WellKnownType::List, Value::List(items)) => {
            for item in items {
                let start = open(1, out);
                write(WellKnownType::Value, item, out)?;
                patch_len(out, start);
            }
            Ok(())
        }
        (WellKnownType::Value, value) => write_value(value, out),
        (WellKnownType::Struct, other) => {
            fail(Problem::WrongType { expected: "an object".to_owned(), found: other.kind() })
        }
        (_, other) => fail(Problem::WrongType { expected: "a list".to_owned(), found: other.kind() }),
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) -> Outcome<()> {
    match value {
        Value::Null => out.extend_from_slice(&[1 << 3, 0]),
        Value::Bool(truth) => out.extend_from_slice(&[4 << 3, u8::from(*truth)]),
        Value::Record(_) => {
            let start = open(5, out);
            write(WellKnownType::Struct, value, out)?;
            patch_len(out, start);
        }
        Value::List(_) => {
            let start = open(6, out);
            write(WellKnownType::List, value, out)?;
            patch_len(out, start);
        }
        Value::Int(_) | Value::UInt(_) | Value::Decimal(_) | Value::F32(_) | Value::F64(_) => {
            out.push(2 << 3 | FIXED64);
            out.extend_from_slice(&numbers::double_of(value)?.to_le_bytes());
        }
        Value::Text(_) | Value::Bytes(_) | Value::Time(_) | Value::Duration(_) => {
            let text = match value {
                Value::Bytes(bytes) => {
                    use base64::Engine as _;
                    base64::engine::general_purpose::STANDARD.encode(bytes).into()
                }
                other => match other.scalar_text() {
                    Some(text) => text,
                    None => return fail(Problem::Unwritable("the timestamp or duration is out of range")),
                },
            };
            out.push(3 << 3 | LENGTH);
            push_varint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
    Ok(())
}

/// Begins a length-prefixed field; see [`patch_len`].
fn open(number: u8, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[number << 3 | LENGTH, 0]);
    out.len()
}
