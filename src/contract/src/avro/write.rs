//! Writes Avro's binary encoding: exactly, or not at all, but for numbers in a `float` or `double`, which are the nearest ones, as in all contracts.

use crossdock_message::{ByteString, Limits, Record, Time, Value};
use num_bigint::BigInt;

use super::calendar::{Unit, parse_date, parse_local, parse_time};
use super::schema::{FieldNode, Id, Node, RecordNode, Schema};
use super::{fail, failure};
use crate::codec::{BytesRef, Failure, Leaf, Outcome, Problem, leaf_of_value};
use crate::model::Scalar;

/// Writes a document.
pub(super) fn write(schema: &Schema, value: &Value, limits: &Limits) -> Outcome<Vec<u8>> {
    let mut writer = Writer { schema, out: Vec::new(), limits, nodes_left: limits.nodes };
    writer.value(schema.root(), value, Form::Value, limits.depth)?;
    Ok(writer.out)
}

struct Writer<'w> {
    schema: &'w Schema,
    out: Vec<u8>,
    limits: &'w Limits,
    nodes_left: usize,
}

/// How values are represented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As in messages.
    Value,
    /// As in the defaults of a schema.
    Default,
}

impl<'w> Writer<'w> {
    fn value(&mut self, id: Id, value: &Value, form: Form, depth_left: usize) -> Outcome<()> {
        let depth_left = self.charge(depth_left)?;
        let schema: &'w Schema = self.schema;
        match (schema.node(id), value) {
            (node, value) if form == Form::Default && node.has_own_default_form() => {
                self.default(node, value, depth_left)?;
            }
            (Node::Null, Value::Null) => {}
            (Node::Boolean, value) => self.scalar(Scalar::Bool, value)?,
            (Node::Int, value) => self.scalar(Scalar::Int32, value)?,
            (Node::Long, value) => self.scalar(Scalar::Int64, value)?,
            (Node::Float, value) => self.scalar(Scalar::Float, value)?,
            (Node::Double, value) => self.scalar(Scalar::Double, value)?,
            (Node::Bytes, value) => self.scalar(Scalar::Bytes, value)?,
            (Node::Text, value) => self.scalar(Scalar::Text, value)?,
            (Node::Fixed(len), value) => {
                let mut scratch = Vec::new();
                match leaf_of_value(Scalar::Bytes, value, &mut scratch)? {
                    Leaf::Bytes(BytesRef { bytes, .. }) if bytes.len() == *len => self.out.extend_from_slice(bytes),
                    Leaf::Bytes(BytesRef { bytes, .. }) => {
                        return fail(format!("expected {len} bytes, found {}", bytes.len()));
                    }
                    _ => return Err(wrong("bytes", value)),
                }
            }
            (Node::Enum(symbols), Value::Text(text)) => match symbols.iter().position(|symbol| symbol == text) {
                Some(index) => self.index(index),
                None => return fail(format!("`{text}` is none of the symbols of the enumeration")),
            },
            (Node::Array(id), Value::List(items)) => {
                if !items.is_empty() {
                    self.index(items.len());
                }
                for (index, item) in items.iter().enumerate() {
                    self.value(*id, item, form, depth_left).map_err(|inner| inner.at_index(index))?;
                }
                self.out.push(0);
            }
            (Node::Map(id), Value::Record(entries)) => {
                if !entries.is_empty() {
                    self.index(entries.len());
                }
                for (key, value) in entries.iter() {
                    self.sized(key.as_bytes());
                    self.value(*id, value, form, depth_left).map_err(|inner| inner.inside(key))?;
                }
                self.out.push(0);
            }
            (Node::Nullable { null_index, .. }, Value::Null) => self.index(*null_index),
            (Node::Nullable { null_index, inner }, value) => {
                self.index(1 - null_index);
                self.value(*inner, value, form, depth_left)?;
            }
            (Node::Union(branches), value) => self.union(branches, value, depth_left)?,
            (Node::Record(record), Value::Record(fields)) => self.record(record, fields, form, depth_left)?,
            (logical, value) => self.logical(logical, value)?,
        }
        Ok(())
    }

