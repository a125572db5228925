//! Reading: one pass over the bytes, text without escapes is a slice of the input.

use std::collections::HashSet;

use bytes::Bytes;
use bytestring::ByteString;

use crate::decimal::scan_number;
use crate::{Decimal, Limits, Record, Value};

/// Why a document was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
    /// From 0, in bytes.
    pub offset: usize,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// The bytes are not UTF-8.
    #[error("not valid UTF-8")]
    Utf8,
    /// The document ends in the middle of a value.
    #[error("the document ends here, but {0} is expected")]
    End(&'static str),
    /// Something else stands where this should.
    #[error("expected {0}")]
    Expected(&'static str),
    /// Something stands after the value.
    #[error("nothing may follow the value")]
    Trailing,
    /// A key stands twice in one object.
    #[error("the key {0:?} stands twice in one object")]
    DuplicateKey(String),
    /// `\u` escapes that are half of a surrogate pair.
    #[error("a lone surrogate is no character")]
    LoneSurrogate,
    /// A control character that must be escaped.
    #[error("a control character must be written as an escape")]
    ControlCharacter,
    /// A backslash with something else than JSON's escapes.
    #[error("unknown escape")]
    Escape,
    /// No number as JSON writes them, such as `01`, `+1`, `.5`, `NaN`.
    #[error("not a number as JSON writes it")]
    Number,
    /// A number that no double comes near, such as 1e999.
    #[error("the number is out of range")]
    NumberRange,
    /// More levels than [`Limits::depth`].
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    /// More keys than [`Limits::keys`].
    #[error("an object has more than {0} keys")]
    Keys(usize),
    /// More values than [`Limits::nodes`].
    #[error("the document has more than {0} values")]
    Nodes(usize),
    /// A number longer than [`Limits::number_len`].
    #[error("a number is longer than {0} bytes")]
    NumberLen(usize),
}

/// Reads one document.
///
/// # Errors
/// [`JsonError`] with the place, for anything that RFC 8259 does not allow, for duplicate keys and lone surrogates,
/// for numbers beyond the range of a double, and for documents over a limit.
pub fn read(input: &Bytes, limits: &Limits) -> Result<Value, JsonError> {
    let text = ByteString::try_from(input.clone()).map_err(|_| {
        let valid = std::str::from_utf8(input).map_or_else(|error| error.valid_up_to(), str::len);
        JsonError::at(input, valid, JsonErrorKind::Utf8)
    })?;
    let mut reader = Reader { text: &text, bytes: text.as_bytes(), at: 0, nodes: 0, limits };
    reader.document().map_err(|kind| JsonError::at(input, reader.at, kind))
}

impl JsonError {
    fn at(input: &[u8], offset: usize, kind: JsonErrorKind) -> Self {
        let before = &input[..offset.min(input.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        Self { kind, line, column, offset: before.len() }
    }
}

/// Objects longer than this are checked for duplicate keys with a set, shorter ones by comparing.
const LINEAR_KEYS: usize = 16;

struct Reader<'a> {
    text: &'a ByteString,
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
    limits: &'a Limits,
}

type Read<T> = Result<T, JsonErrorKind>;

impl Reader<'_> {
    fn document(&mut self) -> Read<Value> {
        let depth = self.limits.depth.min(Limits::DEPTH_CEILING);
        self.skip_white_space();
        let value = self.value(depth)?;
        self.skip_white_space();
        if self.at == self.bytes.len() { Ok(value) } else { Err(JsonErrorKind::Trailing) }
    }

    fn value(&mut self, depth_left: usize) -> Read<Value> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(JsonErrorKind::Nodes(self.limits.nodes));
        }
        match self.bytes.get(self.at) {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{') => self.object(depth_left),
            Some(b'[') => self.array(depth_left),
            Some(b'-' | b'0'..=b'9' | b'+' | b'.') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err(JsonErrorKind::Expected("a value")),
            None => Err(JsonErrorKind::End("a value")),
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Read<Value> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(JsonErrorKind::Expected("a value"))
        }
    }

    fn enter(&self, depth_left: usize) -> Read<usize> {
        depth_left.checked_sub(1).ok_or(JsonErrorKind::Depth(self.limits.depth.min(Limits::DEPTH_CEILING)))
    }

    fn array(&mut self, depth_left: usize) -> Read<Value> {
        let inner = self.enter(depth_left)?;
        let mut items = Vec::new();
        self.at += 1;
        self.skip_white_space();
        if self.eat(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(inner)?);
            self.skip_white_space();
            if self.eat(b']') {
                return Ok(Value::List(items));
            }
            self.expect(b',', "a comma or the array's end")?;
            self.skip_white_space();
        }
    }

    fn object(&mut self, depth_left: usize) -> Read<Value> {
        let inner = self.enter(depth_left)?;
        let mut fields: Vec<(ByteString, Value)> = Vec::new();
        let mut seen = HashSet::new();
        self.at += 1;
        self.skip_white_space();
        if self.eat(b'}') {
            return Ok(Value::Record(Record::new()));
        }
        loop {
            let key_at = self.at;
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.missing("a key in quotes"));
            }
            let key = self.string()?;
            if is_duplicate(&fields, &mut seen, &key) {
                self.at = key_at;
                return Err(JsonErrorKind::DuplicateKey(key.chars().take(64).collect()));
            }
            if fields.len() == self.limits.keys {
                self.at = key_at;
                return Err(JsonErrorKind::Keys(self.limits.keys));
            }
            self.skip_white_space();
            self.expect(b':', "a colon")?;
            self.skip_white_space();
            let value = self.value(inner)?;
            fields.push((key, value));
            self.skip_white_space();
            if self.eat(b'}') {
                return Ok(Value::Record(Record::from_unique(fields)));
            }
            self.expect(b',', "a comma or the object's end")?;
            self.skip_white_space();
        }
    }

    fn number(&mut self) -> Read<Value> {
        let scan = scan_number(&self.bytes[self.at..]).ok_or(JsonErrorKind::Number)?;
        let end = self.at + scan.len;
        if scan.len > self.limits.number_len {
            return Err(JsonErrorKind::NumberLen(self.limits.number_len));
        }
        if matches!(self.bytes.get(end), Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
            return Err(JsonErrorKind::Number);
        }
        let text = &self.text[self.at..end];
        let value = self.number_value(text, scan.integer)?;
        self.at = end;
        Ok(value)
    }

    fn number_value(&self, text: &str, integer: bool) -> Read<Value> {
        // "-0" has a sign that no integer keeps.
        if integer && text != "-0" {
            if let Ok(number) = text.parse::<i64>() {
                return Ok(Value::Int(number));
            }
            if let Ok(number) = text.parse::<u64>() {
                return Ok(Value::UInt(number));
            }
        }
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            Ok(Value::Decimal(Decimal::from_checked(self.text.slice_ref(text))))
        } else {
            Err(JsonErrorKind::NumberRange)
        }
    }

    /// Reads a string whose opening quote stands here.
    fn string(&mut self) -> Read<ByteString> {
        let start = self.at + 1;
        let mut end = start;
        while let Some(&byte) = self.bytes.get(end) {
            match byte {
                b'"' => {
                    self.at = end + 1;
                    return Ok(self.text.slice_ref(&self.text[start..end]));
                }
                b'\\' => return self.escaped_string(start, end),
                0..=0x1f => {
                    self.at = end;
                    return Err(JsonErrorKind::ControlCharacter);
                }
                _ => end += 1,
            }
        }
        self.at = end;
        Err(JsonErrorKind::End("the closing quote"))
    }

    fn escaped_string(&mut self, start: usize, first_escape: usize) -> Read<ByteString> {
        let mut text = String::with_capacity(first_escape - start + 32);
        let mut run = start;
        self.at = first_escape;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    text.push_str(&self.text[run..self.at]);
                    self.at += 1;
                    return Ok(text.into());
                }
                Some(b'\\') => {
                    text.push_str(&self.text[run..self.at]);
                    text.push(self.escape()?);
                    run = self.at;
                }
                Some(0..=0x1f) => return Err(JsonErrorKind::ControlCharacter),
                Some(_) => self.at += 1,
                None => return Err(JsonErrorKind::End("the closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let plain = match self.bytes.get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) => return Err(JsonErrorKind::Escape),
            None => return Err(JsonErrorKind::End("an escape")),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Read<char> {
        let first = self.hex4(self.at)?;
        let (scalar, len) = match first {
            0xd800..=0xdbff => {
                let second = self.hex4(self.at + 6).map_err(|_| JsonErrorKind::LoneSurrogate)?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(JsonErrorKind::LoneSurrogate);
                }
                (0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00), 12)
            }
            _ => (first, 6),
        };
        let character = char::from_u32(scalar).ok_or(JsonErrorKind::LoneSurrogate)?;
        self.at += len;
        Ok(character)
    }

    /// The four hex digits of a `\u` escape whose backslash stands at `at`.
    fn hex4(&self, at: usize) -> Read<u32> {
        let escape = self.bytes.get(at..at + 6).ok_or(JsonErrorKind::Escape)?;
        if !escape.starts_with(b"\\u") || !escape[2..].iter().all(u8::is_ascii_hexdigit) {
            return Err(JsonErrorKind::Escape);
        }
        u32::from_str_radix(&self.text[at + 2..at + 6], 16).map_err(|_| JsonErrorKind::Escape)
    }

    fn skip_white_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Read<()> {
        if self.eat(byte) { Ok(()) } else { Err(self.missing(what)) }
    }

    fn missing(&self, what: &'static str) -> JsonErrorKind {
        if self.at == self.bytes.len() { JsonErrorKind::End(what) } else { JsonErrorKind::Expected(what) }
    }
}

/// Whether the key stands among the fields already; long objects keep their keys in `seen`.
fn is_duplicate(fields: &[(ByteString, Value)], seen: &mut HashSet<ByteString>, key: &ByteString) -> bool {
    if fields.len() < LINEAR_KEYS {
        return fields.iter().any(|(old, _)| old == key);
    }
    if fields.len() == LINEAR_KEYS {
        seen.extend(fields.iter().map(|(old, _)| old.clone()));
    }
    !seen.insert(key.clone())
}
