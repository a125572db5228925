//! Reads Avro's binary encoding.

use bytes::Bytes;
use crossdock_message::{ByteString, Decimal, Limits, Record, Value};
use num_bigint::BigInt;

use super::calendar::{Unit, date_text, local_text, time_text};
use super::schema::{Id, Node, Schema};
use super::{fail, failure};
use crate::codec::{Failure, Outcome, Problem};

/// The memory that is reserved for items before they are read.
const RESERVED_ITEMS_MAX: usize = 256;

/// Reads a document. Text and bytes are slices of the input.
pub(super) fn read(schema: &Schema, bytes: &Bytes, limits: &Limits) -> Outcome<Value> {
    let mut reader =
        Reader { schema, bytes, position: 0, limits, nodes_left: limits.nodes, text_left: limits.written_len };
    let value = reader.value(schema.root(), limits.depth)?;
    match bytes.len() - reader.position {
        0 => Ok(value),
        left => fail(format!("{left} bytes follow the value")),
    }
}

struct Reader<'r> {
    schema: &'r Schema,
    bytes: &'r Bytes,
    position: usize,
    limits: &'r Limits,
    nodes_left: usize,
    /// For text that is no slice of the input.
    text_left: usize,
}

impl<'r> Reader<'r> {
    fn value(&mut self, id: Id, depth_left: usize) -> Outcome<Value> {
        let Some(nodes_left) = self.nodes_left.checked_sub(1) else {
            return Err(Failure::of(Problem::Nodes(self.limits.nodes)));
        };
        self.nodes_left = nodes_left;
        let Some(depth_left) = depth_left.checked_sub(1) else {
            return Err(Failure::of(Problem::Depth(self.limits.depth)));
        };
        let schema: &'r Schema = self.schema;
        Ok(match schema.node(id) {
            Node::Null | Node::Alias(_) => Value::Null,
            Node::Boolean => match self.take(1)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return fail(format!("{other} is no boolean")),
            },
            Node::Int => Value::Int(self.int()?.into()),
            Node::Long => Value::Int(self.long()?),
            Node::Float => Value::F32(f32::from_le_bytes(self.array()?)),
            Node::Double => Value::F64(f64::from_le_bytes(self.array()?)),
            Node::Bytes => Value::Bytes(self.sized()?),
            Node::Text => Value::Text(self.text()?),
            Node::Fixed(len) => Value::Bytes(self.slice(*len)?),
            Node::Enum(symbols) => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                Value::Text(symbol.cloned().ok_or_else(|| failure(format!("the enumeration has no symbol {index}")))?)
            }
            Node::Array(items) => Value::List(self.list(*items, depth_left)?),
            Node::Map(values) => Value::Record(self.map(*values, depth_left)?),
            Node::Nullable { null_index, inner } => match self.branch(2)? {
                index if index == *null_index => Value::Null,
                _ => self.value(*inner, depth_left)?,
            },
            Node::Union(branches) => match &branches[self.branch(branches.len())?] {
                (None, _) => Value::Null,
                (Some(name), id) => {
                    let value = self.value(*id, depth_left).map_err(|inner| inner.inside(name))?;
                    Value::Record(Record::from_unique(vec![(name.clone(), value)]))
                }
            },
            Node::Record(record) => {
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    let value = self.value(field.id, depth_left).map_err(|inner| inner.inside(&field.name))?;
                    fields.push((field.name.clone(), value));
                }
                Value::Record(Record::from_unique(fields))
            }
            logical => self.logical(logical)?,
        })
    }

    /// A value of a logical type.
    fn logical(&mut self, node: &Node) -> Outcome<Value> {
        Ok(match node {
            Node::Decimal { scale, len, .. } => {
                let unscaled = match len {
                    Some(len) => self.slice(*len)?,
                    None => self.sized()?,
                };
                self.decimal(&unscaled, i64::try_from(*scale).unwrap_or(i64::MAX))?
            }
            Node::BigDecimal => {
                let content = self.sized()?;
                let mut inner = Reader {
                    schema: self.schema,
                    bytes: &content,
                    position: 0,
                    limits: self.limits,
                    nodes_left: 0,
                    text_left: 0,
                };
                let (unscaled, scale) = (inner.sized()?, inner.long()?);
                if inner.position != content.len() {
                    return fail("bytes follow a decimal");
                }
                self.decimal(&unscaled, scale)?
            }
            Node::UuidBytes { is_fixed } => {
                let bytes = if *is_fixed { self.slice(16)? } else { self.sized()? };
                Value::Text(uuid_text(&bytes).ok_or_else(|| failure("a UUID must have 16 bytes"))?.into())
            }
            Node::Date => {
                let days = self.int()?;
                Value::Text(
                    date_text(days)
                        .ok_or_else(|| failure(format!("the date {days} is not in the years 1 to 9999")))?
                        .into(),
                )
            }
            Node::TimeOfDay(unit) => {
                let count = if *unit == Unit::Millis { self.int()?.into() } else { self.long()? };
                let text = time_text(*unit, count);
                Value::Text(
                    text.ok_or_else(|| failure(format!("{count} {} are no time of a day", unit.name())))?.into(),
                )
            }
            Node::Timestamp(unit) => Value::Time(unit.time(self.long()?)),
            Node::LocalTimestamp(unit) => {
                let count = self.long()?;
                let text = local_text(*unit, count);
                Value::Text(
                    text.ok_or_else(|| failure(format!("the local time {count} is not in the years 1 to 9999")))?
                        .into(),
                )
            }
            Node::Duration => {
                let parts = ["months", "days", "millis"].map(|name| {
                    let part = u32::from_le_bytes(self.array()?);
                    Ok((ByteString::from_static(name), Value::Int(part.into())))
                });
                Value::Record(Record::from_unique(parts.into_iter().collect::<Outcome<_>>()?))
            }
            // The others are read above.
            _ => Value::Null,
        })
    }

    fn list(&mut self, items: Id, depth_left: usize) -> Outcome<Vec<Value>> {
        let mut list = Vec::new();
        while let Some(count) = self.block()? {
            list.reserve(count.min(RESERVED_ITEMS_MAX));
            for _ in 0..count {
                let item = self.value(items, depth_left).map_err(|inner| inner.at_index(list.len()))?;
                list.push(item);
            }
        }
        Ok(list)
    }

    fn map(&mut self, values: Id, depth_left: usize) -> Outcome<Record> {
        let mut record = Record::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                if record.len() >= self.limits.keys {
                    return fail(format!("more than {} keys", self.limits.keys));
                }
                if record.get(&key).is_some() {
                    return fail(format!("the key `{key}` occurs twice"));
                }
                let value = self.value(values, depth_left).map_err(|inner| inner.inside(&key))?;
                record.set(key, value);
            }
        }
        Ok(record)
    }

    /// The number of items of the next block of a list or map; `None` at its end.
    fn block(&mut self) -> Outcome<Option<usize>> {
        let count = self.long()?;
        if count < 0 {
            // Its length in bytes, for readers that skip it.
            self.long()?;
        }
        let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        if count > self.nodes_left {
            return Err(Failure::of(Problem::Nodes(self.limits.nodes)));
        }
        Ok((count > 0).then_some(count))
    }

    fn branch(&mut self, count: usize) -> Outcome<usize> {
        let index = self.long()?;
        match usize::try_from(index) {
            Ok(index) if index < count => Ok(index),
            _ => fail(format!("the union has no branch {index}")),
        }
    }

    /// A number from its unscaled value in two's complement. A negative scale stands for zeros.
    fn decimal(&mut self, unscaled: &[u8], scale: i64) -> Outcome<Value> {
        let len_max = self.limits.number_len;
        let too_long = || failure(format!("a decimal has more than {len_max} digits"));
        let places =
            usize::try_from(scale.unsigned_abs()).ok().filter(|places| *places <= len_max).ok_or_else(too_long)?;
        if unscaled.len() > len_max {
            return Err(too_long());
        }
        let number = BigInt::from_signed_bytes_be(unscaled);
        let mut digits = number.magnitude().to_string();
        let sign = if number.sign() == num_bigint::Sign::Minus { "-" } else { "" };
        if scale < 0 && digits != "0" {
            digits.push_str(&"0".repeat(places));
        }
        let text = match digits.len().checked_sub(places) {
            _ if scale <= 0 => format!("{sign}{digits}"),
            Some(whole @ 1..) => format!("{sign}{}.{}", &digits[..whole], &digits[whole..]),
            _ => format!("{sign}0.{}{digits}", "0".repeat(places - digits.len())),
        };
        self.text_left = self
            .text_left
            .checked_sub(text.len())
            .ok_or_else(|| failure(format!("the decimals have more than {} digits", self.limits.written_len)))?;
        if scale <= 0
            && let Ok(number) = text.parse::<i64>()
        {
            return Ok(Value::Int(number));
        }
        Decimal::new(text).map(Value::Decimal).map_err(|error| failure(error.to_string()))
    }

    fn int(&mut self) -> Outcome<i32> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| failure(format!("{number} exceeds 32 bits")))
    }

    /// A variable-length integer in zigzag encoding.
    fn long(&mut self) -> Outcome<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            if shift == 63 && byte > 1 {
                return fail("an integer exceeds 64 bits");
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        fail("an integer exceeds 64 bits")
    }

    fn text(&mut self) -> Outcome<ByteString> {
        ByteString::try_from(self.sized()?).map_err(|_| failure("text is not UTF-8"))
    }

    /// Bytes after their length.
    fn sized(&mut self) -> Outcome<Bytes> {
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| failure(format!("the length {len} is negative")))?;
        self.slice(len)
    }

    fn slice(&mut self, len: usize) -> Outcome<Bytes> {
        let begin = self.position;
        self.take(len)?;
        Ok(self.bytes.slice(begin..self.position))
    }

    fn array<const LEN: usize>(&mut self) -> Outcome<[u8; LEN]> {
        let mut array = [0; LEN];
        array.copy_from_slice(self.take(LEN)?);
        Ok(array)
    }

    fn take(&mut self, len: usize) -> Outcome<&'r [u8]> {
        let bytes: &'r Bytes = self.bytes;
        let left = &bytes[self.position..];
        match left.get(..len) {
            Some(taken) => {
                self.position += len;
                Ok(taken)
            }
            None => fail(format!("{len} bytes expected, {} left", left.len())),
        }
    }
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` (RFC 9562 §4).
fn uuid_text(bytes: &[u8]) -> Option<String> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    let digits = format!("{number:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Some(parts.join("-"))
}