    /// A value of a logical type.
    fn logical(&mut self, node: &Node, value: &Value) -> Outcome<()> {
        match (node, value) {
            (Node::Decimal { precision, scale, len }, value) => {
                let unscaled = unscaled(value, *scale)?;
                if unscaled.magnitude().to_string().len() > *precision {
                    return fail(format!("the number has more than {precision} digits"));
                }
                self.decimal(&unscaled, *len)?;
            }
            (Node::BigDecimal, value) => {
                let scale = fraction_len(value)?;
                let mut inner = Writer { schema: self.schema, out: Vec::new(), limits: self.limits, nodes_left: 0 };
                inner.decimal(&unscaled(value, scale)?, None)?;
                inner.index(scale);
                self.sized(&inner.out);
            }
            (Node::UuidBytes { is_fixed }, Value::Text(text)) => {
                let bytes = parse_uuid(text).ok_or_else(|| failure(format!("`{text}` is no UUID")))?;
                if *is_fixed {
                    self.out.extend_from_slice(&bytes);
                } else {
                    self.sized(&bytes);
                }
            }
            (Node::Date, Value::Text(text)) => {
                self.long(parse_date(text).ok_or_else(|| not_text(text, "a date such as `2026-01-31`"))?.into());
            }
            (Node::TimeOfDay(unit), Value::Text(text)) => {
                self.long(parse_time(*unit, text).ok_or_else(|| not_time(text, "a time such as `06:00:00`", *unit))?);
            }
            (Node::Timestamp(unit), value) => {
                let time = match value {
                    Value::Time(time) => Some(*time),
                    Value::Text(text) => Time::parse(text),
                    _ => None,
                };
                let time = time.ok_or_else(|| wrong("a timestamp such as `2026-01-31T06:00:00Z`", value))?;
                let count = unit.count(time);
                self.long(
                    count.ok_or_else(|| failure(format!("the timestamp is no whole number of {}", unit.name())))?,
                );
            }
            (Node::LocalTimestamp(unit), Value::Text(text)) => {
                let count = parse_local(*unit, text);
                self.long(count.ok_or_else(|| not_time(text, "a local time such as `2026-01-31T06:00:00`", *unit))?);
            }
            (Node::Duration, Value::Record(parts)) => self.duration(parts)?,
            (node, value) => return Err(wrong(expected(node), value)),
        }
        Ok(())
    }

    fn record(&mut self, record: &'w RecordNode, fields: &Record, form: Form, depth_left: usize) -> Outcome<()> {
        for (name, _) in fields.iter() {
            if !record.by_name.contains_key(name) {
                return Err(failure("the schema has no such field").inside(name));
            }
        }
        for field in &record.fields {
            let written = match (fields.get(&field.name), &field.default) {
                (Some(value), _) => self.value(field.id, value, form, depth_left),
                (None, Some(default)) => self.value(field.id, default, Form::Default, depth_left),
                (None, None) => fail("the field is missing, and the schema has no default for it"),
            };
            written.map_err(|inner| inner.inside(&field.name))?;
        }
        Ok(())
    }

    /// The part of a default that has another form than values: the branch of a union is not named, bytes are text with one character for each, and
    /// times are numbers.
    fn default(&mut self, node: &'w Node, default: &Value, depth_left: usize) -> Outcome<()> {
        let (bytes, len) = match (node, default) {
            (Node::Union(branches), value) => {
                // Before version 1.12, only the first branch can have a default.
                let found = branches.iter().position(|(_, id)| is_default_of(self.schema.node(*id), value));
                let Some(index) = found else { return fail("the default of the schema fits no branch of its union") };
                self.index(index);
                return self.value(branches[index].1, value, Form::Default, depth_left);
            }
            (Node::Date | Node::TimeOfDay(Unit::Millis), number) => return self.scalar(Scalar::Int32, number),
            (Node::TimeOfDay(_) | Node::Timestamp(_) | Node::LocalTimestamp(_), number) => {
                return self.scalar(Scalar::Int64, number);
            }
            (Node::Fixed(len) | Node::Decimal { len: Some(len), .. }, Value::Text(text)) => (text, Some(*len)),
            (Node::UuidBytes { is_fixed: true }, Value::Text(text)) => (text, Some(16)),
            (Node::Duration, Value::Text(text)) => (text, Some(12)),
            (_, Value::Text(text)) => (text, None),
            (_, value) => return Err(wrong("text", value)),
        };
        let bytes: Option<Vec<u8>> = bytes.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
        let bytes = bytes.ok_or_else(|| failure("the default of the schema is not of its type"))?;
        match len {
            None => self.sized(&bytes),
            Some(len) if len != bytes.len() => {
                return fail(format!("the default of the schema must have {len} bytes"));
            }
            Some(_) => self.out.extend_from_slice(&bytes),
        }
        Ok(())
    }

