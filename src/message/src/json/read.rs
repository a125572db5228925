//! Reads JSON without a contract, in one pass. Text without escapes is a slice of the input.

use std::collections::HashSet;

use bytes::Bytes;
use bytestring::ByteString;

use super::cursor::{Cursor, JsonError, JsonErrorKind, Read, Token, text_of};
use crate::{Decimal, Limits, Record, Value};

/// Reads a document.
///
/// # Errors
/// [`JsonError`] with the position, for violations of RFC 8259, duplicate keys, lone surrogates, numbers beyond the range of a double, and
/// documents over a limit.
pub fn read(input: &Bytes, limits: &Limits) -> Result<Value, JsonError> {
    let text = text_of(input)?;
    let mut cursor = Cursor::new(&text, limits);
    let read = read_value(&mut cursor, limits, &mut 0).and_then(|value| cursor.finish().map(|()| value));
    read.map_err(|kind| JsonError::at(input, cursor.offset(), kind))
}

/// Reads the value at the cursor. `nodes` counts the values of the whole document.
///
/// # Errors
/// Those of [`read`]; the cursor is then at the error.
pub fn read_value(cursor: &mut Cursor<'_>, limits: &Limits, nodes: &mut usize) -> Read<Value> {
    let depth = limits.depth.min(Limits::DEPTH_CEILING);
    Reader { cursor, nodes, limits }.value(depth)
}

/// Objects with more keys are checked for duplicates with a set, others by comparison.
const LINEAR_KEYS_MAX: usize = 16;

struct Reader<'r, 'a> {
    cursor: &'r mut Cursor<'a>,
    nodes: &'r mut usize,
    limits: &'r Limits,
}

impl Reader<'_, '_> {
    fn value(&mut self, depth_left: usize) -> Read<Value> {
        let token = self.cursor.token()?;
        *self.nodes += 1;
        if *self.nodes > self.limits.nodes {
            return Err(JsonErrorKind::Nodes(self.limits.nodes));
        }
        match token {
            Token::String => {
                let text = self.cursor.string()?;
                Ok(Value::Text(self.cursor.shared(text)))
            }
            Token::Object => self.object(depth_left),
            Token::Array => self.array(depth_left),
            Token::Number => self.number(),
            Token::True => self.cursor.literal(token).map(|()| Value::Bool(true)),
            Token::False => self.cursor.literal(token).map(|()| Value::Bool(false)),
            Token::Null => self.cursor.literal(token).map(|()| Value::Null),
        }
    }

    fn enter(&self, depth_left: usize) -> Read<usize> {
        depth_left.checked_sub(1).ok_or(JsonErrorKind::Depth(self.limits.depth.min(Limits::DEPTH_CEILING)))
    }

    fn array(&mut self, depth_left: usize) -> Read<Value> {
        let inner = self.enter(depth_left)?;
        let mut items = Vec::new();
        let mut more = self.cursor.enter(b']');
        while more {
            items.push(self.value(inner)?);
            more = self.cursor.next(b']')?;
        }
        Ok(Value::List(items))
    }

    fn object(&mut self, depth_left: usize) -> Read<Value> {
        let inner = self.enter(depth_left)?;
        let mut fields: Vec<(ByteString, Value)> = Vec::new();
        let mut seen = HashSet::new();
        let mut more = self.cursor.enter(b'}');
        while more {
            let key_at = self.cursor.offset();
            let key = self.cursor.key()?;
            let key = self.cursor.shared(key);
            if is_duplicate(&fields, &mut seen, &key) {
                self.cursor.rewind(key_at);
                return Err(JsonErrorKind::DuplicateKey(key.chars().take(64).collect()));
            }
            if fields.len() == self.limits.keys {
                self.cursor.rewind(key_at);
                return Err(JsonErrorKind::Keys(self.limits.keys));
            }
            let value = self.value(inner)?;
            fields.push((key, value));
            more = self.cursor.next(b'}')?;
        }
        Ok(Value::Record(Record::from_unique(fields)))
    }

    fn number(&mut self) -> Read<Value> {
        let start = self.cursor.offset();
        let (text, is_integer) = self.cursor.number()?;
        // An integer would lose the sign of "-0".
        if is_integer && text != "-0" {
            if let Ok(number) = text.parse::<i64>() {
                return Ok(Value::Int(number));
            }
            if let Ok(number) = text.parse::<u64>() {
                return Ok(Value::UInt(number));
            }
        }
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            Ok(Value::Decimal(Decimal::from_checked(self.cursor.document().slice_ref(text))))
        } else {
            self.cursor.rewind(start);
            Err(JsonErrorKind::NumberRange)
        }
    }
}

/// Whether the key is already among the fields. Long objects keep their keys in `seen`.
fn is_duplicate(fields: &[(ByteString, Value)], seen: &mut HashSet<ByteString>, key: &ByteString) -> bool {
    if fields.len() < LINEAR_KEYS_MAX {
        return fields.iter().any(|(old, _)| old == key);
    }
    if fields.len() == LINEAR_KEYS_MAX {
        seen.extend(fields.iter().map(|(old, _)| old.clone()));
    }
    !seen.insert(key.clone())
}