    fn union(&mut self, branches: &[(Option<ByteString>, Id)], value: &Value, depth_left: usize) -> Outcome<()> {
        let named = match value {
            Value::Null => Some((None, &Value::Null)),
            Value::Record(record) if record.len() == 1 => record.iter().next().map(|(name, value)| (Some(name), value)),
            _ => None,
        };
        let found = named.and_then(|(wanted, value)| {
            let index = branches.iter().position(|(name, _)| name.as_ref() == wanted)?;
            Some((index, value))
        });
        let Some((index, value)) = found else {
            let names: Vec<String> = branches
                .iter()
                .map(|(name, _)| name.as_ref().map_or("null".to_owned(), |name| format!("`{name}`")))
                .collect();
            return fail(format!(
                "a union needs a record with one field, named after the branch: {}",
                names.join(", ")
            ));
        };
        self.index(index);
        let (name, id) = &branches[index];
        let written = self.value(*id, value, Form::Value, depth_left);
        written.map_err(|inner| match name {
            Some(name) => inner.inside(name),
            None => inner,
        })
    }

    fn decimal(&mut self, unscaled: &BigInt, len: Option<usize>) -> Outcome<()> {
        let bytes = unscaled.to_signed_bytes_be();
        let Some(len) = len else {
            self.sized(&bytes);
            return Ok(());
        };
        let Some(padding) = len.checked_sub(bytes.len()) else {
            return fail(format!("the number does not fit in {len} bytes"));
        };
        let fill = if unscaled.sign() == num_bigint::Sign::Minus { 0xff } else { 0 };
        self.out.extend(std::iter::repeat_n(fill, padding));
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    fn duration(&mut self, parts: &Record) -> Outcome<()> {
        const PARTS: [&str; 3] = ["months", "days", "millis"];
        if let Some((name, _)) = parts.iter().find(|(name, _)| !PARTS.contains(&&***name)) {
            return Err(failure("a duration has no such field").inside(name));
        }
        for name in PARTS {
            let part = parts.get(name).ok_or_else(|| failure("the field is missing").inside(name))?;
            let mut scratch = Vec::new();
            let number = match leaf_of_value(Scalar::UInt32, part, &mut scratch).map_err(|inner| inner.inside(name))? {
                Leaf::UInt(number) => u32::try_from(number).unwrap_or(u32::MAX),
                _ => return Err(wrong("an integer", part).inside(name)),
            };
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }

    /// Counts a value; returns how many levels may be nested in it.
    fn charge(&mut self, depth_left: usize) -> Outcome<usize> {
        if self.out.len() > self.limits.written_len {
            return fail(format!("more than {} bytes", self.limits.written_len));
        }
        // Also for values without bytes.
        self.nodes_left =
            self.nodes_left.checked_sub(1).ok_or_else(|| Failure::of(Problem::Nodes(self.limits.nodes)))?;
        depth_left.checked_sub(1).ok_or_else(|| Failure::of(Problem::Depth(self.limits.depth)))
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) -> Outcome<()> {
        let mut scratch = Vec::new();
        match leaf_of_value(scalar, value, &mut scratch)? {
            Leaf::Bool(truth) => self.out.push(truth.into()),
            Leaf::Int(number) => self.long(number),
            Leaf::Float(number) => self.out.extend_from_slice(&number.to_le_bytes()),
            Leaf::Double(number) => self.out.extend_from_slice(&number.to_le_bytes()),
            Leaf::Text(text) => self.sized(text.text.as_bytes()),
            Leaf::Bytes(bytes) => self.sized(bytes.bytes),
            _ => return Err(wrong(scalar.name(), value)),
        }
        Ok(())
    }

    fn index(&mut self, index: usize) {
        // Never saturates: memory is smaller.
        self.long(i64::try_from(index).unwrap_or(i64::MAX));
    }

    /// A variable-length integer in zigzag encoding.
    fn long(&mut self, number: i64) {
        let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
        while left >= 0x80 {
            self.out.push(left.to_le_bytes()[0] | 0x80);
            left >>= 7;
        }
        self.out.push(left.to_le_bytes()[0]);
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.index(bytes.len());
        self.out.extend_from_slice(bytes);
    }
}

/// Whether a default in the form of the specification is one of a type: the kind of JSON decides.
fn is_default_of(node: &Node, default: &Value) -> bool {
    match (node, default) {
        (Node::Null | Node::Alias(_), Value::Null) | (Node::Boolean, Value::Bool(_)) => true,
        (Node::Int | Node::Date | Node::TimeOfDay(Unit::Millis), Value::Int(number)) => i32::try_from(*number).is_ok(),
        (Node::Long | Node::TimeOfDay(_) | Node::Timestamp(_) | Node::LocalTimestamp(_), Value::Int(_)) => true,
        (Node::Float | Node::Double, Value::Int(_) | Value::UInt(_) | Value::Decimal(_)) => true,
        (Node::Enum(symbols), Value::Text(text)) => symbols.contains(text),
        (
            Node::Bytes
            | Node::Fixed(_)
            | Node::Text
            | Node::Decimal { .. }
            | Node::BigDecimal
            | Node::UuidBytes { .. }
            | Node::Duration,
            Value::Text(_),
        )
        | (Node::Array(_), Value::List(_))
        | (Node::Map(_), Value::Record(_)) => true,
        (Node::Record(record), Value::Record(fields)) => {
            let is_known = |name| record.by_name.contains_key(name);
            let is_given = |field: &FieldNode| field.default.is_some() || fields.get(&field.name).is_some();
            fields.iter().all(|(name, _)| is_known(name)) && record.fields.iter().all(is_given)
        }
        _ => false,
    }
}

fn expected(node: &Node) -> &'static str {
    match node {
        Node::Null => "null",
        Node::Enum(_) => "a symbol",
        Node::Array(_) => "a list",
        Node::Map(_) | Node::Record(_) => "a record",
        Node::UuidBytes { .. } => "a UUID",
        Node::Date => "a date such as `2026-01-31`",
        Node::TimeOfDay(_) => "a time such as `06:00:00`",
        Node::LocalTimestamp(_) => "a local time such as `2026-01-31T06:00:00`",
        Node::Duration => "a record of `months`, `days` and `millis`",
        _ => "another value",
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "failures are rare, and boxing them keeps results small")]
fn wrong(expected: &str, value: &Value) -> Box<Failure> {
    failure(format!("expected {expected}, found {}", value.kind()))
}

#[expect(clippy::unnecessary_box_returns, reason = "failures are rare, and boxing them keeps results small")]
fn not_text(text: &str, expected: &str) -> Box<Failure> {
    failure(format!("expected {expected}, found `{text}`"))
}

#[expect(clippy::unnecessary_box_returns, reason = "failures are rare, and boxing them keeps results small")]
fn not_time(text: &str, expected: &str, unit: Unit) -> Box<Failure> {
    failure(format!("expected {expected} in whole {}, found `{text}`", unit.name()))
}

/// The digits of a number with the decimal point moved by `scale`.
fn unscaled(value: &Value, scale: usize) -> Outcome<BigInt> {
    let text = plain_number(value)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let kept = fraction.trim_end_matches('0');
    if kept.len() > scale {
        return fail(format!("the number has more than {scale} digits after the point"));
    }
    let digits = format!("{whole}{kept}{}", "0".repeat(scale - kept.len()));
    digits.parse().map_err(|_| wrong("a number", value))
}

/// The digits after the point.
fn fraction_len(value: &Value) -> Outcome<usize> {
    Ok(plain_number(value)?.split_once('.').map_or(0, |(_, fraction)| fraction.len()))
}

/// The text of a number without an exponent.
fn plain_number(value: &Value) -> Outcome<String> {
    /// Of zeros that an exponent adds.
    const ZEROS_MAX: i32 = 1024;
    let text = match value {
        Value::Int(_) | Value::UInt(_) | Value::Decimal(_) | Value::F32(_) | Value::F64(_) => value.scalar_text(),
        _ => None,
    };
    let text = text.ok_or_else(|| wrong("a number", value))?;
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return Ok(text.to_string()) };
    let exponent: i32 = exponent
        .parse()
        .ok()
        .filter(|exponent: &i32| exponent.abs() <= ZEROS_MAX)
        .ok_or_else(|| failure("the exponent of the number is too large"))?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len()).unwrap_or(i32::MAX).saturating_add(exponent);
    Ok(match usize::try_from(point) {
        Ok(point) if point >= digits.len() => format!("{sign}{digits}{}", "0".repeat(point - digits.len())),
        Ok(point @ 1..) => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
        _ => format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
    })
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let parts: Vec<&str> = text.split('-').collect();
    let is_formed = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    let is_hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let number = u128::from_str_radix(&parts.concat(), 16).ok().filter(|_| is_formed && is_hex)?;
    Some(number.to_be_bytes())
}
